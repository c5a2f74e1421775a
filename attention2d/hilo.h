// HiLo attention: some heads attend inside small windows (Hi-Fi), the others to keys that are averaged over the windows (Lo-Fi).
//
//   Hi-Fi   q, k, v of x;  softmax(q k^T / sqrt(d)) v within each window_size x window_size window
//   Lo-Fi   q of x, k and v of x averaged over each window;  softmax(q k^T / sqrt(d)) v over all windows
//   out     [h_proj(Hi-Fi) | l_proj(Lo-Fi)]
//
// Source: LITv2 (arXiv:2205.13213), ziplab/LITv2 hilo.py.
// Cost: for N tokens, h and l channels of the two: N s^2 h + N^2 / s^2 l, twice, multiply-adds besides the projections.
#pragma once

#include <cstdint>
#include <optional>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/size_cache.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct HiLoConfig {
  std::int64_t dim = 0, num_heads = 1;
  std::int64_t window_size = 2;
  double alpha = 0.5;  // share of Lo-Fi heads: int(heads alpha); all where window_size is 1
  bool qkv_bias = false;
  std::optional<float> scale{};  // of the logits; default: head_dim ** -0.5
};

struct VITRINE_API HiLoAttention {
  HiLoAttention() = default;
  // With Hi-Fi heads w.h_qkv, w.h_proj; with Lo-Fi heads w.l_q, w.l_kv, w.l_proj.
  HiLoAttention(const Weights& w, const HiLoConfig& config);
  // x [B, H, W, dim] -> same; window_size divides H and W.
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  HiLoConfig config;
  std::int64_t hi_heads = 0, lo_heads = 0;
  Linear from_x;  // [h_qkv | l_q] in one product
  Linear l_kv, h_proj, l_proj;
  detail::SizeCache<Tensor> windows;  // lists of tokens
};

}  // namespace vitrine
