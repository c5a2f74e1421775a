// What the samplers share (sampler_NAME.cpp, one a family): settings, tables of the trained process, spacings, kinds of
// predictions. Not installed.
//
// Tables and coefficients are computed in the types and the order of the original, f32 where PyTorch has f32: rounded sigmas
// decide which integer a timestep becomes, and differences of nearly equal logarithms grow along a path.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/backbones/arguments.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/sampler.h>

namespace vitrine::detail {

// --- settings --------------------------------------------------------------------------------------------------------

struct SamplerSettings {
  std::string name;  // for messages
  Arguments arguments;
  bool published = false;  // from a scheduler_config.json, where keys of other classes may have stayed
  SamplerRun run;
};

class SettingsReader {
 public:
  explicit SettingsReader(const SamplerSettings& settings) : settings_(settings), reader_(settings.name, settings.arguments) {}

  template <typename T>
  SettingsReader& get(std::string_view key, T& field) {
    reader_.get(key, field);
    return *this;
  }
  // One of the named values.
  template <typename T>
  SettingsReader& choose(std::string_view key, T& field, const std::vector<std::pair<std::string, T>>& values) {
    std::optional<std::string> text;
    reader_.get(key, text);
    if (!text) return *this;
    std::vector<std::string> names;
    for (const auto& [name, value] : values) {
      if (name == *text) {
        field = value;
        return *this;
      }
      names.push_back(name);
    }
    throw error(fmt::format("{} is {}, expected one of {}", key, printable(*text), list_names(names, 12)));
  }
  void finish();  // throws Error for keys that nobody asked for

  const std::string& name() const { return settings_.name; }
  const SamplerRun& run() const { return settings_.run; }
  Error error(std::string_view what) const { return Error(fmt::format("{}: {}", settings_.name, what)); }

 private:
  const SamplerSettings& settings_;
  ArgumentReader reader_;
};

// What a run may give in the place of a number of steps; throws Error for what the sampler does not take, and for no steps.
struct RunForms {
  bool timesteps = false, sigmas = false;
};
void check_run(const SettingsReader& reader, const RunForms& forms);

using MakeSampler = std::unique_ptr<Sampler> (*)(const SamplerSettings&);
std::unique_ptr<Sampler> make_ddpm(const SamplerSettings& settings);
std::unique_ptr<Sampler> make_ddim(const SamplerSettings& settings);
std::unique_ptr<Sampler> make_euler(const SamplerSettings& settings);
std::unique_ptr<Sampler> make_euler_ancestral(const SamplerSettings& settings);
std::unique_ptr<Sampler> make_dpmpp(const SamplerSettings& settings);
std::unique_ptr<Sampler> make_pndm(const SamplerSettings& settings);
std::unique_ptr<Sampler> make_unipc(const SamplerSettings& settings);
std::unique_ptr<Sampler> make_flow_euler(const SamplerSettings& settings);
std::unique_ptr<Sampler> make_iddpm(const SamplerSettings& settings);

// --- the process that the network was trained on ------------------------------------------------------------------------

enum class BetaSchedule : std::uint8_t { linear, scaled_linear, squaredcos, laplace, sigmoid };

struct TrainedProcess {
  std::int64_t steps = 1000;
  double beta_start = 1e-4, beta_end = 0.02;
  BetaSchedule schedule = BetaSchedule::linear;
  std::optional<std::vector<double>> trained_betas;
  bool zero_snr = false;

  void read(SettingsReader& reader);
  // Products of 1 - beta; the last is `zero_snr_end` where zero_snr asks for a process that ends in pure noise.
  std::vector<float> alphas_cumprod(float zero_snr_end) const;
};
// In those samplers that divide by it: the smallest number of 16 bits.
inline constexpr float kAlmostZero = 0x1p-24f;

// Betas of squaredcos and laplace, from products of 1 - beta as a function of time, at most 0.999.
std::vector<double> betas_of(BetaSchedule schedule, std::int64_t steps);
std::vector<double> linspace(double first, double last, std::int64_t count);  // as NumPy rounds it

enum class Prediction : std::uint8_t { epsilon, sample, v_prediction, flow_prediction };

// --- timesteps and sigmas -------------------------------------------------------------------------------------------------

enum class Spacing : std::uint8_t { linspace, leading, trailing };

struct StepSpacing {
  Spacing spacing = Spacing::linspace;
  std::int64_t offset = 0;

