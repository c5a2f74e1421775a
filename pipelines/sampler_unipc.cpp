// UniPC: a predictor of several steps (UniP) and, from the second step on, a corrector (UniC) that uses the network's new
// prediction to do the step before once more; B(h) versions.
//
// "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models", arXiv:2302.04867, algorithms 1 and 2.
// As diffusers' UniPCMultistepScheduler (0.42).
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include <vitrine/pipelines/detail/sampler.h>

namespace vitrine::detail {
namespace {

struct UniPcConfig {
  TrainedProcess process;
  StepSpacing spacing;
  Prediction prediction = Prediction::epsilon;
  Bounds bounds;
  bool predict_x0 = true;  // else the polynomial is of the noise
  bool bh1 = false;        // solver_type: B(h) = h instead of exp(h) - 1
  int order = 2;
  bool lower_order_final = true;
  std::vector<std::int64_t> disable_corrector;  // after which steps
  SigmaSpacing sigmas;
  bool flow_sigmas = false;
  double flow_shift = 1, shift_terminal = 0;
  DynamicShift dynamic;
  FinalSigma final_sigma = FinalSigma::zero;
};

// x of A x = b by elimination with row exchanges; A is small and not singular.
std::vector<float> solve(std::vector<std::vector<float>> a, std::vector<float> b) {
  const std::size_t n = b.size();
  for (std::size_t k = 0; k < n; ++k) {
    std::size_t pivot = k;
    for (std::size_t i = k + 1; i < n; ++i)
      if (std::abs(a[i][k]) > std::abs(a[pivot][k])) pivot = i;
    std::swap(a[k], a[pivot]);
    std::swap(b[k], b[pivot]);
    for (std::size_t i = k + 1; i < n; ++i) {
      const float factor = a[i][k] / a[k][k];
      for (std::size_t j = k; j < n; ++j) a[i][j] -= factor * a[k][j];
      b[i] -= factor * b[k];
    }
  }
  for (std::size_t k = n; k-- > 0;) {
    for (std::size_t j = k + 1; j < n; ++j) b[k] -= a[k][j] * b[j];
    b[k] /= a[k][k];
  }
  return b;
}

class UniPc : public Sampler {
 public:
  UniPc(const UniPcConfig& config, const SettingsReader& reader)
      : Sampler(reader.name()), config_(config), history_(config.order) {
    const std::vector<float> alphas = config.process.alphas_cumprod(kAlmostZero);
    tables_.alphas_cumprod.assign(alphas.begin(), alphas.end());
    make_steps(SigmaTable(alphas), reader);
    check_sigmas(tables_.sigmas, reader);
  }

 private:
  void make_steps(const SigmaTable& table, const SettingsReader& reader) {
    const SamplerRun& run = reader.run();
    const auto trained = static_cast<double>(config_.process.steps);
    const int steps = static_cast<int>(run.sigmas.empty() ? run.steps : run.sigmas.size());
    std::vector<double> times, sigmas;
    double smallest = table.smallest();  // what final_sigmas_type=sigma_min ends at
    if (config_.sigmas) {
      sigmas = config_.sigmas.between(table.largest(), table.smallest(), steps);
      if (config_.flow_sigmas)
        for (double& s : sigmas) s /= s + 1;
      for (const double s : sigmas) {
        const double t = config_.flow_sigmas ? s * trained : table.timestep_of(s);
        times.push_back(config_.sigmas.karras && !config_.flow_sigmas ? std::nearbyint(t) : t);
      }
      smallest = sigmas.back();
    } else if (config_.flow_sigmas) {
      sigmas = run.sigmas;
      if (sigmas.empty()) {
        sigmas = linspace(1, 1 / trained, steps + 1);
        sigmas.pop_back();
      }
      const double mu = config_.dynamic.use ? config_.dynamic.mu(reader) : 0;
      for (double& s : sigmas) s = config_.dynamic.use ? config_.dynamic.shifted(mu, s) : shifted(config_.flow_shift, s);
      if (config_.shift_terminal != 0) stretch_to(config_.shift_terminal, sigmas);
      constexpr double kEpsilon = 1e-6;  // sigma 1 would be nothing but noise, lambda minus infinity
      if (std::abs(sigmas.front() - 1) < kEpsilon) sigmas.front() -= kEpsilon;
      for (const double s : sigmas) times.push_back(s * trained);
      smallest = sigmas.back();
    } else {
      times = config_.spacing.timesteps(steps, steps + 1, config_.process.steps, config_.process.steps);
      for (double& t : times) t = std::nearbyint(t);
      for (const double t : times) sigmas.push_back(table.at(t));
    }
    for (const double t : times) timesteps_.push_back(static_cast<float>(std::trunc(t)));
    sigmas.push_back(config_.final_sigma == FinalSigma::zero ? 0 : smallest);
    tables_.sigmas.assign(sigmas.begin(), sigmas.end());
  }

