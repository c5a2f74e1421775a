// Kernels of bi-level routing: means of regions and the choice between them.
#pragma once

#include <cstdint>

#include <vitrine/layers/cpu/elementwise.h>
#include <vitrine/layers/cpu/isa.h>

namespace vitrine::cpu {

struct RoutingKernels {
  const char* target;  // the one that it was compiled for

  // y = factor times the sum of rows x columns pixels of x; strides in bytes.
  using Mean = void (*)(const void* x, std::int64_t rows, std::int64_t columns, std::int64_t x_row, std::int64_t x_column,
                        std::int64_t channels, float factor, float* y);
  Mean mean[kFloatTypes];

  // chosen = the `count` regions j of the largest q . k[j], in falling order; `values` has room for as many.
  void (*choose)(const float* q, const float* k, std::int64_t k_row, std::int64_t regions, std::int64_t channels,
                 std::int64_t count, float* values, std::int32_t* chosen);
};

VITRINE_KERNEL_TABLE(RoutingKernels, routing_kernels)

}  // namespace vitrine::cpu
