// What surrounds the mechanisms: sums of blocks of tokens, the gathering of focal levels, depth-wise kernels that are data,
// sampled taps. All are bound by memory; a thread makes one output value, neighbours share what they read through
// L1 and L2.
#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/layers/cuda/launch.h>
#include <vitrine/layers/cuda/math.h>

namespace vitrine::cuda {

namespace {

constexpr int kThreads = 256;

VITRINE_DEVICE std::int64_t thread_number() { return std::int64_t{block_index().x} * kThreads + thread_index(); }

struct BlockSums {
  std::int64_t n, tokens, columns, heads, dim;  // n values of y, whose tokens are `columns` a row
  std::int64_t image, token, head;              // strides of x
  std::int64_t width, factor;
};

template <typename T>
VITRINE_KERNEL(kThreads)
void sum_blocks_kernel(BlockSums p, const T* x, const float* weight, T* y) {
  const std::int64_t i = thread_number();
  if (i >= p.n) return;
  const std::int64_t d = i % p.dim, h = i / p.dim % p.heads, at = i / p.dim / p.heads, b = at / p.tokens, token = at % p.tokens;
  const std::int64_t row = token / p.columns * p.factor, column = token % p.columns * p.factor;
  x += b * p.image + h * p.head + d;
  float sum = 0;
  for (std::int64_t r = 0; r < p.factor; ++r)
    for (std::int64_t c = 0; c < p.factor; ++c)
      sum += weight[r * p.factor + c] * to_float(x[((row + r) * p.width + column + c) * p.token]);
  y[i] = from_float<T>(sum);
}

// Contiguous levels [images, tokens, channels].
struct FocalArgs {
  const void* level[kMostFocalLevels];
  int levels;
  std::int64_t n, tokens, channels;  // n values of y
  float scale;
};

template <typename T>
VITRINE_KERNEL(kThreads)
void focal_kernel(FocalArgs p, const T* gates, const T* whole, T* y) {
  const std::int64_t i = thread_number();
  if (i >= p.n) return;
  const std::int64_t row = i / p.channels, c = i - row * p.channels;
  const T* gate = gates + row * (p.levels + 1);
  float sum = to_float(whole[row / p.tokens * p.channels + c]) * (to_float(gate[p.levels]) * p.scale);
  for (int l = 0; l < p.levels; ++l) sum += to_float(static_cast<const T*>(p.level[l])[i]) * (to_float(gate[l]) * p.scale);
  y[i] = from_float<T>(sum);
}

struct DepthwiseArgs {
  std::int64_t n, height, width, channels;
  std::int64_t x_image, x_row, x_column, y_image, y_row, y_column;
  std::int64_t kernel_image;  // 0: one for all images
  int kernel_h, kernel_w;
};

template <typename T>
VITRINE_KERNEL(kThreads)
void depthwise_kernel(DepthwiseArgs p, const T* x, const float* kernels, const float* bias, T* y) {
  const std::int64_t i = thread_number();
  if (i >= p.n) return;
  const std::int64_t c = i % p.channels, pixel = i / p.channels, w = pixel % p.width, h = pixel / p.width % p.height;
  const std::int64_t b = pixel / p.width / p.height;
  x += b * p.x_image + c;
  kernels += b * p.kernel_image + c;
  float sum = bias ? bias[c] : 0.0f;
  for (int r = 0; r < p.kernel_h; ++r)
    for (int s = 0; s < p.kernel_w; ++s) {
      const std::int64_t row = h + r - p.kernel_h / 2, column = w + s - p.kernel_w / 2;
      if (row < 0 || row >= p.height || column < 0 || column >= p.width) continue;
      sum += kernels[(r * p.kernel_w + s) * p.channels] * to_float(x[row * p.x_row + column * p.x_column]);
    }
  T* to = y + b * p.y_image + h * p.y_row + w * p.y_column + c;
  *to = from_float<T>(to_float(*to) + sum);
}

template <typename T>
VITRINE_KERNEL(kThreads)
void interleave_kernel(std::int64_t n, const T* a, const T* b, T* y) {
  const std::int64_t i = thread_number();
  if (i < n) y[i] = i % 2 == 0 ? a[i / 2] : b[i / 2];
}

struct SampleArgs {
  std::int64_t n, height, width, channels;  // of x; n values of y [images, height / 2, width / 2, 4, channels]
  std::int64_t image, row, column;          // strides of x
};

template <typename T>
VITRINE_KERNEL(kThreads)
void sample_kernel(SampleArgs p, const T* x, const float* offsets, T* y) {
  const std::int64_t i = thread_number();
  if (i >= p.n) return;
  const std::int64_t c = i % p.channels, tap = i / p.channels % 4, at = i / p.channels / 4, columns = p.width / 2;
  const std::int64_t column = at % columns, row = at / columns % (p.height / 2), b = at / columns / (p.height / 2);
  const float* offset = offsets + at * 8 + 2 * tap;
  const float v = static_cast<float>(2 * row + tap / 2) + offset[0], u = static_cast<float>(2 * column + tap % 2) + offset[1];
  float sum = 0;
  // Not a number, too, is outside.
  if (v > -1.0f && u > -1.0f && v < static_cast<float>(p.height) && u < static_cast<float>(p.width)) {
    const auto top = static_cast<std::int64_t>(v + 1.0f) - 1, left = static_cast<std::int64_t>(u + 1.0f) - 1;
    const float down = v - static_cast<float>(top), right = u - static_cast<float>(left);
    x += b * p.image + c;
    for (int corner = 0; corner < 4; ++corner) {
      const std::int64_t h = top + corner / 2, w = left + corner % 2;
      const float share = (corner / 2 ? down : 1.0f - down) * (corner % 2 ? right : 1.0f - right);
      if (h < 0 || h >= p.height || w < 0 || w >= p.width || share == 0.0f) continue;
      sum += share * to_float(x[h * p.row + w * p.column]);
    }
  }
  y[i] = from_float<T>(sum);
}

}  // namespace

namespace ops {

void sum_blocks(const Tensor& x, std::int64_t width, std::int64_t factor, const Tensor& weight, Tensor& y) {
  const BlockSums p{y.numel(),   y.size(1),   width / factor, y.size(2), y.size(3),
                    x.stride(0), x.stride(1), x.stride(2),    width,     factor};
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "sum_blocks", .x = x, .grid = blocks_for(p.n, kThreads), .threads = kThreads}, sum_blocks_kernel<T>, p,
           data_of<T>(x), data_of<float>(weight), data_of<T>(y));
  });
}

