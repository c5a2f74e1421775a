// Reference cases of backbones: built from the source's entry point and the arguments, with synthetic weights.
#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/detail/verify_generation.h>
#include <vitrine/weights/sources.h>

namespace vitrine::detail {
namespace {

constexpr std::string_view kFeatures = "features.";

// "timm 1.0.31: NAME" and "OWNER/REPOSITORY@COMMIT: FILE: NAME" -> NAME, an entry point or a class.
std::string entry_point(const std::string& source) { return source.substr(source.find_last_of(" :") + 1); }

// The index of "features.3", nothing for a module's path as in "features.levels.0".
std::optional<int> feature_index(std::string_view output) {
  const std::string_view text = output.substr(kFeatures.size());
  int index = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(index) : std::nullopt;
}

// The outputs that the case asks for, in its layout.
std::map<std::string, Tensor> run(const Backbone& model, const Tensor& images, const Json& outputs) {
  std::set<std::string, std::less<>> paths;
  std::vector<int> indices;
  for (const auto& [name, unused] : outputs.items()) {
    if (!name.starts_with(kFeatures)) continue;
    if (const auto index = feature_index(name))
      indices.push_back(*index);
    else
      paths.insert(name.substr(kFeatures.size()));
  }
  std::map<std::string, Tensor> got;
  Observer observer;
  if (!paths.empty())
    observer = [&](std::string_view path, const Tensor& output) {
      if (paths.contains(path)) got[fmt::format("{}{}", kFeatures, path)] = output.clone();
    };
  const Tensor features = model.forward_features(images, observer);
  if (outputs.contains("logits")) got["logits"] = model.forward_head(features);
  if (outputs.contains("pre_logits")) got["pre_logits"] = model.forward_head(features, true);
  if (!indices.empty()) {
    std::sort(indices.begin(), indices.end());
    const auto maps = model.forward_intermediates(images, {.indices = indices, .norm = false});
    if (maps.size() != indices.size()) throw Error(fmt::format("{} intermediates, expected {}", maps.size(), indices.size()));
    for (std::size_t i = 0; i < maps.size(); ++i)
      got[fmt::format("{}{}", kFeatures, indices[i])] = nhwc_to_nchw(maps[i].map.contiguous());
  }
  return got;
}

double loose_bound(std::string_view family, bool logits) {
  const bool wide = family == "focalnet" || family == "davit";
  if (logits) return wide ? LooseBounds::kWideLogits : LooseBounds::kLogits;
  return wide ? LooseBounds::kWideFeatures : LooseBounds::kFeatures;
}

}  // namespace

void run_backbone_case(const Json& entry, const CaseContext& context, VerifyRow& row) {
  const Json& outputs = entry.at("outputs");
  const auto weights =
      synthetic_weights(entries_of(read_json(path_in(context, entry.at("parameters")))), entry.value("weight_gain", 1.0));
  const std::string sum = fmt::format("{:016x}", checksum(*weights));
  if (const auto expected = entry.at("parameters_checksum").get<std::string>(); sum != expected)
    throw Error(fmt::format("checksum of the parameters is {}, expected {}", sum, expected));

  Arguments arguments;
  for (const auto& [name, value] : entry.at("arguments").items()) arguments[name] = value.dump();
  const Json& input = entry.at("input");
  const Shape shape = shape_of(input.at("shape"));
  if (shape.rank() != 4) throw Error(fmt::format("input is {}, expected [B, C, H, W]", shape.to_string()));
  const std::string model_name = entry_point(entry.at("source").get<std::string>());
  const auto build = [&](DType dtype) {
    return create_model(model_name, Weights(weights, {.dtype = dtype, .device = Context::current().device()}), arguments);
  };
  const auto model = build(context.dtype);
  const Tensor images =
      nchw_to_nhwc(synthetic_tensor(input.at("name").get<std::string>(), shape)).to(Context::current().device());
  const auto pass = [&](DType dtype) { return run(dtype == context.dtype ? *model : *build(dtype), images, outputs); };
  const auto got =
      entry.contains("smallest_topk_margin") ? pass_with_exact_choices(context.dtype, pass, row) : pass(context.dtype);

  const auto stored = open_safetensors(path_in(context, entry.at("file")));
  for (const auto& [name, expected] : outputs.items()) {
    const auto output = got.find(name);
    if (output == got.end()) throw Error(fmt::format("{} does not give the output {}", model->info().name, name));
    const Shape expected_shape = shape_of(expected.at("shape"));
    if (!(output->second.shape() == expected_shape))
      throw Error(fmt::format("{} is {}, expected {}", name, output->second.shape().to_string(), expected_shape.to_string()));
    const bool logits = name == "logits";
    Judgement judgement{name, "rel_l2", loose_bound(entry.value("family", ""), logits),
                        expected.at("stride").get<std::int64_t>()};
    if (context.dtype == DType::f32) {
      judgement.measure = "max_abs";
      judgement.bound = (logits ? 1e-4 : 5e-4) * expected.at("std").get<double>();
    }
    judge(output->second, stored->load(name, expected_shape), judgement, row);
  }
}

}  // namespace vitrine::detail
