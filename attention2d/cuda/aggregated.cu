// Aggregated attention, a warp a query: the lanes have every 32nd channel of the query and of its sums, the keys of the window
// and the pooled ones go by under one online softmax; what the learned tokens add does not depend on it and has a sum of its own.
// Neighbours share keys through L1; the work is a few operations a byte of them, and the exchanges of a warp bound it.
#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/attention2d/cuda/tiles.h>

namespace vitrine::cuda {

namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kMostOfLane = kAggregatedDim / kWarp;

struct Args {
  std::int64_t images, heads, height, width, dim, pooled;
  int window;
  View q, k, v, pooled_k, pooled_v, out;  // pooled tokens are one axis
  const float *query_embedding, *temperature, *local_bias, *pool_bias, *learnable_tokens, *learnable_bias;
};

// kOfLane: channels of a lane, heads of any size up to 32 of them.
template <typename T, int kOfLane>
VITRINE_KERNEL(kThreads)
void aggregated_kernel(Args p) {
  using Row = LaneRow<kOfLane>;
  const std::int64_t i = std::int64_t{block_index().x} * kWarps + warp_index(), tokens = p.height * p.width;
  if (i >= p.images * p.heads * tokens) return;
  const std::int64_t n = i % tokens, h = i / tokens % p.heads, b = i / tokens / p.heads, y = n / p.width, x = n - y * p.width;
  const int lane = lane_index(), area = p.window * p.window, reach = p.window / 2, dim = static_cast<int>(p.dim);
  const std::int64_t top = y < reach ? 0 : y - reach, left = x < reach ? 0 : x - reach;
  const std::int64_t bottom = y - reach + p.window < p.height ? y - reach + p.window : p.height;
  const std::int64_t right = x - reach + p.window < p.width ? x - reach + p.window : p.width;
  Row unit = Row::of(row_at<T>(p.q, b, h, 0, y, x), dim);
  unit.scale(inverse_norm(dot(unit, unit)));
  Row looks = Row::of(p.query_embedding + h * p.dim, dim), learned;
  looks.add(1.0f, unit);
  looks.scale(p.temperature[h] * log_of(static_cast<float>((bottom - top) * (right - left) + p.pooled)));
  LaneMean<kOfLane> seen;
  const auto see = [&](const T* key_row, const Row& value, float bias) {
    const Row key = Row::of(key_row, dim);
    const float product = dot(looks, key);
    seen.add(product * inverse_norm(dot(key, key)) + bias, value);
  };
  for (std::int64_t row = top; row < bottom; ++row)
    for (std::int64_t column = left; column < right; ++column) {
      const std::int64_t j = (row - y + reach) * p.window + column - x + reach;
      const Row value = Row::of(row_at<T>(p.v, b, h, 0, row, column), dim);
      see(row_at<T>(p.k, b, h, 0, row, column), value, p.local_bias[h * area + j]);
      const float* token = p.learnable_tokens + h * p.dim * area + j;
      float extra = 0;
      VITRINE_UNROLL
      for (int c = 0; c < kOfLane; ++c)
        if (lane + c * kWarp < dim) extra += unit.at[c] * token[(lane + c * kWarp) * area];
      learned.add(warp_sum(extra) + p.learnable_bias[h * area + j], value);
    }
  for (std::int64_t j = 0; j < p.pooled; ++j)
    see(row_at<T>(p.pooled_k, b, h, j), Row::of(row_at<T>(p.pooled_v, b, h, j), dim),
        p.pool_bias[(h * p.pooled + j) * tokens + n]);
  learned.add(1.0f, seen.mean());
  learned.store(const_cast<T*>(row_at<T>(p.out, b, h, 0, y, x)), dim);
}

}  // namespace

namespace ops {

void aggregated_attention(const AggregatedArgs& a) {
  const Args p{.images = a.q.size(0),
               .heads = a.q.size(3),
               .height = a.q.size(1),
               .width = a.q.size(2),
               .dim = a.q.size(4),
               .pooled = a.pooled_k.size(1),
               .window = static_cast<int>(a.window),
               .q = view_of(a.q),
               .k = view_of(a.k),
               .v = view_of(a.v),
               .pooled_k = view_of(a.pooled_k),
               .pooled_v = view_of(a.pooled_v),
               .out = view_of(a.out),
               .query_embedding = data_of<float>(a.query_embedding),
               .temperature = data_of<float>(a.temperature),
               .local_bias = data_of<float>(a.local_bias),
               .pool_bias = data_of<float>(a.pool_bias),
               .learnable_tokens = data_of<float>(a.learnable_tokens),
               .learnable_bias = data_of<float>(a.learnable_bias)};
  with_float_type(a.q.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "aggregated_attention",
            .x = a.q,
            .grid = blocks_for(p.images * p.heads * p.height * p.width, kWarps),
            .threads = kThreads},
           p.dim <= 2 * kWarp ? aggregated_kernel<T, 2> : aggregated_kernel<T, kMostOfLane>, p);
  });
}

}  // namespace ops

}  // namespace vitrine::cuda
