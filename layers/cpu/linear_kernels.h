// The own kernels of Linear: a table a target. Layout and tiling are described in linear_kernels.cpp.
#pragma once

#include <cstdint>

#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/ops.h>

namespace vitrine::cpu {

// What one thread computes: rows [row_begin, row_end) of the panels [panel_begin, panel_end).
struct LinearTile {
  const void* x;  // [rows, in], rows x_stride bytes apart
  std::int64_t x_stride;
  const void* weight;    // packed panels, of x's type or int8
  const float* bias;     // [vectors * lanes]
  const float* scale;    // the same, of int8 weights: y = scale (x W^T + bias) instead; null: none
  void* y;               // [rows, out] of x's type, rows y_stride elements apart
  const void* residual;  // the same strides
  std::int64_t y_stride, in, out;
  std::int64_t row_begin, row_end, panel_begin, panel_end;
  Activation activation;
  bool activate_sum;  // the activation after the residual
  const float* gate;  // as in LinearCall
  std::int64_t gate_rows, gate_stride, first_row;
};

struct LinearKernels {
  int lanes;                                // columns are packed in vectors of so many
  int panel;                                // vectors of a panel, at most
  int pair_bf16;                            // 2 where bf16 is multiplied in pairs; 0: no bf16 arithmetic
  void (*run_f32)(const LinearTile& tile);  // x, weight, residual and y f32
  void (*run_bf16)(const LinearTile& tile);
  void (*run_f32_i8)(const LinearTile& tile);  // the same with int8 weights
  void (*run_bf16_i8)(const LinearTile& tile);
};

VITRINE_KERNEL_TABLE(LinearKernels, linear_kernels)

}  // namespace vitrine::cpu
