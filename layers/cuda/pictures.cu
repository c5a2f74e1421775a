// Pictures of a batch resampled, placed and made numbers. A thread makes a pixel of one pass: integer sums of bytes, so that the
// result is the CPU's to the bit. The first pass reads each source pixel support / scale times, from L1 but for the first; both
// are bound by the bytes of the picture.
#include <vitrine/layers/cpu/resample.h>
#include <vitrine/layers/cuda/launch.h>
#include <vitrine/layers/cuda/ops.h>
#include <vitrine/layers/cuda/pictures.h>

namespace vitrine::cuda {

namespace {

constexpr int kThreads = 256;

template <typename T>
VITRINE_DEVICE const T* at(const std::byte* block, std::int64_t offset) {
  return reinterpret_cast<const T*>(block + offset);
}

// Output i of an axis for the channels of a pixel. `line` is where the axis' pixel 0 lies in `bytes`, `step` from one to the
// next.
template <int C>
VITRINE_DEVICE void resampled(const std::byte* block, const AxisTable& axis, std::int64_t i, const std::uint8_t* bytes,
                              std::int64_t line, std::int64_t step, std::uint8_t (&out)[C]) {
  if (axis.weights < 0) {
    for (int c = 0; c < C; ++c) out[c] = bytes[line + (axis.begin + i) * step + c];
    return;
  }
  const std::int32_t* weights = at<std::int32_t>(block, axis.weights) + i * axis.stride;
  const std::int32_t count = at<std::int32_t>(block, axis.count)[i];
  line += at<std::int32_t>(block, axis.first)[i] * step;
  std::int32_t sums[C];
  for (int c = 0; c < C; ++c) sums[c] = 1 << (cpu::kResamplePrecisionBits - 1);
  for (std::int32_t k = 0; k < count; ++k, line += step)
    for (int c = 0; c < C; ++c) sums[c] += bytes[line + c] * weights[k];
  for (int c = 0; c < C; ++c) {
    const std::int32_t value = sums[c] >> cpu::kResamplePrecisionBits;
    out[c] = static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
  }
}

// Of pictures whose axes both have coefficients, the pass that is first. Blocks of a picture along x, pictures along y.
template <int C>
VITRINE_KERNEL(kThreads)
void between_kernel(const std::byte* block, std::uint8_t* middle) {
  const PictureTable& p = at<PictureTable>(block, 0)[block_index().y];
  const std::int64_t i = std::int64_t{block_index().x} * kThreads + thread_index();
  if (i >= p.middle_size) return;
  const std::int64_t y = p.middle_row + i / p.middle_width, x = i % p.middle_width;
  const std::uint8_t* pixels = at<std::uint8_t>(block, 0);
  std::uint8_t out[C];
  if (p.rows_first)
    resampled<C>(block, p.rows, y, pixels, p.pixels + x * C, p.width * C, out);
  else
    resampled<C>(block, p.columns, x, pixels, p.pixels + y * p.width * C, C, out);
  for (int c = 0; c < C; ++c) middle[p.middle + (y * p.middle_width + x) * C + c] = out[c];
}

// The pass that is left, and the values of its bytes.
template <typename T, int C>
VITRINE_KERNEL(kThreads)
void place_kernel(PictureBatch batch, const std::byte* block, const std::uint8_t* middle, T* to) {
  const PictureTable& p = at<PictureTable>(block, 0)[block_index().y];
  const std::int64_t i = std::int64_t{block_index().x} * kThreads + thread_index();
  if (i >= batch.height * batch.width) return;
  const std::int64_t y = i / batch.width - p.top, x = i % batch.width - p.left;
  const std::uint8_t* pixels = at<std::uint8_t>(block, 0);
  std::uint8_t out[C];
  if (y < 0 || y >= p.rows.size || x < 0 || x >= p.columns.size) {
    for (int c = 0; c < C; ++c) out[c] = batch.fill[c];
  } else if (p.middle_size > 0) {
    if (p.rows_first)
      resampled<C>(block, p.columns, x, middle, p.middle + y * p.middle_width * C, C, out);
    else
      resampled<C>(block, p.rows, y, middle, p.middle + x * C, p.middle_width * C, out);
  } else if (p.rows.weights < 0) {
    resampled<C>(block, p.columns, x, pixels, p.pixels + (p.rows.begin + y) * p.width * C, C, out);
  } else {
    resampled<C>(block, p.rows, y, pixels, p.pixels + (p.columns.begin + x) * C, p.width * C, out);
  }
  const float* values = at<float>(block, batch.values);
  T* pixel = to + (std::int64_t{block_index().y} * batch.height * batch.width + i) * C;
  for (int c = 0; c < C; ++c) pixel[c] = from_float<T>(values[256 * c + out[c]]);
}

template <int C>
void place_of_channels(const PictureBatch& batch, const void* block, void* middle, Tensor& y) {
  const auto* bytes = static_cast<const std::byte*>(block);
  auto* between = static_cast<std::uint8_t*>(middle);
  launch({.op = "place_pictures",
          .x = y,
          .grid = blocks_for(batch.most_between, kThreads),
          .grid_y = batch.count,
          .threads = kThreads},
         between_kernel<C>, bytes, between);
  with_float_type(y.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "place_pictures",
            .x = y,
            .grid = blocks_for(batch.height * batch.width, kThreads),
            .grid_y = batch.count,
            .threads = kThreads},
           place_kernel<T, C>, batch, bytes, static_cast<const std::uint8_t*>(between), data_of<T>(y));
  });
}

}  // namespace

namespace ops {

void place_pictures(const PictureBatch& batch, const void* block, void* middle, Tensor& y) {
  batch.channels == 1 ? place_of_channels<1>(batch, block, middle, y) : place_of_channels<3>(batch, block, middle, y);
}

}  // namespace ops

}  // namespace vitrine::cuda
