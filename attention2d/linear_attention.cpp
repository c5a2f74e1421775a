#include <vitrine/attention2d/linear_attention.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/candidates.h>
#include <vitrine/attention2d/cpu/launch.h>
#include <vitrine/attention2d/cpu/linear_attention.h>
#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/rows.h>
#include <vitrine/layers/checks.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/memory.h>

namespace vitrine {

namespace cpu {

VITRINE_DEFINE_KERNEL_TABLE(LinearAttentionKernels, linear_attention_kernels)

void linear_attention(Isa isa, const LinearAttentionProblem& p) {
  const LinearAttentionKernels& kernels = linear_attention_kernels(isa);
  const auto states = allocate(static_cast<std::size_t>(kernels.state_floats(p)) * sizeof(float));
  const auto bytes = static_cast<std::size_t>(kernels.workspace_bytes(p));
  for (int stage = 0; stage < kernels.stages(p); ++stage)
    parallel_for(kernels.items(p, stage), 1, [&](std::int64_t begin, std::int64_t end) {
      const auto workspace = allocate(bytes);
      kernels.run(p, stage, begin, end, static_cast<float*>(states.get()), workspace.get());
    });
}

}  // namespace cpu

namespace {

constexpr std::int64_t kMostDim = 1024;  // of a head
constexpr std::int64_t kMostFeatures = 16384;

bool is_taylor(FeatureMap map) { return map == FeatureMap::taylor1 || map == FeatureMap::taylor2; }

struct Problem {
  const Tensor &q, &k, &v;
  const LinearAttentionOptions& options;
  Tensor& out;

