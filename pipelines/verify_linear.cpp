// Reference cases of linear attentions and channel attention.
#include <array>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/channel_attention.h>
#include <vitrine/attention2d/efficient_attention.h>
#include <vitrine/attention2d/flow_attention.h>
#include <vitrine/attention2d/focused_linear_attention.h>
#include <vitrine/attention2d/inline_attention.h>
#include <vitrine/attention2d/linear_attention.h>
#include <vitrine/attention2d/linfusion.h>
#include <vitrine/attention2d/rala.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/detail/attention_case.h>
#include <vitrine/pipelines/detail/verify.h>

namespace vitrine::detail {
namespace {

// The attribute's value of a table of names, the first one where it is not given.
template <typename Enum, std::size_t kNames>
Enum named(const AttentionCase& c, const char* attribute, const std::pair<const char*, Enum> (&names)[kNames]) {
  const auto given = c.value<std::string>(attribute, names[0].first);
  std::string all;
  for (const auto& [name, value] : names) {
    if (given == name) return value;
    all += fmt::format("{}{}", all.empty() ? "" : ", ", name);
  }
  throw Error(fmt::format("{} is '{}', expected one of {}", attribute, given, all));
}

constexpr std::pair<const char*, FeatureMap> kMaps[] = {{"elu1", FeatureMap::elu1}, {"relu", FeatureMap::relu}};
constexpr std::pair<const char*, LinearNormalizer> kNormalizers[] = {{"sum", LinearNormalizer::sum},
                                                                     {"mean", LinearNormalizer::mean}};

std::int64_t heads(const AttentionCase& c) { return c.value<std::int64_t>("num_heads", 1); }

// The first size of a parameter; 0 where the case has none of this name.
std::int64_t rows_of(const AttentionCase& c, const char* parameter) {
  const auto shape = c.weights.shape_of(parameter);
  return shape && shape->rank() > 0 ? (*shape)[0] : 0;
}

Tensor run_linear_attention(const AttentionCase& c) {
  check_members(c.attributes, {"feature_map", "eps", "normalizer"}, "attribute");
  const FeatureMap map = named(c, "feature_map", kMaps);
  return linear_attention(c.tensor("query"), c.tensor("key"), c.tensor("value"),
                          {.query_map = map,
                           .key_map = map,
                           .normalizer = named(c, "normalizer", kNormalizers),
                           .eps = c.value("eps", 1e-6f),
                           .impl = c.impl});
}

Tensor run_linfusion_attention(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads"}, "attribute");
  const Tensor x = c.tensor("x");
  return LinFusionAttention(c.weights, {.dim = x.size(-1),
                                        .num_heads = heads(c),
                                        .query_hidden = rows_of(c, "to_q_.0.weight"),
                                        .key_hidden = rows_of(c, "to_k_.0.weight")})(x, c.tensor("context", true));
}

Tensor run_efficient_attention(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads"}, "attribute");
  const Tensor x = permute(c.tensor("x"), std::array{0, 2, 3, 1});  // the reference is NCHW
  const EfficientAttention layer(
      c.weights,
      {.dim = x.size(3), .key_dim = rows_of(c, "keys.weight"), .value_dim = rows_of(c, "values.weight"), .num_heads = heads(c)});
  return permute(layer(x.flatten(1, 2)).view(x.shape()), std::array{0, 3, 1, 2});
}

Tensor run_flow_attention(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads"}, "attribute");
  const Tensor x = c.tensor("x");
  return FlowAttention(c.weights, {.dim = x.size(-1), .num_heads = heads(c), .qkv_bias = c.weights.has("qkv.bias")})(x);
}

InlineAttentionConfig inline_config(const AttentionCase& c, const Tensor& x) {
  InlineAttentionConfig config;
  config.dim = x.size(-1);
  config.num_heads = heads(c);
  config.qkv_bias = c.weights.has("qkv.bias");
  return config;
}

Tensor run_inline_attention_deit(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "window"}, "attribute");
  const Tensor x = c.tensor("x");
  InlineAttentionConfig config = inline_config(c, x);
  config.class_token = true;
  const auto window = c.value<std::int64_t>("window", 14);
  config.window_size = {window, window};
  return InlineAttention(c.weights, config)(x);
}

Tensor run_inline_attention_swin(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "window_size", "kernel_func"}, "attribute");
  constexpr std::pair<const char*, FeatureMap> kKernels[] = {{"identity", FeatureMap::identity},
                                                             {"relu", FeatureMap::relu},
                                                             {"leakyrelu", FeatureMap::leaky_relu},
                                                             {"exp", FeatureMap::exp}};
  const Tensor x = c.tensor("x");
  InlineAttentionConfig config = inline_config(c, x);
  c.per_axis("window_size", 2, config.window_size);
  config.feature_map = named(c, "kernel_func", kKernels);
  if (config.feature_map == FeatureMap::exp) config.feature_scale = 0.2f;
  return InlineAttention(c.weights, config)(x);
}

Tensor run_rala_attention(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "linear"}, "attribute");
  const Tensor x = permute(c.tensor("x"), std::array{0, 2, 3, 1});  // the reference is NCHW
  const RalaAttention layer(c.weights, {.dim = x.size(3), .num_heads = heads(c), .linear = c.value("linear", true)});
  return permute(layer(x), std::array{0, 3, 1, 2});
}

Tensor run_focused_linear_attention(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "window_size", "focusing_factor"}, "attribute");
  const Tensor x = c.tensor("x");
  FocusedLinearAttentionConfig config;
  config.dim = x.size(-1);
  config.num_heads = heads(c);
  c.per_axis("window_size", 2, config.window_size);
  config.focusing_factor = c.value("focusing_factor", 3.0);
  const auto kernel = c.weights.shape_of("dwc.weight");
  if (!kernel || kernel->rank() != 4) throw Error("focused_linear_attention needs dwc.weight [head_dim, 1, k, k]");
  config.kernel_size = (*kernel)[3];
  config.qkv_bias = c.weights.has("qkv.bias");
  return FocusedLinearAttention(c.weights, config)(x);
}

Tensor run_channel_attention(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "version", "dynamic_scale"}, "attribute");
  const Tensor x = c.tensor("x");
  return ChannelAttention(c.weights, {.dim = x.size(-1),
                                      .num_heads = heads(c),
                                      .version = c.value("version", 1),
                                      .dynamic_scale = c.value("dynamic_scale", true),
                                      .qkv_bias = c.weights.has("qkv.bias")})(x);
}

constexpr AttentionRunner kRunners[] = {
    {"channel_attention", run_channel_attention},
    {"efficient_attention", run_efficient_attention},
    {"flow_attention", run_flow_attention},
    {"focused_linear_attention", run_focused_linear_attention},
    {"inline_attention_deit", run_inline_attention_deit},
    {"inline_attention_swin", run_inline_attention_swin},
    {"linear_attention", run_linear_attention},
    {"linfusion_attention", run_linfusion_attention},
    {"rala_attention", run_rala_attention},
};

}  // namespace

std::span<const AttentionRunner> linear_runners() { return kRunners; }

}  // namespace vitrine::detail
