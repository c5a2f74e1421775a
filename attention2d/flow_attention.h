// Flowformer's flow attention (not causal): what flows into a query and out of a key is conserved.
//
// Per head, with e = 1e-6 added to every element and again outside:
//   q, k = sigmoid(.)
//   in_i  = 1 / ((q_i + e).(sum k + e) + e),           out_j    = 1 / ((k_j + e).(sum q + e) + e)
//   sink_i = (q_i + e).(sum_j k_j out_j + e) + e,      source_j = clamp((k_j + e).(sum_i q_i in_i + e) + e, -1, 1)
//   result_i = sigmoid(sink_i) in_i q_i (sum_j k_j (N softmax_j(source_j) v_j)^T)
//
// Source: arXiv:2202.06258, thuml/Flowformer Flowformer_CV/flowformer.py. Cost: 2 N C head_dim multiply-adds beside the
// projections, and six passes over q and k.
#pragma once

#include <cstdint>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct FlowAttentionConfig {
  std::int64_t dim = 0, num_heads = 1;
  bool qkv_bias = true;
};

// q, k, v [B, N, H, D], views with any leading strides -> [B, N, H, D], contiguous.
VITRINE_API Tensor flow_attention(const Tensor& q, const Tensor& k, const Tensor& v);

// x [B, N, C] -> [B, N, C].
struct VITRINE_API FlowAttention {
  FlowAttention() = default;
  // w.qkv, w.proj; `proj_options` may carry a layer scale.
  FlowAttention(const Weights& w, const FlowAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  FlowAttentionConfig config;
  Linear qkv, proj;
};

}  // namespace vitrine
