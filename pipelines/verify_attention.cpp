// Reference cases of attention operators: a table of runners a family, verify_FAMILY.cpp; here those of global,
// neighborhood and CLEAR attention.
#include <algorithm>
#include <cmath>
#include <span>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/clear.h>
#include <vitrine/attention2d/neighborhood.h>
#include <vitrine/layers/error.h>
#include <vitrine/pipelines/detail/attention_case.h>
#include <vitrine/pipelines/detail/verify.h>
#include <vitrine/weights/sources.h>

namespace vitrine::detail {
namespace {

Tensor run_attention(const AttentionCase& c) {
  check_members(c.attributes, {"scale", "is_causal", "mask_threshold"}, "attribute");
  AttentionOptions options;
  options.scale = c.scale();
  options.is_causal = c.value("is_causal", false);
  options.bias = c.input("bias", true).to(c.device());
  if (const Tensor source = c.input("mask_source", true); source.defined()) {
    const float threshold = c.value("mask_threshold", 0.0f);
    options.mask = Tensor::empty(source.shape(), DType::boolean);
    std::transform(source.data<float>(), source.data<float>() + source.numel(), options.mask.data<bool>(),
                   [threshold](float value) { return value > threshold; });
    options.mask = options.mask.to(c.device());
  }
  options.impl = c.impl;
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
  if (const auto shape = c.weights.shape_of("rpb")) options.rpb = c.weights.on_device("rpb", *shape);
  options.additional_keys = c.tensor("additional_keys", true);
  options.additional_values = c.tensor("additional_values", true);
  options.impl = c.impl;
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

Tensor run_clear_attention(const AttentionCase& c) {
  check_members(c.attributes, {"height", "width", "text_length", "radius", "down_factor", "proportional"}, "attribute");
  ClearOptions options;
  options.height = c.value<std::int64_t>("height", 0);
  options.width = c.value<std::int64_t>("width", 0);
  options.text_length = c.value<std::int64_t>("text_length", 0);
  options.radius = c.value<std::int64_t>("radius", 0);
  options.down_factor = c.value<std::int64_t>("down_factor", 0);
  options.proportional = c.value("proportional", false);
  if (const auto shape = c.weights.shape_of("spatial_weight"); shape && options.down_factor > 0)
    options.spatial_weight = c.weights.on_device("spatial_weight", *shape);
  options.impl = c.impl;
  return clear_attention(c.tensor("query"), c.tensor("key"), c.tensor("value"), options);
}

constexpr AttentionRunner kRunners[] = {
    {"attention", run_attention},
    {"clear_attention", run_clear_attention},
    {"neighborhood_attention", run_neighborhood_attention},
    {"neighborhood_attention_layer", run_neighborhood_attention_layer},
};

// Operators by the file that runs them.
const std::span<const AttentionRunner> kTables[] = {kRunners, linear_runners(), routed_runners(), window_runners(),
                                                    mixer_runners()};

const AttentionRunner& runner_of(std::string_view kind) {
  for (const auto& runners : kTables)
    for (const AttentionRunner& runner : runners)
      if (runner.first == kind) return runner;
  throw Error(fmt::format("unknown kind '{}'", kind));
}

}  // namespace

void run_attention_case(const Json& entry, const CaseContext& context, VerifyRow& row) {
  const AttentionRunner& runner = runner_of(row.kind);
  const AttentionCase c(entry, context);
  const Tensor output = runner.second(c);
  c.weights.check(row.kind);

  const Json& expected = entry.at("output");
  const Shape shape = shape_of(expected.at("shape"));
  const Tensor stored =
      open_safetensors(path_in(context, expected.at("file")))->load(expected.at("key").get<std::string>(), shape);
  if (!(output.shape() == shape))
    throw Error(fmt::format("output is {}, expected {}", output.shape().to_string(), shape.to_string()));
  if (context.dtype != DType::f32) return judge(output, stored, {"output", "rel_l2", LooseBounds::kAttention}, row);
  const Tensor f32 = stored.contiguous().to(DType::f32);
  float largest = 0;
  for (std::int64_t i = 0; i < f32.numel(); ++i) largest = std::max(largest, std::abs(f32.data<float>()[i]));
  judge(output, stored, {"output", "max_abs", 1e-5 * largest}, row);
}

}  // namespace vitrine::detail
