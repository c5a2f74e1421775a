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
#include <vector>

#include <vitrine/attention2d/feature_map.h>
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
};

// x [B * windows, class_token + rows * columns, C] -> the same.
struct VITRINE_API InlineAttention {
  InlineAttention() = default;
  // w.qkv, w.residual.0 [C, head_dim, 1], w.residual.2 [9 C, head_dim, 1], w.proj; `proj_options` may carry a layer scale.
  InlineAttention(const Weights& w, const InlineAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  InlineAttentionConfig config;
  Linear qkv, proj;
  std::vector<Linear> hidden, kernel;  // the prediction of kernels, a layer a head
};

}  // namespace vitrine
