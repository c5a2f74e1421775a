// FLatten's focused linear attention: features sharpened by a power that keeps their length, and a local residual.
//
//   k += positional_encoding;  q, k = (relu(.) + 1e-6) / softplus(scale);  u <- |u| u^f / |u^f|, lengths over all C channels
//   out = q (k^T v / N) / (q.mean(k) + 1e-6) + dwc(v)
//
// dwc: a depth-wise convolution, one set of head_dim kernels for all heads. Source: arXiv:2308.00442,
// LeapLabTHU/FLatten-Transformer models/flatten_swin.py. Cost: 2 N C head_dim + k^2 N C multiply-adds beside the projections.
#pragma once

#include <array>
#include <cstdint>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct FocusedLinearAttentionConfig {
  std::int64_t dim = 0, num_heads = 1;
  std::array<std::int64_t, 2> window_size{7, 7};
  double focusing_factor = 3;    // positive
  std::int64_t kernel_size = 5;  // of dwc; odd
  bool qkv_bias = true;
};

// x [B * windows, rows * columns, C] -> the same.
struct VITRINE_API FocusedLinearAttention {
  FocusedLinearAttention() = default;
  // w.qkv, w.positional_encoding [1, N, C], w.scale [1, 1, C], w.dwc [head_dim, 1, k, k], w.proj; `proj_options` may carry a
  // layer scale.
  FocusedLinearAttention(const Weights& w, const FocusedLinearAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  FocusedLinearAttentionConfig config;
  Linear qkv, proj;
  Tensor positional_encoding;  // [N, C]
  Tensor inverse_scale;        // [C]: 1 / softplus(scale)
  Tensor kernels, bias;        // of dwc, for all channels: [1, k, k, C], [C]
};

}  // namespace vitrine
