// DPM-Solver and DPM-Solver++ of several steps, orders 1 to 3, as ODE and as SDE: exact for the linear part of the flow, a Taylor
// polynomial of the network's prediction (of the noise; ++: of x0) in lambda = log(alpha / sigma), made from the last
// predictions.
//
// "DPM-Solver", arXiv:2206.00927; "DPM-Solver++", arXiv:2211.01095. As diffusers' DPMSolverMultistepScheduler (0.42).
#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include <vitrine/pipelines/detail/sampler.h>

namespace vitrine::detail {
namespace {

// The last of Karras' sigmas is the final sigma_min, too, but for rounding, by which no derivative can be divided.
constexpr float kNoStep = 1e-6f;

struct DpmConfig {
  TrainedProcess process;
  StepSpacing spacing;
  Prediction prediction = Prediction::epsilon;
  Bounds bounds;
  bool plus = true, sde = false;  // algorithm_type
  bool heun = false;              // solver_type, of order 2
  int order = 2;
  bool lower_order_final = true, euler_at_final = false;
  SigmaSpacing sigmas;
  bool lu_lambdas = false, flow_sigmas = false;
  double flow_shift = 1;
  DynamicShift dynamic;
  FinalSigma final_sigma = FinalSigma::zero;
  double lambda_min_clipped = -std::numeric_limits<double>::infinity();
};

class DpmSolver : public Sampler {
 public:
  DpmSolver(const DpmConfig& config, const SettingsReader& reader)
      : Sampler(reader.name()), config_(config), history_(config.order) {
    const std::vector<float> alphas = config.process.alphas_cumprod(kAlmostZero);
    tables_.alphas_cumprod.assign(alphas.begin(), alphas.end());
    make_steps(alphas, reader);
    check_sigmas(tables_.sigmas, reader);
  }

 private:
  bool adds_noise(int /*step*/) const override { return config_.sde; }
  void make_steps(const std::vector<float>& alphas, const SettingsReader& reader) {
    const SamplerRun& run = reader.run();
    const SigmaTable table(alphas);
    const int steps = run.steps;
    std::vector<double> times = run.timesteps, sigmas;
    const bool lu = config_.lu_lambdas && !config_.sigmas.karras;
    if (lu || config_.sigmas) {
      if (lu)
        for (const double s : linspace(table.logarithms().back(), table.logarithms().front(), steps))
          sigmas.push_back(std::exp(s));
      else
        sigmas = config_.sigmas.between(table.largest(), table.smallest(), steps);
      const bool rounds = (config_.sigmas.karras || lu) && config_.process.schedule != BetaSchedule::squaredcos;
      for (const double s : sigmas) times.push_back(rounds ? std::nearbyint(table.timestep_of(s)) : table.timestep_of(s));
    } else if (config_.flow_sigmas) {
      const bool dynamic = config_.dynamic.use && (run.mu || run.image_tokens > 0);
      const double shift = dynamic ? std::exp(config_.dynamic.mu(reader)) : config_.flow_shift;
      const auto trained = static_cast<double>(config_.process.steps);
      for (const double alpha : linspace(1, 1 / trained, steps + 1)) sigmas.push_back(shifted(shift, 1 - alpha));
      std::reverse(sigmas.begin(), sigmas.end());
      sigmas.pop_back();
      for (const double s : sigmas) times.push_back(s * trained);
    } else {
      const std::int64_t last = last_timestep(alphas);
      if (last < 2)
        throw reader.error(fmt::format("lambda_min_clipped is {} and leaves no timesteps", config_.lambda_min_clipped));
      if (times.empty()) times = config_.spacing.timesteps(steps, steps + 1, last, config_.process.steps);
      for (double& t : times) t = run.timesteps.empty() ? std::nearbyint(t) : std::trunc(t);
      for (const double t : times) sigmas.push_back(table.at(t));
    }
    for (const double t : times) timesteps_.push_back(static_cast<float>(std::trunc(t)));
    sigmas.push_back(config_.final_sigma == FinalSigma::zero ? 0 : table.smallest());
    tables_.sigmas.assign(sigmas.begin(), sigmas.end());
  }