void gather_focal_levels(std::span<const Tensor> levels, const Tensor& gates, const Tensor& whole, float scale, Tensor& y) {
  FocalArgs p{{}, static_cast<int>(levels.size()), y.numel(), y.size(1) * y.size(2), y.size(3), scale};
  for (std::size_t l = 0; l < levels.size(); ++l) p.level[l] = levels[l].raw();
  with_float_type(y.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "gather_focal_levels", .x = y, .grid = blocks_for(p.n, kThreads), .threads = kThreads}, focal_kernel<T>, p,
           data_of<T>(gates), data_of<T>(whole), data_of<T>(y));
  });
}

void add_depthwise(Tensor& y, const Tensor& x, const Tensor& kernels, const Tensor& bias) {
  const DepthwiseArgs p{x.numel(),
                        x.size(1),
                        x.size(2),
                        x.size(3),
                        x.stride(0),
                        x.stride(1),
                        x.stride(2),
                        y.stride(0),
                        y.stride(1),
                        y.stride(2),
                        kernels.size(0) == 1 ? 0 : kernels.stride(0),
                        static_cast<int>(kernels.size(1)),
                        static_cast<int>(kernels.size(2))};
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "add_depthwise", .x = x, .grid = blocks_for(p.n, kThreads), .threads = kThreads}, depthwise_kernel<T>, p,
           data_of<T>(x), data_of<float>(kernels), data_or_null<float>(bias), data_of<T>(y));
  });
}

void interleave(const Tensor& a, const Tensor& b, Tensor& y) {
  with_float_type(y.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "interleave", .x = y, .grid = blocks_for(y.numel(), kThreads), .threads = kThreads}, interleave_kernel<T>,
           y.numel(), data_of<T>(a), data_of<T>(b), data_of<T>(y));
  });
}

void sample_taps(const Tensor& x, const Tensor& offsets, Tensor& y) {
  const SampleArgs p{y.numel(), x.size(1), x.size(2), x.size(3), x.stride(0), x.stride(1), x.stride(2)};
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "sample_taps", .x = x, .grid = blocks_for(p.n, kThreads), .threads = kThreads}, sample_kernel<T>, p,
           data_of<T>(x), data_of<float>(offsets), data_of<T>(y));
  });
}

}  // namespace ops

}  // namespace vitrine::cuda
