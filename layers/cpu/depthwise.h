// Depth-wise convolution of channels-last maps: each channel has a kernel of its own. Strides are in bytes.
#pragma once

#include <cstdint>

#include <vitrine/layers/activation.h>
#include <vitrine/layers/cpu/elementwise.h>
#include <vitrine/layers/cpu/isa.h>

namespace vitrine::cpu {

// One row of outputs: y = act(bias + sum of weight x) + residual, or act(bias + sum of weight x + residual).
struct DepthwiseRow {
  const void* x;  // the image [height, width, channels]
  std::int64_t x_row, x_column, height, width, channels;
  void* y;               // [outputs, channels]
  const void* residual;  // as y, may be y; null: none
  std::int64_t y_column, residual_column, outputs;
  const float* weight;  // [kernel_h, kernel_w, channels]
  const float* bias;    // [channels] or null
  std::int64_t kernel_h, kernel_w, stride_w, dilation_h, dilation_w;
  std::int64_t first_row, first_column;  // of x under the kernel's first tap, for the first output; may be negative
  Activation activation;
  bool activate_sum;  // the activation after the residual
};

struct DepthwiseKernels {
  const char* target;  // the one that it was compiled for

  using Row = void (*)(const DepthwiseRow& row);
  Row row[kFloatTypes];
};

VITRINE_KERNEL_TABLE(DepthwiseKernels, depthwise_kernels)

}  // namespace vitrine::cpu
