// DDIM: a step from the predicted original and the predicted noise straight to the next level; eta says how much of the noise
// is new, from none (deterministic) to as much as in DDPM.
//
// "Denoising Diffusion Implicit Models", arXiv:2010.02502. As diffusers' DDIMScheduler (0.42).
#include <algorithm>
#include <cmath>

#include <vitrine/pipelines/detail/sampler.h>

namespace vitrine::detail {
namespace {

struct DdimConfig {
  TrainedProcess process;
  StepSpacing spacing{.spacing = Spacing::leading};
  Prediction prediction = Prediction::epsilon;
  Bounds bounds{.clip = true};
  bool set_alpha_to_one = true;
  bool use_clipped_model_output = false;
  double eta = 0;
};

class Ddim : public Sampler {
 public:
  Ddim(const DdimConfig& config, SettingsReader& reader)
      : Sampler(reader.name()), config_(config), alphas_(config.process.alphas_cumprod(0)) {
    times_ = whole_timesteps(config.spacing, reader.run().steps, config.process.steps, reader);
    check_times(times_, alphas_, config.prediction == Prediction::epsilon && !config.bounds.any(), reader);
    stride_ = config.process.steps / reader.run().steps;
    timesteps_.assign(times_.begin(), times_.end());
    tables_.alphas_cumprod.assign(alphas_.begin(), alphas_.end());
  }

 private:
  bool adds_noise(int /*step*/) const override { return config_.eta > 0; }
  float alpha(std::int64_t time) const { return alphas_[static_cast<std::size_t>(time)]; }

  std::pair<float, float> noise_level(int step) const override {
    const Level level = variance_preserving(alpha(times_[static_cast<std::size_t>(step)]));
    return {level.alpha, level.sigma};
  }

  Tensor advance(const Step& step) override {
    // The level after the step is a whole stride below, whatever the next timestep is (they differ but for leading).
    const std::int64_t time = times_[static_cast<std::size_t>(step.index)], below = time - stride_;
    const float a = alpha(time), next = below >= 0 ? alpha(below) : config_.set_alpha_to_one ? 1 : alpha(0);
    const Level level = variance_preserving(a);
    denoised_ = config_.bounds.apply(original_of(config_.prediction, step.prediction, step.sample, level));
    const Tensor noise = config_.use_clipped_model_output ? noise_of(Prediction::sample, denoised_, step.sample, level)
                                                          : noise_of(config_.prediction, step.prediction, step.sample, level);
    const float deviation = static_cast<float>(config_.eta) * std::sqrt((1 - next) / (1 - a) * (1 - a / next));
    const float of_original = std::sqrt(next), of_noise = std::sqrt(std::max(1 - next - deviation * deviation, 0.0f));
    const Tensor mean = zip([=](float x0, float e) { return of_original * x0 + of_noise * e; }, denoised_, noise);
    if (!step.noise.defined()) return mean;
    return zip([=](float m, float n) { return m + deviation * n; }, mean, step.noise);
  }

  DdimConfig config_;
  std::vector<float> alphas_;
  std::vector<std::int64_t> times_;
  std::int64_t stride_ = 0;
};

}  // namespace

std::unique_ptr<Sampler> make_ddim(const SamplerSettings& settings) {
  DdimConfig config;
  SettingsReader reader(settings);
  config.process.read(reader);
  config.spacing.read(reader);
  read_prediction(reader, config.prediction, false);
  config.bounds.read(reader, true);
  reader.get("set_alpha_to_one", config.set_alpha_to_one).get("eta", config.eta);
  reader.get("use_clipped_model_output", config.use_clipped_model_output);
  reader.finish();
  if (config.eta < 0 || config.eta > 1) throw reader.error(fmt::format("eta is {}, expected 0 to 1", config.eta));
  check_run(reader, {});
  return std::make_unique<Ddim>(config, reader);
}

}  // namespace vitrine::detail
