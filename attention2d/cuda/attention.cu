// Attention: the problems of both of its ops, and the kernel for heads of more channels than a tile has room for, a warp a query:
// the lanes have every 32nd channel of the query and of its sums, keys go by one after another under an online softmax. It is
// bound by reading k and v again for each query.
#include <algorithm>

#include <vitrine/attention2d/cuda/attention_cudnn.h>
#include <vitrine/attention2d/cuda/flash.h>
#include <vitrine/attention2d/cuda/ops.h>

namespace vitrine::cuda {

namespace flash {

namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kOfLane = 16;  // channels: head sizes up to 512

template <typename T, Extras kExtras>
VITRINE_KERNEL(kThreads)
void attention_kernel(Problem p) {
  using Row = LaneRow<kOfLane>;
  const std::int64_t item = std::int64_t{block_index().x} * kWarps + warp_index();
  if (item >= p.images * p.groups * p.heads * p.queries) return;
  const auto i = static_cast<int>(item % p.queries);
  const Part part = part_of(p, item / p.queries);
  const std::int64_t token = query_token(p, part, i);
  if (token < 0) return;
  const Row query = Row::of(row_at<T>(p.q, part.image, part.head, token), p.dim);
  LogitRow row = logit_row(p, part, i, token);
  if (p.is_cosine) row.scale *= inverse_norm(dot(query, query));
  LaneMean<kOfLane> seen;
  const int end = p.is_causal ? least(i + 1, p.keys) : p.keys;
  for (int j = 0; j < end; ++j) {
    if (row.mask && !row.mask[j]) continue;
    const Row key = Row::of(key_of<T, kExtras>(p, part, j), p.dim);
    const float product = dot(query, key), of_key = p.is_cosine ? inverse_norm(dot(key, key)) : 1.0f;
    const float here = logit(p, row, j, product * of_key);
    if (here != -infinity()) seen.add(here, Row::of(value_of<T, kExtras>(p, part, j), p.value_dim));
  }
  seen.mean().store(const_cast<T*>(row_at<T>(p.out, part.image, part.head, token)), p.value_dim);
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
    using T = decltype(type);
    launch({.op = p.op, .x = q, .grid = blocks_for(p.parts() * p.queries, kWarps), .threads = kThreads},
           p.boxes ? attention_kernel<T, Extras::boxes> : attention_kernel<T, Extras::logits>, p);
  });
}

}  // namespace

}  // namespace flash

namespace ops {

void attention(const AttentionArgs& a) {
  if (attention_cudnn(a)) return;
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
