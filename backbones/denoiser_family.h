// What a family of denoisers gives to the registry (backbones/denoiser.cpp): its variants as a table and a builder.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <vitrine/backbones/denoiser.h>
#include <vitrine/weights/sources.h>

namespace vitrine::detail {

// A published name or class, and the constructor's arguments as a JSON object.
struct DenoiserVariant {
  std::string_view name, arguments;
};

struct DenoiserFamily {
  std::string_view name, source;
  std::span<const DenoiserVariant> variants;
  std::span<const DenoiserVariant> constructors;  // class names, for building by arguments alone; not listed
  // `arguments` are merged: the variant's, then the user's. The registry calls weights.check() afterwards and fills in name,
  // source and parameters. Throws Error for an unknown argument.
  std::unique_ptr<Denoiser> (*build)(std::string_view name, const Weights& weights, const Arguments& arguments);
  std::span<const NameMap> name_maps = {};
};

std::span<const DenoiserFamily* const> denoiser_families();

}  // namespace vitrine::detail
