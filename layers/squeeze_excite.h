// Squeeze-and-excitation: each channel is scaled by a gate that is made of the means of all channels.
//
//   x * sigmoid(fc2(act(fc1(mean of x over the map))))
//
// Source: arXiv:1709.01507; timm's squeeze_excite.py.
#pragma once

#include <cstdint>
#include <string_view>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// timm's make_divisible: the multiple of `divisor` that is nearest to `value`, `divisor` at least, and one more of them where
// that is below `limit` value.
VITRINE_API std::int64_t make_divisible(double value, std::int64_t divisor = 8, double limit = 0.9);

struct VITRINE_API SqueezeExcite {
  SqueezeExcite() = default;
  // w.fc1 [reduced, channels], w.fc2 [channels, reduced], with biases; some have other names.
  SqueezeExcite(const Weights& w, std::int64_t channels, std::int64_t reduced, Activation activation = Activation::relu,
                std::string_view first = "fc1", std::string_view second = "fc2");
  bool defined() const { return fc1.defined(); }
  Tensor gates(const Tensor& x) const;  // x [B, H, W, C] -> [B, 1, 1, C]
  Tensor operator()(const Tensor& x) const { return multiply(x, gates(x)); }

  Linear fc1, fc2;
  Activation activation = Activation::relu;
};

}  // namespace vitrine
