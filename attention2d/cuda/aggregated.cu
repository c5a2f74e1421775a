// Aggregated attention, a warp a query: the lanes have every 32nd channel of the query and of its sums, the keys of the window
// and the pooled ones go by under one online softmax; what the learned tokens add does not depend on it and has a sum of its own.
// Neighbours share keys through L1; the work is a few operations a byte of them, and the exchanges of a warp bound it.
#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/layers/cuda/launch.h>
#include <vitrine/layers/cuda/math.h>

namespace vitrine::cuda {

namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kMostOfLane = kAggregatedDim / kWarp;

struct View {
  std::int64_t image, row, column, head;  // strides; pooled tokens are columns
};
View view_of(const Tensor& t) { return {t.stride(0), t.rank() == 5 ? t.stride(1) : 0, t.stride(-3), t.stride(-2)}; }

struct Args {
  std::int64_t images, heads, height, width, dim, pooled;
  int window;
  View q, k, v, pooled_k, pooled_v, out;
  const float *query_embedding, *temperature, *local_bias, *pool_bias, *learnable_tokens, *learnable_bias;
};

// 1 / max(|x|, 1e-12)
VITRINE_DEVICE float inverse_norm(float squares) {
  const float norm = sqrt_of(squares);
  return 1.0f / (norm > 1e-12f ? norm : 1e-12f);
}

// kOfLane: channels of a lane, heads of any size up to 32 of them.
template <typename T, int kOfLane>
VITRINE_KERNEL(kThreads)
void aggregated_kernel(Args p, const T* q, const T* k, const T* v, const T* pooled_k, const T* pooled_v, T* out) {
  const std::int64_t i = std::int64_t{block_index().x} * kWarps + warp_index(), tokens = p.height * p.width;
  if (i >= p.images * p.heads * tokens) return;
  const std::int64_t n = i % tokens, h = i / tokens % p.heads, b = i / tokens / p.heads, y = n / p.width, x = n - y * p.width;
  const auto at = [&](const View& view, std::int64_t row, std::int64_t column) {
    return b * view.image + row * view.row + column * view.column + h * view.head;
  };
  const int lane = lane_index(), area = p.window * p.window, reach = p.window / 2;
  const T* query = q + at(p.q, y, x);
  float unit[kOfLane], looks[kOfLane], sum[kOfLane], learned[kOfLane], squares = 0;
  VITRINE_UNROLL
  for (int c = 0; c < kOfLane; ++c) {
    unit[c] = lane + c * kWarp < p.dim ? to_float(query[lane + c * kWarp]) : 0.0f;
    squares += unit[c] * unit[c];
    sum[c] = learned[c] = 0;
  }
  const std::int64_t top = y < reach ? 0 : y - reach, left = x < reach ? 0 : x - reach;
  const std::int64_t bottom = y - reach + p.window < p.height ? y - reach + p.window : p.height;
  const std::int64_t right = x - reach + p.window < p.width ? x - reach + p.window : p.width;
  const float norm = inverse_norm(warp_sum(squares));
  const float scale = p.temperature[h] * log_of(static_cast<float>((bottom - top) * (right - left) + p.pooled));
  VITRINE_UNROLL
  for (int c = 0; c < kOfLane; ++c) {
    unit[c] *= norm;
    looks[c] = lane + c * kWarp < p.dim ? (unit[c] + p.query_embedding[h * p.dim + lane + c * kWarp]) * scale : 0.0f;
  }
  float largest = -infinity(), total = 0;
  const auto see = [&](const T* key, const T* value, float bias, const float* token, float token_bias) {
    float product = 0, of_key = 0, extra = 0;
    VITRINE_UNROLL
    for (int c = 0; c < kOfLane; ++c) {
      if (lane + c * kWarp >= p.dim) continue;
      const float element = to_float(key[lane + c * kWarp]);
      product += looks[c] * element;
      of_key += element * element;
      if (token) extra += unit[c] * token[(lane + c * kWarp) * area];
    }
    const float logit = warp_sum(product) * inverse_norm(warp_sum(of_key)) + bias;
    if (token) extra = warp_sum(extra) + token_bias;
    const float next = larger(logit, largest), fade = exp_of(largest - next), weight = exp_of(logit - next);
    largest = next;
    total = total * fade + weight;
    VITRINE_UNROLL
    for (int c = 0; c < kOfLane; ++c) {
      if (lane + c * kWarp >= p.dim) continue;
      const float element = to_float(value[lane + c * kWarp]);
      sum[c] = sum[c] * fade + weight * element;
      learned[c] += extra * element;
    }
  };
  for (std::int64_t row = top; row < bottom; ++row)
    for (std::int64_t column = left; column < right; ++column) {
      const std::int64_t j = (row - y + reach) * p.window + column - x + reach;
      see(k + at(p.k, row, column), v + at(p.v, row, column), p.local_bias[h * area + j],
          p.learnable_tokens + h * p.dim * area + j, p.learnable_bias[h * area + j]);
    }
  for (std::int64_t j = 0; j < p.pooled; ++j)
    see(pooled_k + at(p.pooled_k, 0, j), pooled_v + at(p.pooled_v, 0, j), p.pool_bias[(h * p.pooled + j) * tokens + n], nullptr,
        0.0f);
  out += at(p.out, y, x);
  VITRINE_UNROLL
  for (int c = 0; c < kOfLane; ++c)
    if (lane + c * kWarp < p.dim) out[lane + c * kWarp] = from_float<T>(sum[c] / total + learned[c]);
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
           p.dim <= 2 * kWarp ? aggregated_kernel<T, 2> : aggregated_kernel<T, kMostOfLane>, p, data_of<T>(a.q), data_of<T>(a.k),
           data_of<T>(a.v), data_of<T>(a.pooled_k), data_of<T>(a.pooled_v), data_of<T>(a.out));
  });
}

}  // namespace ops

}  // namespace vitrine::cuda
