// Neighborhood attention over 1, 2 or 3 axes.
//
// Each query attends to a window of kernel_size keys per axis, centred on it where possible; at borders the window
// slides inward and keeps its size. Dilation splits an axis into interleaved groups (position mod dilation); the window
// lies within the query's own group. Stride lets groups of queries share a window; causal axes look backward only.
//
// Source: NATTEN >= 0.20 (arXiv:2204.07143, 2209.15001, 2403.04690, 2504.16922); bias as in NAT and DiNAT.
// Cost: prod(kernel_size) (D + Dv) multiply-adds a query and head.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// Per axis, slowest first; entries past the number of axes are not read.
struct NeighborhoodOptions {
  std::array<std::int64_t, 3> kernel_size{7, 7, 7};
  std::array<std::int64_t, 3> dilation{1, 1, 1};
  std::array<std::int64_t, 3> stride{1, 1, 1};
  std::array<bool, 3> is_causal{false, false, false};
  std::optional<float> scale{};  // default: D ** -0.5
  // Relative position bias f32 [Hq, 2 kh - 1, 2 kw - 1], 2-D, stride 1, not causal: added to the scaled logits at
  // ((yk - yq) / dilation + kh - 1, (xk - xq) / dilation + kw - 1).
  Tensor rpb{};
  // Tokens that every query sees besides its window, under the same softmax: [B, N, Hk, D] and [B, N, Hk, Dv].
  Tensor additional_keys{}, additional_values{};
  std::string_view impl{};  // a candidate's name; empty: the best that can run
};

// q [B, *S, Hq, D], k [B, *S, Hk, D], v [B, *S, Hk, Dv] with S = (L), (H, W) or (T, H, W); views with any leading
// strides. -> [B, *S, Hq, Dv], contiguous, in q's dtype. Throws Error unless kernel_size * dilation <= size and
// 1 <= stride <= kernel_size on every axis.
VITRINE_API Tensor neighborhood_attention(const Tensor& q, const Tensor& k, const Tensor& v, const NeighborhoodOptions& options);

// Text and image in one sequence, as in the blocks of diffusion transformers: image tokens see all text and their window of the
// image, text tokens see all. q, k, v [B, text_length + height * width, heads, D], text first, as clear_attention (clear.h)
// takes them, whose discs this replaces by windows of kernel_size[0] x kernel_size[1]. No rpb and no additional keys.
VITRINE_API Tensor joint_neighborhood_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::int64_t text_length,
                                                std::int64_t height, std::int64_t width, NeighborhoodOptions options);

// The 2-D layer of NAT and DiNAT: qkv, neighborhood attention with position bias, proj. x [B, H, W, C] -> [B, H, W, C].
// A map smaller than kernel_size * dilation is padded to it with zeros at the bottom and right before qkv, and cropped
// before proj, as NATTEN's module does.
struct NeighborhoodAttentionConfig {
  std::int64_t dim = 0, num_heads = 1;
  std::array<std::int64_t, 2> kernel_size{7, 7}, dilation{1, 1};
  bool qkv_bias = true, rel_pos_bias = true;
  std::optional<float> scale{};  // default: head_dim ** -0.5
};

struct VITRINE_API NeighborhoodAttention {
  NeighborhoodAttention() = default;
  // w.qkv, w.rpb [heads, 2 kh - 1, 2 kw - 1], w.proj; `proj_options` may carry a layer scale.
  NeighborhoodAttention(const Weights& w, const NeighborhoodAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  NeighborhoodAttentionConfig config;
  Linear qkv, proj;
  Tensor rpb;
};

}  // namespace vitrine
