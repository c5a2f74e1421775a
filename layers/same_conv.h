// Convolutions padded as TensorFlow's "same": out = ceil(in / stride), the odd row or column of zeros at the end.
#pragma once

#include <cstdint>

#include <vitrine/layers/conv.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// Zeros that an axis of n gets before and after.
struct SamePadding {
  std::int64_t begin = 0, end = 0;
};
VITRINE_API SamePadding same_padding(std::int64_t n, std::int64_t kernel, std::int64_t stride);

// x [B, H, W, C] with zeros around it, [B, top + H + bottom, left + W + right, C]; x itself where there is nothing to add.
VITRINE_API Tensor pad_around(const Tensor& x, const SamePadding& rows, const SamePadding& columns);

// Source: timm layers/conv2d_same.py. Maps that the stride divides take one padding, which the convolution has built in; others
// are padded first.
struct VITRINE_API SameConv2d {
  SameConv2d() = default;
  // As Conv2d; of `options` padding is not looked at, and dilation is 1.
  SameConv2d(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t kernel, Conv2dOptions options = {},
             const Weights* bn = nullptr);
  bool defined() const { return divided.defined(); }
  Tensor operator()(const Tensor& x, Epilogue epilogue = {}) const;

  std::int64_t kernel = 1, stride = 1;
  Conv2d divided, bare;  // of maps that the stride divides; without padding
};

}  // namespace vitrine
