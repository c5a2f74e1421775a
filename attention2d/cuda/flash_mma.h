// Attention on tensor cores: included by flash_f16.cu and flash_bf16.cu.
#pragma once

#include <vitrine/attention2d/cuda/flash.h>
#include <vitrine/attention2d/cuda/tiles_mma.h>

namespace vitrine::cuda::flash {

template <typename T, int kSteps, bool kIsExact, Extras kExtras>
void attend_mma(const Problem& p, const Tensor& shown) {
  const int warps = p.queries <= 16 ? 1 : p.queries <= 32 ? 2 : kMmaWarps;
  launch_mma<Block<T, kExtras, 2>, kSteps, kIsExact>(p.op, p, shown, p.parts() * blocks_for(p.queries, warps * 16), warps);
}

template <typename T, int kSteps, bool kIsExact>
void attend_mma(const Problem& p, const Tensor& shown) {
  p.is_plain() ? attend_mma<T, kSteps, kIsExact, Extras::none>(p, shown)
               : attend_mma<T, kSteps, kIsExact, Extras::logits>(p, shown);
}

template <typename T>
void attend_mma(const Problem& p, const Tensor& shown) {
  if (p.boxes) return attend_mma<T, 8, false, Extras::boxes>(p, shown);
  if (p.dim == p.value_dim && p.dim == 32) return attend_mma<T, 2, true>(p, shown);
  if (p.dim == p.value_dim && p.dim == 64) return attend_mma<T, 4, true>(p, shown);
  if (p.dim == p.value_dim && p.dim == 128) return attend_mma<T, 8, true>(p, shown);
  attend_mma<T, 8, false>(p, shown);
}

}  // namespace vitrine::cuda::flash
