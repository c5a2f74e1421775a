// Blocks that the U-Net and the autoencoder of latent diffusion share.
//
// Source: huggingface/diffusers 0.42, src/diffusers/models/resnet.py, whose parameter names these are.
#pragma once

#include <cstdint>

#include <vitrine/layers/conv.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine::detail {

struct ResnetBlockConfig {
  std::int64_t in = 0, out = 0;
  std::int64_t time_channels = 0;  // 0: knows no time
  std::int64_t groups = 32;
  double eps = 1e-5;
  Activation activation = Activation::silu;
  bool scale_shift = false;          // the time scales and shifts the second norm instead of being added before it
  double output_scale_factor = 1.0;  // the sum is divided by it
};

// ResnetBlock2D: two 3x3 convolutions, each behind a norm and an activation, and a shortcut.
struct ResnetBlock {
  ResnetBlock(const Weights& w, const ResnetBlockConfig& config);
  // x [B, H, W, in], time [B, time_channels], activated -> [B, H, W, out]
  Tensor operator()(Tensor x, const Tensor& time = {}) const;

  ResnetBlockConfig config;
  GroupNorm norm1, norm2;
  Conv2d conv1, conv2;
  Linear time_emb_proj, conv_shortcut;
};

}  // namespace vitrine::detail
