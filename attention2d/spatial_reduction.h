// Spatial-reduction attention (PVT): all tokens query keys and values of a map that is sr_ratio times smaller on each side.
//
// Source: "Pyramid Vision Transformer" (arXiv:2102.12122), whai362/PVT classification/pvt.py.
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

struct SpatialReductionConfig {
  std::int64_t dim = 0, num_heads = 1, sr_ratio = 1;
  bool qkv_bias = true;
  std::optional<float> scale{};  // default: head_dim ** -0.5
};

struct VITRINE_API SpatialReductionAttention {
  SpatialReductionAttention() = default;
  // w.q, w.kv, for sr_ratio > 1 w.sr and w.norm (LayerNorm, eps 1e-5), w.proj; `proj_options` may carry a layer scale.
  SpatialReductionAttention(const Weights& w, const SpatialReductionConfig& config, const LinearOptions& proj_options = {});
  // x [B, H, W, C] -> the same; rows and columns that do not fill a cell of the reduction give no keys.
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  SpatialReductionConfig config;
  Linear q, kv, proj;
  PatchEmbed sr;
  LayerNorm norm;
};

}  // namespace vitrine
