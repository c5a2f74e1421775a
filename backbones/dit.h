// DiT: the diffusion transformer, whose blocks are steered by adaptive layer norm (adaLN-Zero).
//
// Source: "Scalable Diffusion Models with Transformers" (arXiv:2212.09748); facebookresearch/DiT models.py, whose argument and
// parameter names these are; diffusers 0.42 DiTTransformer2DModel, whose files are read by a name map; MoH-DiT (arXiv:2410.11842,
// SkyworkAI/MoH), where each token weighs the heads.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <vitrine/attention2d/head_gates.h>
#include <vitrine/attention2d/mixer.h>
#include <vitrine/backbones/denoiser.h>
#include <vitrine/backbones/denoiser_layers.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/size_cache.h>

namespace vitrine {

struct DitConfig {
  std::string name = "DiT";                        // for messages
  std::array<std::int64_t, 2> input_size{32, 32};  // height and width of the latents
  std::int64_t patch_size = 2, in_channels = 4, out_channels = 8;
  std::int64_t hidden_size = 1152, depth = 28, num_heads = 16;
  double mlp_ratio = 4.0;
  std::int64_t num_classes = 1000, label_rows = 1001;  // of the label table; the last one means no class
  // Another mechanism than global attention (attention2d/mixer.h) and its options; null: global.
  const Mechanism* attention = nullptr;
  MixerValues attention_options;

  // MoH: heads that always count and heads that are chosen, by block; empty: none (attention2d/head_gates.h).
  std::vector<std::int64_t> shared_head, routed_head;

  // Where diffusers differs from the authors.
  double frequency_divisor = 128;  // of the timestep's frequencies: 127
  double mlp_norm_eps = 1e-6;      // of the norm before the MLP: norm_eps
  bool mlp_norm_affine = false, qkv_bias = true;
  std::string activation_fn = "gelu-approximate";
  bool embedders_in_blocks = false;  // each block has embedders of its own; equal copies are kept once
  bool any_size = false;             // positions scale with the map; the authors' table is for one size
  std::int64_t guided_channels = 3;  // all of the latents
};

class VITRINE_API Dit final : public Denoiser {
 public:
  Dit(const Weights& w, DitConfig config);

  Tensor forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning,
                 const Observer& observer = {}) const override;

  const DitConfig& config() const { return config_; }

 private:
  // Time and class to the vector that steers: f32 [B, hidden_size].
  struct Embedder {
    Embedder(const Weights& w, const DitConfig& config);
    Tensor operator()(const Tensor& time, const Tensor& labels) const { return add(time, gather_rows(y_embedder, labels)); }

    detail::TimestepEmbedder t_embedder;
    Tensor y_embedder;  // f32 [label_rows, hidden_size]
  };

  struct Block {
    Block(const Weights& w, const DitConfig& config, std::int64_t index);
    // x [B, N, hidden_size] in place; steer: the embedders' vector after SiLU
    void operator()(Tensor& x, const Tensor& steer, const TokenMap& map) const;

    std::shared_ptr<const Embedder> embedder;  // null: the model's
    detail::Modulation modulation;
    std::int64_t num_heads;
    Linear qkv, proj;
    HeadGates gates;                     // MoH
    std::unique_ptr<const Mixer> mixer;  // in the place of qkv and proj
    double mlp_norm_eps;
    Tensor norm2_weight, norm2_bias;
    detail::DiffusersMlp mlp;
  };

  Tensor positions(std::int64_t height, std::int64_t width) const;  // [1, N, hidden_size]

  DitConfig config_;
  PatchEmbed x_embedder_;
  Tensor pos_embed_;  // where the weights have it
  detail::SizeCache<Tensor> computed_positions_;
  std::shared_ptr<const Embedder> embedder_;  // of the last layer, and of all blocks that have none
  std::vector<Block> blocks_;
  detail::Modulation final_modulation_;
  Linear final_linear_;
};

namespace detail {
struct DenoiserFamily;
extern const DenoiserFamily kDitFamily, kDitDiffusersFamily;
}  // namespace detail

}  // namespace vitrine
