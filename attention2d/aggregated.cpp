#include <vitrine/attention2d/aggregated.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/candidates.h>
#include <vitrine/attention2d/cpu/launch.h>
#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/partition.h>
#include <vitrine/attention2d/rows.h>
#include <vitrine/layers/checks.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

struct Problem {
  const Tensor &q, &k, &v, &pooled_k, &pooled_v;
  const AggregatedOptions& options;
  Tensor& out;

  std::string describe() const {
    return fmt::format("q {} {} window {} pooled {}", q.shape().to_string(), name_of(q.dtype()), options.window_size,
                       pooled_k.size(1));
  }
};

void validate(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& pooled_k, const Tensor& pooled_v,
              const AggregatedOptions& o) {
  const std::string_view op = "aggregated_attention", pool = "[B, P, heads, head_dim]";
  detail::check_qkv(op, q, k, v, "[B, H, W, heads, head_dim]", 5, 5);
  detail::check_beside(op, q, "pooled_k", pooled_k, pool);
  detail::check_beside(op, q, "pooled_v", pooled_v, pool);
  const std::int64_t heads = q.size(3), dim = q.size(4), pooled = pooled_k.size(1), tokens = q.size(1) * q.size(2);
  const Shape expected{q.size(0), pooled, heads, dim};
  if (k.shape() != q.shape() || v.shape() != q.shape() || pooled_k.shape() != expected || pooled_v.shape() != expected)
    throw Error(fmt::format("aggregated_attention: q {}, k {}, v {}, pooled_k {}, pooled_v {} do not fit", q.shape().to_string(),
                            k.shape().to_string(), v.shape().to_string(), pooled_k.shape().to_string(),
                            pooled_v.shape().to_string()));
  if (heads == 0 || dim == 0) throw Error(fmt::format("aggregated_attention: {} heads of {} channels", heads, dim));
  if (pooled == 0) throw Error("aggregated_attention: there are no pooled keys");
  constexpr std::int64_t kMostWindow = 1 << 10;
  if (o.window_size < 1 || o.window_size > kMostWindow)
    throw Error(fmt::format("aggregated_attention: window_size {}, expected 1 to {}", o.window_size, kMostWindow));
  const std::int64_t area = o.window_size * o.window_size;
  const std::tuple<const Tensor*, const char*, Shape> tables[] = {{&o.query_embedding, "query_embedding", {heads, dim}},
                                                                  {&o.temperature, "temperature", {heads}},
                                                                  {&o.local_bias, "local_bias", {heads, area}},
                                                                  {&o.pool_bias, "pool_bias", {heads, pooled, tokens}},
                                                                  {&o.learnable_tokens, "learnable_tokens", {heads, dim, area}},
                                                                  {&o.learnable_bias, "learnable_bias", {heads, area}}};
  for (const auto& [t, name, shape] : tables)
    if (!t->defined() || t->dtype() != DType::f32 || t->shape() != shape || !t->is_contiguous())
      throw Error(fmt::format("aggregated_attention: {} is {}, expected contiguous f32 {}", name,
                              t->defined() ? fmt::format("{} {}", name_of(t->dtype()), t->shape().to_string()) : "undefined",
                              shape.to_string()));
  for (const auto& entry : tables) detail::check_same_device("aggregated_attention", q, *std::get<0>(entry));
}

double log_of_seen(std::int64_t local, std::int64_t pooled) { return std::log(static_cast<double>(local + pooled)); }

void normalize_rows(std::vector<float>& rows, std::int64_t dim) {
  for (std::size_t begin = 0; begin < rows.size(); begin += static_cast<std::size_t>(dim)) {
    double squares = 0;
    for (std::int64_t d = 0; d < dim; ++d) squares += static_cast<double>(rows[begin + d]) * rows[begin + d];
    const double norm = std::max(std::sqrt(squares), 1e-12);
    for (std::int64_t d = 0; d < dim; ++d) rows[begin + d] = static_cast<float>(rows[begin + d] / norm);
  }
}

