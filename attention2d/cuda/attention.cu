// Attention: the problems of both of its ops, and the kernel for heads of more channels than a tile has room for, a warp a query:
// the lanes have every 32nd channel of the query and of its sums, keys go by one after another under an online softmax. It is
// bound by reading k and v again for each query.
#include <algorithm>

#include <vitrine/attention2d/cuda/flash.h>
#include <vitrine/attention2d/cuda/ops.h>

namespace vitrine::cuda {

namespace flash {

namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kMostChannels = 16;  // of a lane: head sizes up to 512

// A row of k or v of the running key: memory, zeros (null) or a blend.
template <typename T>
struct KeyRow {
  const T* at;
  const Taps* taps;
  std::int64_t token_stride;

  VITRINE_DEVICE float operator[](int channel) const {
    if (taps) return blend(*taps, at, token_stride, channel);
    return at ? to_float(at[channel]) : 0.0f;
  }
};

template <typename T>
VITRINE_KERNEL(kThreads)
void attention_kernel(Problem p) {
  const std::int64_t item = std::int64_t{block_index().x} * kWarps + warp_index();
  if (item >= p.images * p.groups * p.heads * p.queries) return;
  const auto i = static_cast<int>(item % p.queries);
  const Part part = part_of(p, item / p.queries);
  const std::int64_t token = query_token(p, part, i);
  if (token < 0) return;
  const T* q = row_at<T>(p.q, part.image, part.head, token);
  const T *k = row_at<T>(p.k, part.image, part.key_head, 0), *v = row_at<T>(p.v, part.image, part.key_head, 0);

  const int lane = lane_index();
  float mine[kMostChannels], sum[kMostChannels], square = 0;
  for (int c = 0; c < kMostChannels; ++c) {
    mine[c] = lane + c * kWarp < p.dim ? to_float(q[lane + c * kWarp]) : 0.0f;
    square += mine[c] * mine[c];
    sum[c] = 0;
  }
  LogitRow row = logit_row(p, part, i, token);
  if (p.is_cosine) row.scale *= inverse_norm(warp_sum(square));
  RowState state{-infinity(), 0};
  const int end = p.is_causal && i + 1 < p.keys ? i + 1 : p.keys;
  for (int j = 0; j < end; ++j) {
    if (row.mask && !row.mask[j]) continue;
    Taps taps{};
    if (p.boxes) taps = taps_of(p, part, j);
    const Taps* const blended = p.boxes ? &taps : nullptr;
    const KeyRow<T> key{p.boxes ? k : key_row<T>(p, part, p.k, p.pad_key, p.pad_key_head, j), blended, p.k.token};
    const KeyRow<T> value{p.boxes ? v : key_row<T>(p, part, p.v, p.pad_value, p.pad_value_head, j), blended, p.v.token};
    float product = 0;
    square = 0;
    for (int c = 0; c < kMostChannels; ++c) {
      if (lane + c * kWarp >= p.dim) break;
      const float element = key[lane + c * kWarp];
      product += mine[c] * element;
      square += element * element;
    }
    product = warp_sum(product);
    if (p.is_cosine) product *= inverse_norm(warp_sum(square));
    const float here = logit(p, row, j, product);
    if (here == -infinity()) continue;
    const RowState::Step step = state.advance(here, kLog2e);
    const float weight = exp2_of(here * kLog2e - step.base);
    state.sum += weight;
    for (int c = 0; c < kMostChannels; ++c)
      if (lane + c * kWarp < p.value_dim) sum[c] = sum[c] * step.fade + weight * value[lane + c * kWarp];
  }
  T* const out = const_cast<T*>(row_at<T>(p.out, part.image, part.head, token));
  for (int c = 0; c < kMostChannels; ++c)
    if (lane + c * kWarp < p.value_dim) out[lane + c * kWarp] = from_float<T>(sum[c] * state.factor());
}

View view_of(const Tensor& t) {
  const auto are_16_bytes = [&](std::int64_t n) { return n * static_cast<std::int64_t>(size_of(t.dtype())) % 16 == 0; };
  const bool is_aligned = reinterpret_cast<std::uintptr_t>(t.raw()) % 16 == 0 && are_16_bytes(t.size(3)) &&
                          are_16_bytes(t.stride(0)) && are_16_bytes(t.stride(1)) && are_16_bytes(t.stride(2));
  return {t.raw(), t.stride(0), t.stride(1), t.stride(2), is_aligned};
}
// Of a broadcast axis: 0.
std::int64_t step(const Tensor& t, int axis) { return t.defined() && t.size(axis) > 1 ? t.stride(axis) : 0; }
void set_padding(const Tensor& pad, const void*& row, std::int64_t& head, View& view) {
  if (!pad.defined()) return;
  row = pad.raw();
  head = pad.stride(0);
  view.is_aligned = view.is_aligned && reinterpret_cast<std::uintptr_t>(row) % 16 == 0 && head % 8 == 0;
}
AxisBias axis_bias(const Tensor& t) { return {data_of<float>(t), step(t, 0), t.stride(1), t.stride(2)}; }

Problem problem_of(const char* op, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out) {
  Problem p{};
  p.op = op;
  p.images = q.size(0);
  p.groups = 1;
  p.heads = q.size(2);
  p.key_heads = k.size(2);
  p.tokens = q.size(1);
  p.key_tokens = k.size(1);
  p.queries = static_cast<int>(p.tokens);
  p.keys = static_cast<int>(p.key_tokens);
  p.dim = static_cast<int>(q.size(3));
  p.value_dim = static_cast<int>(v.size(3));
  p.q = view_of(q);
  p.k = view_of(k);
  p.v = view_of(v);
  p.out = view_of(out);
  p.scale = scale;
  p.columns = p.box_columns = 1;
  return p;
}

void run(const Problem& p, const Tensor& q) {
  if (std::max(p.dim, p.value_dim) <= kTiledDim) {
    const auto attend = q.dtype() == DType::f32 ? attend_f32 : q.dtype() == DType::f16 ? attend_f16 : attend_bf16;
    return attend(p, q);
  }
  with_float_type(q.dtype(), [&](auto type) {
    launch({.op = p.op, .x = q, .grid = blocks_for(p.parts() * p.queries, kWarps), .threads = kThreads},
           attention_kernel<decltype(type)>, p);
  });
}

}  // namespace

}  // namespace flash

