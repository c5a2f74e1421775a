#include <vitrine/attention2d/clear.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/candidates.h>
#include <vitrine/attention2d/cpu/launch.h>
#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/rows.h>
#include <vitrine/layers/checks.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

struct Problem {
  const Tensor &q, &k, &v;
  const ClearOptions& options;
  float scale;
  Tensor& out;

  std::string describe() const {
    return fmt::format("q {} k {} v {} {} text {} image {}x{} radius {}{}", q.shape().to_string(), k.shape().to_string(),
                       v.shape().to_string(), name_of(q.dtype()), options.text_length, options.height, options.width,
                       options.radius, options.down_factor > 0 ? fmt::format(" down {}", options.down_factor) : "");
  }
};

void validate_tensors(const Tensor& q, const Tensor& k, const Tensor& v) {
  detail::check_qkv("clear_attention", q, k, v, "[B, text + image tokens, heads, head_dim]");
  if (k.size(0) != q.size(0) || v.size(0) != q.size(0) || k.size(1) != q.size(1) || v.size(1) != q.size(1) ||
      k.size(2) != v.size(2) || k.size(3) != q.size(3))
    throw Error(fmt::format("clear_attention: q {}, k {}, v {} do not fit; expected [B, L, Hq, D], [B, L, Hk, D], [B, L, Hk, Dv]",
                            q.shape().to_string(), k.shape().to_string(), v.shape().to_string()));
  detail::check_head_groups("clear_attention", q, k);
}

void validate_options(const Tensor& q, const ClearOptions& o) {
  const std::int64_t tokens = q.size(1);
  if (o.height < 1 || o.width < 1 || o.height > tokens / o.width || o.text_length < 0 ||
      o.text_length != tokens - o.height * o.width)
    throw Error(fmt::format("clear_attention: {} tokens, expected {} of text + {} x {} of an image", tokens, o.text_length,
                            o.height, o.width));
  if (o.radius < 1) throw Error(fmt::format("clear_attention: radius is {}, expected at least 1", o.radius));
  const std::int64_t f = o.down_factor;
  if (f < 0 || (f > 0 && (o.height % f != 0 || o.width % f != 0)))
    throw Error(fmt::format("clear_attention: down_factor is {}, expected 0 or a divisor of {} and {}", f, o.height, o.width));
  if (f > 0 && (!o.spatial_weight.defined() || o.spatial_weight.dtype() != DType::f32 || o.spatial_weight.numel() != f * f))
    throw Error(fmt::format("clear_attention: spatial_weight is {}, expected f32 with {} x {} elements",
                            o.spatial_weight.defined()
                                ? fmt::format("{} {}", name_of(o.spatial_weight.dtype()), o.spatial_weight.shape().to_string())
                                : "undefined",
                            f, f));
  detail::check_same_device("clear_attention", q, f > 0 ? o.spatial_weight : Tensor());
}

float scale_of(const Tensor& q, const ClearOptions& o) {
  const double dim = static_cast<double>(q.size(3));
  if (!o.proportional) return static_cast<float>(std::sqrt(1 / dim));
  const double length = static_cast<double>(q.size(1)) * (o.down_factor > 0 ? 10 : 1);
  return static_cast<float>(std::sqrt(std::log(length) / std::log(64.0 * 64 + 512) / dim));
}

// By distance of rows, how far a disc reaches to both sides: the largest dx with dy^2 + dx^2 < radius^2; -1: nowhere.
std::vector<std::int64_t> half_widths(const ClearOptions& o) {
  std::vector<std::int64_t> widths;
  std::int64_t dx = o.width - 1;
  for (std::int64_t dy = 0; dy < o.height; ++dy) {
    const auto is_inside = [&](std::int64_t x) {  // in f64: a radius may be any number
      const auto square = [](std::int64_t i) { return static_cast<double>(i) * static_cast<double>(i); };
      return square(dy) + square(x) < square(o.radius);
    };
    while (dx >= 0 && !is_inside(dx)) --dx;
    widths.push_back(dx);
  }
  return widths;
}

