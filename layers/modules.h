// Small layers that many families share: norms, MLPs, patch embedding. Built from a Weights cursor; forward is const
// and thread-safe.
#pragma once

#include <cstdint>
#include <utility>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct VITRINE_API LayerNorm {
  LayerNorm() = default;
  LayerNorm(const Weights& w, std::int64_t dim, double eps);  // w.weight, w.bias [dim]
  Tensor operator()(const Tensor& x) const { return layer_norm(x, weight, bias, eps); }
  bool defined() const { return weight.defined(); }

  Tensor weight, bias;  // f32
  double eps = 1e-6;
};

// Batch norm with the statistics of training: scale x + shift a channel. Where a convolution or linear layer comes before it,
// Conv2d folds it in.
struct VITRINE_API BatchNorm {
  BatchNorm() = default;
  BatchNorm(const Weights& w, std::int64_t dim, double eps);  // w.weight, w.bias, w.running_mean, w.running_var [dim]
  Tensor operator()(const Tensor& x) const;                   // [..., dim] -> the same
  bool defined() const { return scale.defined(); }

  Tensor scale, shift;  // f32 [dim]
};

// Statistics over dim / groups channels and all positions of an image.
struct VITRINE_API GroupNorm {
  GroupNorm() = default;
  GroupNorm(const Weights& w, std::int64_t dim, std::int64_t groups, double eps);  // w.weight, w.bias [dim]
  Tensor operator()(Tensor x, const GroupNormOptions& options = {}) const {
    return group_norm(std::move(x), groups, weight, bias, eps, options);
  }
  bool defined() const { return weight.defined(); }

  Tensor weight, bias;  // f32
  std::int64_t groups = 1;
  double eps = 1e-5;
};

// fc1, activation, fc2: [..., C] -> [..., C]. `fc2_options.scale` folds a layer scale in.
struct VITRINE_API Mlp {
  Mlp() = default;
  Mlp(const Weights& w, std::int64_t dim, std::int64_t hidden, Activation activation, const LinearOptions& fc2_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  Linear fc1, fc2;
  Activation activation = Activation::gelu;
};

// Non-overlapping patches: a convolution with stride = kernel, done as patchify and a linear layer.
// [B, H, W, in] -> [B, H / patch_h, W / patch_w, dim]; H and W that the patch does not divide throw Error.
struct VITRINE_API PatchEmbed {
  PatchEmbed() = default;
  PatchEmbed(const Weights& w, std::int64_t in, std::int64_t dim, std::int64_t patch_h, std::int64_t patch_w, bool bias = true);
  Tensor operator()(const Tensor& images) const;

  Linear proj;
  std::int64_t in_chans = 3, patch_h = 16, patch_w = 16;
};

}  // namespace vitrine
