// Linear: y = x W^T + b with a fused epilogue. Weights are packed once for the device; primitives are kept by shape.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct LinearOptions {
  bool bias = true;
  // Per-channel scale of the output (layer scale), f32 [out]: folded into weight and bias when packing.
  Tensor scale{};
};

struct Epilogue {
  Activation activation = Activation::none;
  // Added after the activation, same shape as the output. Move the last reference in (`std::move(x)`) and the sum is
  // made in its memory: x = proj(y, {.residual = std::move(x)}).
  Tensor residual{};
  bool activate_sum = false;  // the residual is added before the activation instead (ResNet)
};

class VITRINE_API Linear {
 public:
  Linear() = default;  // empty; calling it is an error
  // Reads w.weight [out, in] (or any shape with that many elements, e.g. a 1x1 convolution) and w.bias [out].
  Linear(const Weights& w, std::int64_t in, std::int64_t out, const LinearOptions& options = {});
  // From tensors at hand: weight f32 [out, in], bias f32 [out] or undefined; computes in `dtype`.
  Linear(const Tensor& weight, const Tensor& bias, DType dtype, Device device = {});
  Linear(const Tensor& weight, const Tensor& bias, const WeightsOptions& options);  // as the parameters of a cursor

  bool defined() const { return impl_ != nullptr; }
  std::int64_t in_features() const;
  std::int64_t out_features() const;
  // x [..., in], a view with any leading strides -> [..., out] in x's dtype. Thread-safe.
  Tensor operator()(const Tensor& x, Epilogue epilogue = {}) const;
  // y = or += the product; y [..., out] of x's dtype may be a view: a slice of channels, or of each image's tokens. With a gate,
  // f32 [B, out] for y [B, ..., out], the product's channels are multiplied by their image's factors (adaLN).
  void write_to(Tensor& y, const Tensor& x) const;
  void add_to(Tensor& y, const Tensor& x, const Tensor& gate = {}) const;

  struct Impl;

 private:
  std::shared_ptr<const Impl> impl_;
};

// w.weight as [out, in] f32; a checkpoint may hold the matrix as a 1x1 convolution or the like.
VITRINE_API Tensor read_matrix(const Weights& w, std::int64_t in, std::int64_t out);

// One layer for each part of the rows of w.weight [sum of outs, in], where a fused projection's parts go separate ways.
// `options.scale` is of all rows.
VITRINE_API std::vector<Linear> split_linear(const Weights& w, std::int64_t in, std::span<const std::int64_t> outs,
                                             const LinearOptions& options = {});

}  // namespace vitrine
