// Reference cases of whole pipelines in small: denoiser, sampler and autoencoder.
#include <array>
#include <map>
#include <numbers>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/backbones/autoencoder_kl.h>
#include <vitrine/backbones/flux.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/denoise.h>
#include <vitrine/pipelines/detail/verify_generation.h>
#include <vitrine/weights/sources.h>

namespace vitrine::detail {
namespace {

// Of whole paths in 16 bits: PyTorch states none; each step is a network call whose errors the next ones carry on.
constexpr GenerationBounds kBounds{.exact = 4e-5, .loose = 0.1};

AutoencoderKL autoencoder_of(const Json& entry, const CaseContext& context) {
  return {case_weights(entry.at("parameters").at("vae"), context), parse_autoencoder_kl_config(case_arguments(entry, "vae"))};
}

// The latents after every step.
struct Path {
  std::vector<Tensor> latents;
  Tensor last;
};

Path run_path(Denoising run, const Tensor& start) {
  Path path;
  run.after_step = [&](int, const Tensor& latents) {
    path.latents.push_back(latents);
    return true;
  };
  path.last = *denoise(affine(start, run.sampler.init_noise_sigma(), 0), run);
  return path;
}

Tensor stacked_path(const Path& path, Tensor (*layout)(const Tensor&)) {
  std::vector<Tensor> rows;
  for (const Tensor& latents : path.latents) rows.push_back(layout(latents).unsqueeze(0));
  return concat(rows, 0);
}

// In [0, 1] as diffusers' pipelines give pictures.
Tensor picture_of(const Tensor& decoded) { return clamp(affine(nhwc_to_nchw(decoded).to(DType::f32), 0.5f, 0.5f), 0.0f, 1.0f); }

void run_pipe_dit(const Json& entry, const CaseContext& context, VerifyRow& row) {
  const Json& config = entry.at("config");
  check_members(config, {"model", "vae", "respacing", "cfg_scale"}, "setting");
  const auto denoiser =
      create_denoiser("DiT", case_weights(entry.at("parameters").at("transformer"), context), case_arguments(entry));
  const auto sampler =
      create_sampler("iddpm", Json{{"timestep_respacing", config.at("respacing")}, {"clip_denoised", false}}.dump(), {});
  const Tensor z = optional_input(entry, "z"), classes = optional_input(entry, "y");
  Tensor none = Tensor::empty(classes.shape(), DType::i64);
  std::fill_n(none.data<std::int64_t>(), none.numel(), denoiser->info().num_classes);
  Denoising run{.denoiser = *denoiser, .sampler = *sampler, .conditioning = {.labels = classes}};
  run.unconditional = Conditioning{.labels = none};
  run.guidance_scale = config.at("cfg_scale").get<double>();
  run.noise = [&](int step) {
    // Of both halves of the original's batch, of which the first is kept.
    Shape shape = z.shape();
    shape[0] *= 2;
    const Tensor noise = synthetic_tensor(fmt::format("{}.noise.{}", entry.at("name").get<std::string>(), step), shape);
    return nchw_to_nhwc(affine(noise.slice(0, 0, z.size(0)).contiguous(), std::numbers::sqrt3_v<float>, 0));
  };
  const Path path = run_path(run, nchw_to_nhwc(z));
  const AutoencoderKL vae = autoencoder_of(entry, context);
  judge_outputs(entry, context,
                {{"latents", stacked_path(path, nhwc_to_nchw)},
                 {"image", nhwc_to_nchw(vae.decode(vae.unscale_latents(path.last.to(vae.device()))))}},
                kBounds, row);
}

void run_pipe_sd(const Json& entry, const CaseContext& context, VerifyRow& row) {
  const Json& config = entry.at("config");
  check_members(config, {"model", "vae", "scheduler", "scheduler_init", "steps", "guidance_scale", "guidance_rescale"},
                "setting");
  const auto denoiser =
      create_denoiser("UNet2DConditionModel", case_weights(entry.at("parameters").at("unet"), context), case_arguments(entry));
  const auto sampler = create_sampler(config.at("scheduler").get<std::string>(), config.at("scheduler_init").dump(),
                                      {.steps = config.at("steps").get<int>()});
  Denoising run{.denoiser = *denoiser, .sampler = *sampler, .conditioning = {.text = device_input(entry, "prompt_embeds")}};
  if (config.at("guidance_scale").get<double>() > 1)
    run.unconditional = Conditioning{.text = device_input(entry, "negative_prompt_embeds")};
  run.guidance_scale = config["guidance_scale"].get<double>();
  run.guidance_rescale = config.value("guidance_rescale", 0.0);
  const Path path = run_path(run, nchw_to_nhwc(optional_input(entry, "latents")));
  const AutoencoderKL vae = autoencoder_of(entry, context);
  judge_outputs(entry, context,
                {{"latents", stacked_path(path, nhwc_to_nchw)},
                 {"image", picture_of(vae.decode(vae.unscale_latents(path.last.to(vae.device()))))}},
                kBounds, row);
}

void run_pipe_flux(const Json& entry, const CaseContext& context, VerifyRow& row) {
  const Json& config = entry.at("config");
  check_members(config, {"model", "vae", "scheduler_init", "steps", "guidance_scale"}, "setting");
  const auto denoiser = create_denoiser("FluxTransformer2DModel", case_weights(entry.at("parameters").at("transformer"), context),
                                        case_arguments(entry));
  const Tensor start = nchw_to_nhwc(optional_input(entry, "latents")), text = optional_input(entry, "prompt_embeds");
  const auto steps = config.at("steps").get<int>();
  const auto sampler =
      create_sampler("FlowMatchEulerDiscreteScheduler", config.at("scheduler_init").dump(),
                     {.steps = steps, .sigmas = linear_sigmas(steps), .image_tokens = start.size(1) * start.size(2) / 4});
  Denoising run{
      .denoiser = *denoiser, .sampler = *sampler, .conditioning = {.text = text, .pooled = optional_input(entry, "pooled")}};
  if (denoiser->info().takes_guidance)
    run.conditioning.guidance = Tensor::full({start.size(0)}, config.at("guidance_scale").get<float>());
  const Path path = run_path(run, start);
  const AutoencoderKL vae = autoencoder_of(entry, context);
  const auto row_of = [](std::span<const float> values) {
    return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
  };
  judge_outputs(entry, context,
                {{"packed", Flux::pack(start)},
                 {"latents", stacked_path(path, Flux::pack)},
                 {"image", picture_of(vae.decode(vae.unscale_latents(path.last.to(vae.device()))))},
                 {"timesteps", row_of(sampler->timesteps())},
                 {"sigmas", row_of(sampler->tables().sigmas)}},
                kBounds, row);
}

}  // namespace

std::span<const GenerationKind> pipeline_kinds() {
  static constexpr GenerationKind kKinds[] = {{"pipe_dit", run_pipe_dit}, {"pipe_sd", run_pipe_sd}, {"pipe_flux", run_pipe_flux}};
  return kKinds;
}

}  // namespace vitrine::detail
