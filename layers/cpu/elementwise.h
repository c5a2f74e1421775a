// Pointwise kernels on blocks whose columns are adjacent. Row strides are in bytes; arithmetic is f32.
#pragma once

#include <cstdint>

#include <vitrine/layers/activation.h>
#include <vitrine/layers/cpu/isa.h>

namespace vitrine::cpu {

inline constexpr int kFloatTypes = 3;  // f32, f16, bf16: the first values of DType
inline constexpr int kActivations = 10;

struct ElementwiseKernels {
  const char* target;  // the one that it was compiled for

  // y = a op b; y has a's type and may be a.
  using Binary = void (*)(const void* a, const void* b, void* y, std::int64_t rows, std::int64_t columns, std::int64_t a_row,
                          std::int64_t b_row, std::int64_t y_row);
  // [a's type][b's type][whether one element of b serves the row]
  Binary add[kFloatTypes][kFloatTypes][2];
  Binary multiply[kFloatTypes][kFloatTypes][2];

  // y = scale x + shift
  using Affine = void (*)(const void* x, void* y, std::int64_t rows, std::int64_t columns, std::int64_t x_row, std::int64_t y_row,
                          float scale, float shift);
  Affine affine[kFloatTypes];

  // y = act(x); y may be x. [type][Activation]
  using Unary = void (*)(const void* x, void* y, std::int64_t rows, std::int64_t columns, std::int64_t x_row, std::int64_t y_row);
  Unary activate[kFloatTypes][kActivations];

  // y = act(gate) x
  using Gated = void (*)(const void* gate, const void* x, void* y, std::int64_t rows, std::int64_t columns, std::int64_t x_row,
                         std::int64_t y_row);
  Gated gated[kFloatTypes][kActivations];

  // x = x cos + rotate(x) sin in place for `heads` rows of D elements; sin and cos [D]. [type][RotaryLayout]
  using Rotary = void (*)(void* x, const float* sin, const float* cos, std::int64_t heads, std::int64_t head_dim,
                          std::int64_t head_stride);
  Rotary rotary[kFloatTypes][2];
};

VITRINE_KERNEL_TABLE(ElementwiseKernels, elementwise_kernels)

}  // namespace vitrine::cpu
