// The aggregated attention kernel: what one run of it needs, as raw pointers and strides (in elements).
#pragma once

#include <cstdint>

#include <vitrine/attention2d/cpu/neighborhood.h>

namespace vitrine::cpu {

// Maps are size[0] x size[1] (axes 1 and 2 of GridView); pooled keys are `pooled` tokens along axis 2.
struct AggregatedProblem {
  GridView q, k, v, out, pooled_k, pooled_v;
  FloatType type = FloatType::f32;  // of all six
  std::int64_t images = 0, heads = 0, dim = 0, size[2] = {1, 1}, window = 3, pooled = 0;
  const float* query_embedding = nullptr;   // [heads][dim]
  const float* temperature = nullptr;       // [heads], the factor itself
  const float* log_of_seen = nullptr;       // [window^2 + 1]: ln(n + pooled) for n local keys inside of the map
  const float* local_bias = nullptr;        // [heads][window^2]
  const float* pool_bias = nullptr;         // [heads][pooled][size[0] size[1]]
  const float* learnable_tokens = nullptr;  // [heads][dim][window^2]
  const float* learnable_bias = nullptr;    // [heads][window^2]
};

// Items: (image, head, band of rows).
using AggregatedKernel = ItemKernel<AggregatedProblem>;
VITRINE_ITEM_KERNEL(AggregatedKernel, aggregated_kernel)

}  // namespace vitrine::cpu
