// Samplers by name, and what all of them do. A new one: sampler_NAME.cpp with its class and its make function, and a row here.
#include <vitrine/pipelines/sampler.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include <vitrine/layers/checks.h>
#include <vitrine/pipelines/detail/sampler.h>

namespace vitrine {
namespace {

using namespace detail;

struct SamplerRow {
  std::string_view name, class_name;
  MakeSampler make;
  std::string_view preset = "{}";  // settings of the short name
};

constexpr const char* kClassName = "_class_name";
constexpr std::string_view kSchedulerConfig = "scheduler_config";  // in messages
constexpr std::string_view kFlowClass = "FlowMatchEulerDiscreteScheduler";

constexpr SamplerRow kSamplers[] = {
    {"ddpm", "DDPMScheduler", make_ddpm},
    {"ddim", "DDIMScheduler", make_ddim},
    {"euler", "EulerDiscreteScheduler", make_euler},
    {"euler-ancestral", "EulerAncestralDiscreteScheduler", make_euler_ancestral},
    {"dpmpp-2m", "DPMSolverMultistepScheduler", make_dpmpp,
     R"({"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"})"},
    {"dpmpp-2m-karras", "DPMSolverMultistepScheduler", make_dpmpp,
     R"({"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "use_karras_sigmas": true,
         "use_exponential_sigmas": false, "use_beta_sigmas": false, "use_lu_lambdas": false})"},
    {"dpmpp-2m-sde", "DPMSolverMultistepScheduler", make_dpmpp,
     R"({"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "solver_type": "midpoint"})"},
    {"dpmpp-3m", "DPMSolverMultistepScheduler", make_dpmpp, R"({"algorithm_type": "dpmsolver++", "solver_order": 3})"},
    {"pndm", "PNDMScheduler", make_pndm, R"({"skip_prk_steps": true})"},
    {"unipc", "UniPCMultistepScheduler", make_unipc},
    {"flow-euler", kFlowClass, make_flow_euler},
    {"iddpm", "SpacedDiffusion", make_iddpm},
    {"iddpm-ddim", "SpacedDiffusion", make_iddpm, R"({"method": "ddim"})"},
};

SamplerRow find_row(std::string_view name) {
  for (const SamplerRow& row : kSamplers)
    if (row.name == name) return row;
  for (SamplerRow row : kSamplers)
    if (row.class_name == name) {
      row.preset = "{}";
      return row;
    }
  const std::vector<std::string> names = sampler_names();
  throw Error(
      fmt::format("unknown sampler '{}'{}; known: {}", printable(name), suggest_names(name, names), list_names(names, 20)));
}

// Keys of diffusers' schedulers: passed over in a scheduler_config.json where the chosen class does not read them, as
// diffusers itself does.
constexpr const char* kKeys =
    "algorithm_type base_image_seq_len base_shift beta_end beta_schedule beta_start clip_sample clip_sample_range "
    "corrector_order disable_corrector dynamic_thresholding_ratio euler_at_final final_sigmas_type flow_shift "
    "interpolation_type invert_sigmas lambda_min_clipped lower_order_final max_image_seq_len max_shift num_train_timesteps "
    "original_inference_steps predict_x0 prediction_type predictor_order rescale_betas_zero_snr rho sample_max_value "
    "set_alpha_to_one shift shift_terminal sigma_data sigma_max sigma_min sigma_schedule skip_prk_steps solver_order "
    "solver_p solver_type steps_offset stochastic_sampling tau_func thresholding time_shift_type timestep_scaling "
    "timestep_spacing timestep_type trained_betas use_beta_sigmas use_dynamic_shifting use_exponential_sigmas "
    "use_flow_sigmas use_karras_sigmas use_lu_lambdas variance_type";