  // Timesteps whose lambda is below the clipping value are left out (cosine schedules end in almost nothing but noise).
  std::int64_t last_timestep(const std::vector<float>& alphas) const {
    const auto below = [&](float a) { return std::log(std::sqrt(a)) - std::log(std::sqrt(1 - a)) < config_.lambda_min_clipped; };
    return static_cast<std::int64_t>(alphas.size()) - std::ranges::count_if(alphas, below);
  }

  Level level(int step) const { return level_of_sigma(tables_.sigmas[static_cast<std::size_t>(step)], config_.flow_sigmas); }
  float lambda(int step) const {
    const Level l = level(step);
    return std::log(l.alpha) - std::log(l.sigma);
  }

  std::pair<float, float> noise_level(int step) const override { return {level(step).alpha, level(step).sigma}; }

  // What the Taylor polynomial is of.
  Tensor converted(const Step& step) {
    const Level l = level(step.index);
    denoised_ = config_.bounds.apply(original_of(config_.prediction, step.prediction, step.sample, l));
    if (config_.plus) return denoised_;
    return config_.bounds.thresholding ? noise_of(Prediction::sample, denoised_, step.sample, l)
                                       : noise_of(config_.prediction, step.prediction, step.sample, l);
  }

  int order_of(int step) const {
    const bool few = config_.lower_order_final && steps() < 15;
    if (step == steps() - 1 && (config_.euler_at_final || few || config_.final_sigma == FinalSigma::zero)) return 1;
    return std::min({config_.order, history_.size(), step == steps() - 2 && few ? 2 : 3});
  }

  // x' = of_x x + of_d0 D0 + of_d1 D1 + of_d2 D2 + of_noise noise, where D0 is the newest prediction, D1 and D2 its derivatives
  // in lambda, times h and h^2.
  struct Coefficients {
    float of_x, of_d0, of_d1, of_d2, of_noise;
  };

  Coefficients coefficients(int step, float h, int order) const {
    const auto [alpha_s, sigma_s] = level(step);
    const auto [alpha_t, sigma_t] = level(step + 1);
    Coefficients c{};
    if (config_.plus && !config_.sde) {
      const float e = std::exp(-h) - 1;
      c = {sigma_t / sigma_s, -(alpha_t * e), alpha_t * (e / h + 1), -(alpha_t * ((e + h) / (h * h) - 0.5f)), 0};
    } else if (config_.plus) {
      const float e = 1 - std::exp(-2 * h), h2 = 2 * h;
      c = {sigma_t / sigma_s * std::exp(-h), alpha_t * e, alpha_t * (e / -h2 + 1), alpha_t * ((e - h2) / (h2 * h2) - 0.5f),
           sigma_t * std::sqrt(e)};
    } else {
      const float e = std::exp(h) - 1, times = config_.sde ? 2 : 1;
      c = {alpha_t / alpha_s, -times * (sigma_t * e), -times * (sigma_t * (e / h - 1)), -(sigma_t * ((e - h) / (h * h) - 0.5f)),
           config_.sde ? sigma_t * std::sqrt(std::exp(2 * h) - 1) : 0};
    }
    if (order == 2 && !config_.heun) c.of_d1 = 0.5f * c.of_d0;  // midpoint
    return c;
  }

