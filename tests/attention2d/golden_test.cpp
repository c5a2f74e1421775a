// The reference cases of global, neighborhood and CLEAR attention: inputs follow from their names, outputs are stored.
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <attention2d/compare.h>
#include <catch.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/clear.h>
#include <vitrine/attention2d/neighborhood.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

using nlohmann::json;

Tensor input(const json& entry, const std::string& argument) {
  if (!entry.at("inputs").contains(argument)) return {};
  const json& value = entry.at("inputs").at(argument);
  return synthetic_tensor(value.at("name").get<std::string>(), Shape(value.at("shape").get<std::vector<std::int64_t>>()));
}

Tensor parameter(const json& entry, const std::string& name) {
  if (!entry.at("parameters").contains(name)) return {};
  return synthetic_parameter(name, Shape(entry.at("parameters").at(name).get<std::vector<std::int64_t>>()));
}

std::optional<float> scale_of(const json& attributes) {
  if (!attributes.contains("scale") || attributes.at("scale").is_null()) return std::nullopt;
  return attributes.at("scale").get<float>();
}

template <typename T>
std::array<T, 3> per_axis(const json& values) {
  std::array<T, 3> all{};
  all.fill(static_cast<T>(1));
  for (std::size_t i = 0; i < values.size(); ++i) all[i] = values[i].get<T>();
  return all;
}

Tensor run_attention(const json& entry, const std::string& impl) {
  const json& attributes = entry.at("attributes");
  AttentionOptions options;
  options.scale = scale_of(attributes);
  options.is_causal = attributes.at("is_causal").get<bool>();
  options.bias = input(entry, "bias");
  if (const Tensor source = input(entry, "mask_source"); source.defined()) {
    options.mask = Tensor::empty(source.shape(), DType::boolean);
    const float threshold = attributes.at("mask_threshold").get<float>();
    for (std::int64_t i = 0; i < source.numel(); ++i) options.mask.data<bool>()[i] = source.data<float>()[i] > threshold;
  }
  options.impl = impl;
  return attention(input(entry, "query"), input(entry, "key"), input(entry, "value"), options);
}

Tensor run_neighborhood(const json& entry, const std::string& impl) {
  const json& attributes = entry.at("attributes");
  NeighborhoodOptions options;
  options.kernel_size = per_axis<std::int64_t>(attributes.at("kernel_size"));
  options.dilation = per_axis<std::int64_t>(attributes.at("dilation"));
  options.stride = per_axis<std::int64_t>(attributes.at("stride"));
  options.is_causal = per_axis<bool>(attributes.at("is_causal"));
  options.scale = scale_of(attributes);
  options.rpb = parameter(entry, "rpb");
  options.additional_keys = input(entry, "additional_keys");
  options.additional_values = input(entry, "additional_values");
  options.impl = impl;
  return neighborhood_attention(input(entry, "query"), input(entry, "key"), input(entry, "value"), options);
}

Tensor run_layer(const json& entry, const std::string&) {
  const json& attributes = entry.at("attributes");
  const Tensor x = input(entry, "x");
  std::vector<std::pair<std::string, Shape>> parameters;
  for (const auto& [name, shape] : entry.at("parameters").items())
    parameters.emplace_back(name, Shape(shape.get<std::vector<std::int64_t>>()));
  const Weights w(synthetic_weights(parameters));
  const auto kernel = per_axis<std::int64_t>(attributes.at("kernel_size")),
             dilation = per_axis<std::int64_t>(attributes.at("dilation"));
  NeighborhoodAttentionConfig config;
  config.dim = x.size(3);
  config.num_heads = attributes.at("num_heads").get<std::int64_t>();
  config.kernel_size = {kernel[0], kernel[1]};
  config.dilation = {dilation[0], dilation[1]};
  config.qkv_bias = w.has("qkv.bias");
  config.rel_pos_bias = w.has("rpb");
  const NeighborhoodAttention layer(w, config);
  w.check(entry.at("name").get<std::string>());
  return layer(x);
}

Tensor run_clear(const json& entry, const std::string& impl) {
  const json& attributes = entry.at("attributes");
  const auto integer = [&](const char* name) { return attributes.at(name).get<std::int64_t>(); };
  ClearOptions options{.height = integer("height"), .width = integer("width"), .text_length = integer("text_length")};
  options.radius = integer("radius");
  options.down_factor = integer("down_factor");
  options.spatial_weight = parameter(entry, "spatial_weight");
  options.proportional = attributes.at("proportional").get<bool>();
  options.impl = impl;
  return clear_attention(input(entry, "query"), input(entry, "key"), input(entry, "value"), options);
}

TEST_CASE("attention operators give the stored outputs") {
  const std::string folder = VITRINE_SHARED_DIR "/goldens/attention/";
  std::ifstream stream(folder + "cases.json");
  if (!stream) {
    WARN("skipped: there is no " << folder << "cases.json");
    return;
  }
  using Run = std::function<Tensor(const json&, const std::string&)>;
  const std::map<std::string, Run> operators = {{"attention", run_attention},
                                                {"clear_attention", run_clear},
                                                {"neighborhood_attention", run_neighborhood},
                                                {"neighborhood_attention_layer", run_layer}};
  std::map<std::string, int> compared;
  const json all = json::parse(stream);
  for (const json& entry : all.at("cases")) {
    const auto found = operators.find(entry.at("operator").get<std::string>());
    if (found == operators.end()) continue;
    const auto file = open_safetensors(folder + entry.at("output").at("file").get<std::string>());
    const Shape shape(entry.at("output").at("shape").get<std::vector<std::int64_t>>());
    const Tensor expected = file->load(entry.at("output").at("key").get<std::string>(), shape);
    for (const std::string impl : {"", "reference"}) {
      INFO(entry.at("name").get<std::string>() << " " << impl);
      CHECK(test::difference(found->second(entry, impl), expected, 1e-5) == "");
    }
    ++compared[found->first];
  }
  CHECK(compared["attention"] == 13);
  CHECK(compared["clear_attention"] == 7);
  CHECK(compared["neighborhood_attention"] == 32);
  CHECK(compared["neighborhood_attention_layer"] == 4);
}

}  // namespace
}  // namespace vitrine