// The image tokens of x [B, T + H W, heads, D], each f x f block summed: [B, (H / f)(W / f), heads, D].
Tensor pooled(const Tensor& x, const ClearOptions& o) {
  const std::int64_t f = o.down_factor, rows = o.height / f, columns = o.width / f, heads = x.size(2), dim = x.size(3);
  const Tensor weight = o.spatial_weight.contiguous();
  Tensor out = Tensor::empty({x.size(0), rows * columns, heads, dim}, x.dtype(), x.device());
  if (cuda::is_on_gpu(x)) {
    cuda::attention_ops().sum_blocks(x.slice(1, o.text_length, x.size(1)), o.width, f, weight, out);
    return out;
  }
  cpu::parallel_for(x.size(0) * rows * columns, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(dim)), sum(row.size());
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t b = i / (rows * columns), y = i / columns % rows * f, column = i % columns * f;
      for (std::int64_t h = 0; h < heads; ++h) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (std::int64_t j = 0; j < f * f; ++j) {
          const std::int64_t token = o.text_length + (y + j / f) * o.width + column + j % f;
          detail::read_row(x, b * x.stride(0) + token * x.stride(1) + h * x.stride(2), row);
          const float w = weight.data<float>()[j];
          for (std::size_t d = 0; d < sum.size(); ++d) sum[d] += w * row[d];
        }
        detail::write_row(out, (i * heads + h) * dim, sum);
      }
    }
  });
  return out;
}

// What every image query sees: the text, and the pooled tokens.
Tensor tokens_for_all(const Tensor& x, const ClearOptions& o) {
  const Tensor text = x.slice(1, 0, o.text_length);
  if (o.down_factor == 0) return text;
  if (o.text_length == 0) return pooled(x, o);
  return concat(std::array{text, pooled(x, o)}, 1);
}

// The definition, one query after another; what the kernels are compared with.
void run_reference(const Problem& p) {
  const ClearOptions& o = p.options;
  const std::int64_t heads = p.q.size(2), group = heads / p.k.size(2), dim = p.q.size(3), value_dim = p.v.size(3);
  const std::int64_t tokens = p.q.size(1);
  const Tensor more_k = o.down_factor > 0 ? pooled(p.k, o) : Tensor(), more_v = o.down_factor > 0 ? pooled(p.v, o) : Tensor();
  const std::int64_t more = more_k.defined() ? more_k.size(1) : 0;
  cpu::parallel_each(p.q.size(0) * heads, [&](std::int64_t item, int) {
    const std::int64_t b = item / heads, h = item % heads;
    const auto q = detail::read_head(p.q, b, h);
    auto k = detail::read_head(p.k, b, h / group), v = detail::read_head(p.v, b, h / group);
    if (more > 0) {
      const auto mk = detail::read_head(more_k, b, h / group), mv = detail::read_head(more_v, b, h / group);
      k.insert(k.end(), mk.begin(), mk.end());
      v.insert(v.end(), mv.begin(), mv.end());
    }
    std::vector<std::int64_t> seen;
    std::vector<double> logits, sums(static_cast<std::size_t>(value_dim));
    std::vector<float> row(static_cast<std::size_t>(value_dim));
    for (std::int64_t n = 0; n < tokens; ++n) {
      seen.clear();
      logits.clear();
      const std::int64_t at = n - o.text_length, y = at / o.width, x = at % o.width;
      for (std::int64_t key = 0; key < (at < 0 ? tokens : tokens + more); ++key) {
        const std::int64_t to = key - o.text_length, dy = to / o.width - y, dx = to % o.width - x;
        const bool is_image = to >= 0 && key < tokens;
        if (at >= 0 && is_image &&
            static_cast<double>(dy * dy + dx * dx) >= static_cast<double>(o.radius) * static_cast<double>(o.radius))
          continue;
        double logit = 0;
        for (std::int64_t d = 0; d < dim; ++d) logit += static_cast<double>(q[n * dim + d]) * k[key * dim + d];
        seen.push_back(key);
        logits.push_back(logit * p.scale);
      }
      const double largest = *std::max_element(logits.begin(), logits.end());
      double total = 0;
      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::size_t j = 0; j < seen.size(); ++j) {
        const double weight = std::exp(logits[j] - largest);
        total += weight;
        for (std::int64_t d = 0; d < value_dim; ++d) sums[d] += weight * v[seen[j] * value_dim + d];
      }
      for (std::int64_t d = 0; d < value_dim; ++d) row[d] = static_cast<float>(sums[d] / total);
      detail::write_row(p.out, ((b * tokens + n) * heads + h) * value_dim, row);
    }
  });
}

