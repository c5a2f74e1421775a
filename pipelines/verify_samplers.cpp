// Reference cases of samplers: whole paths with the toy denoiser of the cases' GENERATION.md in the place of a network.
#include <cmath>
#include <functional>
#include <numbers>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/detail/verify_generation.h>
#include <vitrine/pipelines/sampler.h>
#include <vitrine/weights/sources.h>

namespace vitrine::detail {
namespace {

constexpr double kTolerance = 2e-5;

// [B, C, ...] and [B, ..., C].
Tensor channels_last(const Tensor& x) {
  std::vector<int> axes(static_cast<std::size_t>(x.rank()));
  std::iota(axes.begin() + 1, axes.end() - 1, 2);
  axes.back() = 1;
  return permute(x, axes);
}
Tensor channels_first(const Tensor& x) {
  std::vector<int> axes(static_cast<std::size_t>(x.rank()));
  std::iota(axes.begin() + 2, axes.end(), 1);
  axes[1] = x.rank() - 1;
  return permute(x, axes);
}

// A synthetic tensor of the cases' layout in ours, times sqrt(3) (its variance is then 1) and `scale`.
Tensor unit_tensor(const std::string& name, const Shape& shape, double scale = 1) {
  Tensor x = synthetic_tensor(name, shape).clone();
  float* values = x.data<float>();
  for (std::int64_t i = 0; i < x.numel(); ++i) values[i] = static_cast<float>(std::numbers::sqrt3 * values[i] * scale);
  return channels_last(x);
}

// What the toy denoiser predicts for x, with the part that stands for variances where `wide`.
Tensor toy(const Tensor& x, float t, bool wide) {
  Tensor mean = channels_first(x), variance = mean.clone();  // the definition counts in the cases' layout
  float *m = mean.data<float>(), *v = variance.data<float>();
  for (std::int64_t i = 0; i < mean.numel(); ++i) {
    v[i] = std::sin(2 * m[i] + 0.003f * t);
    m[i] = 0.9f * std::tanh(m[i]) + 0.1f * std::cos(0.01f * t + 0.37f * static_cast<float>(i % 7));
  }
  const Tensor parts[] = {channels_last(mean), channels_last(variance)};
  return wide ? concat(parts, x.rank() - 1) : parts[0];
}

template <typename T>
Tensor row_of(const std::vector<T>& values) {
  const std::vector<float> floats(values.begin(), values.end());
  return Tensor::from(floats, {static_cast<std::int64_t>(floats.size())});
}

Tensor stack(std::vector<Tensor> parts) {
  for (Tensor& part : parts) part = channels_first(part).unsqueeze(0);
  return concat(parts, 0);
}

struct Path {
  std::vector<Tensor> samples, denoised;
};

Path run_path(Sampler& sampler, const std::string& name, const Shape& shape, bool wide) {
  Path path{.samples = {unit_tensor(name + ".start", shape, sampler.init_noise_sigma())}, .denoised = {}};
  for (int i = 0; i < sampler.steps(); ++i) {
    const Tensor& x = path.samples.back();
    const Tensor prediction = toy(sampler.scale_model_input(x, i), sampler.timesteps()[static_cast<std::size_t>(i)], wide);
    const Tensor noise = sampler.uses_noise(i) ? unit_tensor(fmt::format("{}.noise.{}", name, i), shape) : Tensor();
    path.samples.push_back(sampler.step(prediction, i, x, noise));
    path.denoised.push_back(sampler.denoised());
  }
  return path;
}

void run_sampler(const Json& entry, const CaseContext& context, VerifyRow& row) {
  const Json& config = entry.at("config");
  check_members(config, {"class", "init", "steps", "shape", "step", "set_timesteps", "learned_range"}, "setting");
  Json settings = config.at("init");
  settings.update(config.value("step", Json::object()));
  SamplerRun run{.steps = config.at("steps").get<int>()};
  const Json given = config.value("set_timesteps", Json::object());
  check_members(given, {"sigmas", "timesteps", "mu"}, "argument of set_timesteps");
  run.sigmas = given.value("sigmas", run.sigmas);
  run.timesteps = given.value("timesteps", run.timesteps);
  if (given.contains("mu")) run.mu = given["mu"].get<double>();
  const auto sampler = create_sampler(config.at("class").get<std::string>(), settings.dump(), run);

  const double sigma = entry.value("init_noise_sigma", 1.0);
  if (std::abs(sampler->init_noise_sigma() - sigma) > 1e-6 * sigma)
    row.message = fmt::format("init_noise_sigma is {}, expected {}", sampler->init_noise_sigma(), sigma);
  const auto name = entry.at("name").get<std::string>();
  const Path path = run_path(*sampler, name, shape_of(config.at("shape")), config.value("learned_range", false));
  const SamplerTables& tables = sampler->tables();
  judge_outputs(entry, context,
                {{"trajectory", stack(path.samples)},
                 {"timesteps", row_of(std::vector(sampler->timesteps().begin(), sampler->timesteps().end()))},
                 {"sigmas", row_of(tables.sigmas)},
                 {"alphas_cumprod", row_of(tables.alphas_cumprod)}},
                {.exact = kTolerance, .rows = true}, row);
}

void run_dit_sampler(const Json& entry, const CaseContext& context, VerifyRow& row) {
  const Json& config = entry.at("config");
  check_members(config, {"respacing", "method", "clip", "learn_sigma", "noise_schedule", "eta", "shape"}, "setting");
  const auto learn_sigma = config.at("learn_sigma").get<bool>();
  const Json settings{{"timestep_respacing", config.at("respacing")},
                      {"method", config.at("method")},
                      {"clip_denoised", config.at("clip")},
                      {"learn_sigma", learn_sigma},
                      {"noise_schedule", config.value("noise_schedule", "linear")},
                      {"eta", config.value("eta", 0.0)}};
  const auto sampler = create_sampler("iddpm", settings.dump(), {});
  const Path path = run_path(*sampler, entry.at("name").get<std::string>(), shape_of(config.at("shape")), learn_sigma);
  const SamplerTables& tables = sampler->tables();
  judge_outputs(entry, context,
                {{"trajectory", stack(path.samples)},
                 {"pred_xstart", stack(path.denoised)},
                 {"timestep_map", row_of(std::vector(sampler->timesteps().rbegin(), sampler->timesteps().rend()))},
                 {"betas", row_of(tables.betas)},
                 {"alphas_cumprod", row_of(tables.alphas_cumprod)},
                 {"posterior_log_variance_clipped", row_of(tables.log_variance)}},
                {.exact = kTolerance, .rows = true}, row);
}

constexpr GenerationKind kKinds[] = {{"sampler", run_sampler}, {"dit_sampler", run_dit_sampler}};

}  // namespace

std::span<const GenerationKind> sampler_kinds() { return kKinds; }

}  // namespace vitrine::detail
