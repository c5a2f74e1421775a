// PNDM: DDIM's step, with a combination of the last four predicted noises in the place of one (linear multistep, PLMS). The first
// steps have no such past: they are of lower order (skip_prk_steps, as Stable Diffusion has it), or three Runge-Kutta steps of
// four predictions each.
//
// "Pseudo Numerical Methods for Diffusion Models on Manifolds", arXiv:2202.09778, equations 9, 12 and 13. As diffusers'
// PNDMScheduler (0.42). Not copied: there a run from a picture takes its second step twice, too, and what it says to the network
// from there on is a level below that of the latents. Here it begins with steps of lower order.
#include <cmath>

#include <vitrine/pipelines/detail/sampler.h>

namespace vitrine::detail {
namespace {

struct PndmConfig {
  TrainedProcess process;
  StepSpacing spacing{.spacing = Spacing::leading};
  Prediction prediction = Prediction::epsilon;
  bool skip_prk_steps = false, set_alpha_to_one = false;
};

constexpr int kPrkSteps = 3, kPrkPredictions = 4 * kPrkSteps;

class Pndm : public Sampler {
 public:
  Pndm(const PndmConfig& config, SettingsReader& reader)
      : Sampler(reader.name()),
        config_(config),
        alphas_(config.process.alphas_cumprod(0)),
        asked_(reader.run().steps),
        stride_(config.process.steps / asked_) {
    const auto levels = whole_timesteps(config.spacing, asked_, config.process.steps, reader);
    check_times(levels, alphas_, true, reader);
    if (config.skip_prk_steps) {
      times_ = levels;
      if (asked_ > 1) times_.insert(times_.begin() + 1, times_[1]);
    } else {
      if (asked_ <= kPrkSteps)
        throw reader.error(
            fmt::format("{} steps, expected {} or more: the first {} are Runge-Kutta steps (or skip_prk_steps=true)", asked_,
                        kPrkSteps + 1, kPrkSteps));
      for (std::size_t k = 0; k < kPrkSteps; ++k)  // the begin, twice the middle, the end
        for (const std::int64_t time : {levels[k], levels[k + 1] + stride_ / 2, levels[k + 1] + stride_ / 2, levels[k + 1]})
          times_.push_back(time);
      times_.insert(times_.end(), levels.begin() + kPrkSteps, levels.end());
    }
    timesteps_.assign(times_.begin(), times_.end());
    tables_.alphas_cumprod.assign(alphas_.begin(), alphas_.end());
  }

  int first_step(double strength) const override {
    if (!config_.skip_prk_steps && strength < 1)
      throw Error(fmt::format("{}: strength {}: a run with Runge-Kutta steps begins with noise; expected skip_prk_steps=true",
                              name_, strength));
    return strength == 1 ? 0 : begin_of(std::floor(asked_ * strength), strength);  // never between the two of the second level
  }

 private:
  std::int64_t time(int step) const { return times_[static_cast<std::size_t>(step)]; }
  float alpha(std::int64_t time) const {
    if (time < 0) return config_.set_alpha_to_one ? 1 : alphas_[0];
    return alphas_[static_cast<std::size_t>(time)];
  }

  std::pair<float, float> noise_level(int step) const override {
    const Level level = variance_preserving(alpha(time(step)));
    return {level.alpha, level.sigma};
  }

  // Equation 9: x from one level to another along a prediction.
  Tensor moved(const Tensor& x, const Tensor& prediction, std::int64_t from, std::int64_t to) {
    const float a = alpha(from), next = alpha(to);
    const Level level = variance_preserving(a);
    denoised_ = original_of(config_.prediction, prediction, x, level);
    const Tensor noise = noise_of(config_.prediction, prediction, x, level);
    const float of_x = std::sqrt(next / a), difference = next - a;
    const float divisor = a * std::sqrt(1 - next) + std::sqrt(a * (1 - a) * next);
    return zip([=](float x, float e) { return of_x * x - difference * e / divisor; }, x, noise);
  }

  Tensor advance(const Step& step) override {
    history_.follow(name_, step.index);
    return !config_.skip_prk_steps && step.index < kPrkPredictions ? runge_kutta(step) : multistep(step);
  }

  // Equation 13: a step of four predictions.
  Tensor runge_kutta(const Step& step) {
    const int part = step.index % 4;
    const std::int64_t now = time(step.index), to = part % 2 == 0 ? now - stride_ / 2 : now;
    const Tensor& e = step.prediction;
    if (part == 0) {
      history_.push(e);
      begin_ = step.sample;
      begin_time_ = now;
      sum_ = zip([](float e) { return 1.0f / 6 * e; }, e);
      return moved(begin_, e, begin_time_, to);
    }
    const float weight = part == 3 ? 1.0f / 6 : 1.0f / 3;
    sum_ = zip([=](float sum, float e) { return sum + weight * e; }, sum_, e);
    return moved(begin_, part == 3 ? sum_ : e, begin_time_, to);
  }

  // Equation 12, and its beginning where there is no Runge-Kutta step: Heun's step, then orders 2 and 3.
  Tensor multistep(const Step& step) {
    const std::int64_t now = time(step.index);
    if (config_.skip_prk_steps && step.index == 1) {
      if (history_.size() == 0)
        throw Error(fmt::format("{}: step 1 takes step 0 anew; expected a run from 0, 2 or later", name_));
      const Tensor mean = zip([](float e, float before) { return (e + before) / 2; }, step.prediction, history_[0]);
      return moved(begin_, mean, now + stride_, now);
    }
    history_.push(step.prediction);
    begin_ = step.sample;
    const Tensor& e = history_[0];
    const std::int64_t to = now - stride_;
    switch (history_.size()) {
      case 1:
        return moved(step.sample, e, now, to);
      case 2:
        return moved(step.sample, zip([](float a, float b) { return (3 * a - b) / 2; }, e, history_[1]), now, to);
      case 3:
        return moved(step.sample,
                     zip([](float a, float b, float c) { return (23 * a - 16 * b + 5 * c) / 12; }, e, history_[1], history_[2]),
                     now, to);
      default:
        return moved(step.sample,
                     zip([](float a, float b, float c, float d) { return 1.0f / 24 * (55 * a - 59 * b + 37 * c - 9 * d); }, e,
                         history_[1], history_[2], history_[3]),
                     now, to);
    }
  }

  const PndmConfig config_;
  std::vector<float> alphas_;
  std::vector<std::int64_t> times_;
  int asked_;
  std::int64_t stride_;
  History history_{4};
  Tensor begin_, sum_;  // of the step that has several predictions
  std::int64_t begin_time_ = 0;
};

}  // namespace

std::unique_ptr<Sampler> make_pndm(const SamplerSettings& settings) {
  PndmConfig config;
  SettingsReader reader(settings);
  config.process.read(reader);
  config.spacing.read(reader);
  read_prediction(reader, config.prediction, false);
  reader.get("skip_prk_steps", config.skip_prk_steps).get("set_alpha_to_one", config.set_alpha_to_one).finish();
  if (config.prediction == Prediction::sample) throw reader.error("prediction_type is sample, expected epsilon or v_prediction");
  if (config.process.zero_snr) throw reader.error("rescale_betas_zero_snr is not known to it; choose ddim or euler");
  check_run(reader, {});
  return std::make_unique<Pndm>(config, reader);
}

}  // namespace vitrine::detail
