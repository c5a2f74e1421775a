// Euler's method on a rectified flow, x = (1 - sigma) x0 + sigma noise, whose network predicts noise - x0.
//
// "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", arXiv:2403.03206 (the shift: section 5.3.2).
// As diffusers' FlowMatchEulerDiscreteScheduler (0.42).
#include <cmath>

#include <vitrine/pipelines/detail/sampler.h>

namespace vitrine::detail {
namespace {

struct FlowConfig {
  std::int64_t num_train_timesteps = 1000;
  double shift = 1;
  DynamicShift dynamic;
  bool invert_sigmas = false;  // sigma counts the picture, not the noise: from 0 to 1
  double shift_terminal = 0;   // where the last sigma comes to lie; 0: where it is
  SigmaSpacing sigmas;
  bool stochastic_sampling = false;
};

class FlowEuler : public Sampler {
 public:
  FlowEuler(const FlowConfig& config, const SettingsReader& reader) : Sampler(reader.name()), config_(config) {
    const SamplerRun& run = reader.run();
    const auto trained = static_cast<double>(config.num_train_timesteps);
    std::vector<double> sigmas = run.sigmas;
    if (sigmas.empty() && !run.timesteps.empty())
      for (const double t : run.timesteps) sigmas.push_back(t / trained);
    if (sigmas.empty()) {
      // Between the ends of the trained table, which is shifted once already: the last of shift 3 is 0.0089, not 0.003.
      const auto end = [&](double sigma) {
        return static_cast<float>(config.dynamic.use ? sigma : shifted(config.shift, sigma));
      };
      for (const double t : linspace(end(1) * trained, end(1 / trained) * trained, run.steps)) sigmas.push_back(t / trained);
    }
    const double mu = config.dynamic.use ? config.dynamic.mu(reader) : 0;
    for (double& s : sigmas) s = config.dynamic.use ? config.dynamic.shifted(mu, s) : shifted(config.shift, s);
    if (config.shift_terminal != 0) stretch_to(config.shift_terminal, sigmas);
    if (config.sigmas) sigmas = config.sigmas.between(sigmas.front(), sigmas.back(), static_cast<int>(sigmas.size()));

    for (const double s : sigmas) {
      if (!std::isfinite(s)) throw reader.error("the settings give sigmas that are not numbers");
      tables_.sigmas.push_back(config.invert_sigmas ? 1 - static_cast<float>(s) : static_cast<float>(s));
      timesteps_.push_back(tables_.sigmas.back() * static_cast<float>(config.num_train_timesteps));
    }
    tables_.sigmas.push_back(config.invert_sigmas ? 1 : 0);
    if (!run.timesteps.empty() && !config.invert_sigmas) timesteps_.assign(run.timesteps.begin(), run.timesteps.end());
  }

  // FLUX's and SD3's pipelines round the number of kept steps up where those of Stable Diffusion round it down.
  int first_step(double strength) const override { return begin_of(steps() * strength, strength); }

 private:
  bool adds_noise(int /*step*/) const override { return config_.stochastic_sampling; }
  float sigma(int step) const { return tables_.sigmas[static_cast<std::size_t>(step)]; }

  std::pair<float, float> noise_level(int step) const override {
    const Level level = level_of_sigma(sigma(step), true);
    return {level.alpha, level.sigma};
  }

  Tensor advance(const Step& step) override {
    const float from = sigma(step.index), to = sigma(step.index + 1);
    denoised_ = original_of(Prediction::flow_prediction, step.prediction, step.sample, level_of_sigma(from, true));
    if (step.noise.defined()) return zip([=](float x0, float n) { return (1 - to) * x0 + to * n; }, denoised_, step.noise);
    return zip([dt = to - from](float x, float flow) { return x + dt * flow; }, step.sample, step.prediction);
  }

  const FlowConfig config_;
};

}  // namespace

std::unique_ptr<Sampler> make_flow_euler(const SamplerSettings& settings) {
  FlowConfig config;
  SettingsReader reader(settings);
  reader.get("num_train_timesteps", config.num_train_timesteps);
  reader.get("flow_shift", config.shift).get("shift", config.shift);  // the former from a UniPC's settings
  config.dynamic.read(reader);
  reader.get("invert_sigmas", config.invert_sigmas).get("shift_terminal", config.shift_terminal);
  config.sigmas.read(reader);
  reader.get("stochastic_sampling", config.stochastic_sampling);
  reader.finish();
  if (config.num_train_timesteps < 1 || config.shift <= 0)
    throw reader.error(
        fmt::format("num_train_timesteps is {} and shift {}, expected them above 0", config.num_train_timesteps, config.shift));
  check_run(reader, {.timesteps = true, .sigmas = true});
  if (!settings.run.sigmas.empty() && !settings.run.timesteps.empty() &&
      settings.run.sigmas.size() != settings.run.timesteps.size())
    throw reader.error(
        fmt::format("{} timesteps and {} sigmas, expected as many", settings.run.timesteps.size(), settings.run.sigmas.size()));
  return std::make_unique<FlowEuler>(config, reader);
}

}  // namespace vitrine::detail
