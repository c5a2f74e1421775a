#include <vitrine/attention2d/grouped.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/candidates.h>
#include <vitrine/attention2d/cpu/launch.h>
#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/rows.h>
#include <vitrine/layers/checks.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/parallel.h>

namespace vitrine {

namespace {

std::int64_t keys_of(const GroupedOptions& o) { return o.boxes.defined() ? o.box_keys[0] * o.box_keys[1] : o.keys.size(2); }

struct Problem {
  const Tensor &q, &k, &v;
  const GroupedOptions& options;
  float scale;
  Tensor& out;

  std::int64_t groups() const { return options.queries.size(1); }
  std::int64_t group_queries() const { return options.queries.size(2); }
  std::int64_t group_keys() const { return keys_of(options); }
  std::string describe() const {
    return fmt::format("q {} k {} v {} {} queries {} keys a group {}{}{}{}{}", q.shape().to_string(), k.shape().to_string(),
                       v.shape().to_string(), name_of(q.dtype()), options.queries.shape().to_string(), group_keys(),
                       options.boxes.defined() ? " in boxes" : "", options.bias.defined() ? " bias" : "",
                       options.row_bias.defined() ? " row and column bias" : "", options.is_cosine ? " cosine" : "");
  }
};

std::string described(const Tensor& t) {
  return t.defined() ? fmt::format("{} {}", name_of(t.dtype()), t.shape().to_string()) : "undefined";
}

void validate_tensors(const Tensor& q, const Tensor& k, const Tensor& v) {
  detail::check_qkv("grouped_attention", q, k, v, "[B, L, heads, head_dim]");
  if (k.size(0) != q.size(0) || v.size(0) != q.size(0) || k.size(1) != v.size(1) || k.size(2) != v.size(2) ||
      k.size(3) != q.size(3))
    throw Error(
        fmt::format("grouped_attention: q {}, k {}, v {} do not fit; expected [B, Lq, Hq, D], [B, Lk, Hk, D], [B, Lk, Hk, Dv]",
                    q.shape().to_string(), k.shape().to_string(), v.shape().to_string()));
  detail::check_head_groups("grouped_attention", q, k);
}

// Indices are contiguous i32 [1 or B, G, N] in -1 .. tokens - 1; those on a GPU are looked at by the kernel only.
void validate_indices(const Tensor& t, const char* name, std::int64_t images, std::int64_t tokens) {
  if (!t.defined() || t.dtype() != DType::i32 || t.rank() != 3 || (t.size(0) != 1 && t.size(0) != images) || !t.is_contiguous())
    throw Error(fmt::format("grouped_attention: {} is {}, expected contiguous i32 [1 or {}, groups, tokens]", name, described(t),
                            images));
  if (cuda::is_on_gpu(t)) return;
  const std::int32_t* index = t.data<std::int32_t>();
  for (std::int64_t i = 0; i < t.numel(); ++i)
    if (index[i] < -1 || index[i] >= tokens)
      throw Error(fmt::format("grouped_attention: {} has index {}, expected -1 to {}", name, index[i], tokens - 1));
}

// How many of an image's query tokens are in a group, at least; refuses a token that is in two.
std::int64_t least_named(const Tensor& queries, std::int64_t tokens) {
  std::int64_t least = tokens;
  std::vector<char> seen(static_cast<std::size_t>(tokens));
  for (std::int64_t b = 0; b < queries.size(0); ++b) {
    std::fill(seen.begin(), seen.end(), 0);
    std::int64_t named = 0;
    const std::span index(queries.data<std::int32_t>() + b * queries.stride(0),
                          static_cast<std::size_t>(queries.size(1) * queries.size(2)));
    for (const std::int32_t token : index) {
      if (token < 0) continue;
      if (seen[static_cast<std::size_t>(token)]++)
        throw Error(fmt::format("grouped_attention: query token {} is in two groups, expected one", token));
      ++named;
    }
    least = std::min(least, named);
  }
  return least;
}

void validate_shape(const Tensor& t, const char* name, DType dtype, const Shape& expected) {
  if (t.defined() && (t.dtype() != dtype || t.shape() != expected))
    throw Error(
        fmt::format("grouped_attention: {} is {}, expected {} {}", name, described(t), name_of(dtype), expected.to_string()));
}

void validate_biases(const Tensor& q, const GroupedOptions& o) {
  const std::int64_t images = q.size(0), heads = q.size(2), groups = o.queries.size(1), nq = o.queries.size(2), nk = keys_of(o);
  const Tensor& bias = o.bias;
  if (bias.defined() && (bias.dtype() != DType::f32 || bias.rank() != 4 || bias.size(0) < 1 ||
                         (bias.size(1) != 1 && bias.size(1) != heads) || bias.size(2) != nq || bias.size(3) != nk))
    throw Error(
        fmt::format("grouped_attention: bias is {}, expected f32 [patterns, 1 or {}, {}, {}]", described(bias), heads, nq, nk));
  if (o.pattern.defined()) {
    validate_shape(o.pattern, "pattern", DType::i32, {groups});
    const std::int64_t patterns = bias.defined() ? bias.size(0) : 1;
    for (std::int64_t g = 0; g < groups && !cuda::is_on_gpu(o.pattern); ++g)
      if (const std::int32_t at = o.pattern.data<std::int32_t>()[g]; at < 0 || at >= patterns)
        throw Error(fmt::format("grouped_attention: pattern has {}, expected 0 to {}", at, patterns - 1));
  }
  if (o.row_bias.defined() != o.column_bias.defined())
    throw Error("grouped_attention: row_bias and column_bias go together, one is missing");
  for (const auto& [t, name] : {std::pair(&o.row_bias, "row_bias"), std::pair(&o.column_bias, "column_bias")})
    if (t->defined() && (t->dtype() != DType::f32 || t->rank() != 4 || (t->size(0) != 1 && t->size(0) != images) ||
                         t->size(1) != q.size(1) || t->size(2) != heads || t->size(3) < 1))
      throw Error(fmt::format("grouped_attention: {} is {}, expected f32 [1 or {}, {}, {}, rows or columns]", name, described(*t),
                              images, q.size(1), heads));
  // divided, as a product of hostile sizes could overflow
  if (o.row_bias.defined() && (nk % o.column_bias.size(3) != 0 || nk / o.column_bias.size(3) != o.row_bias.size(3)))
    throw Error(fmt::format("grouped_attention: {} rows and {} columns of bias, expected {} keys", o.row_bias.size(3),
                            o.column_bias.size(3), nk));
  validate_shape(o.head_scale, "head_scale", DType::f32, {heads});
}

void validate_keys(const Tensor& k, const GroupedOptions& o) {
  validate_indices(o.keys, "keys", k.size(0), k.size(1));
  if (o.queries.size(1) != o.keys.size(1))
    throw Error(fmt::format("grouped_attention: {} groups of queries, {} groups of keys, expected as many", o.queries.size(1),
                            o.keys.size(1)));
}

void validate_boxes(const Tensor& k, const GroupedOptions& o) {
  if (o.keys.defined()) throw Error("grouped_attention: keys and boxes are both given, expected one");
  validate_shape(o.boxes, "boxes", DType::f32, {k.size(0), o.queries.size(1), k.size(2), 4});
  if (!o.boxes.is_contiguous()) throw Error("grouped_attention: boxes are strided, expected contiguous");
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (o.map[0] < 1 || o.map[1] < 1 || o.map[0] > kMost / o.map[1] || o.map[0] * o.map[1] != k.size(1))
    throw Error(fmt::format("grouped_attention: the map of boxes is {}x{}, expected {} tokens", o.map[0], o.map[1], k.size(1)));
  if (o.box_keys[0] < 1 || o.box_keys[1] < 1 || o.box_keys[0] > kMost / o.box_keys[1])
    throw Error(fmt::format("grouped_attention: box_keys is {}x{}, expected positive numbers", o.box_keys[0], o.box_keys[1]));
}

void validate(const Tensor& q, const Tensor& k, const Tensor& v, const GroupedOptions& o) {
  validate_tensors(q, k, v);
  validate_indices(o.queries, "queries", q.size(0), q.size(1));
  o.boxes.defined() ? validate_boxes(k, o) : validate_keys(k, o);
  validate_shape(o.pad_key, "pad_key", q.dtype(), {k.size(2), k.size(3)});
  validate_shape(o.pad_value, "pad_value", q.dtype(), {v.size(2), v.size(3)});
  validate_biases(q, o);
  for (const Tensor* t :
       {&o.queries, &o.keys, &o.pad_key, &o.pad_value, &o.bias, &o.pattern, &o.boxes, &o.row_bias, &o.column_bias, &o.head_scale})
    detail::check_same_device("grouped_attention", q, *t);
}

// Row j of a box's grid in the map `rows` of a head: bilinear, zeros outside.
void sample(const GroupedOptions& o, const float* box, std::int64_t j, const std::vector<float>& rows, std::vector<float>& to) {
  const double y = box[0] + static_cast<double>(j / o.box_keys[1]) * box[2];
  const double x = box[1] + static_cast<double>(j % o.box_keys[1]) * box[3];
  std::vector<double> sum(to.size());
  for (int tap = 0; tap < 4; ++tap) {
    const double ty = std::floor(y) + tap / 2, tx = std::floor(x) + tap % 2;
    if (!(ty >= 0 && ty < static_cast<double>(o.map[0]) && tx >= 0 && tx < static_cast<double>(o.map[1]))) continue;
    const double weight = (1 - std::abs(y - ty)) * (1 - std::abs(x - tx));
    const std::size_t token = static_cast<std::size_t>(static_cast<std::int64_t>(ty) * o.map[1] + static_cast<std::int64_t>(tx));
    for (std::size_t d = 0; d < to.size(); ++d) sum[d] += weight * rows[token * to.size() + d];
  }
  std::transform(sum.begin(), sum.end(), to.begin(), [](double v) { return static_cast<float>(v); });
}

// The definition, one query after another; what the kernels are compared with.
void run_reference(const Problem& p) {
  const GroupedOptions& o = p.options;
  const std::int64_t heads = p.q.size(2), lq = p.q.size(1), dim = p.q.size(3), value_dim = p.v.size(3);
  const std::int64_t nq = p.group_queries(), nk = p.group_keys(), group_heads = heads / p.k.size(2);
  const auto image_of = [](const Tensor& t, std::int64_t b) { return t.size(0) == 1 ? 0 : b * t.stride(0); };
  cpu::parallel_each(p.q.size(0) * heads, [&](std::int64_t item, int) {
    const std::int64_t b = item / heads, h = item % heads, key_head = h / group_heads;
    auto q = detail::read_head(p.q, b, h), k = detail::read_head(p.k, b, key_head);
    const auto v = detail::read_head(p.v, b, key_head);
    std::vector<float> pad_key(static_cast<std::size_t>(dim)), pad_value(static_cast<std::size_t>(value_dim));
    if (o.pad_key.defined()) detail::read_row(o.pad_key, key_head * o.pad_key.stride(0), pad_key);
    if (o.pad_value.defined()) detail::read_row(o.pad_value, key_head * o.pad_value.stride(0), pad_value);
    const auto norm = [&](const float* row) {
      double sum = 0;
      for (std::int64_t d = 0; d < dim; ++d) sum += static_cast<double>(row[d]) * row[d];
      return o.is_cosine ? std::max(std::sqrt(sum), 1e-12) : 1.0;
    };
    const double scale = o.head_scale.defined() ? static_cast<double>(p.scale) * o.head_scale.data<float>()[h] : p.scale;
    std::vector<double> weights(static_cast<std::size_t>(nk)), sums(static_cast<std::size_t>(value_dim));
    std::vector<float> out(static_cast<std::size_t>(value_dim));
    for (std::int64_t i = 0; i < p.groups() * nq; ++i) {
      const std::int64_t group = i / nq, token = o.queries.data<std::int32_t>()[image_of(o.queries, b) + i];
      if (token < 0) continue;
      const float* row = q.data() + token * dim;
      const std::int32_t* keys = o.boxes.defined() ? nullptr : o.keys.data<std::int32_t>() + image_of(o.keys, b) + group * nk;
      const float* box =
          o.boxes.defined() ? o.boxes.data<float>() + ((b * p.groups() + group) * p.k.size(2) + key_head) * 4 : nullptr;
      const auto row_of = [&](const std::vector<float>& rows, std::vector<float>& other, std::int64_t j) {
        if (box) sample(o, box, j, rows, other);
        return box || keys[j] < 0 ? other.data() : rows.data() + keys[j] * static_cast<std::int64_t>(other.size());
      };
      double largest = -std::numeric_limits<double>::infinity();
      for (std::int64_t j = 0; j < nk; ++j) {
        const float* key = row_of(k, pad_key, j);
        double logit = 0;
        for (std::int64_t d = 0; d < dim; ++d) logit += static_cast<double>(row[d]) * key[d];
        logit *= scale / (norm(row) * norm(key));
        if (o.bias.defined()) {
          const std::int64_t table = o.pattern.defined() ? o.pattern.data<std::int32_t>()[group] : 0;
          logit += o.bias.data<float>()[table * o.bias.stride(0) + (o.bias.size(1) == 1 ? 0 : h * o.bias.stride(1)) +
                                        i % nq * o.bias.stride(2) + j];
        }
        if (o.row_bias.defined()) {
          const std::int64_t columns = o.column_bias.size(3);
          const auto at = [&](const Tensor& t, std::int64_t n) {
            return t.data<float>()[image_of(t, b) + token * t.stride(1) + h * t.stride(2) + n];
          };
          logit += at(o.row_bias, j / columns) + at(o.column_bias, j % columns);
        }
        weights[static_cast<std::size_t>(j)] = logit;
        largest = std::max(largest, logit);
      }
      double total = 0;
      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::int64_t j = 0; j < nk; ++j) {
        const float* value = row_of(v, pad_value, j);
        const double weight = std::exp(weights[static_cast<std::size_t>(j)] - largest);
        total += weight;
        for (std::int64_t d = 0; d < value_dim; ++d) sums[static_cast<std::size_t>(d)] += weight * value[d];
      }
      for (std::size_t d = 0; d < sums.size(); ++d) out[d] = static_cast<float>(sums[d] / total);
      detail::write_row(p.out, ((b * lq + token) * heads + h) * value_dim, out);
    }
  });
}

template <cpu::Isa kIsa>
std::string can_run_flash(const Problem& p) {
  if (std::string reason = detail::lacks(kIsa, p.q); !reason.empty()) return reason;
  if (p.q.size(3) > cpu::kFlashMaxDim) return fmt::format("head_dim {} is above {}", p.q.size(3), cpu::kFlashMaxDim);
  return {};
}

template <cpu::Isa kIsa>
void run_flash(const Problem& p) {
  const GroupedOptions& o = p.options;
  std::vector<std::int64_t> offsets[4];
  const auto view = [&](const Tensor& t, std::vector<std::int64_t>& image_offset) {
    for (std::int64_t b = 0; b < t.size(0); ++b) image_offset.push_back(b * t.stride(0));
    return cpu::TokenView{t.raw(), image_offset.data(), t.stride(2), 0, t.stride(1), t.size(1)};
  };
  const auto step = [](const Tensor& t, int axis) { return t.defined() && t.size(axis) > 1 ? t.stride(axis) : 0; };
  const auto axis_bias = [&](const Tensor& t) {
    return t.defined() ? cpu::AxisBias{t.data<float>(), step(t, 0), t.stride(1), t.stride(2)} : cpu::AxisBias{};
  };
  const std::int64_t widest = std::max(p.k.size(3), p.v.size(3));
  const Tensor zero = o.pad_key.defined() && o.pad_value.defined() ? Tensor() : Tensor::zeros({widest}, p.q.dtype());
  cpu::FlashProblem f;
  f.q = view(p.q, offsets[0]);
  f.k = view(p.k, offsets[1]);
  f.v = view(p.v, offsets[2]);
  f.out = view(p.out, offsets[3]);
  f.type = cpu::float_type(p.q.dtype());
  f.images = p.q.size(0);
  f.groups = p.groups();
  f.heads = p.q.size(2);
  f.key_heads = p.k.size(2);
  f.queries = p.group_queries();
  f.keys = p.group_keys();
  f.dim = p.q.size(3);
  f.value_dim = p.v.size(3);
  f.scale = p.scale;
  f.query_index = o.queries.data<std::int32_t>();
  f.query_index_image = step(o.queries, 0);
  if (o.boxes.defined()) {
    f.boxes = o.boxes.data<float>();
    f.box_columns = o.box_keys[1];
    f.map_height = o.map[0];
    f.map_width = o.map[1];
  } else {
    f.key_index = o.keys.data<std::int32_t>();
    f.key_index_image = step(o.keys, 0);
  }
  f.pad_key = o.pad_key.defined() ? o.pad_key.raw() : zero.raw();
  f.pad_key_head = o.pad_key.defined() ? o.pad_key.stride(0) : 0;
  f.pad_value = o.pad_value.defined() ? o.pad_value.raw() : zero.raw();
  f.pad_value_head = o.pad_value.defined() ? o.pad_value.stride(0) : 0;
  if (o.bias.defined()) {
    f.bias = o.bias.data<float>();
    f.pattern = o.pattern.defined() ? o.pattern.data<std::int32_t>() : nullptr;
    f.bias_pattern = o.bias.stride(0);
    f.bias_head = step(o.bias, 1);
    f.bias_row = o.bias.stride(2);
  }
  f.row_bias = axis_bias(o.row_bias);
  f.column_bias = axis_bias(o.column_bias);
  f.columns = o.column_bias.defined() ? o.column_bias.size(3) : 1;
  f.head_scale = o.head_scale.defined() ? o.head_scale.data<float>() : nullptr;
  f.is_cosine = o.is_cosine;
  cpu::flash_attention(kIsa, f);
}

std::string can_run_cuda(const Problem& p) { return detail::lacks_gpu(p.q, p.v, cpu::kFlashMaxDim); }
void run_cuda(const Problem& p) { cuda::attention_ops().grouped_attention({p.q, p.k, p.v, p.scale, p.options, p.out}); }

constexpr detail::Candidate<Problem> kCandidates[] = {
    {"cuda", can_run_cuda, run_cuda},
#if defined(VITRINE_X86)
    {"flash_avx512_bf16", can_run_flash<cpu::Isa::avx512_bf16>, run_flash<cpu::Isa::avx512_bf16>},
    {"flash_avx512", can_run_flash<cpu::Isa::avx512>, run_flash<cpu::Isa::avx512>},
    {"flash_avx2", can_run_flash<cpu::Isa::avx2>, run_flash<cpu::Isa::avx2>},
#endif
    {"flash_scalar", can_run_flash<cpu::Isa::scalar>, run_flash<cpu::Isa::scalar>},
    {"reference", [](const Problem& p) { return detail::is_elsewhere(DeviceType::cpu, p.q); }, run_reference},
};

}  // namespace

Tensor grouped_attention(const Tensor& q, const Tensor& k, const Tensor& v, const GroupedOptions& options) {
  validate(q, k, v, options);
  const bool all_named = cuda::is_on_gpu(q) ? options.covers_all : least_named(options.queries, q.size(1)) == q.size(1);
  const Shape shape{q.size(0), q.size(1), q.size(2), v.size(3)};
  // with no keys at all there is nothing to sum
  const bool is_empty = keys_of(options) == 0 || options.queries.numel() == 0;
  Tensor out = all_named && !is_empty ? Tensor::empty(shape, q.dtype(), q.device()) : Tensor::zeros(shape, q.dtype(), q.device());
  if (out.numel() == 0 || is_empty) return out;
  const float scale = options.scale.value_or(static_cast<float>(1.0 / std::sqrt(static_cast<double>(q.size(3)))));
  const Problem problem{q, k, v, options, scale, out};
  detail::choose<Problem>("grouped_attention", kCandidates, problem, options.impl).run(problem);
  Context::current().add_macs(q.size(0) * q.size(1) * q.size(2) * keys_of(options) * (q.size(3) + v.size(3)));
  return out;
}

}  // namespace vitrine
