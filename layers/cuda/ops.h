// The functions behind the table of backend.h, from the sources with kernels.
#pragma once

#include <vitrine/layers/cuda/backend.h>

namespace vitrine::cuda::ops {

VITRINE_CUDA_OPS(VITRINE_CUDA_DECLARE)

// Own kernels for every shape: products on tensor cores in 16 bits, in exact f32 otherwise.
std::unique_ptr<const detail::PackedLinear> pack_linear(const Tensor& weight, const Tensor& bias, DType dtype, Device device);
std::unique_ptr<const detail::PackedConv> pack_conv(const detail::ConvShape& shape, const Tensor& weight, const Tensor& bias,
                                                    DType dtype, Device device);

}  // namespace vitrine::cuda::ops

namespace vitrine::cuda {

// Those of this build: `name` of each is ops::name.
#define VITRINE_CUDA_ENTRY(name, arguments) vitrine::cuda::ops::name,
#define VITRINE_CUDA_ALL_OPS VITRINE_CUDA_OPS(VITRINE_CUDA_ENTRY)

}  // namespace vitrine::cuda
