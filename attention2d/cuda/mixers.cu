// What surrounds the mechanisms: sums of blocks of tokens. All are bound by memory; a thread makes one output value, neighbours
// share what they read through L1 and L2.
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

}  // namespace

namespace ops {

void sum_blocks(const Tensor& x, std::int64_t width, std::int64_t factor, const Tensor& weight, Tensor& y) {
  const BlockSums p{y.numel(),   y.size(1),   width / factor, y.size(2), y.size(3),
                    x.stride(0), x.stride(1), x.stride(2),    width,     factor};
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "sums of blocks", .x = x, .grid = blocks_for(p.n, kThreads), .threads = kThreads}, sum_blocks_kernel<T>, p,
           data_of<T>(x), data_of<float>(weight), data_of<T>(y));
  });
}

}  // namespace ops

}  // namespace vitrine::cuda