template <cpu::Isa kIsa>
std::string can_run_discs(const Problem& p) {
  return detail::lacks(kIsa, p.q);
}

void run_text(const Problem& p) {
  if (p.options.text_length == 0) return;
  Tensor to = p.out.slice(1, 0, p.options.text_length);
  copy_(to, attention(p.q.slice(1, 0, p.options.text_length), p.k, p.v, {.scale = p.scale}));
}

template <cpu::Isa kIsa>
void run_discs(const Problem& p) {
  run_text(p);
  const ClearOptions& o = p.options;
  const Tensor extra_k = tokens_for_all(p.k, o), extra_v = tokens_for_all(p.v, o);
  const auto view = [&](const Tensor& t, std::int64_t first) {
    const std::size_t offset = static_cast<std::size_t>(first * t.stride(1)) * size_of(t.dtype());
    return cpu::GridView{
        static_cast<const char*>(t.raw()) + offset, t.stride(0), {0, o.width * t.stride(1), t.stride(1)}, t.stride(2)};
  };
  const auto windows = [&](std::int64_t size) {
    std::vector<cpu::Interval> all;
    const std::int64_t reach = std::min(o.radius, size) - 1;
    for (std::int64_t i = 0; i < size; ++i) all.push_back({std::max<std::int64_t>(i - reach, 0), std::min(i + reach + 1, size)});
    return all;
  };
  const std::vector<cpu::Interval> plane{{0, 1}}, rows = windows(o.height), columns = windows(o.width);
  const std::vector<std::int64_t> half_width = half_widths(o);
  cpu::LocalProblem l;
  l.q = view(p.q, o.text_length);
  l.k = view(p.k, o.text_length);
  l.v = view(p.v, o.text_length);
  l.out = view(p.out, o.text_length);
  l.type = cpu::float_type(p.q.dtype());
  l.images = p.q.size(0);
  l.heads = p.q.size(2);
  l.key_heads = p.k.size(2);
  l.dim = p.q.size(3);
  l.value_dim = p.v.size(3);
  l.size[1] = o.height;
  l.size[2] = o.width;
  l.window[0] = plane.data();
  l.window[1] = rows.data();
  l.window[2] = columns.data();
  l.half_width = half_width.data();
  l.scale = p.scale;
  l.extra_k = view(extra_k, 0);
  l.extra_v = view(extra_v, 0);
  l.extra = extra_k.size(1);
  cpu::local_attention(kIsa, l);
}

template <std::int64_t kMostDim>
std::string can_run_cuda(const Problem& p) {
  if (std::string reason = detail::lacks_gpu(p.q, p.v, kMostDim); !reason.empty()) return reason;
  constexpr std::int64_t kMostSide = 1 << 14;  // squares of distances are ints
  if (std::max(p.options.height, p.options.width) > kMostSide) return fmt::format("an image side above {}", kMostSide);
  return {};
}

// What call(arguments) returns: of image queries, which see extra_k, too.
template <typename Call>
auto with_cuda_args(const Problem& p, const Tensor& extra_k, const Tensor& extra_v, const Call& call) {
  const ClearOptions& o = p.options;
  const auto image = [&](const Tensor& t) { return t.slice(1, o.text_length, t.size(1)).unflatten(1, {o.height, o.width}); };
  const Tensor q = image(p.q), k = image(p.k), v = image(p.v);  // [B, H, W, heads, D]
  Tensor out = image(p.out);
  const Tensor none;
  const std::int64_t radius = std::min(o.radius, o.height + o.width);  // which sees all
  cuda::LocalAxis axes[3];
  for (int a = 0; a < 2; ++a) axes[a] = {cuda::LocalAxis::Window::reach, std::min(radius, a ? o.width : o.height), 1, 1};
  return call(cuda::LocalArgs{q, k, v, axes, radius, p.scale, none, extra_k, extra_v, out});
}