  std::string describe() const {
    return fmt::format("q {} k {} v {} {}{}", q.shape().to_string(), k.shape().to_string(), v.shape().to_string(),
                       name_of(q.dtype()), options.sin.defined() ? " rotary" : "");
  }
};

void check_weights(const Tensor& weights, const char* name, const Tensor& x) {
  if (!weights.defined()) return;
  detail::check_same_device("linear_attention", x, weights);
  const Shape expected{x.size(0), x.size(2), x.size(1)};
  if (weights.dtype() != DType::f32 || weights.shape() != expected || !weights.is_contiguous())
    throw Error(fmt::format("linear_attention: {} is {} {}, expected contiguous f32 {}", name, name_of(weights.dtype()),
                            weights.shape().to_string(), expected.to_string()));
}

void check_rotation(const Tensor& q, const Tensor& k, const LinearAttentionOptions& o) {
  if (o.sin.defined() != o.cos.defined()) throw Error("linear_attention: of sin and cos one is missing");
  if (!o.sin.defined()) return;
  const std::int64_t tokens = q.size(1), dim = q.size(3);
  for (const Tensor* t : {&o.sin, &o.cos}) detail::check_same_device("linear_attention", q, *t);
  for (const Tensor* t : {&o.sin, &o.cos})
    if (t->dtype() != DType::f32 || t->shape() != Shape{tokens, dim} || !t->is_contiguous())
      throw Error(fmt::format("linear_attention: {} is {} {}, expected contiguous f32 [{}, {}]", t == &o.sin ? "sin" : "cos",
                              name_of(t->dtype()), t->shape().to_string(), tokens, dim));
  if (k.size(1) != tokens)
    throw Error(fmt::format("linear_attention: {} queries and {} keys cannot turn by one sin and cos", tokens, k.size(1)));
  if (dim % 2 != 0) throw Error(fmt::format("linear_attention: head_dim {} is odd, channels turn in pairs", dim));
  // What turns is phi in S alone: nothing that is done to S and z together, or to one channel, goes with it.
  if (is_taylor(o.query_map) || o.key_map == FeatureMap::token_softmax || o.normalizer == LinearNormalizer::subtract)
    throw Error("linear_attention: taylor maps, token_softmax and the subtract normalizer have no rotary positions");
}

void validate(const Tensor& q, const Tensor& k, const Tensor& v, const LinearAttentionOptions& o) {
  detail::check_heads("linear_attention", q, k, v);
  if (o.query_map == FeatureMap::token_softmax) throw Error("linear_attention: token_softmax is a map of keys");
  if ((is_taylor(o.query_map) || is_taylor(o.key_map)) && o.query_map != o.key_map)
    throw Error("linear_attention: a taylor map of keys needs the same of queries");
  if (q.size(3) > kMostDim) throw Error(fmt::format("linear_attention: head_dim {}, expected at most {}", q.size(3), kMostDim));
  if (o.key_map == FeatureMap::taylor2 && q.size(3) * (q.size(3) + 3) / 2 >= kMostFeatures)
    throw Error(fmt::format("linear_attention: head_dim {} makes more than {} features", q.size(3), kMostFeatures));
  if (o.key_weights.defined() && (o.key_map == FeatureMap::token_softmax || o.normalizer == LinearNormalizer::subtract))
    throw Error("linear_attention: token_softmax and the subtract normalizer take no key_weights");
  check_weights(o.key_weights, "key_weights", k);
  check_weights(o.query_weights, "query_weights", q);
  check_rotation(q, k, o);
}

// --- the plain reference ----------------------------------------------------------------------------------------

double mapped(FeatureMap map, double x) {
  switch (map) {
    case FeatureMap::relu:
      return std::max(x, 0.0);
    case FeatureMap::elu1:
      return x > 0 ? x + 1 : std::exp(x);
    case FeatureMap::leaky_relu:
      return x < 0 ? 0.01 * x : x;
    case FeatureMap::exp:
      return std::exp(x);
    case FeatureMap::sigmoid:
      return 1 / (1 + std::exp(-x));
    default:
      return x;
  }
}

// x[at], x[at + step], ...: `count` of them
void soften(double* x, std::int64_t count, std::int64_t step) {
  double largest = x[0], sum = 0;
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, x[i * step]);
  for (std::int64_t i = 0; i < count; ++i) sum += x[i * step] = std::exp(x[i * step] - largest);
  for (std::int64_t i = 0; i < count; ++i) x[i * step] /= sum;
}

std::int64_t features_of(FeatureMap map, std::int64_t dim) {
  if (map == FeatureMap::taylor1) return 1 + dim;
  if (map == FeatureMap::taylor2) return 1 + dim + dim * dim;
  return dim;
}

// phi of one head, [tokens, features].
std::vector<double> features(const Tensor& x, std::int64_t image, std::int64_t head, FeatureMap map, double scale) {
  const std::vector<float> rows = detail::read_head(x, image, head);
  const std::int64_t tokens = x.size(1), dim = x.size(3), count = features_of(map, dim);
  std::vector<double> phi(static_cast<std::size_t>(tokens * count));
  for (std::int64_t j = 0; j < tokens; ++j) {
    const float* row = rows.data() + j * dim;
    double* to = phi.data() + j * count;
    if (is_taylor(map)) {
      *to++ = 1;
      for (std::int64_t d = 0; d < dim; ++d) to[d] = row[d] * scale;
      if (map == FeatureMap::taylor2)
        for (std::int64_t a = 0; a < dim; ++a)
          for (std::int64_t b = 0; b < dim; ++b) to[dim + a * dim + b] = to[a] * to[b] * std::sqrt(0.5);
      continue;
    }
    for (std::int64_t d = 0; d < dim; ++d) to[d] = mapped(map, row[d] * scale);
    if (map == FeatureMap::channel_softmax) soften(to, dim, 1);
  }
  if (map == FeatureMap::token_softmax)
    for (std::int64_t d = 0; d < dim; ++d) soften(phi.data() + d, tokens, dim);
  return phi;
}

void rotate(std::vector<double>& phi, const Tensor& sin, const Tensor& cos) {
  const float *s = sin.data<float>(), *c = cos.data<float>();
  for (std::size_t i = 0; i < phi.size(); i += 2) {
    const double a = phi[i], b = phi[i + 1];
    phi[i] = a * c[i] - b * s[i];
    phi[i + 1] = b * c[i + 1] + a * s[i + 1];
  }
}

void run_reference(const Problem& p) {
  const auto& o = p.options;
  const std::int64_t heads = p.q.size(2), queries = p.q.size(1), keys = p.k.size(1), value_dim = p.v.size(3);
  const std::int64_t count = features_of(o.key_map, p.q.size(3));
  const double mean = 1.0 / static_cast<double>(keys);
  cpu::parallel_each(p.q.size(0) * heads, [&](std::int64_t item, int) {
    const std::int64_t b = item / heads, h = item % heads;
    std::vector<double> phi_q = features(p.q, b, h, o.query_map, o.feature_scale),
                        phi_k = features(p.k, b, h, o.key_map, o.feature_scale);
    const std::vector<float> v = detail::read_head(p.v, b, h);
    if (o.key_weights.defined())
      for (std::int64_t i = 0; i < keys * count; ++i) phi_k[i] *= o.key_weights.data<float>()[item * keys + i / count];
    std::vector<double> z(static_cast<std::size_t>(count)), denominator(static_cast<std::size_t>(queries));
    for (std::int64_t i = 0; i < keys * count; ++i) z[i % count] += phi_k[i];
    for (std::int64_t i = 0; i < queries * count; ++i) denominator[i / count] += phi_q[i] * z[i % count];
    if (o.sin.defined()) {
      rotate(phi_q, o.sin, o.cos);
      rotate(phi_k, o.sin, o.cos);
    }
    std::vector<double> state(static_cast<std::size_t>(count * value_dim)), total(static_cast<std::size_t>(value_dim));
    for (std::int64_t j = 0; j < keys; ++j)
      for (std::int64_t c = 0; c < value_dim; ++c) {
        total[c] += v[j * value_dim + c];
        for (std::int64_t f = 0; f < count; ++f) state[f * value_dim + c] += phi_k[j * count + f] * v[j * value_dim + c];
      }
    std::vector<float> row(static_cast<std::size_t>(value_dim));
    for (std::int64_t i = 0; i < queries; ++i) {
      const double u = o.query_weights.defined() ? o.query_weights.data<float>()[item * queries + i] : 1.0;
      for (std::int64_t c = 0; c < value_dim; ++c) {
        double sum = 0;
        for (std::int64_t f = 0; f < count; ++f) sum += phi_q[i * count + f] * state[f * value_dim + c];
        sum *= o.scale;
        switch (o.normalizer) {
          case LinearNormalizer::none:
            break;
          case LinearNormalizer::sum:
            sum /= denominator[i] + o.eps;
            break;
          case LinearNormalizer::mean:
            sum = sum * mean / (denominator[i] * mean + o.eps);
            break;
          case LinearNormalizer::subtract:
            sum = sum * mean + (1 - o.scale * denominator[i] * mean) * total[c] * mean;
            break;
        }
        row[c] = static_cast<float>(u * sum);
      }
      detail::write_row(p.out, ((b * queries + i) * heads + h) * value_dim, row);
    }
  });
}

// --- kernels ----------------------------------------------------------------------------------------------------

const float* data_or_null(const Tensor& t) { return t.defined() ? t.data<float>() : nullptr; }

// The rule that gives a normalizer, and its numbers.
struct Normalization {
  StateRule rule = StateRule::plain;
  float numerator = 1, denominator = 1;
};
Normalization normalization_of(const LinearAttentionOptions& o, std::int64_t keys) {
  const float mean = 1.0f / static_cast<float>(keys);
  switch (o.normalizer) {
    case LinearNormalizer::none:
      break;
    case LinearNormalizer::sum:
      return {StateRule::ratio, o.scale, 1};
    case LinearNormalizer::mean:
      return {StateRule::ratio, o.scale * mean, mean};
    case LinearNormalizer::subtract:
      return {StateRule::centred, o.scale * mean, 1};
  }
  return {StateRule::plain, o.scale, 1};
}

template <cpu::Isa kIsa>
std::string can_run_fused(const Problem& p) {
  return detail::lacks(kIsa, p.q);
}

template <cpu::Isa kIsa>
void run_fused(const Problem& p) {
  const auto& o = p.options;
  const Normalization n = normalization_of(o, p.k.size(1));
  cpu::LinearAttentionProblem f;
  f.q = detail::heads_view(p.q);
  f.k = detail::heads_view(p.k);
  f.v = detail::heads_view(p.v);
  f.out = detail::heads_view(p.out);
  f.type = cpu::float_type(p.q.dtype());
  f.images = p.q.size(0);
  f.heads = p.q.size(2);
  f.queries = p.q.size(1);
  f.keys = p.k.size(1);
  f.dim = p.q.size(3);
  f.value_dim = p.v.size(3);
  f.query_map = o.query_map;
  f.key_map = o.key_map;
  f.feature_scale = o.feature_scale;
  f.rule = n.rule;
  f.numerator = n.numerator;
  f.denominator = n.denominator;
  f.eps = o.eps;
  f.key_weights = data_or_null(o.key_weights);
  f.query_weights = data_or_null(o.query_weights);
  f.sin = data_or_null(o.sin);
  f.cos = data_or_null(o.cos);
  cpu::linear_attention(kIsa, f);
}

std::string can_run_cuda(const Problem& p) { return detail::is_elsewhere(DeviceType::cuda, p.q); }
void run_cuda(const Problem& p) {
  const auto& o = p.options;
  const Normalization n = normalization_of(o, p.k.size(1));
  cuda::attention_ops().linear_attention({p.q, p.k, p.v, o.query_map, o.key_map, o.feature_scale, n.rule, n.numerator,
                                          n.denominator, o.eps, o.key_weights, o.query_weights, o.sin, o.cos, p.out});
}

constexpr detail::Candidate<Problem> kCandidates[] = {
    {"cuda", can_run_cuda, run_cuda},
#if defined(VITRINE_X86)
    {"fused_avx512", can_run_fused<cpu::Isa::avx512>, run_fused<cpu::Isa::avx512>},
    {"fused_avx2", can_run_fused<cpu::Isa::avx2>, run_fused<cpu::Isa::avx2>},
#endif
    {"fused_scalar", can_run_fused<cpu::Isa::scalar>, run_fused<cpu::Isa::scalar>},
    {"reference", [](const Problem& p) { return detail::is_elsewhere(DeviceType::cpu, p.q); }, run_reference},
};

cpu::FeatureProblem feature_problem(const char* op, const Tensor& x, FeatureMap map) {
  detail::check_heads(op, x, x, x);
  if (map == FeatureMap::token_softmax || is_taylor(map))
    throw Error(fmt::format("{}: the map is none of head_dim features a token", op));
  cpu::FeatureProblem p;
  p.x = detail::heads_view(x);
  p.type = cpu::float_type(x.dtype());
  p.images = x.size(0);
  p.heads = x.size(2);
  p.tokens = x.size(1);
  p.dim = x.size(3);
  p.map = map;
  return p;
}

template <typename Run>
void run_features(const cpu::FeatureProblem& p, const Run& run) {
  const cpu::LinearAttentionKernels& kernels = cpu::linear_attention_kernels(cpu::isa());
  const auto bytes = static_cast<std::size_t>(kernels.feature_workspace_bytes(p));
  cpu::parallel_for(p.images * p.heads * kernels.feature_chunks(p), 1, [&](std::int64_t begin, std::int64_t end) {
    const auto workspace = allocate(bytes);
    run(kernels)(p, begin, end, workspace.get());
  });
}

}  // namespace

Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v, const LinearAttentionOptions& options) {
  validate(q, k, v, options);
  Tensor out = Tensor::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.dtype(), q.device());
  if (out.numel() == 0) return out;
  const Problem problem{q, k, v, options, out};
  detail::choose<Problem>("linear_attention", kCandidates, problem, options.impl).run(problem);
  std::int64_t features = q.size(3);
  if (is_taylor(options.key_map)) features += 1;
  if (options.key_map == FeatureMap::taylor2) features += q.size(3) * (q.size(3) + 1) / 2;
  Context::current().add_macs(q.size(0) * q.size(2) * (q.size(1) + k.size(1)) * features * v.size(3));
  return out;
}

