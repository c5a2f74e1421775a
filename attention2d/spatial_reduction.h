// Spatial-reduction attention (PVT): all tokens query keys and values of a map that is sr_ratio times smaller on each side.
//
// Source: "Pyramid Vision Transformer" (arXiv:2102.12122), whai362/PVT classification/pvt.py; V2 (arXiv:2106.13797), pvt_v2.py.
// Cost: 2 n^2 C / sr_ratio^2 multiply-adds beside the projections' (2 + 2 / sr_ratio^2) n C^2 and n C^2 of the reduction.
#pragma once

#include <cstdint>
#include <optional>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// The map that keys and values are made from: w.sr, a convolution of sr_ratio x sr_ratio in steps of as much, and w.norm
// (LayerNorm, eps 1e-5); x itself for sr_ratio 1. `linear` (PVTv2-li) has, whatever sr_ratio is, the means of 7x7 cells, then a
// 1x1 convolution, the norm and GELU.
struct VITRINE_API KeyReduction {
  static constexpr std::int64_t kSide = 7;  // of the linear one's map

  KeyReduction() = default;
  KeyReduction(const Weights& w, std::int64_t dim, std::int64_t sr_ratio, bool linear);
  // x [B, H, W, C] -> [B, h, w, C]; rows and columns that do not fill a cell give no keys
  Tensor operator()(const Tensor& x) const;
  bool defined() const { return norm.defined(); }

  bool linear = false;
  PatchEmbed sr;
  LayerNorm norm;
};

struct SpatialReductionConfig {
  std::int64_t dim = 0, num_heads = 1, sr_ratio = 1;
  bool linear = false;  // KeyReduction
  bool qkv_bias = true;
  std::optional<float> scale{};  // default: head_dim ** -0.5
};

struct VITRINE_API SpatialReductionAttention {
  SpatialReductionAttention() = default;
  // w.q, w.kv, w.proj and what KeyReduction reads of w; `proj_options` may carry a layer scale.
  SpatialReductionAttention(const Weights& w, const SpatialReductionConfig& config, const LinearOptions& proj_options = {});
  // x [B, H, W, C] -> the same
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  SpatialReductionConfig config;
  Linear q, kv, proj;
  KeyReduction reduce;
};

}  // namespace vitrine