// The definition, one query after another; what the kernels are compared with.
void run_reference(const Problem& p) {
  const AggregatedOptions& o = p.options;
  const std::int64_t H = p.q.size(1), W = p.q.size(2), heads = p.q.size(3), dim = p.q.size(4), pooled = p.pooled_k.size(1);
  const std::int64_t area = o.window_size * o.window_size, reach = o.window_size / 2;
  cpu::parallel_each(p.q.size(0) * heads, [&](std::int64_t item, int) {
    const std::int64_t b = item / heads, h = item % heads;
    auto q = detail::read_head(p.q, b, h), k = detail::read_head(p.k, b, h), pooled_k = detail::read_head(p.pooled_k, b, h);
    const auto v = detail::read_head(p.v, b, h), pooled_v = detail::read_head(p.pooled_v, b, h);
    for (std::vector<float>* rows : {&q, &k, &pooled_k}) normalize_rows(*rows, dim);
    const auto table = [&](const Tensor& t) { return t.data<float>() + h * (t.numel() / heads); };
    const float *embedding = table(o.query_embedding), *local_bias = table(o.local_bias), *pool_bias = table(o.pool_bias),
                *tokens = table(o.learnable_tokens), *token_bias = table(o.learnable_bias);
    struct Seen {
      const float* value;
      double logit, extra;
    };
    std::vector<Seen> seen;
    std::vector<float> row(static_cast<std::size_t>(dim));
    for (std::int64_t n = 0; n < H * W; ++n) {
      const float* query = q.data() + n * dim;
      seen.clear();
      const auto product = [&](const float* key) {
        double sum = 0;
        for (std::int64_t d = 0; d < dim; ++d) sum += (static_cast<double>(query[d]) + embedding[d]) * key[d];
        return sum;
      };
      for (std::int64_t j = 0; j < area; ++j) {
        const std::int64_t y = n / W + j / o.window_size - reach, x = n % W + j % o.window_size - reach;
        if (y < 0 || y >= H || x < 0 || x >= W) continue;
        double extra = token_bias[j];
        for (std::int64_t d = 0; d < dim; ++d) extra += static_cast<double>(query[d]) * tokens[d * area + j];
        seen.push_back({v.data() + (y * W + x) * dim, product(k.data() + (y * W + x) * dim), extra});
      }
      const double scale = o.temperature.data<float>()[h] * log_of_seen(static_cast<std::int64_t>(seen.size()), pooled);
      std::size_t local = 0;
      for (std::int64_t j = 0; j < area; ++j) {
        const std::int64_t y = n / W + j / o.window_size - reach, x = n % W + j % o.window_size - reach;
        if (y < 0 || y >= H || x < 0 || x >= W) continue;
        seen[local].logit = seen[local].logit * scale + local_bias[j];
        ++local;
      }
      for (std::int64_t j = 0; j < pooled; ++j)
        seen.push_back({pooled_v.data() + j * dim, product(pooled_k.data() + j * dim) * scale + pool_bias[j * H * W + n], 0.0});

      double largest = -std::numeric_limits<double>::infinity(), total = 0;
      for (const Seen& key : seen) largest = std::max(largest, key.logit);
      for (const Seen& key : seen) total += std::exp(key.logit - largest);
      for (std::int64_t d = 0; d < dim; ++d) {
        double sum = 0;
        for (const Seen& key : seen) sum += (std::exp(key.logit - largest) / total + key.extra) * key.value[d];
        row[d] = static_cast<float>(sum);
      }
      detail::write_row(p.out, ((b * H * W + n) * heads + h) * dim, row);
    }
  });
}

template <cpu::Isa kIsa>
std::string can_run_fused(const Problem& p) {
  return detail::lacks(kIsa, p.q);
}

template <cpu::Isa kIsa>
void run_fused(const Problem& p) {
  const AggregatedOptions& o = p.options;
  const auto view = [](const Tensor& t) {
    cpu::GridView grid{t.raw(), t.stride(0), {}, t.stride(-2)};
    if (t.rank() == 5) grid.axis[1] = t.stride(1);
    grid.axis[2] = t.stride(-3);
    return grid;
  };
  const std::int64_t pooled = p.pooled_k.size(1);
  std::vector<float> logs;
  for (std::int64_t n = 0; n <= o.window_size * o.window_size; ++n) logs.push_back(static_cast<float>(log_of_seen(n, pooled)));
  cpu::aggregated_attention(kIsa, {.q = view(p.q),
                                   .k = view(p.k),
                                   .v = view(p.v),
                                   .out = view(p.out),
                                   .pooled_k = view(p.pooled_k),
                                   .pooled_v = view(p.pooled_v),
                                   .type = cpu::float_type(p.q.dtype()),
                                   .images = p.q.size(0),
                                   .heads = p.q.size(3),
                                   .dim = p.q.size(4),
                                   .size = {p.q.size(1), p.q.size(2)},
                                   .window = o.window_size,
                                   .pooled = pooled,
                                   .query_embedding = o.query_embedding.data<float>(),
                                   .temperature = o.temperature.data<float>(),
                                   .log_of_seen = logs.data(),
                                   .local_bias = o.local_bias.data<float>(),
                                   .pool_bias = o.pool_bias.data<float>(),
                                   .learnable_tokens = o.learnable_tokens.data<float>(),
                                   .learnable_bias = o.learnable_bias.data<float>()});
}

