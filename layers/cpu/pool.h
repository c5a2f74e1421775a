// Window sums and maxima over channels-last maps, and the weighted sums of a separable resize. Strides are in bytes.
#pragma once

#include <cstdint>

#include <vitrine/layers/cpu/elementwise.h>
#include <vitrine/layers/cpu/isa.h>

namespace vitrine::cpu {

// One row of output positions: output column i reads rows x rows and columns [begin[i], end[i]) of the image.
struct PoolArgs {
  const void* x;  // the first row of the window
  void* y;        // [outputs, channels], contiguous
  std::int64_t rows, outputs, channels;
  std::int64_t x_row, x_column;
  const std::int64_t* begin;
  const std::int64_t* end;
  const float* divisor;  // per output; averages only
};

struct PoolKernels {
  const char* target;  // the one that it was compiled for

  using Pool = void (*)(const PoolArgs& args);
  Pool average[kFloatTypes];
  Pool maximum[kFloatTypes];  // NaN where the window holds one

  // line = sum over taps of weight[k] rows[k], each of `columns` elements; line is f32
  using BlendRows = void (*)(const void* const* rows, const float* weight, std::int64_t taps, std::int64_t columns, float* line);
  BlendRows blend_rows[kFloatTypes];
  // y[i] = sum over taps of weight[i * taps + k] line[index[i * taps + k]], each of `channels` elements; line is f32
  using BlendColumns = void (*)(const float* line, const std::int64_t* index, const float* weight, std::int64_t taps,
                                std::int64_t outputs, std::int64_t channels, void* y);
  BlendColumns blend_columns[kFloatTypes];
};

VITRINE_KERNEL_TABLE(PoolKernels, pool_kernels)

}  // namespace vitrine::cpu
