// Samplers: from a network's predictions to latents, step by step, as the schedulers of diffusers 0.42 and the process that
// DiT's authors sample with do it, to their numbers.
//
//   const auto sampler = create_sampler("dpmpp-2m-karras", text_of_scheduler_config_json, {.steps = 25});
//   Tensor x = affine(normal_noise(shape, {.seed = 1, .stream = kStartNoise}), sampler->init_noise_sigma(), 0);
//   for (int i = 0; i < sampler->steps(); ++i) {
//     const Tensor prediction = network(sampler->scale_model_input(x, i), sampler->timesteps()[i]);
//     const Tensor noise = sampler->uses_noise(i) ? normal_noise(shape, {.seed = 1, .stream = step_noise(i)}) : Tensor();
//     x = sampler->step(prediction, i, x, noise);
//   }
//
// From a picture: i from first_step(strength), x = add_noise(latents, noise, i). In-painting: after each step what is to stay
// is put back, x = mask x + (1 - mask) add_noise(latents, noise, i + 1), with the one noise of the start.
//
// Latents are [B, ..., C], channels last, of any rank; the pictures of a batch do not see each other. All is computed in f32
// on the processor, whatever the types of prediction and sample are: latents are small (64 KB for 512 x 512 pixels), and
// rounding them to 16 bits at each step would show.
//
// A sampler belongs to one run, since those of several steps remember predictions: make one a run. It is not for use from
// several threads at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

// The one run that a sampler is made for.
struct SamplerRun {
  int steps = 0;                    // not read where timesteps or sigmas are given; pndm has one more, nine with its PRK start
  std::vector<double> timesteps{};  // falling, in the place of evenly spaced ones: ddpm, euler, dpmpp, flow-euler
  std::vector<double> sigmas{};     // euler (with the last 0), unipc with use_flow_sigmas, flow-euler (FLUX: linear_sigmas)
  // Where the settings have use_dynamic_shifting: the shift, or the number of the picture's tokens that it follows from.
  std::optional<double> mu{};
  std::int64_t image_tokens = 0;
};

// What a sampler goes by, for plots and comparisons; empty where it has no such table.
struct SamplerTables {
  std::vector<float> sigmas;                                // noise levels: one more than steps, or more
  std::vector<double> alphas_cumprod, betas, log_variance;  // by the timestep of training; iddpm: of the steps that are kept
};

class VITRINE_API Sampler {
 public:
  virtual ~Sampler();

  int steps() const { return static_cast<int>(timesteps_.size()); }
  // What the network is given at each step, mostly falling from 999 to 0; flow-euler: from 1000 (FLUX takes a thousandth).
  std::span<const float> timesteps() const { return timesteps_; }
  float init_noise_sigma() const { return init_noise_sigma_; }  // what normal noise is multiplied with to start

  virtual Tensor scale_model_input(const Tensor& sample, int step) const;  // what the network is given for a sample
  // The sample after `step`, f32. The prediction has the sample's shape, or twice its channels where the network predicts
  // variances too (which only ddpm and iddpm read). `noise`: standard normal, where uses_noise(step). Throws Error for wrong
  // shapes, missing noise, and, where steps remember, a step that does not follow the one before.
  Tensor step(const Tensor& prediction, int step, const Tensor& sample, const Tensor& noise = {});
  bool uses_noise(int step) const;
  // The finished latents as the last step saw them (x0), for previews; undefined before the first.
  const Tensor& denoised() const { return denoised_; }

  // `latents` with the noise that they have before `step`; steps() asks for the finished latents, as they are.
  Tensor add_noise(const Tensor& latents, const Tensor& noise, int step) const;
  // Where a run from a picture begins: strength 1 is step 0, 0.3 keeps the last 30% of the steps. Throws Error outside of
  // (0, 1] and where no step would remain.
  virtual int first_step(double strength) const;

  const SamplerTables& tables() const { return tables_; }

 protected:
  explicit Sampler(std::string name) : name_(std::move(name)) {}

  struct Step {
    int index;
    Tensor prediction, sample;  // f32, contiguous, of one shape
    Tensor variance;            // the second half of the prediction's channels, or undefined
    Tensor noise;               // defined where uses_noise(index)
  };
  virtual Tensor advance(const Step& step) = 0;
  virtual bool adds_noise(int step) const;                          // false
  virtual std::pair<float, float> noise_level(int step) const = 0;  // a, b of: noised = a latents + b noise
  int begin_of(double kept, double strength) const;                 // where `kept` steps are left, rounded down

  std::string name_;  // for messages
  std::vector<float> timesteps_;
  float init_noise_sigma_ = 1;
  SamplerTables tables_;
  Tensor denoised_;

 private:
  void check_step(int step, int end) const;
};

// `name`: one of sampler_names(), or a class of diffusers ("EulerDiscreteScheduler"), or empty for the _class_name in
// `settings`. It may carry settings of its own, "ddim[eta=0.5]", which win over those of the short name, and these over
// `settings`, a JSON object: a scheduler_config.json, or some of its keys. The arguments of diffusers' step and of DiT's
// create_diffusion and p_sample are settings, too: eta, use_clipped_model_output (ddim), s_churn, s_tmin, s_tmax, s_noise
// (euler); timestep_respacing, noise_schedule, diffusion_steps, learn_sigma, sigma_small, predict_xstart, clip_denoised,
// method, eta (iddpm).
//
// Throws Error for unknown names and values, for keys that the sampler does not know (of a scheduler_config.json, which has a
// _class_name, those of diffusers' other classes are passed over, as diffusers does), and for combinations that
// have no finite result in the original.
VITRINE_API std::unique_ptr<Sampler> create_sampler(std::string_view name, std::string_view settings, const SamplerRun& run);

// ddpm, ddim, euler, euler-ancestral, dpmpp-2m, dpmpp-2m-karras, dpmpp-2m-sde, dpmpp-3m, pndm, unipc, flow-euler, iddpm,
// iddpm-ddim
VITRINE_API std::vector<std::string> sampler_names();
VITRINE_API bool is_sampler(std::string_view name);  // one of these, or a class of diffusers
// The _class_name of a scheduler_config.json, or "". Throws Error for what is no JSON object.
VITRINE_API std::string scheduler_class(std::string_view settings);

// 1, ..., 1/steps, evenly spaced: the sigmas that FLUX's pipeline asks for.
VITRINE_API std::vector<double> linear_sigmas(int steps);

}  // namespace vitrine