namespace ops {

void attention(const AttentionArgs& a) {
  flash::Problem p = flash::problem_of("attention", a.q, a.k, a.v, a.scale, a.out);
  p.is_causal = a.is_causal;
  p.bias = data_or_null<float>(a.bias);
  p.bias_image = flash::step(a.bias, 0);
  p.bias_head = flash::step(a.bias, 1);
  p.bias_row = flash::step(a.bias, 2);
  if (a.distance_bias.defined()) {  // a query's row begins one before that of the query before it
    p.bias = data_of<float>(a.distance_bias) + p.queries - 1;
    p.bias_head = a.distance_bias.stride(0);
    p.bias_row = -1;
  }
  p.mask = data_or_null<std::uint8_t>(a.mask);
  p.mask_image = flash::step(a.mask, 0);
  p.mask_head = flash::step(a.mask, 1);
  p.mask_row = flash::step(a.mask, 2);
  flash::run(p, a.q);
}

void grouped_attention(const GroupedArgs& a) {
  const GroupedOptions& o = a.options;
  flash::Problem p = flash::problem_of("grouped_attention", a.q, a.k, a.v, a.scale, a.out);
  p.groups = o.queries.size(1);
  p.queries = static_cast<int>(o.queries.size(2));
  p.query_index = data_of<std::int32_t>(o.queries);
  p.query_index_image = flash::step(o.queries, 0);
  if (o.boxes.defined()) {
    p.keys = static_cast<int>(o.box_keys[0] * o.box_keys[1]);
    p.boxes = data_of<float>(o.boxes);
    p.box_columns = static_cast<int>(o.box_keys[1]);
    p.map_height = static_cast<int>(o.map[0]);
    p.map_width = static_cast<int>(o.map[1]);
  } else {
    p.keys = static_cast<int>(o.keys.size(2));
    p.key_index = data_of<std::int32_t>(o.keys);
    p.key_index_image = flash::step(o.keys, 0);
  }
  flash::set_padding(o.pad_key, p.pad_key, p.pad_key_head, p.k);
  flash::set_padding(o.pad_value, p.pad_value, p.pad_value_head, p.v);
  if (o.bias.defined()) {
    p.bias = data_of<float>(o.bias);
    p.bias_head = flash::step(o.bias, 1);
    p.bias_row = o.bias.stride(2);
    p.bias_pattern = o.bias.stride(0);
    p.pattern = data_or_null<std::int32_t>(o.pattern);
  }
  if (o.row_bias.defined()) {
    p.row_bias = flash::axis_bias(o.row_bias);
    p.column_bias = flash::axis_bias(o.column_bias);
    p.columns = static_cast<int>(o.column_bias.size(3));
  }
  p.head_scale = data_or_null<float>(o.head_scale);
  p.is_cosine = o.is_cosine;
  flash::run(p, a.q);
}

}  // namespace ops

}  // namespace vitrine::cuda
