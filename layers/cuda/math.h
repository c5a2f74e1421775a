// What kernels share beside device.h: vectors of elements in memory, activations.
#pragma once

#include <vitrine/layers/activation.h>
#include <vitrine/layers/cuda/device.h>

namespace vitrine::cuda {

// n adjacent elements that are read or written at once: their address is a multiple of their size.
template <typename T, int n>
struct alignas(sizeof(T) * n) Vector {
  T at[n];
};

VITRINE_DEVICE float logistic(float x) { return 1.0f / (1.0f + exp_of(-x)); }

// The definitions of layers/activation.h.
VITRINE_DEVICE float activated(float x, Activation activation) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return x > 0.0f || x != x ? x : 0.0f;
    case Activation::gelu:
      return 0.5f * x * (1.0f + erf_of(x * 0.70710678118654752f));
    case Activation::gelu_tanh:
      return 0.5f * x * (1.0f + tanh_of(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case Activation::quick_gelu:
      return x * logistic(1.702f * x);
    case Activation::silu:
      return x * logistic(x);
    case Activation::sigmoid:
      return logistic(x);
    case Activation::tanh:
      return tanh_of(x);
    case Activation::hardswish: {
      const float shifted = x + 3.0f, gate = shifted < 0.0f ? 0.0f : shifted > 6.0f ? 6.0f : shifted;
      return x * gate * (1.0f / 6.0f);
    }
    case Activation::leaky_relu:
      return x < 0.0f ? 0.01f * x : x;
  }
  return x;
}

}  // namespace vitrine::cuda
