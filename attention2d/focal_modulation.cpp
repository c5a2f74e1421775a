#include <vitrine/attention2d/focal_modulation.h>

#include <string>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/candidates.h>
#include <vitrine/attention2d/cpu/launch.h>
#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/rows.h>
#include <vitrine/layers/checks.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

struct Problem {
  const std::vector<Tensor>& levels;
  const Tensor &gates, &whole;
  float scale;
  Tensor& out;

  std::string describe() const {
    return fmt::format("{} levels, gates {} {}", levels.size(), gates.shape().to_string(), name_of(gates.dtype()));
  }
};

void run_reference(const Problem& p) {
  const std::int64_t channels = p.whole.size(1), tokens = p.out.size(1) * p.out.size(2);
  const std::int64_t levels = static_cast<std::int64_t>(p.levels.size());
  cpu::parallel_each(p.out.size(0) * tokens, [&](std::int64_t n, int) {
    std::vector<float> gates(static_cast<std::size_t>(levels + 1)), row(static_cast<std::size_t>(channels));
    std::vector<double> sums(static_cast<std::size_t>(channels));
    detail::read_row(p.gates, n * (levels + 1), gates);
    for (std::int64_t l = 0; l <= levels; ++l) {
      if (l < levels)
        detail::read_row(p.levels[l], n * channels, row);
      else
        detail::read_row(p.whole, n / tokens * channels, row);
      for (std::int64_t c = 0; c < channels; ++c) sums[c] += static_cast<double>(row[c]) * gates[l] * p.scale;
    }
    for (std::int64_t c = 0; c < channels; ++c) row[c] = static_cast<float>(sums[c]);
    detail::write_row(p.out, n * channels, row);
  });
}

template <cpu::Isa kIsa>
std::string can_gather(const Problem& p) {
  return detail::lacks(kIsa, p.out);
}

template <cpu::Isa kIsa>
void run_gather(const Problem& p) {
  std::vector<const void*> levels;
  for (const Tensor& level : p.levels) levels.push_back(level.raw());
  cpu::gather_focal_levels(kIsa, {.level = levels.data(),
                                  .gates = p.gates.raw(),
                                  .whole = p.whole.raw(),
                                  .out = p.out.raw(),
                                  .type = cpu::float_type(p.out.dtype()),
                                  .images = p.out.size(0),
                                  .tokens = p.out.size(1) * p.out.size(2),
                                  .channels = p.out.size(3),
                                  .levels = static_cast<std::int64_t>(levels.size()),
                                  .scale = p.scale});
}

std::string can_gather_cuda(const Problem& p) {
  if (std::string reason = detail::is_elsewhere(DeviceType::cuda, p.out); !reason.empty()) return reason;
  if (p.levels.size() > cuda::kMostFocalLevels)
    return fmt::format("{} levels, more than {}", p.levels.size(), cuda::kMostFocalLevels);
  return {};
}
void run_gather_cuda(const Problem& p) { cuda::attention_ops().gather_focal_levels(p.levels, p.gates, p.whole, p.scale, p.out); }

constexpr detail::Candidate<Problem> kCandidates[] = {
    {"cuda", can_gather_cuda, run_gather_cuda},
#if defined(VITRINE_X86)
    {"gather_avx512_bf16", can_gather<cpu::Isa::avx512_bf16>, run_gather<cpu::Isa::avx512_bf16>},
    {"gather_avx512", can_gather<cpu::Isa::avx512>, run_gather<cpu::Isa::avx512>},
    {"gather_avx2", can_gather<cpu::Isa::avx2>, run_gather<cpu::Isa::avx2>},
#endif
    {"gather_scalar", can_gather<cpu::Isa::scalar>, run_gather<cpu::Isa::scalar>},
    {"reference", [](const Problem& p) { return detail::is_elsewhere(DeviceType::cpu, p.out); }, run_reference},
};

