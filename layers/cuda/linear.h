// Linear layers on a GPU: the parts that the candidates share.
#pragma once

#include <memory>

#include <vitrine/layers/packed.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::cuda {

// The own product with everything that follows it. weight [out, in] in the packed type, bias f32 [out] or undefined, on the
// device.
void run_own_linear(const Tensor& weight, const Tensor& bias, const detail::LinearCall& call);

// What follows a product that was made elsewhere, [rows, out] with rows `stride` apart in the packed type, perhaps call.y itself:
// bias, activation, gate, residual.
void finish_linear(const Tensor& weight, const Tensor& bias, const detail::LinearCall& call, const void* product,
                   std::int64_t stride);

// The library's product (linear_cublas.cpp).
std::unique_ptr<const detail::PackedLinear> pack_linear_cublas(const Tensor& weight, const Tensor& bias, DType dtype,
                                                               Device device);

}  // namespace vitrine::cuda
