// The process that DiT's authors sample with: DDPM with a learned range of variances ("improved DDPM"), respaced to a part of the
// trained timesteps, whose betas are computed anew; or DDIM over the same timesteps.
//
// arXiv:2102.09672; facebookresearch/DiT, diffusion/ (from guided-diffusion). Tables are f64, steps f32.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include <vitrine/pipelines/detail/sampler.h>

namespace vitrine::detail {
namespace {

struct IddpmConfig {
  std::int64_t diffusion_steps = 1000;
  BetaSchedule schedule = BetaSchedule::linear;
  std::optional<double> beta_start, beta_end;
  std::string respacing;  // "250", "10,5,5": so many of each of equal sections; "ddim25": every n-th
  bool learn_sigma = true, sigma_small = false, predict_xstart = false;
  bool clip_denoised = false;  // latents are not within -1 and 1
  bool ddim = false;
  double eta = 0;  // of ddim
};

std::int64_t count_of(std::string_view text, const SettingsReader& reader) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1)
    throw reader.error(fmt::format("timestep_respacing has '{}', expected numbers of steps (\"250\", \"10,5,5\") or \"ddim25\"",
                                   printable(text)));
  return value;
}

// The timesteps that are kept, rising.
std::vector<std::int64_t> kept_timesteps(std::string_view respacing, std::int64_t trained, const SettingsReader& reader) {
  std::set<std::int64_t> kept;
  if (respacing.starts_with("ddim")) {
    const std::int64_t count = count_of(respacing.substr(4), reader);
    std::int64_t stride = 1;
    while (stride < trained && (trained + stride - 1) / stride != count) ++stride;
    if (stride == trained)
      throw reader.error(
          fmt::format("timestep_respacing is {}, but no whole stride makes {} of {} timesteps", respacing, count, trained));
    for (std::int64_t t = 0; t < trained; t += stride) kept.insert(t);
    return {kept.begin(), kept.end()};
  }
  std::vector<std::int64_t> counts;
  for (std::size_t begin = 0; begin <= respacing.size();) {
    const std::size_t end = std::min(respacing.find(',', begin), respacing.size());
    counts.push_back(count_of(respacing.substr(begin, end - begin), reader));
    begin = end + 1;
  }
  const auto sections = static_cast<std::int64_t>(counts.size());
  std::int64_t first = 0;
  for (std::int64_t i = 0; i < sections; ++i) {
    const std::int64_t size = trained / sections + (i < trained % sections ? 1 : 0), count = counts[static_cast<std::size_t>(i)];
    if (count > size) throw reader.error(fmt::format("timestep_respacing asks for {} of a section's {} timesteps", count, size));
    const double stride = count > 1 ? static_cast<double>(size - 1) / static_cast<double>(count - 1) : 1;
    double at = 0;
    for (std::int64_t k = 0; k < count; ++k, at += stride) kept.insert(first + static_cast<std::int64_t>(std::nearbyint(at)));
    first += size;
  }
  return {kept.begin(), kept.end()};
}

class Iddpm : public Sampler {
 public:
  Iddpm(const IddpmConfig& config, const SettingsReader& reader) : Sampler(reader.name()), config_(config) {
    const std::vector<std::int64_t> kept = kept_timesteps(config.respacing, config.diffusion_steps, reader);
    if (kept.size() < 2) throw reader.error("timestep_respacing keeps one timestep, expected two or more");
    timesteps_.assign(kept.rbegin(), kept.rend());
    const std::vector<double> trained = trained_alphas();
    auto& [sigmas, alphas, betas, log_variance] = tables_;
    double before = 1;
    for (const std::int64_t t : kept) {
      betas.push_back(1 - trained[static_cast<std::size_t>(t)] / before);
      before = trained[static_cast<std::size_t>(t)];
    }
    double product = 1;
    for (const double beta : betas) {
      if (!(beta > 0 && beta <= 1)) throw reader.error(fmt::format("beta is {}, expected above 0, at most 1", beta));
      const double next = product;
      alphas.push_back(product *= 1 - beta);
      posterior_.push_back({.variance = beta * (1 - next) / (1 - product),
                            .of_original = beta * std::sqrt(next) / (1 - product),
                            .of_sample = (1 - next) * std::sqrt(1 - beta) / (1 - product)});
    }
    for (const Posterior& p : posterior_) log_variance.push_back(std::log(p.variance));
    log_variance[0] = log_variance[1];  // the variance of the first is 0
  }

 private:
  bool adds_noise(int step) const override { return step < steps() - 1 && (!config_.ddim || config_.eta > 0); }
  struct Posterior {
    double variance, of_original, of_sample;
  };

  std::vector<double> trained_alphas() const {
    const std::int64_t n = config_.diffusion_steps;
    const double scale = 1000.0 / static_cast<double>(n);
    const double start = config_.beta_start.value_or(scale * 1e-4), end = config_.beta_end.value_or(scale * 0.02);
    std::vector<double> betas;
    if (config_.schedule == BetaSchedule::squaredcos) {
      betas = betas_of(config_.schedule, n);
    } else if (config_.schedule == BetaSchedule::scaled_linear) {
      for (const double root : linspace(std::sqrt(start), std::sqrt(end), n)) betas.push_back(root * root);
    } else {
      betas = linspace(start, end, n);
    }
    double product = 1;
    for (double& beta : betas) beta = product *= 1 - beta;
    return betas;
  }

  std::size_t row(int step) const { return static_cast<std::size_t>(steps() - 1 - step); }  // of the tables

