#include <vitrine/backbones/denoiser.h>

#include <array>

#include <fmt/format.h>

#include <vitrine/backbones/arguments.h>
#include <vitrine/backbones/denoiser_family.h>
#include <vitrine/backbones/dit.h>
#include <vitrine/backbones/flux.h>
#include <vitrine/backbones/pixart.h>
#include <vitrine/backbones/sana.h>
#include <vitrine/backbones/sd3.h>
#include <vitrine/backbones/unet.h>
#include <vitrine/layers/devices.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/layers/ops.h>

namespace vitrine {
namespace detail {

std::span<const DenoiserFamily* const> denoiser_families() {
  static constexpr const DenoiserFamily* kFamilies[] = {&kDitFamily,    &kDitDiffusersFamily, &kFluxFamily, &kSd3Family,
                                                        &kPixArtFamily, &kSanaFamily,         &kUNetFamily};
  return kFamilies;
}

}  // namespace detail

namespace {

using detail::DenoiserFamily;
using detail::DenoiserVariant;

struct Found {
  const DenoiserFamily* family = nullptr;
  const DenoiserVariant* variant = nullptr;
};

Found find(std::string_view name) {
  for (const DenoiserFamily* family : detail::denoiser_families())
    for (const auto rows : {family->variants, family->constructors})
      for (const DenoiserVariant& variant : rows)
        if (variant.name == name) return {family, &variant};
  return {};
}

Arguments merge(const DenoiserVariant& variant, const Arguments& bracket, const Arguments& given) {
  Arguments merged = detail::parse_json_arguments(variant.arguments, variant.name);
  for (const Arguments* layer : {&bracket, &given})
    for (const auto& [name, value] : *layer)
      if (!name.starts_with('_')) merged[name] = value;  // _class_name, _diffusers_version, ...
  return merged;
}

// Each picture of x [B, ...] as a row, f32 [B, n].
Tensor pictures_of(const Tensor& x) { return x.to(DType::f32).contiguous().view({x.size(0), x.numel() / x.size(0)}); }

// The standard deviation of each row [B, n], of n - 1 degrees of freedom: f32 [B, 1]. With d the row about its mean it is the
// mean of d times d / deviation, which the norm gives, times n / (n - 1).
Tensor standard_deviations(const Tensor& rows) {
  const std::int64_t B = rows.size(0), n = rows.size(1);
  const Tensor columns = rows.view({B, n, 1});
  const Tensor off = add(rows, affine(mean(columns, 1, 1), -1, 0));  // [B, n]
  const Tensor products = multiply(off, simple_norm(off, {}, 0));
  return affine(mean(products.view({B, n, 1}), 1, 1), static_cast<float>(n) / static_cast<float>(n - 1), 0);
}

}  // namespace

std::unique_ptr<Denoiser> create_denoiser(std::string_view name, const Weights& weights, const Arguments& arguments) {
  const detail::NamedArguments request = detail::parse_named_arguments(name, "denoiser");
  const Found found = find(request.name);
  if (found.family == nullptr) {
    std::vector<std::string> names = list_denoisers();
    for (const DenoiserFamily* family : detail::denoiser_families())
      for (const DenoiserVariant& row : family->constructors) names.emplace_back(row.name);
    throw Error(fmt::format("unknown denoiser '{}'{}", request.name, detail::suggest_names(request.name, names, 5)));
  }
  rename_parameters(weights, found.family->name_maps);
  auto denoiser = found.family->build(request.name, weights, merge(*found.variant, request.arguments, arguments));
  weights.check(name);
  denoiser->info_.name = name;
  denoiser->info_.source = found.family->source;
  denoiser->info_.parameters = weights.parameters();
  denoiser->device_ = weights.device();
  synchronize(denoiser->device_);  // other threads' streams do not wait for what made it
  return denoiser;
}

std::vector<std::string> list_denoisers(std::string_view pattern) {
  std::vector<std::string> names;
  for (const DenoiserFamily* family : detail::denoiser_families())
    for (const DenoiserVariant& variant : family->variants)
      if (detail::matches_pattern(pattern, variant.name)) names.emplace_back(variant.name);
  return names;
}

bool is_denoiser(std::string_view name) { return find(name.substr(0, name.find('['))).family != nullptr; }

Denoiser::~Denoiser() = default;

Tensor forward_with_cfg(const Denoiser& denoiser, const Tensor& latents, const Tensor& timesteps,
                        const Conditioning& conditioning, float scale, float rescale) {
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
  if (rescale > 0) {
    Tensor brought = simple_norm(pictures_of(mixed), {}, 0);  // of deviation 1
    multiply_(brought, standard_deviations(pictures_of(conditional)));
    add_(mixed = affine(mixed, 1 - rescale, 0), affine(brought, rescale, 0).view(mixed.shape()));
  }
  copy_(conditional, mixed);
  copy_(unconditional, mixed);
  return out;
}

}  // namespace vitrine
