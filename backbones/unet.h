// The U-Net of latent diffusion with text (Stable Diffusion 1, 2, XL and what was tuned from them).
//
// Levels of residual blocks and transformers, halved and doubled, with every map of the way down joined to its like on the way
// up. Source: arXiv:2112.10752, arXiv:2307.01952; huggingface/diffusers 0.42, UNet2DConditionModel, whose parameter names these
// are. Its self-attention may be LinFusion's (arXiv:2409.02097, Huage001/LinFusion) or AgentSD's (arXiv:2312.08874,
// LeapLabTHU/Agent-Attention agentsd), which needs no training.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/backbones/denoiser.h>
#include <vitrine/backbones/denoiser_layers.h>
#include <vitrine/backbones/unet_blocks.h>
#include <vitrine/backbones/unet_transformer.h>
#include <vitrine/layers/upsample_conv.h>

namespace vitrine {

// Keys of config.json. Lists have a value for each level; one value is that of all levels.
struct UNetConfig {
  std::string name = "UNet2DConditionModel";
  std::array<std::int64_t, 2> sample_size{64, 64};
  std::int64_t in_channels = 4, out_channels = 4;
  bool center_input_sample = false;
  std::vector<std::string> down_block_types{"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
                                            "DownBlock2D"};
  std::optional<std::string> mid_block_type = "UNetMidBlock2DCrossAttn";  // or UNetMidBlock2D, or none
  std::vector<std::string> up_block_types{"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"};
  std::vector<bool> only_cross_attention{false};
  std::vector<std::int64_t> block_out_channels{320, 640, 1280, 1280};
  std::vector<std::int64_t> layers_per_block{2}, transformer_layers_per_block{1}, cross_attention_dim{1280};
  std::vector<std::int64_t> attention_head_dim{8};  // the number of heads, as published configurations have it
  std::int64_t downsample_padding = 1;              // 0: zeros at the right and the bottom only
  double mid_block_scale_factor = 1.0;
  std::string act_fn = "silu", resnet_time_scale_shift = "default";  // or scale_shift
  std::int64_t norm_num_groups = 32;
  double norm_eps = 1e-5;
  bool use_linear_projection = false;  // says how proj_in and proj_out are stored; both are known
  std::int64_t conv_in_kernel = 3, conv_out_kernel = 3;

  bool flip_sin_to_cos = true;
  double freq_shift = 0.0;
  std::optional<std::int64_t> time_embedding_dim, time_cond_proj_dim;
  std::optional<std::string> time_embedding_act_fn, timestep_post_act;
  std::optional<std::string> class_embed_type;     // "timestep"
  std::optional<std::int64_t> num_class_embeds;    // a table of labels
  std::optional<std::string> addition_embed_type;  // "text_time" (SDXL)
  std::int64_t addition_time_embed_dim = 256, projection_class_embeddings_input_dim = 2816;

  UNetAttention attention = UNetAttention::softmax;  // "softmax", "linfusion", "agent"
  AgentSdOptions agent;                              // an object of AgentSD's options
};
// From the members of a config.json as JSON texts; `name` is for messages. Throws Error.
VITRINE_API UNetConfig parse_unet_config(const Arguments& arguments, std::string_view name = "UNet2DConditionModel");

class VITRINE_API UNet final : public Denoiser {
 public:
  // Throws Error. create_denoiser checks for parameters that were not read and fills in info's name, source and parameters.
  UNet(const Weights& w, UNetConfig config);

  // Reads text and text_mask; labels with num_class_embeds or class_embed_type, pooled and time_ids with text_time, guidance with
  // time_cond_proj_dim. Latents may have any size.
  Tensor forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning,
                 const Observer& observer = {}) const override;

  // The same network with other settings of its agent attention, as AgentSD changes them between steps; shares the weights.
  UNet with_agent(const AgentSdOptions& options) const;

  const UNetConfig& config() const { return config_; }

 private:
  // A step of a level: a residual block and, or not, a transformer.
  struct Step {
    detail::ResnetBlock resnet;
    std::optional<detail::SpatialTransformer> transformer;
  };
  struct Level {
    std::vector<Step> steps;
    Conv2d down;
    UpsampleConv2d up;
  };

  Step make_step(const Weights& block, std::int64_t index, std::int64_t in, std::size_t level, bool attention,
                 double scale_factor = 1.0) const;
  void make_embeddings(const Weights& w);
  Tensor embed(const Tensor& timesteps, const Conditioning& conditioning) const;
  Tensor run(const Step& step, Tensor x, const Tensor& time, const detail::TransformerContext& context) const;

  UNetConfig config_;
  Activation activation_ = Activation::silu;
  Conv2d conv_in_, conv_out_;
  detail::VectorMlp time_embedding_, class_embedding_, add_embedding_;
  Linear cond_proj_;
  Tensor class_table_;  // f32
  std::vector<Level> down_, up_;
  std::vector<Step> mid_;
  GroupNorm norm_out_;
};

// LinFusion's published weights hold only its layers, by the running number of a network's self-attention layers
// (`0.to_q.weight`).
// -> the U-Net's weights with those layers in the place of its own.
VITRINE_API std::shared_ptr<const WeightSource> with_linfusion(std::shared_ptr<const WeightSource> unet,
                                                               std::shared_ptr<const WeightSource> linfusion,
                                                               const UNetConfig& config);

namespace detail {
struct DenoiserFamily;
extern const DenoiserFamily kUNetFamily;
}  // namespace detail

}  // namespace vitrine
