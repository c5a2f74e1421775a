// The loop of a diffusion model: from noise, or a picture with noise, to latents.
//
//   const auto sampler = create_sampler("ddim", scheduler_config, {.steps = 50});
//   Denoising run{.denoiser = *dit, .sampler = *sampler, .conditioning = {.labels = classes}, .unconditional = Conditioning{...},
//                 .guidance_scale = 4};
//   const std::optional<Tensor> latents = denoise(affine(noise, sampler->init_noise_sigma(), 0), run);
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include <vitrine/backbones/denoiser.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/repeated_pass.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/pipelines/sampler.h>

namespace vitrine {

// What a step asks of the network: latents [B, H, W, C], timesteps [B] (guided: of both halves, [2B]), then the conditioning's
// tensors -> the prediction for the B pictures, by forward_with_cfg where it is guided. The denoiser must outlive it.
VITRINE_API RepeatedPass denoising_pass(const Denoiser& denoiser, bool guided, double scale = 1, double rescale = 0);

struct Denoising {
  const Denoiser& denoiser;
  Sampler& sampler;
  Conditioning conditioning;                        // of the B pictures
  std::optional<Conditioning> unconditional{};      // classifier-free guidance away from this; nothing: the network is asked once
  double guidance_scale = 1, guidance_rescale = 0;  // as forward_with_cfg's
  std::optional<RepeatedPass> pass{};               // denoising_pass of the above, for several runs; nothing: one of this run
  Tensor beside{};                                  // [B, H, W, C]: further channels that the network reads with the latents
  int first_step = 0;                               // Sampler::first_step of a run from a picture
  std::function<Tensor(int step)> noise{};          // f32, of the latents' shape; asked where the sampler uses it
  std::function<void(int step, Tensor& latents)> adjust{};            // after a step: what in-painting puts back
  std::function<bool(int step, const Tensor& latents)> after_step{};  // after that; false stops
};

// latents f32 [B, H, W, C] with the noise of first_step -> the finished ones, f32; nothing where after_step stopped. The sampler
// computes on the host, where latents, noise and `beside` are; what the network reads is brought to its device, the conditioning
// once. Throws Error.
VITRINE_API std::optional<Tensor> denoise(Tensor latents, const Denoising& run);

// Of one picture for `batch` pictures: every tensor with its rows that many times.
VITRINE_API Conditioning repeated(const Conditioning& one, std::int64_t batch);

}  // namespace vitrine
