// Window attention of Swin and Swin V2: a map in windows, every other block shifted by half a window.
//
// Sources: microsoft/Swin-Transformer models/swin_transformer.py (arXiv:2103.14030), swin_transformer_v2.py
// (arXiv:2111.09883). A map that is not a multiple of the window is padded before qkv, so that padding tokens have the bias of
// qkv as key and value and are attended to. Cost: H W N (D + Dv) multiply-adds a head beside the projections, N = tokens of a
// window.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include <vitrine/attention2d/partition.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct WindowAttentionConfig {
  std::int64_t dim = 0, num_heads = 1, head_dim = 0;  // head_dim 0: dim / num_heads
  std::array<std::int64_t, 2> window_size{7, 7}, shift_size{0, 0};
  WindowPad pad = WindowPad::roll_then_pad;
  bool qkv_bias = true, rel_pos_bias = true;
  std::optional<float> scale{};  // default: head_dim ** -0.5
};

// What depends on the size of the map: made once a size, kept for the last few.
class WindowCache;

// x [B, H, W, C] -> the same.
struct VITRINE_API WindowAttention {
  WindowAttention() = default;
  // w.qkv, w.relative_position_bias_table [(2 wh - 1)(2 ww - 1), heads], w.proj; `proj_options` may carry a layer scale. A stored
  // table of another, square window is resampled.
  WindowAttention(const Weights& w, const WindowAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  WindowAttentionConfig config;
  Linear qkv, proj;
  Tensor bias;                // [1, heads, N, N], on the CPU: a map's patterns are made of it
  Tensor pad_key, pad_value;  // [heads, head_dim]: those of padding tokens; undefined: zeros
  std::shared_ptr<WindowCache> cache;
};

struct WindowAttentionV2Config {
  std::int64_t dim = 0, num_heads = 1;
  std::array<std::int64_t, 2> window_size{8, 8}, shift_size{0, 0};
  std::array<std::int64_t, 2> pretrained_window_size{0, 0};  // the position bias is of this size where it is positive
  WindowPad pad = WindowPad::roll_then_pad;
  bool qkv_bias = true;
};

// logits = cos(q, k) exp(min(logit_scale, ln 100)) + 16 sigmoid(cpb_mlp(table)), the table of log-spaced offsets. The bias is
// computed once, at construction. x [B, H, W, C] -> the same.
struct VITRINE_API WindowAttentionV2 {
  WindowAttentionV2() = default;
  // w.qkv.weight, w.q_bias, w.v_bias, w.logit_scale [heads, 1, 1], w.cpb_mlp.0, w.cpb_mlp.2.weight, w.proj
  WindowAttentionV2(const Weights& w, const WindowAttentionV2Config& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  WindowAttentionV2Config config;
  Linear qkv, proj;
  Tensor bias, head_scale;  // [1, heads, N, N] on the CPU, [heads]
  Tensor pad_key, pad_value;
  std::shared_ptr<WindowCache> cache;
};

}  // namespace vitrine