  void read(SettingsReader& reader);
  // `steps` falling timesteps of 0..last - 1, the first of `points` (steps, or one more where the final 0 is dropped); linspace
  // gives fractions. Of trailing there are fewer where the trained process was cut (last < trained).
  std::vector<double> timesteps(int steps, int points, std::int64_t last, std::int64_t trained) const;
};

// For samplers whose steps are trained timesteps: `steps` of them. Throws Error for more than there are.
std::vector<std::int64_t> whole_timesteps(const StepSpacing& spacing, int steps, std::int64_t trained,
                                          const SettingsReader& reader);
// Throws Error for timesteps beyond the trained ones, and, where noise is predicted and the original from it not clipped, for one
// that has nothing but noise.
void check_times(const std::vector<std::int64_t>& times, const std::vector<float>& alphas, bool unbounded_noise,
                 const SettingsReader& reader);

// Sigma = sqrt((1 - a) / a) of the trained timesteps, and back.
class SigmaTable {
 public:
  explicit SigmaTable(const std::vector<float>& alphas_cumprod);
  double smallest() const { return sigmas_.front(); }
  double largest() const { return sigmas_.back(); }
  const std::vector<float>& logarithms() const { return logarithms_; }
  double at(double timestep) const;  // linear between the trained ones
  double timestep_of(double sigma) const;

 private:
  std::vector<float> sigmas_, logarithms_;
};

// Throws Error where a sampler of several steps cannot divide by the differences of its sigmas: they fall, but for the last.
void check_sigmas(const std::vector<float>& sigmas, const SettingsReader& reader);

// use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas: sigmas spaced by themselves instead of by timesteps.
struct SigmaSpacing {
  bool karras = false, exponential = false, beta = false;
  std::optional<double> smallest, largest;  // sigma_min, sigma_max; else those of what is replaced

  void read(SettingsReader& reader);
  explicit operator bool() const { return karras || exponential || beta; }
  std::vector<double> between(double first, double last, int steps) const;
};

enum class FinalSigma : std::uint8_t { zero, sigma_min };
void read_final_sigma(SettingsReader& reader, FinalSigma& field);

// Shifts of flow matching's sigmas by the size of the picture.
struct DynamicShift {
  bool use = false, exponential = true;
  double base_shift = 0.5, max_shift = 1.15;
  std::int64_t base_image_seq_len = 256, max_image_seq_len = 4096;

  void read(SettingsReader& reader);
  double mu(const SettingsReader& reader) const;  // throws Error where the run says neither it nor image_tokens
  double shifted(double mu, double sigma) const;
};
double shifted(double shift, double sigma);  // shift s / (1 + (shift - 1) s)
// Stretched so that the last is `terminal`.
void stretch_to(double terminal, std::vector<double>& sigmas);

// --- predictions ----------------------------------------------------------------------------------------------------------

void read_prediction(SettingsReader& reader, Prediction& field, bool flow);

// The process mixes x = alpha x0 + sigma noise.
struct Level {
  float alpha, sigma;
};
Level variance_preserving(float alpha_cumprod);        // sqrt(a), sqrt(1 - a)
Level level_of_sigma(float sigma, bool flow = false);  // 1 / sqrt(s^2 + 1) and s times that; flow: 1 - s, s

Tensor original_of(Prediction type, const Tensor& prediction, const Tensor& x, Level level);  // x0
Tensor noise_of(Prediction type, const Tensor& prediction, const Tensor& x, Level level);

// How predicted originals are kept in range: clip_sample, or dynamic thresholding (Imagen, arXiv:2205.11487) of each picture.
struct Bounds {
  bool thresholding = false, clip = false;
  double ratio = 0.995, sample_max_value = 1, clip_range = 1;

  void read(SettingsReader& reader, bool clips);
  bool any() const { return thresholding || clip; }
  Tensor apply(const Tensor& x0) const;
};

// f(a[i], b[i], ...) of contiguous f32 tensors of one shape.
template <typename F, typename... Tensors>
Tensor zip(const F& f, const Tensor& first, const Tensors&... rest) {
  Tensor out = Tensor::empty(first.shape());
  float* to = out.data<float>();
  const auto each = [&](const auto*... from) {
    const std::int64_t count = first.numel();
    for (std::int64_t i = 0; i < count; ++i) to[i] = f(from[i]...);
  };
  each(first.template data<float>(), rest.template data<float>()...);
  return out;
}

// The predictions that samplers of several steps remember, newest first.
class History {
 public:
  explicit History(int length) : length_(static_cast<std::size_t>(length)) {}
  int size() const { return static_cast<int>(kept_.size()); }
  const Tensor& operator[](int age) const { return kept_[static_cast<std::size_t>(age)]; }
  void follow(std::string_view name, int step);  // throws Error where it does not follow the step before
  void push(const Tensor& prediction);

 private:
  std::size_t length_;
  int last_ = -1;
  std::vector<Tensor> kept_;
};

}  // namespace vitrine::detail
