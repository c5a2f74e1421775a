// A tiny autoencoder that imitates the large ones' latents (TAESD of Stable Diffusion, TAESDXL, TAESD3, TAEF1 of FLUX): plain
// convolutions, for previews and fast decoding.
//
// Source: madebyollin/taesd; huggingface/diffusers 0.42, AutoencoderTiny, whose parameter names these are.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include <vitrine/backbones/autoencoder.h>
#include <vitrine/backbones/config.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/upsample_conv.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// Keys of config.json.
struct AutoencoderTinyConfig {
  std::string name = "AutoencoderTiny";
  std::int64_t in_channels = 3, out_channels = 3, latent_channels = 4;
  std::vector<std::int64_t> encoder_block_out_channels{64, 64, 64, 64}, decoder_block_out_channels{64, 64, 64, 64};
  std::vector<std::int64_t> num_encoder_blocks{1, 3, 3, 3}, num_decoder_blocks{3, 3, 3, 1};
  std::string act_fn = "relu";
  double scaling_factor = 1.0, shift_factor = 0.0;
};
// From the members of a config.json as JSON texts; throws Error.
VITRINE_API AutoencoderTinyConfig parse_autoencoder_tiny_config(const Arguments& arguments);

class VITRINE_API AutoencoderTiny final : public Autoencoder {
 public:
  AutoencoderTiny(const Weights& w, AutoencoderTinyConfig config);  // throws Error

  // There is no distribution: giving noise is an error.
  Tensor encode(const Tensor& images, const Tensor& noise = {}, const Tiling& tiling = {}) const override;
  Tensor decode(const Tensor& latents, const Tiling& tiling = {}) const override;

  const AutoencoderTinyConfig& config() const { return config_; }

 private:
  // relu(x + three convolutions of x)
  struct Block {
    Block(const Weights& w, std::int64_t dim, Activation activation);
    Tensor operator()(Tensor x) const;

    Conv2d conv0, conv2, conv4;
    Activation activation;
  };
  struct First {  // of the decoder: a convolution and the activation
    Conv2d conv;
    Activation activation;
    Tensor operator()(const Tensor& x) const { return conv(x, {.activation = activation}); }
  };
  using Layer = std::variant<Conv2d, First, Block, UpsampleConv2d>;

  static Tensor run(const std::vector<Layer>& layers, Tensor x);

  AutoencoderTinyConfig config_;
  std::vector<Layer> encoder_, decoder_;
};

// madebyollin/taesd's two files (taesd_encoder, taesd_decoder) as one source with the names above.
VITRINE_API std::shared_ptr<const WeightSource> taesd_weights(std::shared_ptr<const WeightSource> encoder,
                                                              std::shared_ptr<const WeightSource> decoder);

}  // namespace vitrine
