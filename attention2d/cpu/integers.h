// Integers of the attention kernels' layouts. Kernel sources use no standard library; see simd.h.
#pragma once

#include <vitrine/layers/cpu/simd.h>

namespace vitrine::cpu::VITRINE_TARGET {

inline i64 min_of(i64 a, i64 b) { return a < b ? a : b; }
inline i64 max_of(i64 a, i64 b) { return a > b ? a : b; }
inline i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }
inline i64 round_up(i64 a, i64 b) { return ceil_div(a, b) * b; }

}  // namespace vitrine::cpu::VITRINE_TARGET
