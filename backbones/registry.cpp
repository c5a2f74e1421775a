// Models by name, over the families that family.h lists.
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/layers/devices.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>

namespace vitrine {
namespace detail {

std::span<const Family* const> families() {
#define VITRINE_FAMILY(NAME) &k##NAME##Family,
  static constexpr const Family* kFamilies[] = {VITRINE_FAMILIES(VITRINE_FAMILY)};
#undef VITRINE_FAMILY
  return kFamilies;
}

}  // namespace detail

namespace {

using detail::Family;
using detail::Variant;

struct Found {
  const Family* family = nullptr;
  const Variant* variant = nullptr;
  const Variant* pretrained = nullptr;  // NAME.TAG
};

const Variant* find_row(std::span<const Variant> rows, std::string_view name) {
  for (const Variant& row : rows)
    if (row.name == name) return &row;
  return nullptr;
}

Found find(std::string_view name) {
  const std::string_view untagged = name.substr(0, name.find('.'));
  for (const Family* family : detail::families())
    for (const auto rows : {family->variants, family->constructors}) {
      if (const Variant* variant = find_row(rows, name)) return {family, variant};
      const Variant* variant = untagged == name ? nullptr : find_row(rows, untagged);
      const Variant* pretrained = variant ? find_row(family->pretrained, name) : nullptr;
      if (pretrained) return {family, variant, pretrained};
    }
  return {};
}

Found find_or_throw(std::string_view name) {
  const Found found = find(name);
  if (found.family != nullptr) return found;
  std::vector<std::string> names;
  const std::string_view untagged = name.substr(0, name.find('.'));
  for (const auto& entry : list_models(untagged != name && is_model(untagged) ? std::string(untagged) + ".*" : "*"))
    names.push_back(entry.name);
  throw Error(fmt::format("unknown model '{}'{}; `vitrine models` lists all", name, detail::suggest_names(name, names, 5)));
}

PreprocessConfig preprocess_of(const Found& found, const Arguments& arguments) {
  const std::string name(found.variant->name);
  PreprocessConfig config = detail::parse_pretrained_config(found.family->preprocess, name);
  config = detail::parse_pretrained_config(found.variant->preprocess, name, std::move(config));
  if (found.pretrained) config = detail::parse_pretrained_config(found.pretrained->preprocess, name, std::move(config));
  // The names that all publishers use for the two that change the input.
  std::array<std::int64_t, 2> img_size{config.height, config.width};
  detail::ArgumentReader(name, arguments).get("img_size", img_size).get("in_chans", config.channels);
  config.height = img_size[0], config.width = img_size[1];
  if (config.channels == 1 && config.mean.size() == 3) {  // grey pictures: the means of the colours
    config.mean = {(config.mean[0] + config.mean[1] + config.mean[2]) / 3};
    config.std = {(config.std[0] + config.std[1] + config.std[2]) / 3};
  }
  return config;
}

Arguments merge(const Found& found, const Arguments& bracket, const Arguments& given) {
  Arguments merged = detail::parse_json_arguments(found.variant->arguments, found.variant->name);
  Arguments tagged;
  if (found.pretrained) tagged = detail::parse_json_arguments(found.pretrained->arguments, found.pretrained->name);
  for (const Arguments* layer : {static_cast<const Arguments*>(&tagged), &bracket, &given})
    for (const auto& [name, value] : *layer) merged[name] = value;
  return merged;
}

}  // namespace

std::unique_ptr<Backbone> create_model(std::string_view name, const Weights& weights, const Arguments& arguments) {
  const detail::NamedArguments request = detail::parse_named_arguments(name, "model");
  const Found found = find_or_throw(request.name);
  Arguments merged = merge(found, request.arguments, arguments);
  rename_parameters(weights, found.family->name_maps);
  if (!request.arguments.contains("num_classes") && !arguments.contains("num_classes") && !weights.source().is_open()) {
    // A fine-tuned checkpoint: as many classes as its head has rows.
    const auto head = (weights / found.family->head).shape_of("weight");
    if (head && head->rank() >= 1) merged["num_classes"] = std::to_string((*head)[0]);
  }
  auto model = found.family->build(*found.variant, weights, merged);
  weights.check(name);
  ModelInfo& info = model->info_;
  info.name = name;
  info.family = found.family->name;
  info.source = found.family->source;
  info.preprocess = preprocess_of(found, merged);
  info.parameters = weights.parameters();
  info.parameter_bytes = info.parameters * static_cast<std::int64_t>(size_of(weights.dtype()));
  model->dtype_ = weights.dtype();
  model->device_ = weights.device();
  synchronize(model->device_);  // other threads' streams do not wait for what made it
  return model;
}

std::vector<ModelEntry> list_models(std::string_view pattern) {
  std::vector<ModelEntry> entries;
  const bool tagged = pattern.find('.') != std::string_view::npos;
  for (const Family* family : detail::families())
    for (const Variant& variant : tagged ? family->pretrained : family->variants)
      if (detail::matches_pattern(pattern, variant.name))
        entries.push_back({.name = std::string(variant.name),
                           .family = std::string(family->name),
                           .source = std::string(family->source),
                           .attention = std::string(family->attention),
                           .top1 = std::string(variant.top1)});
  return entries;
}

bool is_model(std::string_view name) { return find(name.substr(0, name.find('['))).family != nullptr; }

PreprocessConfig default_preprocess(std::string_view name) {
  const detail::NamedArguments request = detail::parse_named_arguments(name, "model");
  const Found found = find_or_throw(request.name);
  return preprocess_of(found, merge(found, request.arguments, {}));
}

}  // namespace vitrine
