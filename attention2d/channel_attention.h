// Channel attention: channels of a head attend to each other, the tokens are their features.
//
//   version 1:  A = softmax(D ** -0.5 k^T v), over v's channels;  out_i = A q_i
//   version 2:  A = softmax(s q^T k), over k's channels;          out_i = A v_i,  s = N ** -0.5 (dynamic_scale) or D ** -0.5
//
// Source: dingmyu/davit, arXiv:2204.03645; timm models/davit.py (ChannelAttention, ChannelAttentionV2).
// Cost: 2 N D^2 multiply-adds an image and head: linear in the tokens.
#pragma once

#include <cstdint>
#include <string_view>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct ChannelAttentionOptions {
  float scale = 1;
  std::string_view impl{};  // a candidate's name; empty: the best that can run
};

// a, b, x [B, N, H, D], views with any leading strides -> x A^T with A = softmax(scale a^T b) over b's channels, contiguous, in
// x's dtype. A is f32 in all dtypes.
VITRINE_API Tensor channel_attention(const Tensor& a, const Tensor& b, const Tensor& x,
                                     const ChannelAttentionOptions& options = {});

struct ChannelAttentionConfig {
  std::int64_t dim = 0, num_heads = 1;
  int version = 1;
  bool dynamic_scale = true;  // of version 2
  bool qkv_bias = true;
};

// x [B, N, C] -> [B, N, C].
struct VITRINE_API ChannelAttention {
  ChannelAttention() = default;
  // w.qkv, w.proj; `proj_options` may carry a layer scale.
  ChannelAttention(const Weights& w, const ChannelAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  ChannelAttentionConfig config;
  Linear qkv, proj;
};

}  // namespace vitrine
