// Recursive gated convolution (g^n Conv): products of convolved maps up to a given order, from few channels to many.
//
//   dims = C / 2^(order - 1), ..., C / 2, C
//   [a | b] = proj_in(x);  b = scale dwconv(b), split into dims
//   a = a * b_0;  a = pws_i(a) * b_{i+1};  out = proj_out(a)
//
// Source: HorNet, arXiv:2207.14284; raoyongming/HorNet hornet.py, with its 7 x 7 depth-wise convolution.
// Cost: 2 C^2 (proj_in) + C^2 (proj_out) + below 2/3 C^2 (pws) + 49 * 2 C multiply-adds a token, linear in the tokens; about
// five maps of memory.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include <vitrine/attention2d/global_filter.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct GnConvConfig {
  std::int64_t dim = 0, order = 5;  // dim: a multiple of 2^(order - 1)
  float scale = 1.0f;               // of the convolution's output
  // [height, width] of the weights: a GlobalLocalFilter (global_filter.h) instead of the 7 x 7 convolution; 0: not
  std::array<std::int64_t, 2> global_filter{0, 0};
};

struct VITRINE_API GnConv {
  GnConv() = default;
  // w.proj_in, w.dwconv, w.pws.I, w.proj_out; `proj_options` (of proj_out) may carry a layer scale.
  GnConv(const Weights& w, const GnConvConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;  // [B, H, W, C] -> the same

  GnConvConfig config;
  std::vector<std::int64_t> dims;
  Linear proj_a, proj_b, proj_out;  // proj_a and proj_b: the rows of proj_in
  std::vector<Linear> pws;
  Conv2d dwconv;
  GlobalLocalFilter filter;  // in its place
};

}  // namespace vitrine
