// The gathering of focal modulation's context levels, as raw pointers.
#pragma once

#include <cstdint>

#include <vitrine/attention2d/cpu/attention.h>

namespace vitrine::cpu {

// out[n, c] = scale (sum over l of level[l][n, c] gates[n, l] + whole[image of n, c] gates[n, levels])
struct FocalProblem {
  const void* const* level = nullptr;  // [images][tokens][channels] each
  const void* gates = nullptr;         // [images][tokens][levels + 1]
  const void* whole = nullptr;         // [images][channels]
  void* out = nullptr;                 // [images][tokens][channels]
  FloatType type = FloatType::f32;     // of all
  std::int64_t images = 0, tokens = 0, channels = 0, levels = 0;
  float scale = 1;
};

// As FlashKernel: items are runs of tokens.
struct FocalKernel {
  std::int64_t (*items)(const FocalProblem&);
  std::int64_t (*workspace_bytes)(const FocalProblem&);
  void (*run)(const FocalProblem&, std::int64_t begin, std::int64_t end, void* workspace);
};

namespace scalar {
FocalKernel focal_kernel();
}
#if defined(VITRINE_X86)
namespace avx2 {
FocalKernel focal_kernel();
}
namespace avx512 {
FocalKernel focal_kernel();
}
namespace avx512_bf16 {
FocalKernel focal_kernel();
}
#endif

}  // namespace vitrine::cpu
