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

// Items: runs of tokens.
using FocalKernel = ItemKernel<FocalProblem>;
VITRINE_ITEM_KERNEL(FocalKernel, focal_kernel)

}  // namespace vitrine::cpu
