// Agent attention: a few agent tokens stand between queries and keys.
//
//   agent_v = softmax(scale agents k^T + gather_bias) v        the agents gather from all tokens
//   out     = softmax(spread_scale q agents^T + spread_bias) agent_v      and spread what they have
//
// Agents are q averaged over a grid of the map (adaptive average pooling). The layers add a depth-wise 3x3 convolution of v to
// the image tokens, as the sum over agents has at most their number as its rank.
//
// Source: LeapLabTHU/Agent-Attention (arXiv:2312.08874), agent_deit.py, agent_swin.py, agent_pvt.py, agentsd/patch.py.
// Cost: A (N + M) (D + Dv) multiply-adds a head for A agents, N queries, M keys: linear in the tokens.
#pragma once

#include <cstdint>
#include <optional>

#include <vitrine/layers/conv.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct AgentOptions {
  std::optional<float> scale{}, spread_scale{};  // default: D ** -0.5 and `scale`
  Tensor gather_bias{};                          // f32 [1 or B, 1 or H, A, M]; undefined: none
  Tensor spread_bias{};                          // f32 [1 or B, 1 or H, N, A]
};

// q [B, N, H, D], agents [B, A, H, D], k [B, M, H, D], v [B, M, H, Dv], views with any leading strides -> [B, N, H, Dv].
VITRINE_API Tensor agent_attention(const Tensor& q, const Tensor& agents, const Tensor& k, const Tensor& v,
                                   const AgentOptions& options = {});

// The layer of Agent-DeiT (one class token first) and Agent-Swin (none; one window, often the whole map) on a map of a fixed
// size, and that of Agent-PVT, whose keys and values come from a map that is sr_ratio times smaller on each side.
struct AgentAttentionConfig {
  std::int64_t dim = 0, num_heads = 1;
  std::int64_t agent_num = 49;           // a square
  std::int64_t height = 14, width = 14;  // of the map
  bool class_token = false;
  bool qkv_bias = true;
  std::int64_t sr_ratio = 1;
  bool mix_only = false;  // CSWin: q, k, v from outside; w.get_v in the place of w.dwc, no w.qkv and w.proj
};

struct VITRINE_API AgentAttention {
  AgentAttention() = default;
  // w.qkv, w.dwc (3x3), w.an_bias and w.na_bias [heads, agents, 7, 7], resized to the map, w.ah_bias [1, heads, agents, height,
  // 1], w.aw_bias, w.ha_bias, w.wa_bias, with a class token w.ac_bias and w.ca_bias, w.proj. `proj_options` may carry a layer
  // scale.
  AgentAttention(const Weights& w, const AgentAttentionConfig& config, const LinearOptions& proj_options = {});
  // x [B, class tokens + height * width, dim] -> same
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;
  // What is between the projections: q, k, v [B, N, dim], views -> [B, N, dim]
  Tensor mix(const Tensor& q, const Tensor& k, const Tensor& v) const;

  AgentAttentionConfig config;
  Linear qkv, proj;
  Conv2d dwc;
  Tensor gather_bias, spread_bias;  // f32 [1, heads, agents, tokens], [1, heads, tokens, agents]: all parts, resized and summed
};

struct VITRINE_API AgentAttentionPvt {
  AgentAttentionPvt() = default;
  // w.q, w.kv, for sr_ratio > 1 w.sr and w.norm (LayerNorm, eps 1e-5); the rest as above without a class token, ah_bias and
  // aw_bias of the smaller map's sides.
  AgentAttentionPvt(const Weights& w, const AgentAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;  // x [B, height * width, dim] -> same

  AgentAttentionConfig config;
  Linear q, kv, proj;
  PatchEmbed sr;
  LayerNorm norm;
  Conv2d dwc;
  Tensor gather_bias, spread_bias;
};

// Training-free agent attention for Stable Diffusion. The spreading softmax has the scale head_dim ** (-k_scale2 / 2), and
// k_shortcut v is added to the result. Where agents are not fewer than half of the tokens: plain attention without them.
struct AgentAttentionSdConfig {
  std::int64_t dim = 0, num_heads = 1, head_dim = 64;
  double k_scale2 = 0.3, k_shortcut = 0.075;
};

// How AgentSD makes its tokens: `ratio` of all are merged away, for the agents `agent_ratio`; see token_merge.h.
struct AgentMergeConfig {
  std::int64_t height = 0, width = 0;  // of the map
  double ratio = 0.5, agent_ratio = 0.8;
  std::int64_t cell_height = 2, cell_width = 2;
};

struct VITRINE_API AgentAttentionSd {
  AgentAttentionSd() = default;
  AgentAttentionSd(const Weights& w, const AgentAttentionSdConfig& config);  // w.to_q, w.to_k, w.to_v (no bias), w.to_out.0
  // x [B, N, dim], agents [B, A, dim] -> [B, N, dim]
  Tensor operator()(const Tensor& x, const Tensor& agents, Tensor residual = {}) const;
  // The whole of AgentSD's self attention: merges x [B, height * width, dim] by the likeness of x, or of other features of
  // the same tokens (a block has x's norm merged), attends, gives every token its merged token's output.
  Tensor merged(const Tensor& x, const AgentMergeConfig& merge, const Tensor& features = {}) const;

  AgentAttentionSdConfig config;
  Linear qkv, to_q, to_out;  // qkv: to_q, to_k and to_v in one
};

}  // namespace vitrine
