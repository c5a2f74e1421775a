#include <vitrine/backbones/denoiser.h>

#include <array>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

Denoiser::~Denoiser() = default;

Tensor forward_with_cfg(const Denoiser& denoiser, const Tensor& latents, const Tensor& timesteps,
                        const Conditioning& conditioning, float scale) {
  if (latents.rank() < 2 || latents.size(0) % 2 != 0)
    throw Error(fmt::format("guidance: latents are {}, expected an even batch: conditional, then unconditional",
                            latents.shape().to_string()));
  const std::int64_t half = latents.size(0) / 2;
  const Tensor first = latents.slice(0, 0, half);
  const Tensor out = denoiser.forward(concat(std::array{first, first}, 0), timesteps, conditioning);  // [2B, ..., out]
  const std::int64_t guided = denoiser.info().guided_channels;
  Tensor conditional = out.slice(0, 0, half).slice(-1, 0, guided),
         unconditional = out.slice(0, half, 2 * half).slice(-1, 0, guided);
  Tensor mixed = affine(conditional, scale, 0);
  add_(mixed, affine(unconditional, 1 - scale, 0));
  copy_(conditional, mixed);
  copy_(unconditional, mixed);
  return out;
}

}  // namespace vitrine
