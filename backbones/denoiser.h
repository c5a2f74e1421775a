// Denoisers: the networks of diffusion models, from noisy latents and a time to a prediction (noise, velocity or flow).
//
// A denoiser is immutable after building and may be run from several threads at once, each under its own Context.
#pragma once

#include <cstdint>
#include <string>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

// What the prediction is asked for; a network reads what it knows of and throws Error where that is missing.
struct Conditioning {
  Tensor labels;     // i64 [B]: class ids; num_classes: the unconditional class
  Tensor text;       // [B, T, C]: states of the text encoder
  Tensor text_mask;  // i64 [B, T], 1 where a token counts; undefined: all do
  Tensor pooled;     // [B, C]: the text in one vector
  Tensor guidance;   // f32 [B]: the guidance scale where it was distilled into the network (FLUX)
  Tensor time_ids;   // f32 [B, 6]: original size, crop, target size (SDXL)
};

struct DenoiserInfo {
  std::string name;               // the published variant or class
  std::string source;             // paper and published code
  std::int64_t in_channels = 4;   // of the latents
  std::int64_t out_channels = 4;  // twice in_channels where the network predicts variances too
  std::int64_t multiple = 1;      // what height and width of the latents must be multiples of
  std::int64_t parameters = 0;    // elements of all parameters that were read
};

class VITRINE_API Denoiser {
 public:
  virtual ~Denoiser();

  // latents [B, H, W, in_channels], timesteps f32 [B] in the network's own unit (0..1000, FLUX: 0..1)
  // -> [B, H, W, out_channels], in the latents' dtype.
  virtual Tensor forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning) const = 0;

  const DenoiserInfo& info() const { return info_; }
  DType dtype() const { return dtype_; }

 protected:
  DenoiserInfo info_;
  DType dtype_ = DType::f32;
};

}  // namespace vitrine
