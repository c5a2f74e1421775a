// Euler's method on the probability flow in terms of sigma, x = x0 + sigma noise: plain, with added noise ("churn"), or
// ancestral, where each step goes further down than asked and comes back up with new noise.
//
// "Elucidating the Design Space of Diffusion-Based Generative Models", arXiv:2206.00364, algorithms 1 and 2; ancestral:
// k-diffusion. As diffusers' EulerDiscreteScheduler and EulerAncestralDiscreteScheduler (0.42).
#include <algorithm>
#include <cmath>
#include <limits>

#include <vitrine/pipelines/detail/sampler.h>

namespace vitrine::detail {
namespace {

struct EulerConfig {
  TrainedProcess process;
  StepSpacing spacing;
  Prediction prediction = Prediction::epsilon;
  bool log_linear = false;  // interpolation_type: sigmas evenly spaced in their logarithms, not taken from the table
  bool continuous = false;  // timestep_type: a quarter of the logarithm of sigma as timestep (with v_prediction)
  SigmaSpacing sigmas;
  FinalSigma final_sigma = FinalSigma::zero;
  double s_churn = 0, s_tmin = 0, s_tmax = std::numeric_limits<double>::infinity(), s_noise = 1;
};

class EulerBase : public Sampler {
 public:
  EulerBase(const EulerConfig& config, const SettingsReader& reader) : Sampler(reader.name()), config_(config) {
    const std::vector<float> alphas = config.process.alphas_cumprod(kAlmostZero);
    tables_.alphas_cumprod.assign(alphas.begin(), alphas.end());
    make_steps(SigmaTable(alphas), reader);
    if (steps() < 1) throw reader.error("1 sigma, expected 2 or more, the last mostly 0");
    for (int i = 0; i < steps(); ++i)
      if (!(sigma(i) > 0)) throw reader.error(fmt::format("the sigma of step {} is {}, expected it above 0", i, sigma(i)));
    const float largest = *std::max_element(tables_.sigmas.begin(), tables_.sigmas.end());
    init_noise_sigma_ = config.spacing.spacing == Spacing::leading ? std::sqrt(largest * largest + 1) : largest;
  }

  Tensor scale_model_input(const Tensor& sample, int step) const override {
    const Tensor x = Sampler::scale_model_input(sample, step).to(DType::f32).contiguous();
    const float size = std::sqrt(sigma(step) * sigma(step) + 1);
    return zip([=](float x) { return x / size; }, x);
  }

 protected:
  float sigma(int step) const { return tables_.sigmas[static_cast<std::size_t>(step)]; }

  std::pair<float, float> noise_level(int step) const override { return {1, sigma(step)}; }

  // x0 at the level `sigma` of `x`; `level` is that of the step, which v_prediction is defined by.
  Tensor original(const Tensor& prediction, const Tensor& x, float sigma, float level) const {
    if (config_.prediction != Prediction::v_prediction) return original_of(config_.prediction, prediction, x, {1, sigma});
    const float of_v = -level / std::sqrt(level * level + 1), of_x = level * level + 1;
    return zip([=](float v, float x) { return v * of_v + x / of_x; }, prediction, x);
  }

  const EulerConfig config_;

 private:
  void make_steps(const SigmaTable& table, const SettingsReader& reader) {
    const SamplerRun& run = reader.run();
    std::vector<double> times, sigmas;
    if (!run.sigmas.empty()) {
      for (const double sigma : run.sigmas) sigmas.push_back(static_cast<float>(sigma));
      for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) times.push_back(table.timestep_of(sigmas[i]));
    } else {
      const int steps = static_cast<int>(run.timesteps.empty() ? run.steps : run.timesteps.size());
      times = run.timesteps.empty() ? config_.spacing.timesteps(steps, steps, config_.process.steps, config_.process.steps)
                                    : run.timesteps;
      for (double& t : times) t = static_cast<float>(t);
      if (config_.log_linear) {
        const auto& logarithms = table.logarithms();
        for (const double t : linspace(logarithms.back(), logarithms.front(), steps + 1))
          sigmas.push_back(std::exp(static_cast<float>(t)));
      } else {
        for (const double t : times) sigmas.push_back(table.at(t));
      }
      if (config_.sigmas) {
        sigmas = config_.sigmas.between(sigmas.front(), sigmas.back(), steps);
        times.clear();
        for (const double sigma : sigmas) times.push_back(table.timestep_of(sigma));
      }
      sigmas.push_back(config_.final_sigma == FinalSigma::zero ? 0 : table.smallest());
    }
    tables_.sigmas.assign(sigmas.begin(), sigmas.end());
    timesteps_.assign(times.begin(), times.end());
    if (config_.continuous && config_.prediction == Prediction::v_prediction) {
      timesteps_.clear();
      for (std::size_t i = 0; i + 1 < tables_.sigmas.size(); ++i) timesteps_.push_back(0.25f * std::log(tables_.sigmas[i]));
    }
  }
};

class Euler : public EulerBase {
 public:
  using EulerBase::EulerBase;

