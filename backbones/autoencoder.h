// Autoencoders of latent diffusion: from pictures to latents, which denoisers work on, and back.
//
// An autoencoder is immutable after building and may be run from several threads at once, each under its own Context.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct AutoencoderInfo {
  std::string name;    // the published class
  std::string source;  // paper and published code
  std::int64_t in_channels = 3, out_channels = 3, latent_channels = 4;
  std::int64_t factor = 8;      // pixels a latent position is wide and high
  std::int64_t parameters = 0;  // elements of all parameters that were read
  bool force_upcast = false;    // published for f32 only: f16 overflows
};

// Pictures larger than a tile are worked on tile by tile, so that memory beside input and output does not grow with them. Tiles
// have one size and lie evenly, the last at the border; neighbors share `overlap` positions or more, in the middle of which
// one fades into the other linearly, so that what is near a tile's own border, where it lacks its surroundings, is not
// looked at. Norms see a tile only: the result differs from that of the whole a little everywhere, as in diffusers.
struct Tiling {
  std::int64_t size = 0;      // sides of a tile in latent positions; 0: the whole at once. 64 (512 pixels) serves well
  std::int64_t overlap = 16;  // positions over which tiles fade, at most half of a tile
};

class VITRINE_API Autoencoder {
 public:
  virtual ~Autoencoder();

  // images [B, H, W, in_channels] in [-1, 1] -> [B, H / factor, W / factor, latent_channels]; with a distribution of latents
  // its mean, or where `noise` (normal, of the latents' shape) is given, a sample.
  virtual Tensor encode(const Tensor& images, const Tensor& noise = {}, const Tiling& tiling = {}) const = 0;
  // latents [B, H, W, latent_channels] -> [B, factor H, factor W, out_channels], about [-1, 1], not clamped.
  virtual Tensor decode(const Tensor& latents, const Tiling& tiling = {}) const = 0;

  // Between what encode gives and what denoisers were trained on: (latents - shift) scale, and back.
  Tensor scale_latents(const Tensor& latents) const;
  Tensor unscale_latents(const Tensor& latents) const;

  const AutoencoderInfo& info() const { return info_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }  // where images and latents are

 protected:
  using Pass = std::function<Tensor(const Tensor& tile)>;
  // pass(x), or tile by tile; a latent position is `from` positions of x and `to` of the result.
  Tensor tiled(const Tensor& x, std::int64_t from, std::int64_t to, const Tiling& tiling, const Pass& pass) const;
  // Throws Error unless x is a floating [B, H, W, channels] with sides of `least` or more; x in the weights' type.
  Tensor checked(const Tensor& x, std::int64_t channels, std::int64_t least, const char* what) const;

  // The last step of building; scale and shift of the latents: one, or one a channel.
  void finish(const Weights& w, const std::vector<float>& scale, const std::vector<float>& shift);

  AutoencoderInfo info_;
  DType dtype_ = DType::f32;

 private:
  Device device_;
  Tensor latent_scale_, inverse_latent_scale_, latent_shift_;  // f32 [1] or [latent_channels]
};

}  // namespace vitrine
