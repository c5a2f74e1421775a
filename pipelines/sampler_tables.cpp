// Tables that samplers share: betas, timesteps, sigmas.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include <vitrine/pipelines/detail/sampler.h>

namespace vitrine::detail {
namespace {

// As torch.linspace rounds it: from both ends, with fused multiply-adds.
std::vector<float> float_linspace(double first, double last, std::int64_t count) {
  const auto a = static_cast<float>(first), b = static_cast<float>(last);
  const float step = count > 1 ? (b - a) / static_cast<float>(count - 1) : 0;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i)
    values[static_cast<std::size_t>(i)] =
        i < count / 2 ? std::fma(step, static_cast<float>(i), a) : std::fma(-step, static_cast<float>(count - 1 - i), b);
  return values;
}

// Products of 1 - beta in f64, each rounded to f32, as torch.cumprod does it on the processor.
std::vector<float> products(const std::vector<float>& betas) {
  std::vector<float> result;
  double product = 1;
  for (const float beta : betas) result.push_back(static_cast<float>(product *= 1 - beta));
  return result;
}

// Shifts and scales sqrt(a) so that the last is 0 and the first stays (arXiv:2305.08891, algorithm 1), and gives the betas of
// that.
std::vector<float> with_zero_snr(const std::vector<float>& betas) {
  std::vector<float> roots = products(betas);
  for (float& a : roots) a = std::sqrt(a);
  const float first = roots.front(), last = roots.back();
  for (float& a : roots) a = (a - last) * (first / (first - last));
  std::vector<float> rescaled{1 - roots[0] * roots[0]};
  for (std::size_t i = 1; i < roots.size(); ++i) rescaled.push_back(1 - roots[i] * roots[i] / (roots[i - 1] * roots[i - 1]));
  return rescaled;
}

// x with probability p of the symmetric beta distribution of shape 0.6 below it.
double beta_quantile(double p) {
  constexpr double kShape = 0.6;
  if (p > 0.5) return 1 - beta_quantile(1 - p);
  const double norm = std::tgamma(2 * kShape) / (std::tgamma(kShape) * std::tgamma(kShape));
  // The distribution as a series in x <= 1/2: norm x^a sum_n (1 - a)_n / n! x^n / (a + n)
  const auto distribution = [&](double x) {
    double sum = 0, factor = 1;
    for (int n = 0; n < 64; ++n) {
      sum += factor / (kShape + n);
      factor *= (1 - kShape + n) / (n + 1) * x;
    }
    return norm * std::pow(x, kShape) * sum;
  };
  double low = 0, high = 0.5;
  while (true) {
    const double middle = (low + high) / 2;
    if (middle <= low || middle >= high) return middle;
    (distribution(middle) < p ? low : high) = middle;
  }
}

}  // namespace

std::vector<double> linspace(double first, double last, std::int64_t count) {
  std::vector<double> values;
  const double step = count > 1 ? (last - first) / static_cast<double>(count - 1) : 0;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(static_cast<double>(i) * step + first);
  if (count > 1) values.back() = last;
  return values;
}

std::vector<double> betas_of(BetaSchedule schedule, std::int64_t steps) {
  const auto product = [&](double t) {
    if (schedule == BetaSchedule::squaredcos) {
      const double c = std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2);
      return c * c;
    }
    const double snr = std::exp(-0.5 * std::copysign(1.0, 0.5 - t) * std::log(1 - 2 * std::abs(0.5 - t) + 1e-6));
    return std::sqrt(snr / (1 + snr));
  };
  std::vector<double> betas;
  for (std::int64_t i = 0; i < steps; ++i) {
    const double t = static_cast<double>(i) / static_cast<double>(steps),
                 next = static_cast<double>(i + 1) / static_cast<double>(steps);
    betas.push_back(std::min(1 - product(next) / product(t), 0.999));
  }
  return betas;
}

void TrainedProcess::read(SettingsReader& reader) {
  reader.get("num_train_timesteps", steps).get("beta_start", beta_start).get("beta_end", beta_end);
  reader.get("trained_betas", trained_betas).get("rescale_betas_zero_snr", zero_snr);
  reader.choose("beta_schedule", schedule,
                {{"linear", BetaSchedule::linear},
                 {"scaled_linear", BetaSchedule::scaled_linear},
                 {"squaredcos_cap_v2", BetaSchedule::squaredcos},
                 {"laplace", BetaSchedule::laplace},
                 {"sigmoid", BetaSchedule::sigmoid}});
  constexpr std::int64_t kMost = 1'000'000;
  if (steps < 2 || steps > kMost) throw reader.error(fmt::format("num_train_timesteps is {}, expected 2 to {}", steps, kMost));
  if (trained_betas && static_cast<std::int64_t>(trained_betas->size()) != steps)
    throw reader.error(
        fmt::format("trained_betas has {} values, expected num_train_timesteps, {}", trained_betas->size(), steps));
  const std::vector<double> ends{beta_start, beta_end};
  const auto& betas = trained_betas ? *trained_betas : ends;
  const double low = *std::min_element(betas.begin(), betas.end()), high = *std::max_element(betas.begin(), betas.end());
  if (low <= 0 || high >= 1) throw reader.error(fmt::format("betas are {} to {}, expected them between 0 and 1", low, high));
}