 private:
  bool adds_noise(int step) const override { return churn(step) > 0; }
  float churn(int step) const {
    const float s = sigma(step);
    if (s < config_.s_tmin || s > config_.s_tmax) return 0;
    return static_cast<float>(std::min(config_.s_churn / static_cast<double>(tables_.sigmas.size() - 1), std::sqrt(2.0) - 1));
  }

  Tensor advance(const Step& step) override {
    const float from = sigma(step.index), raised = from * (churn(step.index) + 1);
    Tensor x = step.sample;
    if (step.noise.defined()) {
      const auto size = static_cast<float>(config_.s_noise);
      const float deviation = std::sqrt(raised * raised - from * from);
      x = zip([=](float x, float n) { return x + n * size * deviation; }, x, step.noise);
    }
    denoised_ = original(step.prediction, x, raised, from);
    const float dt = sigma(step.index + 1) - raised;
    return zip([=](float x, float x0) { return x + (x - x0) / raised * dt; }, x, denoised_);
  }
};

class EulerAncestral : public EulerBase {
 public:
  using EulerBase::EulerBase;

 private:
  bool adds_noise(int /*step*/) const override { return true; }
  Tensor advance(const Step& step) override {
    const float from = sigma(step.index), to = sigma(step.index + 1);
    const float up = std::sqrt(to * to * (from * from - to * to) / (from * from)),
                down = std::sqrt(std::max(to * to - up * up, 0.0f));
    denoised_ = original(step.prediction, step.sample, from, from);
    const float dt = down - from;
    return zip([=](float x, float x0, float n) { return x + (x - x0) / from * dt + n * up; }, step.sample, denoised_, step.noise);
  }
};

EulerConfig read_euler(SettingsReader& reader) {
  EulerConfig config;
  config.process.read(reader);
  config.spacing.read(reader);
  read_prediction(reader, config.prediction, false);
  return config;
}

}  // namespace

std::unique_ptr<Sampler> make_euler(const SamplerSettings& settings) {
  SettingsReader reader(settings);
  EulerConfig config = read_euler(reader);
  config.sigmas.read(reader);
  read_final_sigma(reader, config.final_sigma);
  reader.get("sigma_min", config.sigmas.smallest).get("sigma_max", config.sigmas.largest);
  reader.choose("interpolation_type", config.log_linear, {{"linear", false}, {"log_linear", true}});
  reader.choose("timestep_type", config.continuous, {{"discrete", false}, {"continuous", true}});
  reader.get("s_churn", config.s_churn).get("s_tmin", config.s_tmin).get("s_tmax", config.s_tmax).get("s_noise", config.s_noise);
  reader.finish();
  check_run(reader, {.timesteps = true, .sigmas = true});
  if (!settings.run.timesteps.empty() && (config.sigmas || config.continuous))
    throw reader.error("timesteps and sigmas that are spaced by themselves: expected one of them");
  return std::make_unique<Euler>(config, reader);
}

std::unique_ptr<Sampler> make_euler_ancestral(const SamplerSettings& settings) {
  SettingsReader reader(settings);
  const EulerConfig config = read_euler(reader);
  reader.finish();
  check_run(reader, {});
  return std::make_unique<EulerAncestral>(config, reader);
}

}  // namespace vitrine::detail