Tensor feature_sums(const Tensor& x, FeatureMap map, const Tensor& weights) {
  cpu::FeatureProblem p = feature_problem("feature_sums", x, map);
  check_weights(weights, "weights", x);
  if (cuda::is_on_gpu(x)) {
    Tensor sums = Tensor::empty({p.images, p.heads, p.dim}, DType::f32, x.device());
    if (sums.numel() > 0) cuda::attention_ops().feature_sums(x, map, weights, sums);
    return sums;
  }
  p.weights = data_or_null(weights);
  const std::int64_t chunks = cpu::linear_attention_kernels(cpu::isa()).feature_chunks(p);
  Tensor partial = Tensor::empty({p.images, p.heads, chunks, p.dim});
  p.result = partial.data<float>();
  run_features(p, [](const cpu::LinearAttentionKernels& kernels) { return kernels.feature_sums; });
  if (chunks == 1) return partial.view({p.images, p.heads, p.dim});
  Tensor sums = Tensor::zeros({p.images, p.heads, p.dim});
  for (std::int64_t row = 0; row < p.images * p.heads; ++row)
    for (std::int64_t c = 0; c < chunks; ++c)
      for (std::int64_t d = 0; d < p.dim; ++d) sums.data<float>()[row * p.dim + d] += p.result[(row * chunks + c) * p.dim + d];
  return sums;
}