std::vector<float> TrainedProcess::alphas_cumprod(float zero_snr_end) const {
  std::vector<float> betas;
  if (trained_betas) {
    betas.assign(trained_betas->begin(), trained_betas->end());
  } else if (schedule == BetaSchedule::linear) {
    betas = float_linspace(beta_start, beta_end, steps);
  } else if (schedule == BetaSchedule::scaled_linear) {
    betas = float_linspace(std::sqrt(beta_start), std::sqrt(beta_end), steps);
    for (float& beta : betas) beta *= beta;
  } else if (schedule == BetaSchedule::sigmoid) {
    betas = float_linspace(-6, 6, steps);
    for (float& beta : betas)
      beta = 1 / (1 + std::exp(-beta)) * static_cast<float>(beta_end - beta_start) + static_cast<float>(beta_start);
  } else {
    const std::vector<double> wide = betas_of(schedule, steps);
    betas.assign(wide.begin(), wide.end());
  }
  if (zero_snr) betas = with_zero_snr(betas);
  std::vector<float> alphas = products(betas);
  if (zero_snr) alphas.back() = zero_snr_end;
  return alphas;
}

void StepSpacing::read(SettingsReader& reader) {
  reader.choose("timestep_spacing", spacing,
                {{"linspace", Spacing::linspace}, {"leading", Spacing::leading}, {"trailing", Spacing::trailing}});
  reader.get("steps_offset", offset);
  constexpr std::int64_t kMost = 1'000'000;
  if (offset < -kMost || offset > kMost)
    throw reader.error(fmt::format("steps_offset is {}, expected {} at most", offset, kMost));
}

std::vector<double> StepSpacing::timesteps(int steps, int points, std::int64_t last, std::int64_t trained) const {
  std::vector<double> result;
  if (spacing == Spacing::linspace) {
    result = linspace(0, static_cast<double>(last - 1), points);
    std::reverse(result.begin(), result.end());
    result.resize(static_cast<std::size_t>(steps));
  } else if (spacing == Spacing::leading) {
    const std::int64_t stride = last / points;
    for (std::int64_t k = points - 1; k >= points - steps; --k) result.push_back(static_cast<double>(k * stride + offset));
  } else {
    // NumPy's arange(last, 0, -stride), which adds its first difference again and again; where rounding gives it an element too
    // many (61 steps), that is below 0 and means nothing.
    const double first = static_cast<double>(last), stride = static_cast<double>(trained) / steps;
    const double difference = (first - stride) - first;
    for (int k = 0; k < steps; ++k) {
      const double timestep = std::nearbyint(first + k * difference) - 1;
      if (timestep < 0) break;
      result.push_back(timestep);
    }
  }
  return result;
}

std::vector<std::int64_t> whole_timesteps(const StepSpacing& spacing, int steps, std::int64_t trained,
                                          const SettingsReader& reader) {
  if (steps > trained) throw reader.error(fmt::format("{} steps, expected num_train_timesteps, {}, at most", steps, trained));
  std::vector<std::int64_t> times;
  for (const double t : spacing.timesteps(steps, steps, trained, trained))
    times.push_back(static_cast<std::int64_t>(std::nearbyint(t)));
  return times;
}

void check_times(const std::vector<std::int64_t>& times, const std::vector<float>& alphas, bool unbounded_noise,
                 const SettingsReader& reader) {
  for (const std::int64_t time : times) {
    if (time < 0 || time >= static_cast<std::int64_t>(alphas.size()))
      throw reader.error(fmt::format("timestep {} is not one of the {} of training; lower steps_offset or take fewer steps", time,
                                     alphas.size()));
    if (alphas[static_cast<std::size_t>(time)] == 0 && unbounded_noise)
      throw reader.error(
          fmt::format("timestep {} is pure noise (rescale_betas_zero_snr), from which a prediction of noise says nothing; "
                      "expected v_prediction",
                      time));
  }
}

