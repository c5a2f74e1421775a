// What a family file gives to the registry (backbones/registry.cpp): its variants as a table and a builder.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/backbones/backbone.h>
#include <vitrine/weights/sources.h>

namespace vitrine::detail {

// One row: a published model name, its constructor arguments as a JSON object, and its preprocessing where it differs
// from the family's defaults, as a JSON object with timm's keys (input_size, crop_pct, crop_mode, interpolation, mean, std).
struct Variant {
  std::string_view name;
  std::string_view arguments;
  std::string_view preprocess;
};

struct Family {
  std::string_view name;
  std::string_view source;
  std::span<const Variant> variants;
  // `name` and merged `arguments` (variant's, then the user's). Throws Error for an unknown argument.
  std::unique_ptr<Backbone> (*build)(const Variant& variant, const Weights& weights, const Arguments& arguments);
};

// The families, in the order of listing.
std::span<const Family* const> families();

}  // namespace vitrine::detail
