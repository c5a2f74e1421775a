// The fused neighborhood attention kernel: what one run of it needs, as raw pointers and strides (in elements).
#pragma once

#include <cstdint>

#include <vitrine/attention2d/cpu/attention.h>

namespace vitrine::cpu {

// Element (image, t, y, x, head, d) of a tensor is at data + image * .. + t * .. + y * .. + x * .. + head * .. + d.
struct GridView {
  const void* data = nullptr;
  std::int64_t image = 0, axis[3] = {}, head = 0;
};

// Stride 1, no causal axis. One and two axes are three with leading sizes, kernels and dilations of 1.
struct NeighborhoodProblem {
  GridView q, k, v, out;
  FloatType type = FloatType::f32;  // of all four
  std::int64_t images = 0, heads = 0, key_heads = 0, dim = 0, value_dim = 0;
  std::int64_t size[3] = {1, 1, 1}, kernel[3] = {1, 1, 1}, dilation[3] = {1, 1, 1};
  float scale = 1;
  const float* rpb = nullptr;  // [heads][2 kernel[1] - 1][2 kernel[2] - 1]; may be null
  std::int64_t rpb_head = 0, rpb_row = 0;
};

// Items: (image, head, residue class of the dilations, plane, tile of rows).
using NeighborhoodKernel = ItemKernel<NeighborhoodProblem>;
VITRINE_ITEM_KERNEL(NeighborhoodKernel, neighborhood_kernel)

}  // namespace vitrine::cpu
