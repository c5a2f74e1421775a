#include <vitrine/attention2d/channel_attention.h>

#include <algorithm>
#include <cmath>
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
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/parallel.h>

namespace vitrine {

namespace {

struct Problem {
  const Tensor &a, &b, &x;
  float scale;
  Tensor& out;

  std::string describe() const { return fmt::format("{} {}", x.shape().to_string(), name_of(x.dtype())); }
};

void run_reference(const Problem& p) {
  const std::int64_t heads = p.x.size(2), tokens = p.x.size(1), dim = p.x.size(3);
  cpu::parallel_each(p.x.size(0) * heads, [&](std::int64_t item, int) {
    const std::int64_t image = item / heads, head = item % heads;
    const auto a = detail::read_head(p.a, image, head), b = detail::read_head(p.b, image, head),
               x = detail::read_head(p.x, image, head);
    std::vector<double> weights(static_cast<std::size_t>(dim * dim));
    for (std::int64_t r = 0; r < dim; ++r) {
      double* row = weights.data() + r * dim;
      for (std::int64_t n = 0; n < tokens; ++n)
        for (std::int64_t c = 0; c < dim; ++c) row[c] += static_cast<double>(p.scale) * a[n * dim + r] * b[n * dim + c];
      const double largest = *std::max_element(row, row + dim);
      double sum = 0;
      for (std::int64_t c = 0; c < dim; ++c) sum += row[c] = std::exp(row[c] - largest);
      for (std::int64_t c = 0; c < dim; ++c) row[c] /= sum;
    }
    std::vector<float> result(static_cast<std::size_t>(dim));
    for (std::int64_t n = 0; n < tokens; ++n) {
      for (std::int64_t r = 0; r < dim; ++r) {
        double sum = 0;
        for (std::int64_t c = 0; c < dim; ++c) sum += weights[r * dim + c] * x[n * dim + c];
        result[r] = static_cast<float>(sum);
      }
      detail::write_row(p.out, ((image * tokens + n) * heads + head) * dim, result);
    }
  });
}

// Linear attention's state of a and b, with another thing done to it.
template <cpu::Isa kIsa>
void run_fused(const Problem& p) {
  cpu::LinearAttentionProblem f;
  f.k = detail::heads_view(p.a);
  f.v = detail::heads_view(p.b);
  f.q = detail::heads_view(p.x);
  f.out = detail::heads_view(p.out);
  f.type = cpu::float_type(p.x.dtype());
  f.images = p.x.size(0);
  f.heads = p.x.size(2);
  f.queries = f.keys = p.x.size(1);
  f.dim = f.value_dim = p.x.size(3);
  f.rule = StateRule::channel_softmax;
  f.numerator = p.scale;
  cpu::linear_attention(kIsa, f);
}

template <cpu::Isa kIsa>
std::string can_run_fused(const Problem& p) {
  return detail::lacks(kIsa, p.x);
}

std::string can_run_cuda(const Problem& p) { return detail::is_elsewhere(DeviceType::cuda, p.x); }
void run_cuda(const Problem& p) {
  constexpr FeatureMap kMap = FeatureMap::identity;
  cuda::attention_ops().linear_attention(
      {p.x, p.a, p.b, kMap, kMap, 1, StateRule::channel_softmax, p.scale, 1, 0, {}, {}, {}, {}, p.out});
}

constexpr detail::Candidate<Problem> kCandidates[] = {
    {"cuda", can_run_cuda, run_cuda},
#if defined(VITRINE_X86)
    {"fused_avx512", can_run_fused<cpu::Isa::avx512>, run_fused<cpu::Isa::avx512>},
    {"fused_avx2", can_run_fused<cpu::Isa::avx2>, run_fused<cpu::Isa::avx2>},
#endif
    {"fused_scalar", can_run_fused<cpu::Isa::scalar>, run_fused<cpu::Isa::scalar>},
    {"reference", [](const Problem& p) { return detail::is_elsewhere(DeviceType::cpu, p.x); }, run_reference},
};

}  // namespace

Tensor channel_attention(const Tensor& a, const Tensor& b, const Tensor& x, const ChannelAttentionOptions& options) {
  detail::check_heads("channel_attention", x, a, b);
  if (a.shape() != x.shape() || b.shape() != x.shape())
    throw Error(fmt::format("channel_attention: a {}, b {} and x {} are not of one shape", a.shape().to_string(),
                            b.shape().to_string(), x.shape().to_string()));
  Tensor out = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (out.numel() == 0) return out;
  const Problem problem{a, b, x, options.scale, out};
  detail::choose<Problem>("channel_attention", kCandidates, problem, options.impl).run(problem);
  Context::current().add_macs(2 * x.numel() * x.size(3));
  return out;
}

ChannelAttention::ChannelAttention(const Weights& w, const ChannelAttentionConfig& c, const LinearOptions& proj_options)
    : config(c) {
  const std::string where = detail::module_name("channel_attention", w);
  detail::check_num_heads(where, c.dim, c.num_heads);
  if (c.version != 1 && c.version != 2) throw Error(fmt::format("{}: version {}, expected 1 or 2", where, c.version));
  qkv = Linear(w / "qkv", c.dim, 3 * c.dim, {.bias = c.qkv_bias});
  proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

Tensor ChannelAttention::operator()(const Tensor& x, Tensor residual) const {
  const auto [q, k, v] = detail::split_qkv("channel_attention", qkv, x, config.num_heads);  // [B, N, heads, head_dim]
  const std::int64_t count = config.version == 2 && config.dynamic_scale ? q.size(1) : q.size(3);
  const ChannelAttentionOptions options{.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(count)))};
  const Tensor y = config.version == 1 ? channel_attention(k, v, q, options) : channel_attention(q, k, v, options);
  return proj(y.flatten(2, 3), {.residual = std::move(residual)});
}

}  // namespace vitrine
