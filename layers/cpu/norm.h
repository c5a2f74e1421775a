// Normalizations of rows, and the column statistics behind group norm and means. Strides are in bytes; statistics f32.
#pragma once

#include <cstdint>

#include <vitrine/layers/cpu/elementwise.h>
#include <vitrine/layers/cpu/isa.h>

namespace vitrine::cpu {

struct RowsArgs {
  const void* x;
  void* y;
  std::int64_t rows, columns, x_row, y_row;
};

struct NormKernels {
  const char* target;  // the one that it was compiled for

  // y = (x - mean) / sqrt(var + eps) gain + offset; gain and offset [columns] or null.
  using LayerNorm = void (*)(const RowsArgs& rows, const float* gain, const float* offset, float eps);
  LayerNorm layer_norm[kFloatTypes];
  LayerNorm rms_norm[kFloatTypes];     // x / sqrt(mean(x^2) + eps) gain; no offset
  LayerNorm simple_norm[kFloatTypes];  // x / sqrt(var + eps) gain, var of columns - 1 degrees of freedom; no offset
  using Rows = void (*)(const RowsArgs& rows, float eps);
  Rows l2_normalize[kFloatTypes];  // x / max(|x|, eps)
  // workspace [columns] f32: the exponentials, before they are rounded to y's type
  using Softmax = void (*)(const RowsArgs& rows, float* workspace);
  Softmax softmax[kFloatTypes];

  // sums[c] = sum over rows of x[r][c], or of (x[r][c] - center[c])^2 where center is not null
  using ColumnSums = void (*)(const void* x, std::int64_t rows, std::int64_t columns, std::int64_t x_row, const float* center,
                              float* sums);
  ColumnSums column_sums[kFloatTypes];
  // mean[c] over the rows of x[r][c], and squares[c] = sum of (x[r][c] - mean[c])^2
  using ColumnMoments = void (*)(const void* x, std::int64_t rows, std::int64_t columns, std::int64_t x_row, float* mean,
                                 float* squares);
  ColumnMoments column_moments[kFloatTypes];
  // y = act(x gain + offset) by column. [type][Activation]
  using ColumnAffine = void (*)(const RowsArgs& rows, const float* gain, const float* offset);
  ColumnAffine column_affine[kFloatTypes][kActivations];
};

VITRINE_KERNEL_TABLE(NormKernels, norm_kernels)

}  // namespace vitrine::cpu