Tensor feature_dots(const Tensor& x, FeatureMap map, const Tensor& u) {
  cpu::FeatureProblem p = feature_problem("feature_dots", x, map);
  const Shape expected{p.images, p.heads, p.dim};
  if (!u.defined() || u.dtype() != DType::f32 || u.shape() != expected || !u.is_contiguous())
    throw Error(fmt::format("feature_dots: u is {}, expected contiguous f32 {}",
                            u.defined() ? fmt::format("{} {}", name_of(u.dtype()), u.shape().to_string()) : "undefined",
                            expected.to_string()));
  detail::check_same_device("feature_dots", x, u);
  Tensor dots = Tensor::empty({p.images, p.heads, p.tokens}, DType::f32, x.device());
  if (cuda::is_on_gpu(x)) {
    if (dots.numel() > 0) cuda::attention_ops().feature_dots(x, map, u, dots);
    return dots;
  }
  p.vector = u.data<float>();
  p.result = dots.data<float>();
  run_features(p, [](const cpu::LinearAttentionKernels& kernels) { return kernels.feature_dots; });
  return dots;
}

LinearAttention::LinearAttention(const Weights& w, const LinearAttentionConfig& c, const LinearOptions& proj_options)
    : config(c) {
  const std::string where = detail::module_name("linear_attention", w);
  detail::check_num_heads(where, c.dim, c.num_heads);
  qkv = Linear(w / "qkv", c.dim, 3 * c.dim, {.bias = c.qkv_bias});
  proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

Tensor LinearAttention::operator()(const Tensor& x, Tensor residual) const {
  const auto [q, k, v] = detail::split_qkv("linear_attention", qkv, x, config.num_heads);  // [B, N, heads, head_dim]
  const Tensor y = linear_attention(
      q, k, v,
      {.query_map = config.feature_map, .key_map = config.feature_map, .normalizer = config.normalizer, .eps = config.eps});
  return proj(y.flatten(2, 3), {.residual = std::move(residual)});
}

}  // namespace vitrine
