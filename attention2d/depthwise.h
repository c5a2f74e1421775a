// Depth-wise convolution onto a map with kernels that are data: predicted per image, or one for all heads. Static kernels of
// their own channels are Conv2d's.
#pragma once

#include <string_view>

#include <vitrine/layers/tensor.h>

namespace vitrine::detail {

// y += x * kernels + bias: zero padding of half the (odd) kernel, stride 1. y and x [B, H, W, C] of one floating type, views
// with any leading strides; kernels f32 [1 or B, kh, kw, C], contiguous; bias f32 [C] or undefined.
void add_depthwise(std::string_view op, Tensor& y, const Tensor& x, const Tensor& kernels, const Tensor& bias = {});

}  // namespace vitrine::detail
