#include <vitrine/backbones/denoiser.h>

#include <array>
#include <cmath>

#include <fmt/format.h>

#include <vitrine/backbones/arguments.h>
#include <vitrine/backbones/denoiser_family.h>
#include <vitrine/backbones/dit.h>
#include <vitrine/backbones/flux.h>
#include <vitrine/backbones/pixart.h>
#include <vitrine/backbones/sana.h>
#include <vitrine/backbones/sd3.h>
#include <vitrine/backbones/unet.h>
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

double standard_deviation(const Tensor& x) {
  const Tensor values = x.to(DType::f32).contiguous();
  const auto n = static_cast<double>(values.numel());
  double sum = 0, squares = 0;
  for (std::int64_t i = 0; i < values.numel(); ++i) sum += values.data<float>()[i];
  for (std::int64_t i = 0; i < values.numel(); ++i) {
    const double off = values.data<float>()[i] - sum / n;
    squares += off * off;
  }
  return std::sqrt(squares / (n - 1));
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
  if (rescale > 0)
    for (std::int64_t b = 0; b < half; ++b) {
      Tensor picture = mixed.slice(0, b, b + 1);
      const double ratio = standard_deviation(conditional.slice(0, b, b + 1)) / standard_deviation(picture);
      copy_(picture, affine(picture, static_cast<float>(rescale * ratio + (1 - rescale)), 0));
    }
  copy_(conditional, mixed);
  copy_(unconditional, mixed);
  return out;
}

}  // namespace vitrine
