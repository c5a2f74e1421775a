// Reference cases of agent attention, bi-level routing and HiLo.
#include <array>

#include <vitrine/attention2d/agent.h>
#include <vitrine/attention2d/bi_level_routing.h>
#include <vitrine/attention2d/hilo.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/detail/attention_case.h>

namespace vitrine::detail {
namespace {

Tensor run_bi_level_routing(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "n_win", "topk", "side_dwconv", "auto_pad", "qk_dim"}, "attribute");
  const Tensor x = c.tensor("x");  // NHWC
  BiLevelRoutingConfig config;
  config.dim = x.size(-1);
  config.num_heads = c.value<std::int64_t>("num_heads", 1);
  config.n_win = c.value<std::int64_t>("n_win", 7);
  config.topk = c.value<std::int64_t>("topk", 4);
  config.side_dwconv = c.value<std::int64_t>("side_dwconv", 5);
  config.qk_dim = c.value<std::int64_t>("qk_dim", 0);
  if (c.value("auto_pad", false)) config.uneven = BiLevelRoutingConfig::Uneven::pad;
  return BiLevelRoutingAttention(c.weights, config)(x);
}

Tensor run_bi_level_routing_nchw(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "n_win", "topk", "side_dwconv"}, "attribute");
  const Tensor x = c.tensor("x");  // NCHW
  const int channels_last[] = {0, 2, 3, 1}, channels_first[] = {0, 3, 1, 2};
  BiLevelRoutingConfig config;
  config.dim = x.size(1);
  config.num_heads = c.value<std::int64_t>("num_heads", 1);
  config.n_win = c.value<std::int64_t>("n_win", 7);
  config.topk = c.value<std::int64_t>("topk", 4);
  config.side_dwconv = c.value<std::int64_t>("side_dwconv", 5);
  config.uneven = BiLevelRoutingConfig::Uneven::partial;
  return permute(BiLevelRoutingAttention(c.weights, config)(permute(x, channels_last)), channels_first);
}

AgentAttentionConfig agent_config(const AttentionCase& c, const Tensor& x, std::array<std::int64_t, 2> size) {
  AgentAttentionConfig config;
  config.dim = x.size(-1);
  config.num_heads = c.value<std::int64_t>("num_heads", 1);
  config.agent_num = c.value<std::int64_t>("agent_num", 49);
  config.height = size[0];
  config.width = size[1];
  return config;
}

Tensor run_agent_deit(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "agent_num", "window"}, "attribute");
  const Tensor x = c.tensor("x");
  std::array<std::int64_t, 2> size{14, 14};
  c.per_axis("window", 2, size);
  AgentAttentionConfig config = agent_config(c, x, size);
  config.class_token = true;
  config.qkv_bias = c.weights.has("qkv.bias");
  return AgentAttention(c.weights, config)(x);
}

Tensor run_agent_swin(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "agent_num", "window_size"}, "attribute");
  const Tensor x = c.tensor("x");
  std::array<std::int64_t, 2> size{7, 7};
  c.per_axis("window_size", 2, size);
  AgentAttentionConfig config = agent_config(c, x, size);
  config.qkv_bias = c.weights.has("qkv.bias");
  return AgentAttention(c.weights, config)(x);
}

Tensor run_agent_pvt(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "agent_num", "size", "sr_ratio"}, "attribute");
  const Tensor x = c.tensor("x");
  std::array<std::int64_t, 2> size{14, 14};
  c.per_axis("size", 2, size);
  AgentAttentionConfig config = agent_config(c, x, size);
  config.sr_ratio = c.value<std::int64_t>("sr_ratio", 1);
  config.qkv_bias = c.weights.has("q.bias");
  return AgentAttentionPvt(c.weights, config)(x);
}

AgentAttentionSd agent_sd(const AttentionCase& c, const Tensor& x) {
  AgentAttentionSdConfig config;
  config.dim = x.size(-1);
  config.num_heads = c.value<std::int64_t>("num_heads", 1);
  config.head_dim = c.value<std::int64_t>("head_dim", 64);
  config.k_scale2 = c.value("k_scale2", config.k_scale2);
  config.k_shortcut = c.value("k_shortcut", config.k_shortcut);
  return AgentAttentionSd(c.weights, config);
}

Tensor run_agent_sd(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "head_dim", "k_scale2", "k_shortcut"}, "attribute");
  const Tensor x = c.tensor("x");
  return agent_sd(c, x)(x, c.tensor("agent"));
}

Tensor run_agent_sd_merged(const AttentionCase& c) {
  check_members(c.attributes,
                {"num_heads", "head_dim", "height", "width", "ratio", "agent_ratio", "sx", "sy", "k_scale2", "k_shortcut"},
                "attribute");
  const Tensor x = c.tensor("x");
  AgentMergeConfig merge;
  merge.height = c.value<std::int64_t>("height", 0);
  merge.width = c.value<std::int64_t>("width", 0);
  merge.ratio = c.value("ratio", merge.ratio);
  merge.agent_ratio = c.value("agent_ratio", merge.agent_ratio);
  merge.cell_height = c.value("sy", merge.cell_height);
  merge.cell_width = c.value("sx", merge.cell_width);
  return agent_sd(c, x).merged(x, merge);
}

Tensor run_hilo(const AttentionCase& c) {
  check_members(c.attributes, {"num_heads", "window_size", "alpha", "height", "width"}, "attribute");
  const Tensor x = c.tensor("x");
  HiLoConfig config;
  config.dim = x.size(-1);
  config.num_heads = c.value<std::int64_t>("num_heads", 1);
  config.window_size = c.value<std::int64_t>("window_size", 2);
  config.alpha = c.value("alpha", 0.5);
  config.qkv_bias = c.weights.has("h_qkv.bias") || c.weights.has("l_q.bias");
  return HiLoAttention(c.weights, config)(x.unflatten(1, {c.value<std::int64_t>("height", 1), c.value<std::int64_t>("width", 1)}))
      .flatten(1, 2);
}

constexpr AttentionRunner kRunners[] = {
    {"agent_attention_deit", run_agent_deit},
    {"agent_attention_pvt", run_agent_pvt},
    {"agent_attention_sd", run_agent_sd},
    {"agent_attention_sd_merged", run_agent_sd_merged},
    {"agent_attention_swin", run_agent_swin},
    {"bi_level_routing_attention", run_bi_level_routing},
    {"bi_level_routing_attention_nchw", run_bi_level_routing_nchw},
    {"hilo_attention", run_hilo},
};

}  // namespace

std::span<const AttentionRunner> routed_runners() { return kRunners; }

}  // namespace vitrine::detail