// Python writes infinities into JSON ("lambda_min_clipped": -Infinity); the largest doubles say the same here.
std::string without_infinities(std::string_view json) {
  constexpr std::string_view kInfinity = "Infinity";
  std::string text;
  bool quoted = false;
  for (std::size_t i = 0; i < json.size(); ++i) {
    if (json[i] == '"' && (i == 0 || json[i - 1] != '\\')) quoted = !quoted;
    if (quoted || json.substr(i, kInfinity.size()) != kInfinity) {
      text += json[i];
    } else {
      text += "1e308";
      i += kInfinity.size() - 1;
    }
  }
  return text;
}

// A text that is the value of `key`, or "".
std::string text_of(const Arguments& arguments, const std::string& key, std::string_view name) {
  std::string text;
  ArgumentReader(name, arguments).get(key, text);
  return text;
}

// A network that predicts flow gives nothing but noise to a sampler that takes its prediction for noise, and the other way round.
void check_trained_for(const SamplerRow& row, const SamplerSettings& settings, std::string_view published_class) {
  const bool flow_class = published_class.starts_with("FlowMatch");
  const bool flow = flow_class || text_of(settings.arguments, "prediction_type", settings.name) == "flow_prediction";
  if (row.class_name == kFlowClass && !flow && !published_class.empty())
    throw Error(fmt::format("{}: the settings are those of a {}, whose network does not predict flow; choose another sampler",
                            settings.name, printable(published_class)));
  if (row.class_name != kFlowClass && flow_class && text_of(settings.arguments, "prediction_type", settings.name).empty())
    throw Error(fmt::format(
        "{}: the settings are those of a {}, whose network predicts flow; choose flow-euler, or dpmpp-2m or unipc with "
        "prediction_type=flow_prediction,use_flow_sigmas=true and its flow_shift",
        settings.name, printable(published_class)));
}

}  // namespace

void detail::SettingsReader::finish() {
  std::istringstream keys(settings_.published ? kKeys : "");
  for (std::string key; keys >> key;) reader_.ignore({key});
  reader_.finish();
}

void detail::check_run(const SettingsReader& reader, const RunForms& forms) {
  const SamplerRun& run = reader.run();
  constexpr int kMost = 100'000;
  if (!run.timesteps.empty() && !forms.timesteps) throw reader.error("takes a number of steps, not timesteps");
  if (!run.sigmas.empty() && !forms.sigmas) throw reader.error("takes a number of steps, not sigmas");
  for (const auto* values : {&run.timesteps, &run.sigmas})
    for (const double value : *values)
      if (!std::isfinite(value)) throw reader.error("timesteps and sigmas must be finite numbers");
  if (run.timesteps.empty() && run.sigmas.empty() && (run.steps < 1 || run.steps > kMost))
    throw reader.error(fmt::format("{} steps, expected 1 to {}", run.steps, kMost));
}

Sampler::~Sampler() = default;

Tensor Sampler::scale_model_input(const Tensor& sample, int step) const {
  check_step(step, steps());
  return sample;
}

bool Sampler::uses_noise(int step) const {
  check_step(step, steps());
  return adds_noise(step);
}

bool Sampler::adds_noise(int /*step*/) const { return false; }

void Sampler::check_step(int step, int end) const {
  if (step < 0 || step >= end) throw Error(fmt::format("{}: step {}, expected 0 to {}", name_, step, end - 1));
}

Tensor Sampler::step(const Tensor& prediction, int step, const Tensor& sample, const Tensor& noise) {
  check_step(step, steps());
  check_floating(name_, prediction);
  check_floating(name_, sample);
  if (sample.rank() < 1) throw Error(fmt::format("{}: the sample has no axes, expected [B, ..., C]", name_));
  const std::int64_t channels = sample.shape().back();
  Shape wide = sample.shape();
  wide[wide.rank() - 1] *= 2;
  const bool with_variance = prediction.shape() == wide && channels > 0;
  if (!with_variance && !(prediction.shape() == sample.shape()))
    throw Error(fmt::format("{}: the prediction is {}, expected {} as the sample, or twice its channels", name_,
                            prediction.shape().to_string(), sample.shape().to_string()));
  Step input{.index = step, .prediction = {}, .sample = sample.to(DType::f32).contiguous(), .variance = {}, .noise = {}};
  const Tensor all = prediction.to(DType::f32);
  const int last = all.rank() - 1;
  input.prediction = all.slice(last, 0, channels).contiguous();
  if (with_variance) input.variance = all.slice(last, channels, 2 * channels).contiguous();
  if (adds_noise(step)) {
    if (!noise.defined()) throw Error(fmt::format("{}: step {} adds noise, and none is given", name_, step));
    check_floating(name_, noise);
    if (!(noise.shape() == sample.shape()))
      throw Error(fmt::format("{}: the noise is {}, expected {} as the sample", name_, noise.shape().to_string(),
                              sample.shape().to_string()));
    input.noise = noise.to(DType::f32).contiguous();
  }
  return advance(input);
}

