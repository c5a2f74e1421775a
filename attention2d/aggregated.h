// Aggregated (pixel-focused) attention: every query sees a window around it and a pooled map, under one softmax.
//
//   q^ = q / |q|;  qs = (q^ + query_embedding) temperature ln(number of keys seen)
//   logits = [qs k^_local + local_bias | qs k^_pooled + pool_bias];  [w_local | w_pooled] = softmax(logits)
//   out = sum (w_local + q^ learnable_tokens + learnable_bias) v_local + sum w_pooled v_pooled
//
// Window positions are in row-major order, the window centred on the query; those outside of the map are not seen.
// Source: TransNeXt, arXiv:2311.17132; DaiShiResearch/TransNeXt attention_native.py.
// Cost: (3 window^2 + 2 pooled) C multiply-adds a token and 4 C^2 of projections (sr another C^2): linear in the tokens for a
// pooled map of fixed size, quadratic for a fixed ratio. The table of pooled positions has heads x tokens x pooled numbers.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include <vitrine/attention2d/head_gates.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/size_cache.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// All f32 and contiguous.
struct AggregatedOptions {
  std::int64_t window_size = 3;
  Tensor query_embedding;   // [heads, D]
  Tensor temperature;       // [heads]: the factor itself, softplus of the parameter
  Tensor local_bias;        // [heads, window_size^2]
  Tensor pool_bias;         // [heads, P, H W]
  Tensor learnable_tokens;  // [heads, D, window_size^2]
  Tensor learnable_bias;    // [heads, window_size^2]
  std::string_view impl{};  // "fused_TARGET" or "reference"; empty: the best that can run
};

// q, k, v [B, H, W, heads, D], pooled_k, pooled_v [B, P, heads, D] with P >= 1; views with any leading strides.
// -> [B, H, W, heads, D], contiguous, in q's dtype.
VITRINE_API Tensor aggregated_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& pooled_k,
                                        const Tensor& pooled_v, const AggregatedOptions& options);

struct AggregatedAttentionConfig {
  std::int64_t dim = 0, num_heads = 1, window_size = 3, sr_ratio = 8;  // pooled map: H / sr_ratio x W / sr_ratio
  bool qkv_bias = true;
  std::array<std::int64_t, 2> pretrain_size{0, 0};  // of the map that offsets are measured by; 0: the map itself
  std::int64_t fixed_pool_size = 0;                 // > 0: the pooled map's sides, whatever the map's
  std::int64_t shared_head = 0, routed_head = 0;    // MoH: not both 0; weights of heads, as in head_gates.h
};

// The layer: x [B, H, W, C] -> the same. pooled = LayerNorm(adaptive_avg_pool(gelu(sr(x)))) through the same kv;
// pool_bias = cpb_fc2(relu(cpb_fc1(offsets))), offsets on a logarithmic scale, computed once for a map's size.
struct VITRINE_API AggregatedAttention {
  AggregatedAttention() = default;
  // w.q, w.kv, w.query_embedding [heads, 1, D], w.temperature [heads, 1, 1], w.sr, w.norm, w.cpb_fc1, w.cpb_fc2,
  // w.relative_pos_bias_local, w.learnable_tokens, w.learnable_bias [heads, 1, window_size^2], w.proj. The hidden size of
  // cpb is the checkpoint's, 512 where it may be any.
  AggregatedAttention(const Weights& w, const AggregatedAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  AggregatedAttentionConfig config;
  Linear q, kv, sr, proj, cpb_fc1, cpb_fc2;
  LayerNorm norm;
  Tensor query_embedding, temperature, local_bias, learnable_tokens, learnable_bias;
  HeadGates gates;

 private:
  std::array<std::int64_t, 2> pooled_size(std::int64_t height, std::int64_t width) const;
  Tensor make_pool_bias(std::int64_t height, std::int64_t width) const;
  detail::SizeCache<Tensor> pool_bias_;
};

// TransNeXt's deep stages: attention of all tokens with the same cosine logits and continuous position bias.
struct CosineAttentionConfig {
  std::int64_t dim = 0, num_heads = 1;
  bool qkv_bias = true;
  std::array<std::int64_t, 2> pretrain_size{0, 0};  // as above
  std::int64_t shared_head = 0, routed_head = 0;    // as above
};

struct VITRINE_API CosineAttention {
  CosineAttention() = default;
  // w.qkv, w.query_embedding, w.temperature, w.cpb_fc1, w.cpb_fc2, w.proj, as above.
  CosineAttention(const Weights& w, const CosineAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;  // x [B, H, W, C] -> the same

  CosineAttentionConfig config;
  Linear qkv, proj, cpb_fc1, cpb_fc2;
  Tensor query_embedding, temperature;
  HeadGates gates;

 private:
  Tensor make_bias(std::int64_t height, std::int64_t width) const;  // [1, heads, H W, H W]
  detail::SizeCache<Tensor> bias_;
};

}  // namespace vitrine
