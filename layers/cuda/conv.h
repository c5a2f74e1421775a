// Convolutions on a GPU: the parts that the candidates share.
#pragma once

#include <memory>

#include <vitrine/layers/packed.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::cuda {

bool is_depthwise(const detail::ConvShape& shape);  // has nothing to multiply matrices with

// f32 on the host, from PyTorch's orders: [groups x out, taps x in], of depth-wise ones [taps, out].
Tensor order_conv_weight(const detail::ConvShape& shape, const Tensor& weight);

// The own product with everything that follows it. The weight as above in the packed type, bias f32 [out] or undefined, both on
// the device.
void run_own_conv(const detail::ConvShape& shape, const Tensor& weight, const Tensor& bias, const detail::ConvCall& call);

// The library's (conv_cudnn.cpp), or the own one where that has none.
std::unique_ptr<const detail::PackedConv> pack_conv_cudnn(const detail::ConvShape& shape, const Tensor& weight,
                                                          const Tensor& bias, DType dtype, Device device);

}  // namespace vitrine::cuda
