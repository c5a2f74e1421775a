// Varied-size window attention (VSA): queries in windows; the keys of a window and head come from a box of another place and
// size, which the window's mean decides.
//
//   offset, scale = Conv1x1(LeakyReLU(AvgPool_window(x))), two numbers a head each
//   k, v of a window: sampled at centre + position (1 + scale) + offset, bilinear, zeros around the map
//
// Regressors of zeros give window attention. Source: ViTAE-Transformer/ViTAE-VSA vsa.py; arXiv:2204.08446. Keys are sampled
// while the attention kernel packs them. Cost: that of window attention and 4 (D + Dv) multiply-adds a key of a window.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/size_cache.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct VariedWindowAttentionConfig {
  std::int64_t dim = 0, num_heads = 1;
  std::int64_t out_dim = 0;  // of q, k, v and the output; 0: dim
  std::array<std::int64_t, 2> window_size{7, 7};
  bool qkv_bias = true;
  std::optional<float> scale{};  // default: (dim / num_heads) ** -0.5
};

// x [B, H, W, dim] -> [B, H, W, out_dim]; H and W are not below the window's. A map that is not a multiple of the window is
// padded with zeros, k and v after their projection.
struct VITRINE_API VariedWindowAttention {
  VariedWindowAttention() = default;
  // w.qkv, w.proj, w.relative_position_bias_table; w.sampling_offsets.2 and w.sampling_scales.2 [2 heads, C], (x, y) a head
  VariedWindowAttention(const Weights& w, const VariedWindowAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  VariedWindowAttentionConfig config;
  Linear qkv, proj, offsets, scales;
  Tensor bias;                        // [1, heads, N, N]
  detail::SizeCache<Tensor> windows;  // lists of tokens
};

}  // namespace vitrine
