// Sana: linear attention, cross-attention to a text, and a gated feed-forward with a depth-wise convolution, on the large patches
// of an autoencoder that makes pictures 32 times smaller.
//
// Source: arXiv:2410.10629 (and Sana 1.5, arXiv:2501.18427, Sprint, arXiv:2503.09641); NVlabs/Sana; diffusers 0.42
// sana_transformer.py, whose argument and parameter names these are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/backbones/denoiser.h>
#include <vitrine/backbones/denoiser_layers.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/size_cache.h>

namespace vitrine {

struct SanaConfig {
  std::string name = "SanaTransformer2DModel";  // for messages
  std::int64_t in_channels = 32, out_channels = 32, num_layers = 20;
  std::int64_t num_attention_heads = 70, attention_head_dim = 32;
  std::int64_t num_cross_attention_heads = 20, cross_attention_head_dim = 112, cross_attention_dim = 2240;
  std::int64_t caption_channels = 2304, sample_size = 32, patch_size = 1;
  double mlp_ratio = 2.5, norm_eps = 1e-6;
  bool attention_bias = false, norm_elementwise_affine = false;
  std::optional<double> interpolation_scale;  // nothing: no positions at all
  bool guidance_embeds = false;
  std::string qk_norm;  // empty: none
};

class VITRINE_API Sana final : public Denoiser {
 public:
  Sana(const Weights& w, SanaConfig config);

  Tensor forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning,
                 const Observer& observer = {}) const override;

  const SanaConfig& config() const { return config_; }

 private:
  // A 1x1 convolution with SiLU, a 3x3 depth-wise one, its halves multiplied, one through SiLU, a 1x1 convolution.
  struct MixFfn {
    MixFfn(const Weights& w, std::int64_t dim, std::int64_t hidden);
    // x [B, N, dim] += gate * the result of y
    void add_to(Tensor& x, const Tensor& y, std::int64_t height, std::int64_t width, const Tensor& gate) const;

    Linear conv_inverted, conv_point;
    Conv2d conv_depth;
  };
  struct Block {
    Block(const Weights& w, const SanaConfig& config);
    // x [B, N, dim] in place; steer f32 [B, 6, dim]; text [B, T, dim]
    void operator()(Tensor& x, const Tensor& steer, const Tensor& text, const Tensor& text_bias, std::int64_t height,
                    std::int64_t width) const;

    std::int64_t num_heads;
    double eps;
    Tensor scale_shift_table;  // f32 [6, dim]
    Linear qkv, to_out;
    detail::QkNorm norm_q, norm_k;
    Tensor norm2_weight, norm2_bias;
    detail::CrossAttention attn2;
    MixFfn ff;
  };

  SanaConfig config_;
  PatchEmbed patch_embed_;
  detail::SizeCache<Tensor> positions_;
  detail::TimestepEmbedder timestep_embedder_, guidance_embedder_;
  Linear time_linear_, caption_1_, caption_2_;
  Tensor caption_norm_;  // f32 [dim]
  std::vector<Block> blocks_;
  Tensor scale_shift_table_;  // f32 [2, dim]
  Linear proj_out_;
};

namespace detail {
struct DenoiserFamily;
extern const DenoiserFamily kSanaFamily;
}  // namespace detail

}  // namespace vitrine
