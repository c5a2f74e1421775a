// Convolutions of nhwc maps, weights packed once: depth-wise ones on own kernels, the others on oneDNN with primitives kept by
// shape.
#pragma once

#include <cstdint>
#include <memory>

#include <vitrine/layers/packed.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::cpu {

using detail::ConvCall;
using detail::ConvShape;
using detail::MapStrides;
using detail::PackedConv;

// weight f32 [out, in / groups, kernel_h, kernel_w], transposed [in, out / groups, kernel_h, kernel_w]; bias f32 [out] or
// undefined.
std::unique_ptr<const PackedConv> pack_conv(const ConvShape& shape, const Tensor& weight, const Tensor& bias, DType dtype);

}  // namespace vitrine::cpu
