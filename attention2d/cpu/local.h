// The kernel for queries of a grid that see a part of the grid around them, and some further tokens: what one run of it
// needs, as raw pointers and strides (in elements).
#pragma once

#include <cstdint>

#include <vitrine/attention2d/cpu/attention.h>
#include <vitrine/attention2d/cpu/neighborhood.h>

namespace vitrine::cpu {

// Positions first .. end - 1 of an axis.
struct Interval {
  std::int64_t first = 0, end = 0;
};

// A query (t, y, x) sees the keys (kt, ky, kx) of its residue class that are in the window of every axis and, where there
// are half widths, |kx - x| <= half_width[|ky - y|]. One and two axes are three with leading sizes and dilations of 1.
struct LocalProblem {
  GridView q, k, v, out;
  FloatType type = FloatType::f32;  // of all tensors
  std::int64_t images = 0, heads = 0, key_heads = 0, dim = 0, value_dim = 0;
  std::int64_t size[3] = {1, 1, 1}, dilation[3] = {1, 1, 1};
  // By a query's position on an axis: what it sees of its class, in positions of the class. Neither end of the windows of
  // a class falls from one query to the next.
  const Interval* window[3] = {};
  const std::int64_t* half_width = nullptr;  // by distance of rows, negative: none of the row; may be null
  float scale = 1;
  const float* rpb = nullptr;  // [heads][2 rpb_center[0] + 1][2 rpb_center[1] + 1], by the steps of y and x; may be null
  std::int64_t rpb_head = 0, rpb_row = 0, rpb_center[2] = {};
  // Tokens that every query sees, token n at n * axis[2].
  GridView extra_k, extra_v;
  std::int64_t extra = 0;
};

// Items: (image, head, residue class of the dilations, tile of queries).
using LocalKernel = ItemKernel<LocalProblem>;
VITRINE_ITEM_KERNEL(LocalKernel, local_kernel)

}  // namespace vitrine::cpu
