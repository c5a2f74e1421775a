#include <vitrine/pipelines/load_model.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/arguments.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/memory.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/detail/metadata.h>
#include <vitrine/pipelines/image.h>
#include <vitrine/pipelines/open_model.h>
#include <vitrine/pipelines/preprocess.h>
#include <vitrine/weights/labels.h>
#include <vitrine/weights/shipped.h>
#include <vitrine/weights/sources.h>

namespace vitrine {

namespace {

std::vector<std::string> read_labels(const std::string& path) {
  errno = 0;
  std::ifstream in(path);
  std::vector<std::string> labels;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    labels.push_back(std::move(line));
  }
  if (!in.eof()) throw Error(fmt::format("{}: cannot read labels: {}", path, errno ? std::strerror(errno) : "read failed"));
  while (!labels.empty() && labels.back().empty()) labels.pop_back();
  if (labels.empty()) throw Error(fmt::format("{}: holds no labels; expected a class name a line", path));
  return labels;
}

[[noreturn]] void unknown_model(const std::string& name) {
  std::vector<std::string> known;
  for (const ShippedModel& shipped : shipped_models()) known.push_back(shipped.name);
  for (const ModelEntry& entry : list_models()) known.push_back(entry.name);
  throw Error(fmt::format("unknown model '{}'{}; `vitrine models` lists all", name, detail::suggest_names(name, known, 5)));
}

// A published configuration without the number of classes: a checkpoint that was fine-tuned has its own, in its head. That there
// is none stays.
Arguments parse_config(const std::string& json, const std::string& where) {
  Arguments arguments = detail::parse_json_arguments(json, where);
  if (const auto classes = arguments.find("num_classes"); classes != arguments.end() && classes->second != "0")
    arguments.erase(classes);
  return arguments;
}

// Fills in what the weights' metadata says and the caller has not decided.
void read_metadata(ResolvedModel& resolved) {
  const WeightSource& weights = *resolved.weights;
  const std::string where = weights.describe(), architecture = detail::metadata_value(weights, "architecture");
  if (resolved.architecture.empty()) {
    if (architecture.empty())
      throw Error(fmt::format("{}: its metadata names no architecture; name the model (--model NAME)", where));
    resolved.architecture = architecture;
    if (resolved.name.empty()) resolved.name = architecture;
  }
  if (resolved.architecture == architecture && resolved.arguments.empty())
    if (const std::string config = detail::metadata_value(weights, "config"); !config.empty())
      resolved.arguments = parse_config(config, where);
  if (resolved.preprocess.empty()) resolved.preprocess = detail::metadata_value(weights, "preprocess");
  if (resolved.classes.empty()) resolved.classes = detail::metadata_classes(weights);
}

std::vector<float> per_channel(const std::vector<float>& values, std::int64_t channels, std::string_view what) {
  if (values.size() == 1) return std::vector<float>(static_cast<std::size_t>(channels), values[0]);
  if (static_cast<std::int64_t>(values.size()) != channels)
    throw Error(fmt::format("{}: {} values for a model of {} channels", what, values.size(), channels));
  return values;
}

}  // namespace

ResolvedModel resolve_model(const ModelOptions& options) {
  ResolvedModel resolved;
  resolved.name = options.model;
  if (const auto shipped = find_shipped(options.model); shipped && !options.model.empty()) {
    if (options.weights.empty() && !shipped->present)
      throw Error(
          fmt::format("{}: its weights {} are not there; examples/quickstart.sh fetches them", shipped->name, shipped->file));
    resolved.architecture = shipped->architecture;
    if (!shipped->config.empty()) resolved.arguments = parse_config(shipped->config, shipped->name);
    resolved.weights = open_model_weights(options.weights.empty() ? shipped->file : options.weights, options.progress);
    if (options.weights.empty()) {
      resolved.preprocess = shipped->preprocess;
      resolved.classes = shipped->classes;
    }
  } else if (is_hub_name(options.model)) {
    if (!options.weights.empty())
      throw Error(fmt::format("{}: brings its weights; give either this model or other weights (--weights {})", options.model,
                              options.weights));
    resolved.weights = open_model_weights(options.model, options.progress);
  } else {
    if (!options.model.empty() && !is_model(options.model)) unknown_model(options.model);
    if (options.weights.empty())
      throw Error(fmt::format("{}: no weights are shipped with this model; give a checkpoint (--weights FILE)", options.model));
    resolved.architecture = options.model;
    resolved.weights = open_model_weights(options.weights, options.progress);
  }
  read_metadata(resolved);
  const PreprocessOverrides& wanted = options.preprocess;
  if (wanted.height || wanted.width)  // tables of positions are made for the size
    resolved.arguments["img_size"] =
        wanted.height == wanted.width
            ? std::to_string(*wanted.height)
            : fmt::format("[{}, {}]", wanted.height.value_or(*wanted.width), wanted.width.value_or(*wanted.height));
  return resolved;
}

