// Stable Diffusion 3 and 3.5: MM-DiT, blocks with a stream of text and one of the image that attend together; in 3.5 some blocks
// have a second attention of the image alone.
//
// Source: "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis" (arXiv:2403.03206); diffusers 0.42
// transformer_sd3.py, whose argument and parameter names these are; CLEAR attention (arXiv:2412.16112) by the arguments
// attention=clear, radius, down, proportional. Text stands before the image here, which changes nothing: nothing else than the
// position table tells tokens apart.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <vitrine/backbones/denoiser.h>
#include <vitrine/backbones/denoiser_layers.h>
#include <vitrine/backbones/joint_attention.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/size_cache.h>

namespace vitrine {

struct Sd3Config {
  std::string name = "SD3Transformer2DModel";  // for messages
  std::int64_t sample_size = 128, patch_size = 2, in_channels = 16, out_channels = 16;
  std::int64_t num_layers = 18, attention_head_dim = 64, num_attention_heads = 18;
  std::int64_t joint_attention_dim = 4096, caption_projection_dim = 1152, pooled_projection_dim = 2048;
  std::int64_t pos_embed_max_size = 96;             // side of the position table in patches, of which a map takes the middle
  std::vector<std::int64_t> dual_attention_layers;  // blocks with attn2
  std::string qk_norm;                              // empty: none
  detail::JointMixing mixing;
};

class VITRINE_API Sd3 final : public Denoiser {
 public:
  Sd3(const Weights& w, Sd3Config config);

  Tensor forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning,
                 const Observer& observer = {}) const override;

  const Sd3Config& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, const Sd3Config& config, std::int64_t index);
    // x [B, T + N, dim] in place; steer f32 [B, dim] after SiLU
    void operator()(Tensor& x, const Tensor& steer, const detail::JointTokens& tokens) const;

    bool has_text_out, is_dual;
    detail::Modulation norm1, norm1_context;
    detail::JointAttention attn, attn2;
    detail::DiffusersMlp ff, ff_context;
  };

  Tensor positions(std::int64_t height, std::int64_t width) const;  // f32 [height * width, dim], the middle of the table

  Sd3Config config_;
  PatchEmbed pos_embed_;
  Tensor table_;  // f32 [max_size, max_size, dim], where the weights have it
  detail::SizeCache<Tensor> computed_;
  detail::TimestepEmbedder timestep_embedder_;
  detail::VectorMlp text_embedder_;
  Linear context_embedder_;
  std::vector<Block> blocks_;
  detail::Modulation norm_out_;
  Linear proj_out_;
};

namespace detail {
struct DenoiserFamily;
extern const DenoiserFamily kSd3Family;
}  // namespace detail

}  // namespace vitrine
