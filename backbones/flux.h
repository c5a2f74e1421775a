// FLUX.1: a rectified flow transformer; blocks with a stream of text and one of the image, then blocks with one stream of both.
//
// Source: black-forest-labs/flux; diffusers 0.42 transformer_flux.py, whose argument and parameter names these are; CLEAR
// attention (arXiv:2412.16112, Huage001/CLEAR) by the arguments attention=clear, radius, down, proportional; windows and linear
// attention by attention=neighborhood (kernel_size) and attention=linfusion.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <vitrine/backbones/denoiser.h>
#include <vitrine/backbones/denoiser_layers.h>
#include <vitrine/backbones/joint_attention.h>
#include <vitrine/layers/recent_cache.h>

namespace vitrine {

struct FluxConfig {
  std::string name = "FluxTransformer2DModel";  // for messages
  std::int64_t patch_size = 1, in_channels = 64, out_channels = 64;
  std::int64_t num_layers = 19, num_single_layers = 38;
  std::int64_t attention_head_dim = 128, num_attention_heads = 24;
  std::int64_t joint_attention_dim = 4096, pooled_projection_dim = 768;
  bool guidance_embeds = false;
  std::vector<std::int64_t> axes_dims_rope{16, 56, 56};
  detail::JointMixing mixing;
};

class VITRINE_API Flux final : public Denoiser {
 public:
  Flux(const Weights& w, FluxConfig config);

  // latents [B, H, W, in_channels / 4], packed 2 x 2; timesteps 0..1. Text tokens have no position.
  Tensor forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning,
                 const Observer& observer = {}) const override;

  // What the original takes: packed tokens [B, height * width, in_channels], row by row, and, on the host, positions f32 [T,
  // axes] of the text, [height * width, axes] of the image -> [B, height * width, out_channels].
  Tensor forward_tokens(const Tensor& tokens, std::array<std::int64_t, 2> grid, const Tensor& text_ids, const Tensor& image_ids,
                        const Tensor& timesteps, const Conditioning& conditioning, const Observer& observer = {}) const;

  // [B, H, W, C] -> [B, (H / 2) (W / 2), 4 C] and back; channel c of position (y, x) is c 4 + (y % 2) 2 + x % 2.
  static Tensor pack(const Tensor& latents);
  static Tensor unpack(const Tensor& tokens, std::int64_t height, std::int64_t width);  // of the latents

  const FluxConfig& config() const { return config_; }

 private:
  struct DoubleBlock {
    DoubleBlock(const Weights& w, const FluxConfig& config);
    // x [B, T + N, dim] in place; steer f32 [B, dim] after SiLU
    void operator()(Tensor& x, const Tensor& steer, const detail::JointTokens& tokens) const;

    detail::Modulation norm1, norm1_context;
    detail::JointAttention attn;
    detail::DiffusersMlp ff, ff_context;
  };
  struct SingleBlock {
    SingleBlock(const Weights& w, const FluxConfig& config);
    void operator()(Tensor& x, const Tensor& steer, const detail::JointTokens& tokens) const;

    detail::Modulation norm;
    detail::JointAttention attn;
    Linear proj_mlp, proj_out_attn, proj_out_mlp;  // the columns of proj_out
  };

  Tensor run(const Tensor& tokens, const detail::JointTokens& where, const Tensor& timesteps, const Conditioning& conditioning,
             const Observer& observer) const;
  detail::JointTokens locate(std::array<std::int64_t, 2> grid, const Tensor& text_ids, const Tensor& image_ids) const;

  FluxConfig config_;
  detail::TimestepEmbedder timestep_embedder_, guidance_embedder_;
  detail::VectorMlp text_embedder_;
  Linear context_embedder_, x_embedder_;
  std::vector<DoubleBlock> blocks_;
  std::vector<SingleBlock> single_blocks_;
  detail::Modulation norm_out_;
  Linear proj_out_;
  detail::RecentCache<std::array<std::int64_t, 3>, detail::JointTokens, 4> located_;  // by text, height, width
};

namespace detail {
struct DenoiserFamily;
extern const DenoiserFamily kFluxFamily;
}  // namespace detail

}  // namespace vitrine
