// Doubling by the nearest neighbor and the 3x3 convolution behind it, as the decoders of diffusion models have them.
//
// Every position of a doubled map is there 2x2 times, so that taps of the kernel fall on the same value. Both steps are one
// transposed convolution by 4x4 with stride 2, whose taps are along each axis k2, k1 + k2, k0 + k1, k0: 4 multiply-adds an
// output and channel instead of 9, and no doubled map in memory.
#pragma once

#include <cstdint>

#include <vitrine/layers/conv.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct UpsampleConv2dOptions {
  bool bias = true;
  // Other sizes than twice the map's can be asked for, too: the convolution is then packed a second time, for resized maps.
  bool any_size = false;
};

class VITRINE_API UpsampleConv2d {
 public:
  UpsampleConv2d() = default;
  // Reads w.weight [out, in, 3, 3] and w.bias [out].
  UpsampleConv2d(const Weights& w, std::int64_t in, std::int64_t out, const UpsampleConv2dOptions& options = {});
  bool defined() const { return doubled_.defined(); }
  Tensor operator()(const Tensor& x, Activation activation = Activation::none) const;  // [B, H, W, in] -> [B, 2H, 2W, out]
  // -> [B, height, width, out]: the map is resized by the nearest neighbor (F.interpolate) first.
  Tensor operator()(const Tensor& x, std::int64_t height, std::int64_t width) const;

 private:
  ConvTranspose2d doubled_;
  Conv2d resized_;
};

}  // namespace vitrine
