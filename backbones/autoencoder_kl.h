// The variational autoencoder of latent diffusion (Stable Diffusion, SDXL, SD3, FLUX).
//
// Residual blocks and one layer of attention, eight times down to a normal distribution over latents and up again. Source:
// arXiv:2112.10752; huggingface/diffusers 0.42, AutoencoderKL, whose parameter names these are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/backbones/autoencoder.h>
#include <vitrine/backbones/config.h>
#include <vitrine/backbones/unet_blocks.h>
#include <vitrine/layers/upsample_conv.h>

namespace vitrine {

// Keys of config.json.
struct AutoencoderKLConfig {
  std::string name = "AutoencoderKL";
  std::int64_t in_channels = 3, out_channels = 3, latent_channels = 4, layers_per_block = 1, norm_num_groups = 32;
  std::vector<std::int64_t> block_out_channels{64};
  std::vector<std::string> down_block_types{"DownEncoderBlock2D"};  // or AttnDownEncoderBlock2D
  std::vector<std::string> up_block_types{"UpDecoderBlock2D"};      // or AttnUpDecoderBlock2D
  std::string act_fn = "silu";
  double scaling_factor = 0.18215;
  std::optional<double> shift_factor;
  std::vector<double> latents_mean, latents_std;  // by channel, in the place of shift_factor
  bool use_quant_conv = true, use_post_quant_conv = true, mid_block_add_attention = true, force_upcast = true;
};
// From the members of a config.json as JSON texts; throws Error.
VITRINE_API AutoencoderKLConfig parse_autoencoder_kl_config(const Arguments& arguments);

class VITRINE_API AutoencoderKL final : public Autoencoder {
 public:
  // Known, too: old names of the attention's parameters (query, key, value, proj_attn); those of CompVis and FLUX's authors, in
  // files of their own and of whole pipelines, with four levels. Throws Error.
  AutoencoderKL(const Weights& w, AutoencoderKLConfig config);

  struct Distribution {
    Tensor mean, logvar;  // [B, H / factor, W / factor, latent_channels], views; logvar within [-30, 20]
    Tensor sample(const Tensor& noise) const;
  };
  Distribution distribution(const Tensor& images, const Tiling& tiling = {}) const;

  Tensor encode(const Tensor& images, const Tensor& noise = {}, const Tiling& tiling = {}) const override;
  Tensor decode(const Tensor& latents, const Tiling& tiling = {}) const override;

  const AutoencoderKLConfig& config() const { return config_; }

 private:
  // One head over all channels.
  struct Attention {
    Attention(const Weights& w, std::int64_t dim, std::int64_t groups);
    Tensor operator()(Tensor x) const;  // [B, H, W, C] -> the same

    GroupNorm group_norm;
    Linear qkv, to_out;
  };
  // Residual blocks, each with attention behind it or none of them, then a change of size or none.
  struct Level {
    std::vector<detail::ResnetBlock> resnets;
    std::vector<Attention> attentions;
    Conv2d down;
    UpsampleConv2d up;
    Tensor operator()(Tensor x) const;
  };
  struct Half {
    Conv2d conv_in, conv_out;
    std::vector<Level> levels;  // the middle is one
    GroupNorm norm_out;
    Tensor operator()(const Tensor& x) const;
  };

  Level make_level(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t layers, bool attention) const;
  Level make_middle(const Weights& w) const;
  Half make_encoder(const Weights& w) const;
  Half make_decoder(const Weights& w) const;

  AutoencoderKLConfig config_;
  Half encoder_, decoder_;
  Linear quant_conv_, post_quant_conv_;
};

}  // namespace vitrine
