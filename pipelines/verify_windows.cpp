// Reference cases of attention in windows, grids and blocks with a halo.
#include <array>
#include <string>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vitrine/attention2d/halo.h>
#include <vitrine/attention2d/partition.h>
#include <vitrine/attention2d/window.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/detail/attention_case.h>
#include <vitrine/pipelines/detail/verify.h>

namespace vitrine::detail {
namespace {

// The attribute's value of a list of names, by position.
template <typename Enum, std::size_t kNames>
Enum choice(const AttentionCase& c, const char* attribute, const std::array<const char*, kNames>& names) {
  const auto given = c.value<std::string>(attribute, names[0]);
  for (std::size_t i = 0; i < kNames; ++i)
    if (given == names[i]) return static_cast<Enum>(i);
  throw Error(fmt::format("{} is '{}', expected one of {}", attribute, given, fmt::join(names, ", ")));
}

constexpr std::array kPads = {"roll_then_pad", "pad_then_roll"};

Tensor run_window_attention(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "window_size", "shift_size", "pad"}, "attribute");
  const Tensor x = c.tensor("x");
  WindowAttentionConfig config;
  config.dim = x.size(-1);
  config.num_heads = c.value<std::int64_t>("num_heads", 1);
  c.per_axis("window_size", 2, config.window_size);
  c.per_axis("shift_size", 2, config.shift_size);
  config.pad = choice<WindowPad>(c, "pad", kPads);
  config.qkv_bias = c.weights.has("qkv.bias");
  return WindowAttention(c.weights, config)(x);
}

Tensor run_window_attention_v2(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "window_size", "shift_size", "pretrained_window_size", "pad"}, "attribute");
  const Tensor x = c.tensor("x");
  WindowAttentionV2Config config;
  config.dim = x.size(-1);
  config.num_heads = c.value<std::int64_t>("num_heads", 1);
  c.per_axis("window_size", 2, config.window_size);
  c.per_axis("shift_size", 2, config.shift_size);
  c.per_axis("pretrained_window_size", 2, config.pretrained_window_size);
  config.pad = choice<WindowPad>(c, "pad", kPads);
  config.qkv_bias = c.weights.has("q_bias");
  return WindowAttentionV2(c.weights, config)(x);
}

Tensor run_partition_attention(const AttentionCase& c) {
  check_members(c.attributes, {"partition", "size", "head_dim", "head_first", "rel_pos"}, "attribute");
  const Tensor x = c.tensor("x");
  PartitionAttentionConfig config;
  config.dim = x.size(-1);
  config.head_dim = c.value<std::int64_t>("head_dim", 32);
  config.partition = choice<PartitionKind>(c, "partition", std::array{"block", "grid"});
  c.per_axis("size", 2, config.size);
  config.head_first = c.value("head_first", true);
  config.qkv_bias = c.weights.has("qkv.bias");
  config.rel_pos = choice<RelativePosition>(c, "rel_pos", std::array{"bias", "bias_tf"});
  return PartitionAttention(c.weights, config)(x);
}

Tensor run_halo_attention(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "block_size", "halo_size", "stride"}, "attribute");
  const Tensor x = permute(c.tensor("x"), std::array{0, 2, 3, 1});  // the reference is NCHW
  HaloAttentionConfig config;
  config.dim = x.size(-1);
  config.num_heads = c.value<std::int64_t>("num_heads", 1);
  config.block_size = c.value<std::int64_t>("block_size", 8);
  config.halo_size = c.value<std::int64_t>("halo_size", 3);
  config.stride = c.value<std::int64_t>("stride", 1);
  config.q_bias = c.weights.has("q.bias");
  config.kv_bias = c.weights.has("kv.bias");
  const auto q = c.weights.shape_of("q.weight"), kv = c.weights.shape_of("kv.weight");
  if (!q || !kv || config.num_heads < 1) throw Error("halo_attention needs q.weight, kv.weight and heads");
  config.head_dim = (*q)[0] / config.num_heads;
  config.value_head_dim = (*kv)[0] / config.num_heads - config.head_dim;
  return permute(HaloAttention(c.weights, config)(x), std::array{0, 3, 1, 2});
}

constexpr AttentionRunner kRunners[] = {
    {"halo_attention", run_halo_attention},
    {"window_attention", run_window_attention},
    {"window_attention_v2", run_window_attention_v2},
    {"partition_attention", run_partition_attention},
};

}  // namespace

std::span<const AttentionRunner> window_runners() { return kRunners; }

}  // namespace vitrine::detail
