// A convolution and the norm that follows it, as convolutional networks have them.
#pragma once

#include <cstdint>

#include <vitrine/layers/conv.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// Batch norm is folded into the convolution; group norm is not, and takes the epilogue behind it.
struct NormAfterConv {
  double eps = 1e-5;
  std::int64_t groups = 0;  // > 0: group norm
};

struct VITRINE_API ConvNorm {
  ConvNorm() = default;
  // conv.weight [out, in / groups, kernel, kernel], and norm.weight, norm.bias, for batch norm norm.running_mean and
  // norm.running_var [out] too.
  ConvNorm(const Weights& conv, const Weights& norm, std::int64_t in, std::int64_t out, std::int64_t kernel,
           const Conv2dOptions& options = {.bias = false}, const NormAfterConv& kind = {});
  bool defined() const { return conv.defined(); }
  // x [B, H, W, in] -> [B, H', W', out]
  Tensor operator()(const Tensor& x, Epilogue epilogue = {}) const;

  Conv2d conv;
  Tensor weight, bias;  // of group norm
  NormAfterConv kind;
};

}  // namespace vitrine