Tensor Sampler::add_noise(const Tensor& latents, const Tensor& noise, int step) const {
  check_step(step, steps() + 1);
  check_floating(name_, latents);
  const Tensor x = latents.to(DType::f32).contiguous();
  if (step == steps()) return x;
  check_floating(name_, noise);
  if (!(noise.shape() == latents.shape()))
    throw Error(fmt::format("{}: the noise is {}, expected {} as the latents", name_, noise.shape().to_string(),
                            latents.shape().to_string()));
  const auto [a, b] = noise_level(step);
  return zip([a = a, b = b](float x, float n) { return a * x + b * n; }, x, noise.to(DType::f32).contiguous());
}

int Sampler::first_step(double strength) const { return begin_of(std::floor(steps() * strength), strength); }

int Sampler::begin_of(double kept, double strength) const {
  const double first = std::max(std::floor(steps() - std::min<double>(kept, steps())), 0.0);
  if (!(strength > 0 && strength <= 1))
    throw Error(fmt::format("{}: strength is {}, expected above 0, at most 1", name_, strength));
  if (first >= steps())
    throw Error(fmt::format("{}: strength {} of {} steps leaves none; ask for {} steps or more", name_, strength, steps(),
                            std::ceil(1 / strength)));
  return static_cast<int>(first);
}

std::unique_ptr<Sampler> create_sampler(std::string_view name, std::string_view settings, const SamplerRun& run) {
  const std::string where = std::string(name.empty() ? kSchedulerConfig : name);
  Arguments arguments = parse_json_arguments(without_infinities(settings), where);
  const std::string published_class = text_of(arguments, kClassName, where);
  std::erase_if(arguments, [](const auto& entry) { return entry.first.starts_with('_'); });
  if (name.empty() && published_class.empty())
    throw Error("no sampler is named, and the settings have no _class_name; known: " + list_names(sampler_names(), 20));

  const NamedArguments request = parse_named_arguments(name.empty() ? published_class : name, "sampler");
  const SamplerRow row = find_row(request.name);
  const Arguments preset = parse_json_arguments(row.preset, row.name);
  for (const Arguments* layer : {&preset, &request.arguments})
    for (const auto& [key, value] : *layer) arguments[key] = value;
  const SamplerSettings all{std::string(request.name), std::move(arguments), !published_class.empty(), run};
  check_trained_for(row, all, published_class);
  return row.make(all);
}

std::vector<std::string> sampler_names() {
  std::vector<std::string> names;
  for (const SamplerRow& row : kSamplers) names.emplace_back(row.name);
  return names;
}

std::string scheduler_class(std::string_view settings) {
  return text_of(parse_json_arguments(without_infinities(settings), kSchedulerConfig), kClassName, kSchedulerConfig);
}

bool is_sampler(std::string_view name) {
  return std::any_of(std::begin(kSamplers), std::end(kSamplers),
                     [&](const SamplerRow& row) { return row.name == name || row.class_name == name; });
}

std::vector<double> linear_sigmas(int steps) {
  if (steps < 1) throw Error(fmt::format("linear_sigmas: {} steps, expected 1 or more", steps));
  return linspace(1, 1.0 / steps, steps);
}

}  // namespace vitrine
