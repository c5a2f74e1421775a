// InLine, injective linear attention: weights sum to one by subtraction instead of division, and a local residual.
//
//   out_i = (s / n) phi(q_i) (phi(k)^T v) + (1 - s phi(q_i).mean(phi(k))) mean(v),  s = head_dim ** -0.5
//
// plus, on image tokens, a depth-wise 3x3 convolution of v whose kernels are predicted for each sample: the mean token through a
// grouped 1x1, GELU, a grouped 1x1 (groups = heads). Source: arXiv:2412.06590, LeapLabTHU/InLine models/inline_deit.py,
// inline_swin.py. Cost: 2 N C head_dim + 9 N C multiply-adds beside the projections.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include <vitrine/attention2d/feature_map.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct InlineAttentionConfig {
  std::int64_t dim = 0, num_heads = 1;
  std::array<std::int64_t, 2> window_size{14, 14};  // of the image tokens
  bool class_token = false;                         // before them (DeiT); it takes no part in the convolution
  FeatureMap feature_map = FeatureMap::identity;    // of one head_dim; not softmax
  float feature_scale = 1;                          // before the map: 0.2 with exp
  bool qkv_bias = true;
  bool separate_kv = false;  // w.q and w.kv in the place of w.qkv (PVT)
  bool mix_only = false;     // CSWin: q, k, v from outside; w.get_v, a depth-wise 3x3 of v, no w.qkv and w.proj
};

// x [B * windows, class_token + rows * columns, C] -> the same.
struct VITRINE_API InlineAttention {
  InlineAttention() = default;
  // w.qkv, w.residual.0 [C, head_dim, 1], w.residual.2 [9 C, head_dim, 1], w.proj; `proj_options` may carry a layer scale.
  InlineAttention(const Weights& w, const InlineAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const {
    return (*this)(x, config.window_size[0], config.window_size[1], std::move(residual));
  }
  // A window of another size: the parameters do not depend on it.
  Tensor operator()(const Tensor& x, std::int64_t rows, std::int64_t columns, Tensor residual = {}) const;

  // What is between the projections: q, k, v [B, N, C], views; kernels are predicted from token [B, C] -> [B, N, C]
  Tensor mix(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& token, std::int64_t rows,
             std::int64_t columns) const;

  InlineAttentionConfig config;
  Linear qkv, proj;
  Conv2d get_v;
  std::vector<Linear> hidden, kernel;  // the prediction of kernels, a layer a head
};

}  // namespace vitrine
