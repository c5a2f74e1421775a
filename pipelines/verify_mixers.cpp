// Reference cases of focal modulation, gnConv and aggregated attention. The references of the first two are NCHW.
#include <array>

#include <vitrine/attention2d/aggregated.h>
#include <vitrine/attention2d/focal_modulation.h>
#include <vitrine/attention2d/gnconv.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/detail/attention_case.h>
#include <vitrine/pipelines/detail/verify.h>

namespace vitrine::detail {
namespace {

template <typename Layer>
Tensor run_nchw(const Layer& layer, const Tensor& x) {
  return permute(layer(permute(x, std::array{0, 2, 3, 1})), std::array{0, 3, 1, 2});
}

Tensor map_of(const AttentionCase& c) {
  const Tensor x = c.tensor("x");
  if (x.rank() != 4) throw Error(fmt::format("x is {}, expected [B, C, H, W]", x.shape().to_string()));
  return x;
}

Tensor run_focal_modulation(const AttentionCase& c) {
  check_members(c.attributes, {"focal_level", "focal_window", "focal_factor", "normalize_modulator"}, "attribute");
  const Tensor x = map_of(c);
  FocalModulationConfig config;
  config.dim = x.size(1);
  config.focal_level = c.value("focal_level", config.focal_level);
  config.focal_window = c.value("focal_window", config.focal_window);
  config.focal_factor = c.value("focal_factor", config.focal_factor);
  config.normalize_modulator = c.value("normalize_modulator", config.normalize_modulator);
  config.bias = c.weights.has("f.bias");
  return run_nchw(FocalModulation(c.weights, config, {.bias = c.weights.has("proj.bias"), .scale = {}}), x);
}

Tensor run_gnconv(const AttentionCase& c) {
  check_members(c.attributes, {"order", "scale"}, "attribute");
  const Tensor x = map_of(c);
  GnConvConfig config;
  config.dim = x.size(1);
  config.order = c.value("order", config.order);
  config.scale = c.value("scale", config.scale);
  return run_nchw(GnConv(c.weights, config), x);
}

Tensor run_aggregated_attention(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "height", "width", "window_size", "sr_ratio"}, "attribute");
  const Tensor x = c.tensor("x");
  const std::int64_t height = c.value<std::int64_t>("height", 0), width = c.value<std::int64_t>("width", 0);
  if (x.rank() != 3 || height < 1 || width < 1 || x.size(1) / height != width || x.size(1) % height != 0)
    throw Error(fmt::format("x is {}, expected [B, {} * {}, C]", x.shape().to_string(), height, width));
  AggregatedAttentionConfig config;
  config.dim = x.size(2);
  config.num_heads = c.value("num_heads", config.num_heads);
  config.window_size = c.value("window_size", config.window_size);
  config.sr_ratio = c.value("sr_ratio", config.sr_ratio);
  config.qkv_bias = c.weights.has("q.bias");
  return AggregatedAttention(c.weights, config)(x.unflatten(1, {height, width})).flatten(1, 2);
}

constexpr AttentionRunner kRunners[] = {
    {"focal_modulation", run_focal_modulation},
    {"gnconv", run_gnconv},
    {"aggregated_attention", run_aggregated_attention},
};

}  // namespace

std::span<const AttentionRunner> mixer_runners() { return kRunners; }

}  // namespace vitrine::detail
