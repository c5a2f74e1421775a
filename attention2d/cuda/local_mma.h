// Local attention on tensor cores: included by local_f16.cu and local_bf16.cu.
//
// What bounds it: for small windows reading q, k, v (each key tile is read by the query tiles around it: from L2); for wide ones
// the tensor cores, of whose work the part outside of the windows is lost: with kernel k on an axis and tiles of s queries and
// keys about (k + s) / k of what is needed on that axis.
#pragma once

#include <vitrine/attention2d/cuda/local.h>
#include <vitrine/attention2d/cuda/tiles_mma.h>

namespace vitrine::cuda::local {

template <typename T, int kSteps>
void attend_mma(const Problem& p, const Tensor& shown) {
  launch_mma<Block<T, 2>, kSteps, true>(kTilesOp, p, shown, blocks_of(p), kMmaWarps);
}

template <typename T>
void attend_mma(const Problem& p, const Tensor& shown) {
  const int widest = p.dim > p.value_dim ? p.dim : p.value_dim;
  if (widest <= 32) return attend_mma<T, 2>(p, shown);
  if (widest <= 64) return attend_mma<T, 4>(p, shown);
  attend_mma<T, 8>(p, shown);
}

}  // namespace vitrine::cuda::local
