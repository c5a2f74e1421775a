// Denoisers: the networks of diffusion models, from noisy latents and a time to a prediction (noise, velocity or flow).
//
//   auto dit = create_denoiser("DiT-XL/2", Weights(open_weights("DiT-XL-2-256x256.pt")));
//   Tensor noise = dit->forward(latents, timesteps, {.labels = classes});
//
// A denoiser is immutable after building and may be run from several threads at once, each under its own Context.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/backbones/config.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// What the prediction is asked for; a network reads what it knows of and throws Error where that is missing. All is where the
// network's latents are; labels may stay on the host, where they are checked.
struct Conditioning {
  Tensor labels{};     // i64 [B]: class ids; num_classes: the unconditional class
  Tensor text{};       // [B, T, C]: states of the text encoder
  Tensor text_mask{};  // i64 or floating [B, T], 1 where a token counts, 0 elsewhere; undefined: all do
  Tensor pooled{};     // [B, C]: the text in one vector
  // The guidance scale where it was distilled into the network (FLUX, Sana, latent consistency models): f32 [B]. The U-Net takes
  // its embedding, too: [B, time_cond_proj_dim] (timestep_cond of diffusers).
  Tensor guidance{};
  Tensor time_ids{};      // f32 [B, 6]: original size, crop, target size (SDXL)
  Tensor resolution{};    // f32 [B, 2]: height and width of the picture (PixArt of 1024 pixels)
  Tensor aspect_ratio{};  // f32 [B, 1]: height over width (the same)
};

struct DenoiserInfo {
  std::string name;                  // the published variant or class
  std::string source;                // paper and published code
  std::int64_t in_channels = 4;      // of the latents
  std::int64_t out_channels = 4;     // twice in_channels where the network predicts variances too
  std::int64_t height = 0;           // of the latents that it was made for; others where the family takes them
  std::int64_t width = 0;            //
  std::int64_t multiple = 1;         // what height and width of the latents must be multiples of
  std::int64_t num_classes = 0;      // > 0: reads labels
  std::int64_t text_channels = 0;    // > 0: reads text
  std::int64_t pooled_channels = 0;  // > 0: reads pooled
  bool takes_guidance = false;
  bool takes_time_ids = false;
  bool takes_size = false;           // reads resolution and aspect_ratio
  std::int64_t guided_channels = 4;  // leading channels of the prediction that classifier-free guidance is for
  double timestep_scale = 1000;      // of a timestep at the noisiest end: 1000, FLUX: 1
  std::int64_t parameters = 0;       // elements of all parameters that were read
};

class Denoiser;

// `name` is a published variant ("DiT-XL/2", "FLUX.1-dev", also with arguments: "DiT-S/2[attention=neighborhood,kernel_size=5]")
// or a class ("DiT", "DiTTransformer2DModel"), whose `arguments` are its constructor's, as in diffusers' config.json; they win
// over those in brackets. All parameters are read and packed before it returns; missing, unexpected and wrongly shaped ones
// are reported in one Error, unknown names and arguments with the nearest known ones.
VITRINE_API std::unique_ptr<Denoiser> create_denoiser(std::string_view name, const Weights& weights,
                                                      const Arguments& arguments = {});
// The published variants; shell pattern: * and ?.
VITRINE_API std::vector<std::string> list_denoisers(std::string_view pattern = "*");
VITRINE_API bool is_denoiser(std::string_view name);  // a variant or a class, with or without arguments in brackets

class VITRINE_API Denoiser {
 public:
  virtual ~Denoiser();

  // latents [B, H, W, in_channels], timesteps f32 [B] in the network's own unit (0..1000, FLUX: 0..1), both on device()
  // -> [B, H, W, out_channels], in the latents' dtype. The observer sees what modules return.
  virtual Tensor forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning,
                         const Observer& observer = {}) const = 0;

  const DenoiserInfo& info() const { return info_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }

 protected:
  DenoiserInfo info_;  // a family fills in all but name, source and parameters
  DType dtype_ = DType::f32;
  Device device_;  // create_denoiser's

  friend std::unique_ptr<Denoiser> create_denoiser(std::string_view name, const Weights& weights, const Arguments& arguments);
};

// Classifier-free guidance in one pass, as DiT's forward_with_cfg: B latents with their conditions, then B without. The
// latents of the first half serve both halves. -> [2B, H, W, out_channels]: u + scale (c - u) in the first
// info().guided_channels channels of both halves, each half's own answer in the others. `rescale` (arXiv:2305.08891): the share
// of the guided prediction that is brought to the standard deviation that c has in its picture. Throws Error for an odd batch.
VITRINE_API Tensor forward_with_cfg(const Denoiser& denoiser, const Tensor& latents, const Tensor& timesteps,
                                    const Conditioning& conditioning, float scale, float rescale = 0);

}  // namespace vitrine
