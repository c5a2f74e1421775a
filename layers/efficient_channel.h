// Efficient channel attention: each channel is scaled by a gate that is made of the means of its neighboring channels.
//
//   x * sigmoid(conv1d(mean of x over the map)), one kernel of k taps along the channels, zeros beyond them
//
// Source: ECA-Net, arXiv:1910.03151; timm's eca.py.
#pragma once

#include <cstdint>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct VITRINE_API EfficientChannelAttention {
  EfficientChannelAttention() = default;
  // w.conv.weight [1, 1, k]; k grows with the logarithm of the channels.
  EfficientChannelAttention(const Weights& w, std::int64_t channels);
  bool defined() const { return kernel.defined(); }
  Tensor gates(const Tensor& x) const;  // x [B, H, W, C] -> [B, 1, 1, C]

  Tensor kernel;  // f32 [k]
};

}  // namespace vitrine
