// Sums of rows: y = M x for a small matrix M and rows x that are contiguous, as a transform along a map's rows or columns is.
#pragma once

#include <cstdint>

#include <vitrine/layers/cpu/isa.h>

namespace vitrine::cpu {

// y[r] = or += sum over j of matrix[r][j] x[j], each row of `columns` floats; strides in floats.
struct MixArgs {
  const float* matrix;  // [out, in], contiguous
  const float* x;
  float* y;
  std::int64_t in, out, columns, x_row, y_row;
  bool adds;
};

struct MixKernels {
  const char* target;  // the one that it was compiled for

  void (*run)(const MixArgs& args);
};

VITRINE_KERNEL_TABLE(MixKernels, mix_kernels)

}  // namespace vitrine::cpu
