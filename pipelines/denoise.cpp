#include <vitrine/pipelines/denoise.h>

#include <array>
#include <iterator>
#include <span>
#include <vector>

#include <vitrine/layers/ops.h>

namespace vitrine {
namespace {

constexpr Tensor Conditioning::*kTensors[] = {&Conditioning::labels,     &Conditioning::text,        &Conditioning::text_mask,
                                              &Conditioning::pooled,     &Conditioning::guidance,    &Conditioning::time_ids,
                                              &Conditioning::resolution, &Conditioning::aspect_ratio};

Conditioning joined(const Conditioning& first, const Conditioning& second) {
  Conditioning both;
  for (const auto tensor : kTensors)
    if ((first.*tensor).defined()) both.*tensor = concat(std::array{first.*tensor, second.*tensor}, 0);
  return both;
}

Conditioning placed(Conditioning conditioning, Device device) {
  for (const auto tensor : kTensors) conditioning.*tensor = (conditioning.*tensor).to(device);
  return conditioning;
}

}  // namespace

Conditioning repeated(const Conditioning& one, std::int64_t batch) {
  Conditioning all;
  for (const auto tensor : kTensors)
    if ((one.*tensor).defined()) all.*tensor = concat(std::vector<Tensor>(static_cast<std::size_t>(batch), one.*tensor), 0);
  return all;
}

RepeatedPass denoising_pass(const Denoiser& denoiser, bool guided, double scale, double rescale) {
  const auto pass = [&denoiser, guided, scale = static_cast<float>(scale),
                     rescale = static_cast<float>(rescale)](std::span<const Tensor> inputs) {
    const Tensor &latents = inputs[0], &times = inputs[1];
    Conditioning conditioning;
    for (std::size_t i = 0; i < std::size(kTensors); ++i) conditioning.*kTensors[i] = inputs[i + 2];
    if (!guided) return denoiser.forward(latents, times, conditioning);
    return forward_with_cfg(denoiser, concat(std::array{latents, latents}, 0), times, conditioning, scale, rescale)
        .slice(0, 0, latents.size(0));
  };
  return RepeatedPass(pass, denoiser.device());
}

std::optional<Tensor> denoise(Tensor latents, const Denoising& run) {
  const std::int64_t batch = latents.size(0);
  const bool guided = run.unconditional.has_value();
  const Device device = run.denoiser.device();
  const Conditioning conditioning = placed(guided ? joined(run.conditioning, *run.unconditional) : run.conditioning, device);
  const RepeatedPass pass = run.pass ? *run.pass : denoising_pass(run.denoiser, guided, run.guidance_scale, run.guidance_rescale);
  std::vector<Tensor> inputs(2);
  for (const auto tensor : kTensors) inputs.push_back(conditioning.*tensor);
  const double unit = run.denoiser.info().timestep_scale / 1000;  // samplers count to 1000
  for (int step = run.first_step; step < run.sampler.steps(); ++step) {
    Tensor input = run.sampler.scale_model_input(latents, step);
    if (run.beside.defined()) input = concat(std::array{input, run.beside}, -1);
    const auto time = static_cast<float>(run.sampler.timesteps()[static_cast<std::size_t>(step)] * unit);
    inputs[0] = input.to(device);
    inputs[1] = Tensor::full({guided ? 2 * batch : batch}, time).to(device);
    latents =
        run.sampler.step(pass(inputs).to(Device{}), step, latents, run.sampler.uses_noise(step) ? run.noise(step) : Tensor());
    if (run.adjust) run.adjust(step, latents);
    if (run.after_step && !run.after_step(step, latents)) return std::nullopt;
  }
  return latents;
}

}  // namespace vitrine
