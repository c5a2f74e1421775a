// The candidates for y = gate act(x W^T + b) + residual, or act(x W^T + b + residual), on the CPU. Each packs the weights its own
// way, once.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/dtype.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/packed.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::cpu {

using detail::LinearCall;
using detail::PackedLinear;

// weight f32 [out, in], bias f32 [out] or undefined. `candidate` is "tiled" (own kernels), "onednn" or "reference" (the own
// kernels' scalar target); empty: the best that can run. Throws Error where the named one cannot, with the reason.
// `int8`: weights are kept as int8 with a scale each output, which the own kernels do.
VITRINE_API std::unique_ptr<const PackedLinear> pack_linear(const Tensor& weight, const Tensor& bias, DType dtype,
                                                            std::string_view candidate = {}, bool int8 = false);

VITRINE_API std::unique_ptr<const PackedLinear> pack_linear_tiled(const Tensor& weight, const Tensor& bias, DType dtype, Isa isa,
                                                                  bool int8 = false);
VITRINE_API std::unique_ptr<const PackedLinear> pack_linear_dnnl(const Tensor& weight, const Tensor& bias, DType dtype);

}  // namespace vitrine::cpu
