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

// As FlashKernel: items are (image, head, band of rows).
struct AggregatedKernel {
  std::int64_t (*items)(const AggregatedProblem&);
  std::int64_t (*workspace_bytes)(const AggregatedProblem&);
  void (*run)(const AggregatedProblem&, std::int64_t begin, std::int64_t end, void* workspace);
};

namespace scalar {
AggregatedKernel aggregated_kernel();
}
#if defined(VITRINE_X86)
namespace avx2 {
AggregatedKernel aggregated_kernel();
}
namespace avx512 {
AggregatedKernel aggregated_kernel();
}
namespace avx512_bf16 {
AggregatedKernel aggregated_kernel();
}
#endif

}  // namespace vitrine::cpu
