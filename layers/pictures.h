// 8-bit pictures: resampled in fixed point as Pillow does it, placed on a canvas, made numbers. What stands between a decoder and
// a model's input; which coefficients a filter has is the business of pipelines/resize.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

// One axis: which pixels of the source each of `size` outputs is made of. Without coefficients output i is pixel begin + i; else
// it is the sum over k < count[i] of pixel first[i] + k times weights[i * stride + k], in units of 2^-22, rounded and clipped to
// a byte.
struct ResampleAxis {
  std::int64_t size = 0, begin = 0;
  std::int64_t stride = 0;  // weights are zero from count[i] on; a multiple of 16 but for nearest
  std::vector<std::int32_t> first{}, count{}, weights{};

  bool is_copy() const { return weights.empty(); }
  std::pair<std::int64_t, std::int64_t> source() const;  // the pixels that are read: from the first up to before the second
};

// Two passes with bytes between them, of which those along an axis without coefficients round nothing.
struct ResamplePlan {
  ResampleAxis columns{}, rows{};
  bool rows_first = false;
  bool nearest = false;  // weights are 1, one or none an output
};

// Interleaved channels, 1 to 4, row by row.
struct PixelView {
  const std::uint8_t* data;
  std::int64_t width, height, channels;

  const std::uint8_t* row(std::int64_t y) const { return data + y * width * channels; }
};

// [rows.size, columns.size, channels], by the calling thread.
std::vector<std::uint8_t> resample(const PixelView& picture, const ResamplePlan& plan);

// A picture and where it lies on the canvas, after `plan` if there is one; no part of it lies outside.
struct PlacedPicture {
  PixelView pixels;
  const ResamplePlan* plan = nullptr;
  std::int64_t left = 0, top = 0;
};

struct Canvas {
  std::int64_t height, width, channels;  // channels 1 or 3
  std::array<std::uint8_t, 4> fill{};    // around the pictures, by channel
  std::span<const float> values;         // of byte b in channel c: values[c * 256 + b]
};

// -> [B, H, W, C] in `dtype` (f32, f16, bf16) on `device`, the same bits on each. A GPU is given the bytes and the coefficients
// and does the rest; they may change when this returns, and nobody waits for what was queued before. Throws Error for pictures of
// other channels, and where a picture does not lie on the canvas.
VITRINE_API Tensor place_pictures(std::span<const PlacedPicture> pictures, const Canvas& canvas, DType dtype, Device device = {});

}  // namespace vitrine
