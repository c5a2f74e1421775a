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

#include <vitrine/attention2d/spatial_reduction.h>
#include <vitrine/layers/conv.h>
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
  // PVT's form: w.q and w.kv in the place of w.qkv; keys and values from a map that is sr_ratio times smaller on each side.
  bool separate_kv = false;
  std::int64_t sr_ratio = 1;
  bool linear = false;    // PVTv2-li's reduction (spatial_reduction.h): the map must be 7 sr_ratio on each side, or as large
  bool mix_only = false;  // CSWin: q, k, v from outside; w.get_v, a depth-wise 3x3 of v, no w.qkv and w.proj
};

// x [B * windows, rows * columns, C] -> the same.
struct VITRINE_API FocusedLinearAttention {
  FocusedLinearAttention() = default;
  // w.qkv, w.positional_encoding [1, N, C], w.scale [1, 1, C], w.dwc [head_dim, 1, k, k], w.proj; `proj_options` may carry a
  // layer scale. With a reduction what KeyReduction reads of w, and N is of the smaller map; values come back to the map by
  // linear interpolation along the row of tokens.
  FocusedLinearAttention(const Weights& w, const FocusedLinearAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  // What is between the projections: q, k, v [B, N, C], views that are overwritten but for v -> [B, N, C]
  Tensor mix(Tensor q, Tensor k, const Tensor& v) const;

  FocusedLinearAttentionConfig config;
  Conv2d get_v;
  Linear qkv, q, kv, proj;  // q and kv: where there is a reduction
  KeyReduction reduce;
  Tensor positional_encoding;  // [N, C]
  Tensor inverse_scale;        // [C]: 1 / softplus(scale)
  Tensor kernels, bias;        // of dwc, for all channels: [1, k, k, C], [C]
};

}  // namespace vitrine
