// Focal modulation: a token's query is multiplied by a summary of its surroundings, and no token is compared with another.
//
//   [q | c_0 | g] = f(x);  c_{l+1} = gelu(dwconv_l(c_l)), kernels of focal_window + focal_factor l
//   out = proj(q * h(sum over l of g_l c_{l+1} + g_last gelu(mean of the last c)))
//
// Each level sees a wider surrounding than the one before, the last one all of the map; gates choose per token.
// Source: arXiv:2203.11926; microsoft/FocalNet; timm's focalnet.py.
// Cost: 4 C^2 + C (levels + 1) + C sum(kernel^2) multiply-adds a token, linear in the tokens; levels + 3 maps of memory.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include <vitrine/layers/conv.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct FocalModulationConfig {
  std::int64_t dim = 0, focal_level = 2, focal_window = 3, focal_factor = 2;
  bool normalize_modulator = false;  // the sum is divided by focal_level + 1
  bool bias = true;                  // of f and h
  double norm_eps = 0;               // > 0: a layer norm with this eps before the output layer (w.norm)
};

// scale (sum over l of levels[l] gates[..., l] + whole gates[..., last]): levels [B, H, W, C] each, gates [B, H, W, levels + 1],
// whole [B, C], all contiguous and of one floating type -> [B, H, W, C]. impl: "gather_TARGET" or "reference".
VITRINE_API Tensor gather_focal_levels(const std::vector<Tensor>& levels, const Tensor& gates, const Tensor& whole,
                                       float scale = 1, std::string_view impl = {});

struct VITRINE_API FocalModulation {
  FocalModulation() = default;
  // w.f, w.focal_layers.L.0 (no bias), w.h, w.proj; `proj_options` may carry a layer scale.
  FocalModulation(const Weights& w, const FocalModulationConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;  // [B, H, W, C] -> the same

  FocalModulationConfig config;
  Linear query, context, gates, h, proj;
  LayerNorm norm;
  std::vector<Conv2d> focal_layers;
};

}  // namespace vitrine