// What a kernel answers, lacks(arguments), of tensors on a GPU: elsewhere there may be no table of kernels to ask. Pooled tokens,
// which are dense, change no answer: they are made by a run only.
template <typename Lacks>
std::string can_run_cuda(const Problem& p, const Lacks& lacks) {
  if (std::string reason = can_run_cuda<cuda::kLocalTilesDim>(p); !reason.empty()) return reason;
  const Tensor text_k = p.k.slice(1, 0, p.options.text_length), text_v = p.v.slice(1, 0, p.options.text_length);
  return with_cuda_args(p, text_k, text_v, lacks);
}
std::string can_run_sm90(const Problem& p) {
  return can_run_cuda(p, [&](const auto& args) { return cuda::attention_ops().lacks_sm90(args, !p.options.impl.empty()); });
}
std::string can_run_tiles(const Problem& p) {
  return can_run_cuda(p, [](const auto& args) { return cuda::attention_ops().lacks_tiles(args); });
}

template <auto kOp>
void run_cuda(const Problem& p) {
  run_text(p);
  with_cuda_args(p, tokens_for_all(p.k, p.options), tokens_for_all(p.v, p.options), cuda::attention_ops().*kOp);
}

constexpr detail::Candidate<Problem> kCandidates[] = {
    {"cuda_sm90", can_run_sm90, run_cuda<&cuda::AttentionOps::local_attention_sm90>},
    {"cuda_tiles", can_run_tiles, run_cuda<&cuda::AttentionOps::local_attention_tiles>},
    {"cuda_plain", can_run_cuda<cuda::kLocalDim>, run_cuda<&cuda::AttentionOps::local_attention>},
#if defined(VITRINE_X86)
    {"discs_avx512_bf16", can_run_discs<cpu::Isa::avx512_bf16>, run_discs<cpu::Isa::avx512_bf16>},
    {"discs_avx512", can_run_discs<cpu::Isa::avx512>, run_discs<cpu::Isa::avx512>},
    {"discs_avx2", can_run_discs<cpu::Isa::avx2>, run_discs<cpu::Isa::avx2>},
#endif
    {"discs_scalar", can_run_discs<cpu::Isa::scalar>, run_discs<cpu::Isa::scalar>},
    {"reference", [](const Problem& p) { return detail::is_elsewhere(DeviceType::cpu, p.q); }, run_reference},
};

// Image tokens that a disc has, over all queries.
std::int64_t pairs_in_discs(const ClearOptions& o) {
  std::int64_t pairs = 0;
  const std::vector<std::int64_t> half_width = half_widths(o);
  for (std::int64_t dy = 0; dy < o.height; ++dy) {
    std::int64_t in_row = half_width[dy] < 0 ? 0 : o.width;
    for (std::int64_t dx = 1; dx <= half_width[dy]; ++dx) in_row += 2 * (o.width - dx);
    pairs += (dy == 0 ? 1 : 2) * (o.height - dy) * in_row;
  }
  return pairs;
}

}  // namespace

Tensor clear_attention(const Tensor& q, const Tensor& k, const Tensor& v, const ClearOptions& options) {
  validate_tensors(q, k, v);
  validate_options(q, options);
  Tensor out = Tensor::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.dtype(), q.device());
  if (out.numel() == 0) return out;
  const Problem problem{q, k, v, options, scale_of(q, options), out};
  detail::choose<Problem>("clear_attention", kCandidates, problem, options.impl).run(problem);
  const std::int64_t image = options.height * options.width, f = options.down_factor;
  const std::int64_t for_all = options.text_length + (f > 0 ? image / (f * f) : 0);
  const std::int64_t pairs = pairs_in_discs(options) + image * for_all;
  // Those of the text queries are counted by attention(), but in the reference.
  Context::current().add_macs(q.size(0) * q.size(2) * pairs * (q.size(3) + v.size(3)));
  return out;
}

}  // namespace vitrine
