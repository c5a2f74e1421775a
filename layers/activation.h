// The pointwise nonlinearities. Apart from ops.h, because kernel sources include it and nothing with code in it.
#pragma once

#include <cstdint>

namespace vitrine {

// gelu: x Phi(x) by erf; gelu_tanh: its tanh form; quick_gelu: x sigmoid(1.702 x); leaky_relu: slope 0.01 below zero.
enum class Activation : std::uint8_t { none, relu, gelu, gelu_tanh, quick_gelu, silu, sigmoid, tanh, hardswish, leaky_relu };

}  // namespace vitrine
