// The transformer of the diffusion U-Net: self-attention of a map's positions, attention to the text, a gated feed-forward.
//
// Source: huggingface/diffusers 0.42, models/transformers/transformer_2d.py and models/attention.py, whose parameter names these
// are. Self-attention has other forms: LinFusion (attention2d/linfusion.h), whose weights were trained for it, and agent
// attention on merged tokens (attention2d/agent.h), which takes the weights as they are.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include <vitrine/attention2d/agent.h>
#include <vitrine/attention2d/linfusion.h>
#include <vitrine/backbones/denoiser_layers.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

enum class UNetAttention : std::uint8_t { softmax, linfusion, agent };

// AgentSD's settings, under the names of its apply_patch; defaults are its own. use_rand is off.
struct AgentSdOptions {
  double ratio = 0.5, agent_ratio = 0.8;  // of the tokens that are merged away, for the agents
  std::int64_t max_downsample = 1;        // maps that are more than so many times smaller than the latents are left alone
  std::int64_t sx = 2, sy = 2;            // width and height of a cell with one destination
  double k_scale2 = 0.3, k_shortcut = 0.075;
};

namespace detail {

struct SpatialTransformerConfig {
  std::int64_t dim = 0, heads = 8, layers = 1, groups = 32;
  std::int64_t text_channels = 768;
  bool only_cross_attention = false;  // self-attention looks at the text, all of it
  UNetAttention attention = UNetAttention::softmax;
};

// What a forward pass hands to all of its transformers.
struct TransformerContext {
  Tensor text{};                   // [B, T, text_channels]
  Tensor text_bias{};              // f32 [B, 1, 1, T] or undefined
  std::int64_t latent_tokens = 0;  // height * width of the latents
  AgentSdOptions agent_sd{};       // for agent attention
};

struct SpatialTransformer {
  SpatialTransformer(const Weights& w, const SpatialTransformerConfig& config);
  Tensor operator()(Tensor x, const TransformerContext& context) const;  // [B, H, W, dim] -> the same

  // One matrix for q, k and v where all are of x.
  struct SelfAttention {
    SelfAttention(const Weights& w, const SpatialTransformerConfig& config);
    void add_to(Tensor& x, const Tensor& y) const;  // x += the attention of y
    std::int64_t heads;
    Linear qkv, to_out;
  };
  struct Block {
    Block(const Weights& w, const SpatialTransformerConfig& config);
    // x [B, height * width, dim], in place
    void run(Tensor& x, std::int64_t height, std::int64_t width, const TransformerContext& context) const;

    LayerNorm norm1, norm2, norm3;
    std::variant<SelfAttention, CrossAttention, LinFusionAttention, AgentAttentionSd> attn1;
    CrossAttention attn2;
    DiffusersMlp ff;
  };

  GroupNorm norm;
  Linear proj_in, proj_out;  // a linear layer or a 1x1 convolution
  std::vector<Block> blocks;
};

}  // namespace detail
}  // namespace vitrine
