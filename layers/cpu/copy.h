// Copies, conversions between all dtypes, and transpositions. Strides are in bytes.
#pragma once

#include <cstdint>

#include <vitrine/layers/cpu/isa.h>

namespace vitrine::cpu {

inline constexpr int kDTypes = 8;

struct CopyKernels {
  const char* target;  // the one that it was compiled for

  // to[r][c] = from[r][c], columns adjacent. [from][to] by DType. Floating to integer truncates, saturates, and makes 0 of
  // NaN; anything to bool is != 0.
  using Convert = void (*)(const void* from, void* to, std::int64_t rows, std::int64_t columns, std::int64_t from_row,
                           std::int64_t to_row);
  Convert convert[kDTypes][kDTypes];
  // to[c][r] = from[r][c], columns of `from` and of `to` adjacent. By log2 of the element's bytes.
  Convert transpose[4];
};

VITRINE_KERNEL_TABLE(CopyKernels, copy_kernels)

}  // namespace vitrine::cpu