std::string can_run_cuda(const Problem& p) {
  if (std::string reason = detail::is_elsewhere(DeviceType::cuda, p.q); !reason.empty()) return reason;
  if (p.q.size(4) > cuda::kAggregatedDim) return fmt::format("head_dim {} is above {}", p.q.size(4), cuda::kAggregatedDim);
  return {};
}
void run_cuda(const Problem& p) {
  const AggregatedOptions& o = p.options;
  cuda::attention_ops().aggregated_attention({p.q, p.k, p.v, p.pooled_k, p.pooled_v, o.window_size, o.query_embedding,
                                              o.temperature, o.local_bias, o.pool_bias, o.learnable_tokens, o.learnable_bias,
                                              p.out});
}

constexpr detail::Candidate<Problem> kCandidates[] = {
    {"cuda", can_run_cuda, run_cuda},
#if defined(VITRINE_X86)
    {"fused_avx512_bf16", can_run_fused<cpu::Isa::avx512_bf16>, run_fused<cpu::Isa::avx512_bf16>},
    {"fused_avx512", can_run_fused<cpu::Isa::avx512>, run_fused<cpu::Isa::avx512>},
    {"fused_avx2", can_run_fused<cpu::Isa::avx2>, run_fused<cpu::Isa::avx2>},
#endif
    {"fused_scalar", can_run_fused<cpu::Isa::scalar>, run_fused<cpu::Isa::scalar>},
    {"reference", [](const Problem& p) { return detail::is_elsewhere(DeviceType::cpu, p.q); }, run_reference},
};

// An offset in tokens on the scale that cpb takes, `reference` the size of the axis that it is measured by.
float log_offset(double tokens, std::int64_t reference) {
  const double r = reference > 1 ? 8.0 * tokens / static_cast<double>(reference - 1) : 0.0;
  return static_cast<float>(std::copysign(std::log2(1.0 + std::abs(r)) / 3.0, r));
}

// Offsets (query - pooled key) of one axis: [size][pooled], the key's coordinate the mean of those that adaptive pooling gives
// it.
std::vector<float> axis_offsets(std::int64_t size, std::int64_t pooled, std::int64_t reference) {
  std::vector<float> offsets(static_cast<std::size_t>(size * pooled));
  for (std::int64_t j = 0; j < pooled; ++j) {
    const std::int64_t begin = j * size / pooled, end = ((j + 1) * size + pooled - 1) / pooled;
    const double centre = 0.5 * static_cast<double>(begin + end - 1);
    for (std::int64_t i = 0; i < size; ++i)
      offsets[static_cast<std::size_t>(i * pooled + j)] = log_offset(static_cast<double>(i) - centre, reference);
  }
  return offsets;
}

// A layer of the position MLP: in f32, whatever the rest is in.
Linear table_layer(const Weights& w, std::int64_t in, std::int64_t out) {
  return {w.get("weight", {out, in}), w.get("bias", {out}), DType::f32, w.device()};
}

// The hidden size of the position MLP is the checkpoint's.
std::int64_t table_hidden(const Weights& w) {
  const auto stored = (w / "cpb_fc1").shape_of("weight");
  return stored && stored->rank() == 2 ? (*stored)[0] : 512;
}

HeadGates read_gates(const Weights& w, std::int64_t dim, std::int64_t heads, std::int64_t shared, std::int64_t routed) {
  return shared == 0 && routed == 0 ? HeadGates() : HeadGates(w, {dim, heads, shared, routed});
}

// y [..., heads, D] times the token's weights of heads.
void weigh_heads(Tensor& y, const HeadGates& gates, const Tensor& x) {
  if (!gates.defined()) return;
  const Tensor weights = gates(x).to(y.dtype());
  multiply_(y, weights.unsqueeze(weights.rank()));
}

// [heads]: softplus of the parameter
Tensor read_temperature(const Weights& w, std::int64_t heads) {
  Tensor temperature = w.get("temperature", {heads, 1, 1}).view({heads}).clone();
  for (float& t : std::span(temperature.data<float>(), static_cast<std::size_t>(heads)))
    t = t > 20.0f ? t : std::log1p(std::exp(t));
  return temperature.to(w.device());
}

}  // namespace