PreprocessConfig apply_overrides(PreprocessConfig config, const PreprocessOverrides& overrides) {
  config.height = overrides.height.value_or(config.height);
  config.width = overrides.width.value_or(config.width);
  config.crop_pct = overrides.crop_pct.value_or(config.crop_pct);
  if (!overrides.crop_mode.empty()) config.crop_mode = overrides.crop_mode;
  if (!overrides.interpolation.empty()) config.interpolation = overrides.interpolation;
  if (!overrides.mean.empty()) config.mean = per_channel(overrides.mean, config.channels, "mean");
  if (!overrides.std.empty()) config.std = per_channel(overrides.std, config.channels, "std");
  constexpr std::int64_t kLargest = 1 << 14;
  if (config.height < 1 || config.width < 1 || config.height > kLargest || config.width > kLargest)
    throw Error(fmt::format("input size {}x{}: expected 1 to {} a side", config.height, config.width, kLargest));
  if (!(config.crop_pct > 0.0) || config.crop_pct > 1.0)
    throw Error(fmt::format("crop_pct {}: expected above 0 and at most 1", config.crop_pct));
  for (const float value : config.std)
    if (!(std::abs(value) > 0.0f) || !std::isfinite(value))
      throw Error(fmt::format("std {}: expected a number other than 0", value));
  for (const float value : config.mean)
    if (!std::isfinite(value)) throw Error(fmt::format("mean {}: expected a number", value));
  return config;
}

std::string nan_warning(const Weights& weights) {
  const std::vector<std::string> names = weights.with_nan();
  if (names.empty()) return {};
  std::string listed;
  constexpr std::size_t kMost = 3;
  for (std::size_t i = 0; i < std::min(names.size(), kMost); ++i) listed += (i ? ", " : "") + names[i];
  if (names.size() > kMost) listed += ", ...";
  return fmt::format("{}: {} parameter{} hold NaN or infinity ({}): results are not to be trusted", weights.source().describe(),
                     names.size(), names.size() == 1 ? "" : "s", listed);
}

LoadedModel load_model(const ModelOptions& options) {
  ResolvedModel resolved = resolve_model(options);
  const Weights weights(resolved.weights,
                        {.dtype = options.dtype, .device = options.device, .int8_weights = options.int8_weights});
  if (!is_model(resolved.architecture))
    throw Error(
        fmt::format("{}: its architecture, {}, is none of `vitrine models`; photograph models are run by `vitrine segment`, "
                    "generators by `vitrine generate`",
                    resolved.weights->describe(), resolved.architecture));
  LoadedModel loaded;
  loaded.name = resolved.name;
  loaded.backbone = create_model(resolved.architecture, weights, resolved.arguments);
  release_cached_memory();  // what packing needed, which passes do not
  const ModelInfo& info = loaded.backbone->info();
  loaded.preprocess = apply_overrides(
      resolved.preprocess.empty() ? info.preprocess : parse_preprocess(resolved.preprocess, info.preprocess), options.preprocess);
  if (std::string warning = nan_warning(weights); !warning.empty()) loaded.warnings.push_back(std::move(warning));

  const auto classes = static_cast<std::size_t>(info.num_classes);
  if (!options.labels.empty()) {
    loaded.classes = read_labels(options.labels);
    if (loaded.classes.size() != classes)
      throw Error(
          fmt::format("{}: {} labels, but {} has {} classes", options.labels, loaded.classes.size(), loaded.name, classes));
  } else if (resolved.classes.size() == classes) {
    loaded.classes = std::move(resolved.classes);
  } else if (!resolved.classes.empty()) {
    loaded.warnings.push_back(fmt::format("{}: its metadata names {} classes, the model has {}: the names are not used",
                                          resolved.weights->describe(), resolved.classes.size(), classes));
  } else if (classes == imagenet_classes().size()) {
    for (const ImageNetClass& known : imagenet_classes()) loaded.classes.push_back(known.name);
  }
  return loaded;
}

}  // namespace vitrine
