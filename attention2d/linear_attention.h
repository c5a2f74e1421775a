// Linear attention: a kernel phi(q).phi(k) in the place of exp(q.k), so that keys and values are summed up once for all
// queries, in a state of features x head_dim numbers.
//
//   S = sum_j w_j phi(k_j) v_j^T,  z = sum_j w_j phi(k_j)
//   out_i = scale u_i phi(q_i) S / (phi(q_i).z + eps)
//
// Source: arXiv:2006.16236 (elu + 1), EfficientViT arXiv:2205.14756 (relu); LinFusion, InLine, RALA, FLatten, Flowformer,
// efficient attention and FAST are this with maps, weights w and u, and normalizers of their own.
// Cost: (Lq + Lk) features Dv multiply-adds an image and head. Beside q, k, v and out it keeps the states of chunks of at
// least 256 tokens.
#pragma once

#include <cstdint>
#include <string_view>

#include <vitrine/attention2d/feature_map.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

enum class LinearNormalizer : std::uint8_t {
  none,      // scale phi(q) S
  sum,       // scale phi(q) S / (phi(q).z + eps)
  mean,      // the same with S / Lk and z / Lk: eps is worth more
  subtract,  // scale phi(q) S / Lk + (1 - scale phi(q).z / Lk) mean(v): weights sum to one by subtraction; no key_weights
};

struct LinearAttentionOptions {
  FeatureMap query_map = FeatureMap::elu1, key_map = FeatureMap::elu1;
  float feature_scale = 1;  // of q and k before the maps
  LinearNormalizer normalizer = LinearNormalizer::sum;
  float eps = 1e-6f;
  float scale = 1;
  Tensor key_weights{};    // w: f32 [B, H, Lk]; undefined: 1
  Tensor query_weights{};  // u: f32 [B, H, Lq]; undefined: 1
  // Rotary positions, f32 [Lq, D] = [Lk, D]: phi(q) and phi(k) turn in neighbouring pairs of channels, in S and not in z.
  // Not with taylor maps, token_softmax or the subtract normalizer.
  Tensor sin{}, cos{};
  std::string_view impl{};  // a candidate's name; empty: the best that can run
};

// q [B, Lq, H, D], k [B, Lk, H, D], v [B, Lk, H, Dv], views with any leading strides -> [B, Lq, H, Dv], contiguous, in q's
// dtype. Features, state and sums are f32 in all dtypes.
VITRINE_API Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const LinearAttentionOptions& options = {});

// The sums over tokens that mechanisms make their weights of. x [B, L, H, D], weights f32 [B, H, L] or undefined.
// sum_j w_j phi(x_j): f32 [B, H, D]
VITRINE_API Tensor feature_sums(const Tensor& x, FeatureMap map, const Tensor& weights = {});
// phi(x_j).u: f32 [B, H, L]; u f32 [B, H, D]
VITRINE_API Tensor feature_dots(const Tensor& x, FeatureMap map, const Tensor& u);

// A layer: qkv, linear attention, proj. x [B, N, C] -> [B, N, C].
struct LinearAttentionConfig {
  std::int64_t dim = 0, num_heads = 1;
  FeatureMap feature_map = FeatureMap::relu;
  LinearNormalizer normalizer = LinearNormalizer::sum;
  float eps = 1e-6f;
  bool qkv_bias = true;
};

struct VITRINE_API LinearAttention {
  LinearAttention() = default;
  // w.qkv, w.proj; `proj_options` may carry a layer scale.
  LinearAttention(const Weights& w, const LinearAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  LinearAttentionConfig config;
  Linear qkv, proj;
};

}  // namespace vitrine
