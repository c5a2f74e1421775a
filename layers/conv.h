// Convolutions on channels-last maps. Weights are packed once; primitives are kept by shape.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// Sizes are per axis (rows, columns). pad_end < 0: the same as pad_begin.
struct Conv2dOptions {
  std::int64_t stride_h = 1, stride_w = 1;
  std::int64_t pad_h = 0, pad_w = 0;
  std::int64_t pad_end_h = -1, pad_end_w = -1;
  std::int64_t dilation_h = 1, dilation_w = 1;
  std::int64_t groups = 1;
  bool bias = true;
  std::int64_t output_pad_h = 0, output_pad_w = 0;  // transposed only
  // Batch norm that follows, folded into weight and bias: the norm's cursor (weight, bias, running_mean, running_var)
  // and eps. Not used where bn_eps is 0.
  double bn_eps = 0;
};

class VITRINE_API Conv2d {
 public:
  Conv2d() = default;
  // Reads w.weight [out, in / groups, kernel_h, kernel_w] and w.bias [out]; `bn` is folded where options.bn_eps > 0.
  Conv2d(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t kernel_h, std::int64_t kernel_w,
         const Conv2dOptions& options = {}, const Weights* bn = nullptr);

  bool defined() const { return impl_ != nullptr; }
  // x [B, H, W, in] -> [B, H', W', out] in x's dtype, as torch.nn.Conv2d. Thread-safe.
  Tensor operator()(const Tensor& x, Epilogue epilogue = {}) const;
  // y += the convolution of x; y [B, H', W', out] of x's dtype may be a view.
  void add_to(Tensor& y, const Tensor& x) const;

  struct Impl;

 private:
  std::shared_ptr<const Impl> impl_;
};

class VITRINE_API ConvTranspose2d {
 public:
  ConvTranspose2d() = default;
  // Reads w.weight [in, out / groups, kernel_h, kernel_w] and w.bias [out]; as torch.nn.ConvTranspose2d.
  ConvTranspose2d(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t kernel_h, std::int64_t kernel_w,
                  const Conv2dOptions& options = {}, const Weights* bn = nullptr);
  // From tensors at hand: weight f32 as above, bias f32 [out] or undefined; computes in `dtype`. `where` is for messages.
  ConvTranspose2d(const Tensor& weight, const Tensor& bias, DType dtype, Device device, const Conv2dOptions& options,
                  std::string where);

  bool defined() const { return impl_ != nullptr; }
  Tensor operator()(const Tensor& x, Activation activation = Activation::none) const;

  struct Impl;

 private:
  std::shared_ptr<const Impl> impl_;
};

}  // namespace vitrine
