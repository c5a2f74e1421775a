// Reference cases of attention operators: one row of kRunners an operator.
#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/neighborhood.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/weights.h>
#include <vitrine/pipelines/detail/verify.h>
#include <vitrine/weights/sources.h>

namespace vitrine::detail {
namespace {

class AttentionCase {
 public:
  AttentionCase(const Json& entry, DType dtype)
      : dtype(dtype),
        attributes(entry.at("attributes")),
        weights(synthetic_weights(entries_of(entry.at("parameters"))), WeightsOptions{.dtype = dtype, .device = {}}) {
    for (const auto& [argument, input] : entry.at("inputs").items())
      inputs_.emplace(argument, synthetic_tensor(input.at("name").get<std::string>(), shape_of(input.at("shape"))));
  }

  // An input in f32; undefined where an optional one is not given.
  Tensor input(const std::string& argument, bool optional = false) const {
    const auto it = inputs_.find(argument);
    if (it != inputs_.end()) return it->second;
    if (!optional) throw Error(fmt::format("the case has no input '{}'", argument));
    return {};
  }
  // In the type to compute in.
  Tensor tensor(const std::string& argument, bool optional = false) const {
    const Tensor t = input(argument, optional);
    return t.defined() ? t.to(dtype) : t;
  }

  bool given(const char* attribute) const { return attributes.contains(attribute) && !attributes[attribute].is_null(); }
  template <typename T>
  T value(const char* attribute, T otherwise) const {
    return given(attribute) ? attributes[attribute].get<T>() : otherwise;
  }
  std::optional<float> scale() const { return given("scale") ? std::optional(attributes["scale"].get<float>()) : std::nullopt; }

  // One value for all of `axes`, or a list of one an axis, slowest first.
  template <typename T, std::size_t kAxes>
  void per_axis(const char* attribute, int axes, std::array<T, kAxes>& values) const {
    if (!given(attribute)) return;
    const Json& given = attributes[attribute];
    if (given.is_array() && given.size() != static_cast<std::size_t>(axes))
      throw Error(fmt::format("{} is {}, expected {} values", attribute, given.dump(), axes));
    for (std::size_t i = 0; i < static_cast<std::size_t>(axes); ++i)
      values[i] = (given.is_array() ? given[i] : given).template get<T>();
  }

  DType dtype;
  Json attributes;
  Weights weights;

 private:
  std::map<std::string, Tensor> inputs_;
};

Tensor run_attention(const AttentionCase& c) {
  check_members(c.attributes, {"scale", "is_causal", "mask_threshold"}, "attribute");
  AttentionOptions options;
  options.scale = c.scale();
  options.is_causal = c.value("is_causal", false);
  options.bias = c.input("bias", true);
  if (const Tensor source = c.input("mask_source", true); source.defined()) {
    const float threshold = c.value("mask_threshold", 0.0f);
    options.mask = Tensor::empty(source.shape(), DType::boolean);
    std::transform(source.data<float>(), source.data<float>() + source.numel(), options.mask.data<bool>(),
                   [threshold](float value) { return value > threshold; });
  }
  return attention(c.tensor("query"), c.tensor("key"), c.tensor("value"), options);
}

Tensor run_neighborhood_attention(const AttentionCase& c) {
  check_members(c.attributes, {"kernel_size", "dilation", "stride", "is_causal", "scale"}, "attribute");
  const Tensor query = c.tensor("query");
  const int axes = query.rank() - 3;
  if (axes < 1 || axes > 3) throw Error(fmt::format("query is {}, expected one to three token axes", query.shape().to_string()));
  NeighborhoodOptions options;
  c.per_axis("kernel_size", axes, options.kernel_size);
  c.per_axis("dilation", axes, options.dilation);
  c.per_axis("stride", axes, options.stride);
  c.per_axis("is_causal", axes, options.is_causal);
  options.scale = c.scale();
  if (const auto shape = c.weights.shape_of("rpb")) options.rpb = c.weights.get("rpb", *shape);
  options.additional_keys = c.tensor("additional_keys", true);
  options.additional_values = c.tensor("additional_values", true);
  return neighborhood_attention(query, c.tensor("key"), c.tensor("value"), options);
}

Tensor run_neighborhood_attention_layer(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "kernel_size", "dilation"}, "attribute");
  const Tensor x = c.tensor("x");
  NeighborhoodAttentionConfig config;
  config.dim = x.size(-1);
  config.num_heads = c.value<std::int64_t>("num_heads", 1);
  c.per_axis("kernel_size", 2, config.kernel_size);
  c.per_axis("dilation", 2, config.dilation);
  config.qkv_bias = c.weights.has("qkv.bias");
  config.rel_pos_bias = c.weights.has("rpb");
  return NeighborhoodAttention(c.weights, config)(x);
}

using AttentionRunner = Tensor (*)(const AttentionCase&);
constexpr std::pair<std::string_view, AttentionRunner> kRunners[] = {
    {"attention", run_attention},
    {"neighborhood_attention", run_neighborhood_attention},
    {"neighborhood_attention_layer", run_neighborhood_attention_layer},
};

}  // namespace

void run_attention_case(const Json& entry, const CaseContext& context, VerifyRow& row) {
  const auto runner = std::find_if(std::begin(kRunners), std::end(kRunners), [&](const auto& r) { return r.first == row.kind; });
  if (runner == std::end(kRunners)) throw Error(fmt::format("unknown kind '{}'", row.kind));
  const AttentionCase c(entry, context.dtype);
  const Tensor output = runner->second(c);
  c.weights.check(row.kind);

  const Json& expected = entry.at("output");
  const Shape shape = shape_of(expected.at("shape"));
  const Tensor stored =
      open_safetensors(path_in(context, expected.at("file")))->load(expected.at("key").get<std::string>(), shape);
  if (!(output.shape() == shape))
    throw Error(fmt::format("output is {}, expected {}", output.shape().to_string(), shape.to_string()));
  if (context.dtype != DType::f32) return judge(output, stored, {"output", "rel_l2", LooseBounds::kLogits}, row);
  const Tensor f32 = stored.contiguous().to(DType::f32);
  float largest = 0;
  for (std::int64_t i = 0; i < f32.numel(); ++i) largest = std::max(largest, std::abs(f32.data<float>()[i]));
  judge(output, stored, {"output", "max_abs", 1e-5 * largest}, row);
}

}  // namespace vitrine::detail
