// Global attention, a warp a query: the lanes have every 32nd channel of the query and of its sums, keys go by one after another
// under an online softmax. Right for all options and sizes; nothing is reused between queries but what the caches keep.
#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/layers/cuda/launch.h>

namespace vitrine::cuda {

namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kMostChannels = 16;  // of a lane: head sizes up to 512

struct Rows {
  std::int64_t image, token, head;  // strides
};
Rows rows_of(const Tensor& t) { return {t.stride(0), t.stride(1), t.stride(2)}; }

// Of a bias or mask [1 or B, 1 or H, 1 or Lq, Lk].
struct PairTable {
  std::int64_t image, head, query;
};
PairTable table_of(const Tensor& t) {
  if (!t.defined()) return {};
  const auto step = [&](int axis) { return t.size(axis) == 1 ? 0 : t.stride(axis); };
  return {step(0), step(1), step(2)};
}

struct Args {
  std::int64_t images, queries, heads, keys, group, dim, value_dim;  // group: query heads of a key head
  Rows q, k, v, out;
  float scale;
  bool is_causal;
  const float *bias, *distance_bias;
  PairTable bias_steps, mask_steps;
  std::int64_t distance_head;
  const std::uint8_t* mask;
};

template <typename T>
VITRINE_KERNEL(kThreads)
void attention_kernel(Args p, const T* q, const T* k, const T* v, T* out) {
  const std::int64_t query = std::int64_t{block_index().x} * kWarps + warp_index();
  if (query >= p.images * p.heads * p.queries) return;
  const std::int64_t i = query % p.queries, h = query / p.queries % p.heads, b = query / p.queries / p.heads;
  q += b * p.q.image + i * p.q.token + h * p.q.head;
  k += b * p.k.image + h / p.group * p.k.head;
  v += b * p.v.image + h / p.group * p.v.head;
  const float* bias = p.bias ? p.bias + b * p.bias_steps.image + h * p.bias_steps.head + i * p.bias_steps.query : nullptr;
  if (p.distance_bias) bias = p.distance_bias + h * p.distance_head - i + p.queries - 1;
  const std::uint8_t* mask = p.mask ? p.mask + b * p.mask_steps.image + h * p.mask_steps.head + i * p.mask_steps.query : nullptr;

  const int lane = lane_index();
  float mine[kMostChannels], sum[kMostChannels];
  for (int c = 0; c < kMostChannels; ++c) {
    mine[c] = lane + c * kWarp < p.dim ? to_float(q[lane + c * kWarp]) * p.scale : 0.0f;
    sum[c] = 0;
  }
  float largest = -infinity(), total = 0;
  const std::int64_t end = p.is_causal && i + 1 < p.keys ? i + 1 : p.keys;
  for (std::int64_t j = 0; j < end; ++j) {
    if (mask && !mask[j]) continue;
    float logit = 0;
    for (int c = 0; c < kMostChannels; ++c)
      if (lane + c * kWarp < p.dim) logit += mine[c] * to_float(k[j * p.k.token + lane + c * kWarp]);
    logit = warp_sum(logit) + (bias ? bias[j] : 0.0f);
    if (logit == -infinity()) continue;
    const float next = larger(logit, largest), fade = exp_of(largest - next), weight = exp_of(logit - next);
    largest = next;
    total = total * fade + weight;
    for (int c = 0; c < kMostChannels; ++c)
      if (lane + c * kWarp < p.value_dim) sum[c] = sum[c] * fade + weight * to_float(v[j * p.v.token + lane + c * kWarp]);
  }
  out += b * p.out.image + i * p.out.token + h * p.out.head;
  const float factor = total == 0.0f ? 0.0f : 1.0f / total;
  for (int c = 0; c < kMostChannels; ++c)
    if (lane + c * kWarp < p.value_dim) out[lane + c * kWarp] = from_float<T>(sum[c] * factor);
}

}  // namespace

namespace ops {

void attention(const AttentionArgs& a) {
  const Args p{.images = a.q.size(0),
               .queries = a.q.size(1),
               .heads = a.q.size(2),
               .keys = a.k.size(1),
               .group = a.q.size(2) / a.k.size(2),
               .dim = a.q.size(3),
               .value_dim = a.v.size(3),
               .q = rows_of(a.q),
               .k = rows_of(a.k),
               .v = rows_of(a.v),
               .out = rows_of(a.out),
               .scale = a.scale,
               .is_causal = a.is_causal,
               .bias = a.bias.defined() ? data_of<float>(a.bias) : nullptr,
               .distance_bias = a.distance_bias.defined() ? data_of<float>(a.distance_bias) : nullptr,
               .bias_steps = table_of(a.bias),
               .mask_steps = table_of(a.mask),
               .distance_head = a.distance_bias.defined() ? a.distance_bias.stride(0) : 0,
               .mask = a.mask.defined() ? data_of<std::uint8_t>(a.mask) : nullptr};
  with_float_type(a.q.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "attention", .x = a.q, .grid = blocks_for(p.images * p.heads * p.queries, kWarps), .threads = kThreads},
           attention_kernel<T>, p, data_of<T>(a.q), data_of<T>(a.k), data_of<T>(a.v), data_of<T>(a.out));
  });
}

}  // namespace ops

}  // namespace vitrine::cuda