  std::pair<float, float> noise_level(int step) const override {
    const double a = tables_.alphas_cumprod[row(step)];
    return {static_cast<float>(std::sqrt(a)), static_cast<float>(std::sqrt(1 - a))};
  }

  Tensor advance(const Step& step) override {
    const std::size_t i = row(step.index);
    const double alpha = tables_.alphas_cumprod[i];
    const auto recip = static_cast<float>(std::sqrt(1 / alpha)), recipm1 = static_cast<float>(std::sqrt(1 / alpha - 1));
    const float range = config_.clip_denoised ? 1 : std::numeric_limits<float>::infinity();
    denoised_ = config_.predict_xstart ? zip([=](float x0) { return std::clamp(x0, -range, range); }, step.prediction)
                                       : zip([=](float e, float x) { return std::clamp(recip * x - recipm1 * e, -range, range); },
                                             step.prediction, step.sample);
    if (config_.learn_sigma && !step.variance.defined())
      throw Error(fmt::format("{}: the prediction is {}, expected twice the channels, as learn_sigma is true", name_,
                              step.prediction.shape().to_string()));
    return config_.ddim ? advance_ddim(step, recip, recipm1) : advance_ddpm(step);
  }

  Tensor advance_ddpm(const Step& step) const {
    const std::size_t i = row(step.index);
    const auto of_original = static_cast<float>(posterior_[i].of_original),
               of_sample = static_cast<float>(posterior_[i].of_sample);
    const Tensor mean = zip([=](float x0, float x) { return of_original * x0 + of_sample * x; }, denoised_, step.sample);
    if (!step.noise.defined()) return mean;
    const double beta = tables_.betas[i];
    const auto small = static_cast<float>(tables_.log_variance[i]), large = static_cast<float>(std::log(beta));
    if (config_.learn_sigma)
      return zip(
          [=](float m, float n, float v) {
            const float t = (v + 1) / 2;
            return m + std::exp(0.5f * (t * large + (1 - t) * small)) * n;
          },
          mean, step.noise, step.variance);
    const float deviation = std::exp(0.5f * (config_.sigma_small ? small : large));
    return zip([=](float m, float n) { return m + deviation * n; }, mean, step.noise);
  }

  Tensor advance_ddim(const Step& step, float recip, float recipm1) const {
    const std::size_t i = row(step.index);
    const auto a = static_cast<float>(tables_.alphas_cumprod[i]),
               next = i > 0 ? static_cast<float>(tables_.alphas_cumprod[i - 1]) : 1;
    const float deviation = static_cast<float>(config_.eta) * std::sqrt((1 - next) / (1 - a)) * std::sqrt(1 - a / next);
    const float of_original = std::sqrt(next), of_noise = std::sqrt(std::max(1 - next - deviation * deviation, 0.0f));
    const Tensor mean = zip(
        [=](float x0, float x) {
          const float noise = (recip * x - x0) / recipm1;
          return x0 * of_original + of_noise * noise;
        },
        denoised_, step.sample);
    if (!step.noise.defined()) return mean;
    return zip([=](float m, float n) { return m + deviation * n; }, mean, step.noise);
  }

  const IddpmConfig config_;
  std::vector<Posterior> posterior_;  // as tables_, rising timesteps
};

}  // namespace

std::unique_ptr<Sampler> make_iddpm(const SamplerSettings& settings) {
  IddpmConfig config;
  SettingsReader reader(settings);
  // create_diffusion's arguments, and the same in a scheduler_config.
  const std::vector<std::pair<std::string, BetaSchedule>> schedules{{"linear", BetaSchedule::linear},
                                                                    {"squaredcos_cap_v2", BetaSchedule::squaredcos},
                                                                    {"scaled_linear", BetaSchedule::scaled_linear}};
  reader.choose("beta_schedule", config.schedule, schedules).choose("noise_schedule", config.schedule, schedules);
  reader.get("num_train_timesteps", config.diffusion_steps).get("diffusion_steps", config.diffusion_steps);
  reader.get("beta_start", config.beta_start).get("beta_end", config.beta_end);
  reader.choose("prediction_type", config.predict_xstart, {{"epsilon", false}, {"sample", true}});
  reader.get("predict_xstart", config.predict_xstart).get("timestep_respacing", config.respacing);
  reader.get("learn_sigma", config.learn_sigma).get("sigma_small", config.sigma_small);
  // p_sample's and ddim_sample's.
  reader.get("clip_denoised", config.clip_denoised).get("eta", config.eta);
  reader.choose("method", config.ddim, {{"ddpm", false}, {"ddim", true}});
  bool loss = false;  // of training
  reader.get("use_kl", loss).get("rescale_learned_sigmas", loss).finish();

  constexpr std::int64_t kMost = 1'000'000;
  if (config.diffusion_steps < 2 || config.diffusion_steps > kMost)
    throw reader.error(fmt::format("diffusion_steps is {}, expected 2 to {}", config.diffusion_steps, kMost));
  if (config.eta < 0 || config.eta > 1) throw reader.error(fmt::format("eta is {}, expected 0 to 1", config.eta));
  if (config.respacing.empty()) {
    check_run(reader, {});
    config.respacing = std::to_string(settings.run.steps);
  } else if (settings.run.steps > 0 || !settings.run.timesteps.empty() || !settings.run.sigmas.empty()) {
    throw reader.error("timestep_respacing and a number of steps: expected one of them");
  }
  return std::make_unique<Iddpm>(config, reader);
}

}  // namespace vitrine::detail