  Level level(int step) const { return level_of_sigma(tables_.sigmas[static_cast<std::size_t>(step)], config_.flow_sigmas); }
  float lambda(int step) const {
    const Level l = level(step);
    return std::log(l.alpha) - std::log(l.sigma);
  }

  std::pair<float, float> noise_level(int step) const override { return {level(step).alpha, level(step).sigma}; }

  // From x at step `from` to the next level. Without `newest` by the predictions of `from` and before; with it, the
  // prediction at the next level, corrected by that.
  Tensor update(int from, int order, const Tensor& x, const Tensor& newest) const {
    const auto [alpha_s, sigma_s] = level(from);
    const auto [alpha_t, sigma_t] = level(from + 1);
    const float h = lambda(from + 1) - lambda(from), hh = config_.predict_x0 ? -h : h;
    if (h == 0) return x;  // the final sigma_min is the last of some sigmas, too

    const float phi_1 = std::expm1(hh), b_h = config_.bh1 ? hh : phi_1;
    std::vector<float> r;  // where the predictions before lie, in steps of h from `from`
    for (int i = 1; i < order; ++i) r.push_back((lambda(from - i) - lambda(from)) / h);
    r.push_back(1);
    // Weights that make the rule exact for polynomials: sum_k r_k^(i - 1) rho_k = b_i (the paper's R_p(h)).
    std::vector<std::vector<float>> rows;
    std::vector<float> b;
    float phi = phi_1 / hh - 1, factorial = 1;
    for (int i = 1; i <= order; ++i) {
      std::vector<float>& row = rows.emplace_back();
      for (const float value : r) row.push_back(std::pow(value, static_cast<float>(i - 1)));
      b.push_back(phi * factorial / b_h);
      factorial *= static_cast<float>(i + 1);
      phi = phi / hh - 1 / factorial;
    }
    const bool corrects = newest.defined();
    if (!corrects) {  // r = 1 is unknown: one equation less
      rows.pop_back();
      b.pop_back();
      for (auto& row : rows) row.pop_back();
    }
    // Of one prediction the paper takes the limit for small h, 1/2.
    const std::vector<float> rho = b.size() == 1 ? std::vector{0.5f} : solve(rows, b);

    const float of_x = config_.predict_x0 ? sigma_t / sigma_s : alpha_t / alpha_s;
    const float scale = config_.predict_x0 ? alpha_t : sigma_t, of_m0 = scale * phi_1, of_rest = scale * b_h;
    const Tensor& m0 = history_[0];
    const Tensor result = zip([=](float x, float m0) { return of_x * x - of_m0 * m0; }, x, m0);
    Tensor rest;
    const auto add = [&](const Tensor& m, float r, float rho) {
      rest = rest.defined() ? zip([=](float sum, float m, float m0) { return sum + rho * ((m - m0) / r); }, rest, m, m0)
                            : zip([=](float m, float m0) { return rho * ((m - m0) / r); }, m, m0);
    };
    for (int i = 1; i < order; ++i) add(history_[i], r[static_cast<std::size_t>(i - 1)], rho[static_cast<std::size_t>(i - 1)]);
    if (corrects) add(newest, 1, rho.back());
    return rest.defined() ? zip([=](float x, float rest) { return x - of_rest * rest; }, result, rest) : result;
  }

