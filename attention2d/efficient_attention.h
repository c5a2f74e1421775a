// Efficient attention: softmax of the queries over channels and of the keys over positions, then k^T v first.
//
//   out = reprojection(softmax_channels(q) (softmax_positions(k)^T v)) + x
//
// The softmax of queries is per head. Source: arXiv:1812.01243, cmsflash/efficient-attention efficient_attention.py.
// Cost: 2 N key_dim value_dim / heads multiply-adds beside the projections.
#pragma once

#include <cstdint>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct EfficientAttentionConfig {
  std::int64_t dim = 0, key_dim = 0, value_dim = 0, num_heads = 1;
};

struct VITRINE_API EfficientAttention {
  EfficientAttention() = default;
  // w.queries, w.keys, w.values, w.reprojection: 1x1 convolutions with bias
  EfficientAttention(const Weights& w, const EfficientAttentionConfig& config);
  // x [B, N, C] -> [B, N, C], with the residual x
  Tensor operator()(const Tensor& x) const;

  EfficientAttentionConfig config;
  Linear queries, keys, values, reprojection;
};

}  // namespace vitrine
