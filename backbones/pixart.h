// PixArt-alpha and PixArt-Sigma: DiT blocks with cross-attention to a text, all steered by one table of the time (adaLN-single).
//
// Source: arXiv:2310.00426, arXiv:2403.04692; PixArt-alpha/PixArt-alpha; diffusers 0.42 pixart_transformer_2d.py, whose argument
// and parameter names these are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/backbones/denoiser.h>
#include <vitrine/backbones/denoiser_layers.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/size_cache.h>

namespace vitrine {

struct PixArtConfig {
  std::string name = "PixArtTransformer2DModel";  // for messages
  std::int64_t num_attention_heads = 16, attention_head_dim = 72, num_layers = 28;
  std::int64_t in_channels = 4, out_channels = 8, sample_size = 128, patch_size = 2;
  std::optional<std::int64_t> cross_attention_dim = 1152;  // nothing: no text
  std::optional<std::int64_t> caption_channels;            // nothing: texts come as wide as cross_attention_dim
  bool attention_bias = true, norm_elementwise_affine = false;
  double norm_eps = 1e-6;
  std::string activation_fn = "gelu-approximate";
  double interpolation_scale = 2;         // positions are divided by it
  bool use_additional_conditions = true;  // size and shape of the picture beside the time
};

class VITRINE_API PixArt final : public Denoiser {
 public:
  PixArt(const Weights& w, PixArtConfig config);

  Tensor forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning,
                 const Observer& observer = {}) const override;

  const PixArtConfig& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, const PixArtConfig& config);
    // x [B, N, dim] in place; steer f32 [B, 6, dim]; text [B, T, cross_attention_dim]
    void operator()(Tensor& x, const Tensor& steer, const Tensor& text, const Tensor& text_bias) const;

    std::int64_t num_heads;
    double eps;
    Tensor scale_shift_table;  // f32 [6, dim]
    Tensor norm1_weight, norm1_bias, norm2_weight, norm2_bias;
    Linear qkv, to_out;
    bool has_text;
    detail::CrossAttention attn2;
    detail::DiffusersMlp ff;
  };

  Tensor embed_size(const Conditioning& conditioning, std::int64_t batch) const;

  PixArtConfig config_;
  PatchEmbed pos_embed_;
  detail::SizeCache<Tensor> positions_;
  detail::TimestepEmbedder timestep_embedder_, resolution_embedder_, aspect_ratio_embedder_;
  Linear adaln_single_, caption_1_, caption_2_;
  std::vector<Block> blocks_;
  Tensor scale_shift_table_;  // f32 [2, dim]
  Linear proj_out_;
};

namespace detail {
struct DenoiserFamily;
extern const DenoiserFamily kPixArtFamily;
}  // namespace detail

}  // namespace vitrine