SigmaTable::SigmaTable(const std::vector<float>& alphas_cumprod) {
  // The root of 2^24 - 1 lies all but halfway between two floats, and PyTorch's takes the upper one. Paths that start there lose
  // four digits in their first step, so that it shows.
  for (const float a : alphas_cumprod) sigmas_.push_back(a == kAlmostZero ? 4096 : std::sqrt((1 - a) / a));
  for (const float sigma : sigmas_) logarithms_.push_back(std::log(sigma));
}

double SigmaTable::at(double timestep) const {
  const double end = static_cast<double>(sigmas_.size() - 1), t = std::clamp(timestep, 0.0, end);
  const auto low = static_cast<std::size_t>(std::min(t, end - 1));
  return (static_cast<double>(sigmas_[low + 1]) - sigmas_[low]) * (t - static_cast<double>(low)) + sigmas_[low];
}

double SigmaTable::timestep_of(double sigma) const {
  const double logarithm = std::log(std::max(sigma, 1e-10));
  std::size_t low = logarithms_.size() - 1;
  while (low > 0 && logarithm < logarithms_[low]) --low;
  low = std::min(low, logarithms_.size() - 2);
  const float a = logarithms_[low], b = logarithms_[low + 1];
  const double w = std::clamp((a - logarithm) / (a - b), 0.0, 1.0);
  return (1 - w) * static_cast<double>(low) + w * static_cast<double>(low + 1);
}

void check_sigmas(const std::vector<float>& sigmas, const SettingsReader& reader) {
  for (const float sigma : sigmas)
    if (!std::isfinite(sigma)) throw reader.error("the settings give sigmas that are not numbers");
  for (std::size_t i = 0; i + 2 < sigmas.size(); ++i)
    if (!(sigmas[i] > sigmas[i + 1]))
      throw reader.error(fmt::format("sigma is {} at step {} and {} after it, expected it to fall; take fewer steps", sigmas[i],
                                     i, sigmas[i + 1]));
}

void SigmaSpacing::read(SettingsReader& reader) {
  reader.get("use_karras_sigmas", karras).get("use_exponential_sigmas", exponential).get("use_beta_sigmas", beta);
  if (karras + exponential + beta > 1)
    throw reader.error("use_karras_sigmas, use_exponential_sigmas and use_beta_sigmas: expected one of them at most");
}

std::vector<double> SigmaSpacing::between(double first, double last, int steps) const {
  first = largest.value_or(first), last = smallest.value_or(last);
  std::vector<double> sigmas;
  if (karras) {  // arXiv:2206.00364, equation 5
    constexpr double kRho = 7;
    const double from = std::pow(first, 1 / kRho), to = std::pow(last, 1 / kRho);
    for (const double t : linspace(0, 1, steps)) sigmas.push_back(std::pow(from + t * (to - from), kRho));
  } else if (exponential) {
    for (const double t : linspace(std::log(first), std::log(last), steps)) sigmas.push_back(std::exp(t));
  } else {  // arXiv:2407.12173
    for (const double t : linspace(0, 1, steps)) sigmas.push_back(last + beta_quantile(1 - t) * (first - last));
  }
  return sigmas;
}

void read_final_sigma(SettingsReader& reader, FinalSigma& field) {
  reader.choose("final_sigmas_type", field, {{"zero", FinalSigma::zero}, {"sigma_min", FinalSigma::sigma_min}});
}

void DynamicShift::read(SettingsReader& reader) {
  reader.get("use_dynamic_shifting", use).get("base_shift", base_shift).get("max_shift", max_shift);
  reader.get("base_image_seq_len", base_image_seq_len).get("max_image_seq_len", max_image_seq_len);
  reader.choose("time_shift_type", exponential, {{"exponential", true}, {"linear", false}});
}

double DynamicShift::mu(const SettingsReader& reader) const {
  if (reader.run().mu) return *reader.run().mu;
  if (reader.run().image_tokens < 1)
    throw reader.error("use_dynamic_shifting needs mu, or the number of the picture's tokens that it follows from");
  const double slope = (max_shift - base_shift) / static_cast<double>(max_image_seq_len - base_image_seq_len);
  return static_cast<double>(reader.run().image_tokens) * slope + (base_shift - slope * static_cast<double>(base_image_seq_len));
}

double DynamicShift::shifted(double mu, double sigma) const {
  const double shift = exponential ? std::exp(mu) : mu;
  return shift / (shift + (1 / sigma - 1));
}

double shifted(double shift, double sigma) { return shift * sigma / (1 + (shift - 1) * sigma); }

void stretch_to(double terminal, std::vector<double>& sigmas) {
  const double scale = (1 - sigmas.back()) / (1 - terminal);
  for (double& sigma : sigmas) sigma = 1 - (1 - sigma) / scale;
}

}  // namespace vitrine::detail
