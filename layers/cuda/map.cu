// Pooling and resizing of channels-last maps, sums of rows. A thread makes one output value; neighbours share what they read
// through L1 and L2.
#include <vitrine/layers/cuda/launch.h>
#include <vitrine/layers/cuda/ops.h>

namespace vitrine::cuda {

namespace {

constexpr int kThreads = 256;

struct MapArgs {
  std::int64_t n, height, width, channels;  // of y, contiguous; n values in all
  std::int64_t image, row, column;          // strides of x
};

MapArgs args_of(const Tensor& x, const Tensor& y) {
  return {y.numel(), y.size(1), y.size(2), y.size(3), x.stride(0), x.stride(1), x.stride(2)};
}

struct Place {
  std::int64_t image, row, column, channel;
};
// Of output value i.
VITRINE_DEVICE Place place_of(const MapArgs& p, std::int64_t i) {
  const std::int64_t pixel = i / p.channels, line = pixel / p.width;
  return {line / p.height, line % p.height, pixel - line * p.width, i - pixel * p.channels};
}

template <typename T>
VITRINE_KERNEL(kThreads)
void pool_kernel(MapArgs p, detail::PoolAxis rows, detail::PoolAxis columns, bool is_max, const T* x, T* y) {
  const std::int64_t i = std::int64_t{block_index().x} * kThreads + thread_index();
  if (i >= p.n) return;
  const Place at = place_of(p, i);
  const detail::PoolWindow r = window_at(rows, at.row), c = window_at(columns, at.column);
  x += at.image * p.image + at.channel;
  float value = is_max ? -infinity() : 0.0f;
  for (std::int64_t h = r.begin; h < r.end; ++h)
    for (std::int64_t w = c.begin; w < c.end; ++w) {
      const float v = to_float(x[h * p.row + w * p.column]);
      value = is_max ? larger(v, value) : value + v;
    }
  y[i] = from_float<T>(is_max ? value : value / static_cast<float>(r.count * c.count));
}

template <typename T>
VITRINE_KERNEL(kThreads)
void resize_kernel(MapArgs p, detail::ResizeAxis rows, detail::ResizeAxis columns, const T* x, T* y) {
  const std::int64_t i = std::int64_t{block_index().x} * kThreads + thread_index();
  if (i >= p.n) return;
  const Place at = place_of(p, i);
  const detail::ResizeTaps r = taps_at(rows, at.row), c = taps_at(columns, at.column);
  const std::int64_t row_taps = taps_of(rows), column_taps = taps_of(columns);
  x += at.image * p.image + at.channel;
  float value = 0;
  for (std::int64_t k = 0; k < column_taps; ++k) {
    const std::int64_t column = c.index(k) * p.column;
    float line = 0;
    for (std::int64_t j = 0; j < row_taps; ++j) line += r.weight(j) * to_float(x[r.index(j) * p.row + column]);
    value += c.weight(k) * line;
  }
  y[i] = from_float<T>(value);
}

template <typename T>
VITRINE_KERNEL(kThreads)
void nearest_kernel(MapArgs p, std::int64_t in_height, std::int64_t in_width, const T* x, T* y) {
  const std::int64_t i = std::int64_t{block_index().x} * kThreads + thread_index();
  if (i >= p.n) return;
  const Place at = place_of(p, i);
  y[i] = x[at.image * p.image + detail::nearest_at(in_height, p.height, at.row) * p.row +
           detail::nearest_at(in_width, p.width, at.column) * p.column + at.channel];
}

struct MixArgs {
  std::int64_t A, B, M, N, C;
  std::int64_t x_a, x_b, x_row, y_a, y_b, y_row;
  bool adds;
};

VITRINE_KERNEL(kThreads)
void mix_kernel(MixArgs p, const float* matrix, const float* x, float* y) {
  const std::int64_t i = std::int64_t{block_index().x} * kThreads + thread_index();
  if (i >= p.A * p.B * p.M * p.C) return;
  const std::int64_t c = i % p.C, m = i / p.C % p.M, b = i / p.C / p.M % p.B, a = i / p.C / p.M / p.B;
  x += a * p.x_a + b * p.x_b + c;
  float sum = 0;
  for (std::int64_t n = 0; n < p.N; ++n) sum += matrix[m * p.N + n] * x[n * p.x_row];
  float* out = y + a * p.y_a + b * p.y_b + m * p.y_row + c;
  *out = p.adds ? *out + sum : sum;
}

}  // namespace

namespace ops {

void pool(const Tensor& x, const detail::PoolAxis& rows, const detail::PoolAxis& columns, bool is_max, Tensor& y) {
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "pool", .x = x, .grid = blocks_for(y.numel(), kThreads), .threads = kThreads}, pool_kernel<T>, args_of(x, y),
           rows, columns, is_max, data_of<T>(x), data_of<T>(y));
  });
}

void resize(const Tensor& x, const detail::ResizeAxis& rows, const detail::ResizeAxis& columns, Tensor& y) {
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "resize", .x = x, .grid = blocks_for(y.numel(), kThreads), .threads = kThreads}, resize_kernel<T>,
           args_of(x, y), rows, columns, data_of<T>(x), data_of<T>(y));
  });
}

void resize_nearest(const Tensor& x, Tensor& y) {
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "resize_nearest", .x = x, .grid = blocks_for(y.numel(), kThreads), .threads = kThreads}, nearest_kernel<T>,
           args_of(x, y), x.size(1), x.size(2), data_of<T>(x), data_of<T>(y));
  });
}

void mix_rows(Tensor& y, const Tensor& matrix, const Tensor& x, bool adds) {
  const MixArgs p{x.size(0),   x.size(1),   matrix.size(0), x.size(2),   x.size(3),   x.stride(0),
                  x.stride(1), x.stride(2), y.stride(0),    y.stride(1), y.stride(2), adds};
  launch({.op = "mix_rows", .x = x, .grid = blocks_for(p.A * p.B * p.M * p.C, kThreads), .threads = kThreads}, mix_kernel, p,
         data_of<float>(matrix), data_of<float>(x), data_of<float>(y));
}

}  // namespace ops

}  // namespace vitrine::cuda
