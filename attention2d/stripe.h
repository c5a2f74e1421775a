// Cross-shaped window attention (CSWin): attention within stripes of the map, and a depth-wise 3x3 convolution of v ("get_v")
// that does not look across their borders. A block runs it on two halves of its channels, with stripes that stand and that lie.
//
// Source: "CSWin Transformer" (arXiv:2107.00652), microsoft/CSWin-Transformer models/cswin.py. Cost: 2 n C times the tokens of a
// stripe in multiply-adds.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include <vitrine/layers/conv.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/size_cache.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct StripeAttentionConfig {
  std::int64_t dim = 0, num_heads = 1;
  std::array<std::int64_t, 2> size{7, 7};  // of a stripe: rows, columns
  std::optional<float> scale{};            // default: head_dim ** -0.5
};

struct VITRINE_API StripeAttention {
  StripeAttention() = default;
  StripeAttention(const Weights& w, const StripeAttentionConfig& config);  // w.get_v
  // q, k, v [B, height * width, dim], views, of a map that the stripes divide -> [B, height * width, dim]
  Tensor operator()(const Tensor& q, const Tensor& k, const Tensor& v, std::int64_t height, std::int64_t width) const;

  StripeAttentionConfig config;
  Conv2d get_v;
  detail::SizeCache<Tensor> stripes;  // lists of tokens
};

}  // namespace vitrine