Tensor aggregated_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& pooled_k, const Tensor& pooled_v,
                            const AggregatedOptions& options) {
  validate(q, k, v, pooled_k, pooled_v, options);
  Tensor out = Tensor::empty(q.shape(), q.dtype(), q.device());
  if (out.numel() == 0) return out;
  const Problem problem{q, k, v, pooled_k, pooled_v, options, out};
  detail::choose<Problem>("aggregated_attention", kCandidates, problem, options.impl).run(problem);
  Context::current().add_macs(q.numel() * (3 * options.window_size * options.window_size + 2 * pooled_k.size(1)));
  return out;
}

AggregatedAttention::AggregatedAttention(const Weights& w, const AggregatedAttentionConfig& c, const LinearOptions& proj_options)
    : config(c) {
  const std::string where = detail::module_name("aggregated_attention", w);
  detail::check_num_heads(where, c.dim, c.num_heads);
  constexpr std::int64_t kMost = 1 << 10;
  if (c.window_size < 1 || c.window_size > kMost || c.sr_ratio < 1 || c.sr_ratio > kMost)
    throw Error(fmt::format("{}: window_size {}, sr_ratio {}; expected 1 to {}", where, c.window_size, c.sr_ratio, kMost));
  if (c.fixed_pool_size < 0 || c.fixed_pool_size > kMost)
    throw Error(fmt::format("{}: fixed_pool_size is {}, expected 1 to {}, or 0", where, c.fixed_pool_size, kMost));
  const std::int64_t heads = c.num_heads, head_dim = c.dim / heads, area = c.window_size * c.window_size;
  q = Linear(w / "q", c.dim, c.dim, {.bias = c.qkv_bias, .scale = {}});
  kv = Linear(w / "kv", c.dim, 2 * c.dim, {.bias = c.qkv_bias, .scale = {}});
  sr = Linear(w / "sr", c.dim, c.dim);
  norm = LayerNorm(w / "norm", c.dim, 1e-5);
  const std::int64_t hidden = table_hidden(w);
  cpb_fc1 = table_layer(w / "cpb_fc1", 2, hidden);
  cpb_fc2 = table_layer(w / "cpb_fc2", hidden, heads);
  query_embedding = w.on_device("query_embedding", {heads, 1, head_dim}).view({heads, head_dim});
  temperature = read_temperature(w, heads);
  gates = read_gates(w, c.dim, heads, c.shared_head, c.routed_head);
  local_bias = w.on_device("relative_pos_bias_local", {heads, area});
  learnable_tokens = w.on_device("learnable_tokens", {heads, head_dim, area});
  learnable_bias = w.on_device("learnable_bias", {heads, 1, area}).view({heads, area});
  proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

std::array<std::int64_t, 2> AggregatedAttention::pooled_size(std::int64_t height, std::int64_t width) const {
  if (config.fixed_pool_size > 0) return {config.fixed_pool_size, config.fixed_pool_size};
  return {height / config.sr_ratio, width / config.sr_ratio};
}

// [heads, P, H W]; a row of queries at a time, so that the hidden layer of all pairs is never held.
Tensor AggregatedAttention::make_pool_bias(std::int64_t height, std::int64_t width) const {
  const auto [rows, columns] = pooled_size(height, width);
  const auto [tall, wide] = config.pretrain_size;
  const std::int64_t pooled = rows * columns;
  const std::vector<float> down = axis_offsets(height, rows, tall > 0 ? tall : height);
  const std::vector<float> across = axis_offsets(width, columns, wide > 0 ? wide : width);
  const Device device = temperature.device();
  Tensor bias = Tensor::empty({config.num_heads, pooled, height * width}, DType::f32, device);
  for (std::int64_t y = 0; y < height; ++y) {
    Tensor offsets = Tensor::empty({width, pooled, 2});
    float* at = offsets.data<float>();
    for (std::int64_t x = 0; x < width; ++x)
      for (std::int64_t j = 0; j < pooled; ++j) {
        *at++ = down[static_cast<std::size_t>(y * rows + j / columns)];
        *at++ = across[static_cast<std::size_t>(x * columns + j % columns)];
      }
    const Tensor values = cpb_fc2(cpb_fc1(offsets.to(device), {.activation = Activation::relu}));  // [W, P, heads]
    Tensor row = bias.slice(2, y * width, (y + 1) * width);
    copy_(row, permute(values, std::array{2, 1, 0}));
  }
  return bias;
}

Tensor AggregatedAttention::operator()(const Tensor& x, Tensor residual) const {
  detail::check_map("aggregated_attention", x, config.dim);
  const std::int64_t H = x.size(1), W = x.size(2), heads = config.num_heads, head_dim = config.dim / heads;
  const auto [rows, columns] = pooled_size(H, W);
  if (rows < 1 || columns < 1)
    throw Error(fmt::format("aggregated_attention: a map of {} x {} is smaller than sr_ratio {}", H, W, config.sr_ratio));
  checked_numel({heads, rows * columns, H, W}, DType::f32);
  const Tensor pool_bias = pool_bias_.get(H, W, [&] { return make_pool_bias(H, W); });

  const Tensor reduced = adaptive_avg_pool2d(sr(x, {.activation = Activation::gelu, .residual = {}}), rows, columns);
  const Tensor pooled = kv(norm(reduced)).view({x.size(0), rows * columns, 2, heads, head_dim});
  const Tensor parts = kv(x).unflatten(3, {2, heads, head_dim});  // [B, H, W, 2, heads, D]
  Tensor y = aggregated_attention(q(x).unflatten(3, {heads, head_dim}), parts.select(3, 0), parts.select(3, 1),
                                  pooled.select(2, 0), pooled.select(2, 1),
                                  {.window_size = config.window_size,
                                   .query_embedding = query_embedding,
                                   .temperature = temperature,
                                   .local_bias = local_bias,
                                   .pool_bias = pool_bias,
                                   .learnable_tokens = learnable_tokens,
                                   .learnable_bias = learnable_bias});
  weigh_heads(y, gates, x);
  return proj(y.flatten(3, 4), {.activation = Activation::none, .residual = std::move(residual)});  // [B, H, W, C]
}

CosineAttention::CosineAttention(const Weights& w, const CosineAttentionConfig& c, const LinearOptions& proj_options)
    : config(c) {
  detail::check_num_heads(detail::module_name("cosine_attention", w), c.dim, c.num_heads);
  const std::int64_t heads = c.num_heads, hidden = table_hidden(w);
  qkv = Linear(w / "qkv", c.dim, 3 * c.dim, {.bias = c.qkv_bias});
  cpb_fc1 = table_layer(w / "cpb_fc1", 2, hidden);
  cpb_fc2 = table_layer(w / "cpb_fc2", hidden, heads);
  query_embedding = w.on_device("query_embedding", {heads, 1, c.dim / heads}).view({heads, c.dim / heads});
  temperature = read_temperature(w, heads);
  gates = read_gates(w, c.dim, heads, c.shared_head, c.routed_head);
  proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

// The MLP of all offsets between two tokens, spread to all pairs.
Tensor CosineAttention::make_bias(std::int64_t height, std::int64_t width) const {
  const std::int64_t tall = config.pretrain_size[0] > 0 ? config.pretrain_size[0] : height;
  const std::int64_t wide = config.pretrain_size[1] > 0 ? config.pretrain_size[1] : width;
  Tensor offsets = Tensor::empty({(2 * height - 1) * (2 * width - 1), 2});
  float* at = offsets.data<float>();
  for (std::int64_t y = 1 - height; y < height; ++y)
    for (std::int64_t x = 1 - width; x < width; ++x) {
      *at++ = log_offset(static_cast<double>(y), tall);
      *at++ = log_offset(static_cast<double>(x), wide);
    }
  const Device device = temperature.device();
  const Tensor table = cpb_fc2(cpb_fc1(offsets.to(device), {.activation = Activation::relu}));
  return relative_position_bias(table.to(Device{}), {height, width}).to(device);  // once a size: waiting for the GPU is all right
}

Tensor CosineAttention::operator()(const Tensor& x, Tensor residual) const {
  detail::check_map("cosine_attention", x, config.dim);
  const std::int64_t H = x.size(1), W = x.size(2), heads = config.num_heads;
  checked_numel({heads, H * W, H, W}, DType::f32);
  const Tensor bias = bias_.get(H, W, [&] { return make_bias(H, W); });
  const auto [queries, keys, values] = detail::split_qkv("cosine_attention", qkv, x.flatten(1, 2), heads);
  Tensor q = l2_normalize(queries);
  add_(q, query_embedding.to(q.dtype()));
  const Tensor factor = affine(temperature, static_cast<float>(std::log(static_cast<double>(H * W))), 0.0f);
  multiply_(q, factor.view({heads, 1}).to(q.dtype()));
  Tensor y = attention(q, l2_normalize(keys), values, {.scale = 1.0f, .bias = bias});
  weigh_heads(y, gates, x.flatten(1, 2));
  return proj(y.view(x.shape()), {.residual = std::move(residual)});
}

}  // namespace vitrine
