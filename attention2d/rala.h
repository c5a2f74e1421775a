// RALA, rank-augmented linear attention: keys weighted by their importance to the mean query, outputs gated.
//
//   q, k = elu(.) + 1;  a = softmax_j(D ** -0.5 mean(q).k_j);  k_j <- k_j a_j N
//   out = rot(q) (rot(k)^T v / N) / (q.mean(k) + 1e-6),  result = proj((out + lepe(v)) o)
//
// rot: rotary positions, of rows in the first half of a head's channels and of columns in the second; lepe: depth-wise 5x5; o: a
// fourth projection, as it is. Not linear, the deep stages' form: out = softmax(D ** -0.5 rot(q) rot(k)^T) v.
// Source: arXiv:2411.07635, qhfan/RALA classfication/RALA.py. Cost: 2 N C head_dim + 25 N C multiply-adds beside the
// projections.
#pragma once

#include <cstdint>

#include <vitrine/layers/conv.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/size_cache.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct RalaAttentionConfig {
  std::int64_t dim = 0, num_heads = 1;  // heads of a multiple of 4 channels
  bool linear = true;
};

// x [B, H, W, C] -> [B, H, W, C].
struct VITRINE_API RalaAttention {
  RalaAttention() = default;
  // w.qkvo, w.lepe, w.proj; `proj_options` may carry a layer scale.
  RalaAttention(const Weights& w, const RalaAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  RalaAttentionConfig config;
  Linear qkvo, proj;
  Conv2d lepe;

  struct Rotation {
    Tensor sin, cos;  // [H W, head_dim]
  };
  detail::SizeCache<Rotation> rotation;  // of a map's size
};

}  // namespace vitrine
