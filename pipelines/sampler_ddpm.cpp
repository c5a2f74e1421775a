// DDPM: the reverse of the trained process, a sample of its posterior at each step.
//
// "Denoising Diffusion Probabilistic Models", arXiv:2006.11239; learned variances: arXiv:2102.09672.
// As diffusers' DDPMScheduler (0.42).
#include <algorithm>
#include <cmath>

#include <vitrine/pipelines/detail/sampler.h>

namespace vitrine::detail {
namespace {

enum class Variance : std::uint8_t { fixed_small, fixed_small_log, fixed_large, learned, learned_range };

struct DdpmConfig {
  TrainedProcess process;
  StepSpacing spacing{.spacing = Spacing::leading};
  Prediction prediction = Prediction::epsilon;
  Bounds bounds{.clip = true};
  Variance variance = Variance::fixed_small;
};

class Ddpm : public Sampler {
 public:
  Ddpm(const DdpmConfig& config, SettingsReader& reader)
      : Sampler(reader.name()), config_(config), alphas_(config.process.alphas_cumprod(0)) {
    const SamplerRun& run = reader.run();
    const std::int64_t trained = config.process.steps;
    if (!run.timesteps.empty()) {
      times_.assign(run.timesteps.begin(), run.timesteps.end());
      if (!std::ranges::is_sorted(times_, std::ranges::greater_equal{}))
        throw reader.error("timesteps must fall, each below the one before");
    } else {
      times_ = whole_timesteps(config.spacing, run.steps, trained, reader);
    }
    check_times(times_, alphas_, config.prediction == Prediction::epsilon && !config.bounds.any(), reader);
    timesteps_.assign(times_.begin(), times_.end());
    tables_.alphas_cumprod.assign(alphas_.begin(), alphas_.end());
  }

 private:
  bool adds_noise(int step) const override { return times_[static_cast<std::size_t>(step)] > 0; }
  float alpha(int step) const {
    return step < steps() ? alphas_[static_cast<std::size_t>(times_[static_cast<std::size_t>(step)])] : 1;
  }

  std::pair<float, float> noise_level(int step) const override {
    const Level level = variance_preserving(alpha(step));
    return {level.alpha, level.sigma};
  }

  Tensor advance(const Step& step) override {
    const float a = alpha(step.index), next = alpha(step.index + 1);
    const float b = 1 - a, b_next = 1 - next, own = a / next, beta = 1 - own;  // own: the product over this step alone
    denoised_ = config_.bounds.apply(original_of(config_.prediction, step.prediction, step.sample, variance_preserving(a)));
    const float of_original = std::sqrt(next) * beta / b, of_sample = std::sqrt(own) * b_next / b;
    const Tensor mean = zip([=](float x0, float x) { return of_original * x0 + of_sample * x; }, denoised_, step.sample);
    if (!step.noise.defined()) return mean;

    const float small = std::max(b_next / b * beta, 1e-20f);
    const auto add = [&](float deviation) { return zip([=](float m, float n) { return m + deviation * n; }, mean, step.noise); };
    switch (config_.variance) {
      case Variance::fixed_small:
        return add(std::sqrt(small));
      case Variance::fixed_small_log:
        return add(std::exp(0.5f * std::log(small)));
      case Variance::fixed_large:
        return add(std::sqrt(beta));
      case Variance::learned:
      case Variance::learned_range:
        break;
    }
    if (!step.variance.defined())
      throw Error(fmt::format("{}: the prediction is {}, expected twice the channels, as the variance is learned", name_,
                              step.prediction.shape().to_string()));
    if (config_.variance == Variance::learned)
      return zip([](float m, float n, float v) { return m + std::sqrt(v) * n; }, mean, step.noise, step.variance);
    const float low = std::log(small), high = std::log(beta);
    return zip(
        [=](float m, float n, float v) {
          const float t = (v + 1) / 2;
          return m + std::exp(0.5f * (t * high + (1 - t) * low)) * n;
        },
        mean, step.noise, step.variance);
  }

  DdpmConfig config_;
  std::vector<float> alphas_;
  std::vector<std::int64_t> times_;
};

}  // namespace

std::unique_ptr<Sampler> make_ddpm(const SamplerSettings& settings) {
  DdpmConfig config;
  SettingsReader reader(settings);
  config.process.read(reader);
  config.spacing.read(reader);
  read_prediction(reader, config.prediction, false);
  config.bounds.read(reader, true);
  // fixed_large_log takes the root of a logarithm below 0 in the original, and is not read.
  reader.choose("variance_type", config.variance,
                {{"fixed_small", Variance::fixed_small},
                 {"fixed_small_log", Variance::fixed_small_log},
                 {"fixed_large", Variance::fixed_large},
                 {"learned", Variance::learned},
                 {"learned_range", Variance::learned_range}});
  reader.finish();
  check_run(reader, {.timesteps = true});
  return std::make_unique<Ddpm>(config, reader);
}

}  // namespace vitrine::detail
