// Global filter: a map is multiplied with learned weights in the frequency domain, which is a circular convolution whose kernel
// is as large as the map.
//
//   y = irfft2(rfft2(x) * W), both transforms orthonormal, W complex [C, h, w] with w = width / 2 + 1 frequencies along the rows
//
// Another size than that of the weights takes them interpolated (bilinear, corners aligned). GlobalLocalFilter is HorNet's: half
// of the channels through a 3 x 3 depth-wise convolution, half through a global filter, interleaved, between two norms.
//
// The transforms are products with small matrices, row by row and column by column, channels staying innermost: for maps of up to
// some 64 tokens a side that is less work than a fast transform's shuffles.
// Source: GFNet, arXiv:2107.00645; raoyongming/HorNet hornet.py. Arithmetic is f32.
// Cost: 4 (h + w) + 4 multiply-adds a value; two maps of memory in f32.
#pragma once

#include <cstdint>

#include <vitrine/layers/conv.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/size_cache.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct VITRINE_API GlobalFilter {
  GlobalFilter() = default;
  // w.complex_weight [channels, height, width, 2]: real and imaginary parts; `width` counts frequencies.
  GlobalFilter(const Weights& w, std::int64_t channels, std::int64_t height, std::int64_t width);
  Tensor operator()(const Tensor& x) const;  // [B, H, W, C], may be a view -> the same, contiguous

  // What a size of map needs. K = W / 2 + 1 frequencies along the rows.
  struct Transforms {
    Tensor row_cos, row_sin;            // [K, W]: x -> real and imaginary parts
    Tensor columns, columns_back;       // [2 H, 2 H]: of real parts above imaginary ones
    Tensor row_cos_back, row_sin_back;  // [W, K]
    Tensor real, imaginary;             // [H, K, C]: the weights
  };
  Transforms make(std::int64_t height, std::int64_t width, Device device) const;

  Tensor weight;  // f32 [2, h, w, C], on the CPU: transforms are made there
  detail::SizeCache<Transforms> cache;
};

struct VITRINE_API GlobalLocalFilter {
  GlobalLocalFilter() = default;
  // w.pre_norm, w.dw (no bias), w.complex_weight, w.post_norm; `dim` is even.
  GlobalLocalFilter(const Weights& w, std::int64_t dim, std::int64_t height, std::int64_t width);
  bool defined() const { return dw.defined(); }
  Tensor operator()(const Tensor& x) const;  // [B, H, W, dim] -> the same

  LayerNorm pre_norm, post_norm;
  Conv2d dw;
  GlobalFilter filter;
};

}  // namespace vitrine