  bool corrector_after(int step) const {
    return std::ranges::find(config_.disable_corrector, step) == config_.disable_corrector.end();
  }

  Tensor advance(const Step& step) override {
    const int i = step.index;
    history_.follow(name_, i);
    const Level l = level(i);
    denoised_ = original_of(config_.prediction, step.prediction, step.sample, l);
    if (config_.predict_x0) denoised_ = config_.bounds.apply(denoised_);
    const Tensor converted = config_.predict_x0 ? denoised_ : noise_of(config_.prediction, step.prediction, step.sample, l);
    Tensor x = step.sample;
    if (history_.size() > 0 && corrector_after(i - 1)) x = update(i - 1, order_, last_sample_, converted);
    history_.push(converted);
    order_ = std::min(config_.lower_order_final ? std::min(config_.order, steps() - i) : config_.order, history_.size());
    last_sample_ = x;
    return update(i, order_, x, {});
  }

  const UniPcConfig config_;
  History history_;
  int order_ = 1;
  Tensor last_sample_;  // what the last update started from
};

}  // namespace

std::unique_ptr<Sampler> make_unipc(const SamplerSettings& settings) {
  UniPcConfig config;
  SettingsReader reader(settings);
  config.process.read(reader);
  config.spacing.read(reader);
  read_prediction(reader, config.prediction, true);
  config.bounds.read(reader, false);
  reader.choose("solver_type", config.bh1,
                {{"bh1", true}, {"bh2", false}, {"midpoint", false}, {"heun", false}, {"logrho", false}});
  reader.get("predict_x0", config.predict_x0)
      .get("solver_order", config.order)
      .get("lower_order_final", config.lower_order_final);
  reader.get("disable_corrector", config.disable_corrector);
  config.sigmas.read(reader);
  reader.get("sigma_min", config.sigmas.smallest).get("sigma_max", config.sigmas.largest);
  reader.get("use_flow_sigmas", config.flow_sigmas)
      .get("flow_shift", config.flow_shift)
      .get("shift_terminal", config.shift_terminal);
  config.dynamic.read(reader);
  read_final_sigma(reader, config.final_sigma);
  std::optional<std::string> solver_p;
  reader.get("solver_p", solver_p).finish();

  constexpr int kMostOrder = 8;
  if (config.order < 1 || config.order > kMostOrder)
    throw reader.error(fmt::format("solver_order is {}, expected 1 to {}", config.order, kMostOrder));
  if (solver_p) throw reader.error("solver_p names another predictor, which is not read; expected null");
  if (config.prediction == Prediction::flow_prediction && !(config.flow_sigmas && config.predict_x0))
    throw reader.error("flow_prediction needs use_flow_sigmas=true and predict_x0=true");
  if (config.flow_sigmas && (config.sigmas.exponential || config.sigmas.beta))
    throw reader.error("use_flow_sigmas goes with use_karras_sigmas only");
  if (config.shift_terminal != 0 && !config.flow_sigmas) throw reader.error("shift_terminal needs use_flow_sigmas=true");
  if (config.final_sigma == FinalSigma::zero &&
      (config.bh1 || !config.predict_x0 || (!config.lower_order_final && config.order > 1)))
    throw reader.error(
        "a final sigma of 0 has no finite last step with bh1, predict_x0=false or lower_order_final=false; expected "
        "final_sigmas_type=sigma_min");
  check_run(reader, {.sigmas = config.flow_sigmas && !config.sigmas});
  return std::make_unique<UniPc>(config, reader);
}

}  // namespace vitrine::detail
