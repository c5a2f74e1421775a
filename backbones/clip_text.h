// CLIP's text encoder: tokens attend to those before them; the state at the end of the text stands for all of it.
//
// Source: arXiv:2103.00020; transformers 5.23, models/clip/modeling_clip.py (CLIPTextModel, CLIPTextModelWithProjection), whose
// parameter names these are. Stable Diffusion, SDXL, SD3 and FLUX are conditioned on its states.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <vitrine/backbones/backbone.h>
#include <vitrine/backbones/text_encoder.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/modules.h>

namespace vitrine {

// Keys of config.json.
struct ClipTextConfig {
  std::string name = "CLIPTextModel";
  std::int64_t vocab_size = 49408, hidden_size = 512, intermediate_size = 2048, projection_dim = 512;
  std::int64_t num_hidden_layers = 12, num_attention_heads = 8, max_position_embeddings = 77;
  std::string hidden_act = "quick_gelu";
  double layer_norm_eps = 1e-5;
  std::int64_t eos_token_id = 49407;  // 2, as in old configurations: the text ends at its largest id
  bool projection = false;            // CLIPTextModelWithProjection
};
// From the members of a config.json as JSON texts; throws Error. `projection` of the result is what the class name in
// "architectures" says.
VITRINE_API ClipTextConfig parse_clip_text_config(const Arguments& arguments);

class VITRINE_API ClipTextModel {
 public:
  // Names may have "text_model." in front, or not, or be open_clip's; what else a whole CLIP model has (vision) is left alone.
  // Throws Error.
  ClipTextModel(const Weights& w, ClipTextConfig config);

  struct States {
    Tensor last_hidden_state;  // [B, T, hidden_size], after final_layer_norm
    Tensor hidden_state;       // [B, T, hidden_size]: what `skipped` layers before the end gave, without that norm
    Tensor pooled;             // [B, hidden_size] at the first eos token, with projection [B, projection_dim]
  };
  // ids i64 [B, T], T up to max_position_embeddings; attention_mask i64 [B, T] or undefined, 0 for keys that nobody sees
  // (pipelines give none: padding attends like any token). hidden_state is transformers' hidden_states[-1 - skipped]: 1 is what
  // SDXL and SD3 use; num_hidden_layers: the embeddings. Results are in the weights' type. Throws Error.
  States forward(const Tensor& ids, const Tensor& attention_mask = {}, std::int64_t skipped = 1) const;
  Tensor final_layer_norm(const Tensor& hidden_state) const { return final_norm_(hidden_state); }  // for what skips layers

  const ClipTextConfig& config() const { return config_; }
  std::int64_t parameters() const { return parameters_; }

 private:
  struct Layer {
    Layer(const Weights& w, const ClipTextConfig& config);
    Tensor operator()(Tensor x, const Tensor& mask) const;  // [B, T, hidden_size] -> the same

    std::int64_t num_heads;
    Activation activation;
    LayerNorm layer_norm1, layer_norm2;
    Linear qkv, out_proj, fc1, fc2;
  };

  Tensor end_of_text(const Tensor& ids) const;  // i64 [B]: rows of the flattened states

  ClipTextConfig config_;
  detail::TokenEmbedding token_embedding_;
  Tensor position_embedding_;  // [max_position_embeddings, hidden_size]
  std::vector<Layer> layers_;
  LayerNorm final_norm_;
  Linear text_projection_;
  std::int64_t parameters_ = 0;
};

// The text encoder of this number, from 0, in the file of a whole pipeline by its authors (CompVis, Stability); null: it has
// none.
VITRINE_API std::shared_ptr<const WeightSource> clip_in_pipeline(const std::shared_ptr<const WeightSource>& file, int index);

}  // namespace vitrine