void validate(const std::vector<Tensor>& levels, const Tensor& gates, const Tensor& whole) {
  const auto fail = [](const std::string& name, const Tensor& t, const std::string& expected) {
    throw Error(fmt::format("gather_focal_levels: {} is {}, expected contiguous {}", name,
                            t.defined() ? fmt::format("{} {}", name_of(t.dtype()), t.shape().to_string()) : "undefined",
                            expected));
  };
  if (!gates.defined() || gates.rank() != 4 || !is_floating_point(gates.dtype()) || !gates.is_contiguous() ||
      gates.size(3) != static_cast<std::int64_t>(levels.size()) + 1)
    fail("gates", gates, fmt::format("f32, bf16 or f16 [B, H, W, {}]", levels.size() + 1));
  const auto fits = [&](const Tensor& t, const Shape& shape) {
    return t.defined() && t.dtype() == gates.dtype() && t.shape() == shape && t.is_contiguous();
  };
  const std::int64_t channels = whole.defined() && whole.rank() == 2 ? whole.size(1) : 0;
  const Shape pooled{gates.size(0), channels}, map{gates.size(0), gates.size(1), gates.size(2), channels};
  if (!fits(whole, pooled)) fail("whole", whole, fmt::format("{} [{}, C]", name_of(gates.dtype()), gates.size(0)));
  for (std::size_t l = 0; l < levels.size(); ++l)
    if (!fits(levels[l], map))
      fail(fmt::format("level {}", l), levels[l], fmt::format("{} {}", name_of(gates.dtype()), map.to_string()));
  detail::check_same_device("gather_focal_levels", gates, whole);
  for (const Tensor& level : levels) detail::check_same_device("gather_focal_levels", gates, level);
}

}  // namespace

Tensor gather_focal_levels(const std::vector<Tensor>& levels, const Tensor& gates, const Tensor& whole, float scale,
                           std::string_view impl) {
  validate(levels, gates, whole);
  Tensor out = Tensor::empty({gates.size(0), gates.size(1), gates.size(2), whole.size(1)}, gates.dtype(), gates.device());
  if (out.numel() == 0) return out;
  const Problem problem{levels, gates, whole, scale, out};
  detail::choose<Problem>("gather_focal_levels", kCandidates, problem, impl).run(problem);
  return out;
}

FocalModulation::FocalModulation(const Weights& w, const FocalModulationConfig& c, const LinearOptions& proj_options)
    : config(c) {
  const std::string where = detail::module_name("focal_modulation", w);
  detail::check_size(where, "dim", c.dim);
  constexpr std::int64_t kMost = 1 << 10;  // far above any model, and safe to multiply
  if (c.focal_level < 0 || c.focal_level > kMost || c.focal_window < 1 || c.focal_window > kMost || c.focal_factor < 0 ||
      c.focal_factor > kMost)
    throw Error(
        fmt::format("{}: focal_level {}, focal_window {}, focal_factor {}; expected focal_window from 1, the "
                    "others from 0, to {}",
                    where, c.focal_level, c.focal_window, c.focal_factor, kMost));
  for (std::int64_t l = 0; l < c.focal_level; ++l)
    if ((c.focal_window + c.focal_factor * l) % 2 == 0)
      throw Error(
          fmt::format("{}: level {} has a kernel of {}, expected an odd size", where, l, c.focal_window + c.focal_factor * l));
  const std::int64_t rows[] = {c.dim, c.dim, c.focal_level + 1};
  const std::vector<Linear> f = split_linear(w / "f", c.dim, rows, {.bias = c.bias, .scale = {}});
  query = f[0];
  context = f[1];
  gates = f[2];
  for (std::int64_t l = 0; l < c.focal_level; ++l) {
    const std::int64_t kernel = c.focal_window + c.focal_factor * l;
    focal_layers.emplace_back(w / "focal_layers" / l / std::int64_t{0}, c.dim, c.dim, kernel, kernel,
                              Conv2dOptions{.pad_h = kernel / 2, .pad_w = kernel / 2, .groups = c.dim, .bias = false});
  }
  h = Linear(w / "h", c.dim, c.dim, {.bias = c.bias, .scale = {}});
  if (c.norm_eps > 0) norm = LayerNorm(w / "norm", c.dim, c.norm_eps);
  proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

Tensor FocalModulation::operator()(const Tensor& x, Tensor residual) const {
  detail::check_map("focal_modulation", x, config.dim);
  if (x.size(1) == 0 || x.size(2) == 0) throw Error("focal_modulation: the map is empty");
  std::vector<Tensor> levels;
  const Tensor first = context(x);  // [B, H, W, C]
  for (const Conv2d& layer : focal_layers)
    levels.push_back(layer(levels.empty() ? first : levels.back(), {.activation = Activation::gelu, .residual = {}}));
  Tensor whole = mean(levels.empty() ? first : levels.back(), 1, 2);  // [B, C]
  activate_(whole, Activation::gelu);
  const float scale = config.normalize_modulator ? 1.0f / static_cast<float>(config.focal_level + 1) : 1.0f;
  Tensor modulator = h(gather_focal_levels(levels, gates(x), whole, scale));
  multiply_(modulator, query(x));
  if (norm.defined()) modulator = norm(modulator);
  return proj(modulator, {.activation = Activation::none, .residual = std::move(residual)});  // [B, H, W, C]
}

}  // namespace vitrine