  Tensor advance(const Step& step) override {
    history_.follow(name_, step.index);
    history_.push(converted(step));
    const int i = step.index, order = order_of(i);
    const float h = lambda(i + 1) - lambda(i);
    if (std::abs(h) < kNoStep) return step.sample;
    const Coefficients c = coefficients(i, h, order);
    const Tensor& m0 = history_[0];
    const auto with_noise = [&](const Tensor& x) {
      return step.noise.defined() ? zip([of = c.of_noise](float x, float n) { return x + of * n; }, x, step.noise) : x;
    };
    if (order == 1) return with_noise(zip([=](float x, float m0) { return c.of_x * x + c.of_d0 * m0; }, step.sample, m0));
    const float r0 = (lambda(i) - lambda(i - 1)) / h;
    if (order == 2)
      return with_noise(zip(
          [=](float x, float m0, float m1) {
            const float d1 = 1 / r0 * (m0 - m1);
            return c.of_x * x + c.of_d0 * m0 + c.of_d1 * d1;
          },
          step.sample, m0, history_[1]));
    const float r1 = (lambda(i - 1) - lambda(i - 2)) / h;
    return with_noise(zip(
        [=](float x, float m0, float m1, float m2) {
          const float newer = 1 / r0 * (m0 - m1), older = 1 / r1 * (m1 - m2);
          const float d1 = newer + r0 / (r0 + r1) * (newer - older), d2 = 1 / (r0 + r1) * (newer - older);
          return c.of_x * x + c.of_d0 * m0 + c.of_d1 * d1 + c.of_d2 * d2;
        },
        step.sample, m0, history_[1], history_[2]));
  }

  const DpmConfig config_;
  History history_;
};

}  // namespace

std::unique_ptr<Sampler> make_dpmpp(const SamplerSettings& settings) {
  DpmConfig config;
  SettingsReader reader(settings);
  config.process.read(reader);
  config.spacing.read(reader);
  read_prediction(reader, config.prediction, true);
  config.bounds.read(reader, false);
  using Algorithm = std::pair<bool, bool>;
  Algorithm algorithm{config.plus, config.sde};
  reader.choose("algorithm_type", algorithm,
                {{"dpmsolver++", Algorithm{true, false}},
                 {"sde-dpmsolver++", Algorithm{true, true}},
                 {"dpmsolver", Algorithm{false, false}},
                 {"sde-dpmsolver", Algorithm{false, true}},
                 {"deis", Algorithm{true, false}}});  // of other classes' settings, as diffusers takes it
  std::tie(config.plus, config.sde) = algorithm;
  reader.choose("solver_type", config.heun,
                {{"midpoint", false}, {"heun", true}, {"logrho", false}, {"bh1", false}, {"bh2", false}});
  reader.get("solver_order", config.order).get("lower_order_final", config.lower_order_final);
  reader.get("euler_at_final", config.euler_at_final).get("lambda_min_clipped", config.lambda_min_clipped);
  config.sigmas.read(reader);
  reader.get("use_lu_lambdas", config.lu_lambdas).get("use_flow_sigmas", config.flow_sigmas).get("flow_shift", config.flow_shift);
  config.dynamic.read(reader);
  read_final_sigma(reader, config.final_sigma);
  // Variances in the prediction are dropped, whatever they mean.
  std::string variance_type;
  reader.get("variance_type", variance_type).finish();

  if (config.order < 1 || config.order > 3) throw reader.error(fmt::format("solver_order is {}, expected 1 to 3", config.order));
  if (config.sde && !config.plus && config.order == 3) throw reader.error("solver_order 3 is not defined for sde-dpmsolver");
  if (!config.plus && config.final_sigma == FinalSigma::zero)
    throw reader.error(
        "dpmsolver and sde-dpmsolver predict noise, of which none is left at 0: expected final_sigmas_type=sigma_min");
  if (config.prediction == Prediction::flow_prediction && !(config.flow_sigmas && config.plus))
    throw reader.error("flow_prediction needs use_flow_sigmas=true and dpmsolver++ or sde-dpmsolver++");
  if (config.dynamic.use && !config.dynamic.exponential) throw reader.error("time_shift_type is linear, expected exponential");
  if (config.flow_sigmas && (config.sigmas || config.lu_lambdas))
    throw reader.error("use_flow_sigmas with use_karras_sigmas, use_lu_lambdas or the like: expected one of them");
  check_run(reader, {.timesteps = true});
  if (!settings.run.timesteps.empty() && (config.sigmas || config.lu_lambdas || config.flow_sigmas))
    throw reader.error("timesteps and sigmas that are spaced by themselves: expected one of them");
  return std::make_unique<DpmSolver>(config, reader);
}

}  // namespace vitrine::detail
