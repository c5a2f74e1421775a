// Bi-level routing attention: each region of the map chooses the regions that it attends to.
//
//   q_r, k_r = means of q and k over each region          routing: the topk regions j of the largest q_r[i] . k_r[j]
//   out      = softmax(scale q k^T) v per head, over all tokens of the chosen regions
//
// The layer adds a depth-wise convolution of v ("lepe") before the last projection. As the projection is linear, means of q and
// k are projections of the means of x: routing reads x once, in f32 whatever the type. Keys are read in place, by index lists.
//
// Source: BiFormer (arXiv:2303.08810), rayleizhu/BiFormer ops/bra_legacy.py and ops/bra_nchw.py.
// Cost: tokens topk tokens-of-a-region (D + Dv) multiply-adds a head, and regions^2 C for the routing.
#pragma once

#include <cstdint>
#include <optional>

#include <vitrine/layers/conv.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/size_cache.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// Regions of a map in row-major order: ceil(H / height) x ceil(W / width) of them; those at the end may be partial.
struct RegionSize {
  std::int64_t height = 1, width = 1;
};

// Means over the tokens that each region has: x [B, H, W, C] -> f32 [B, regions, C]. With `counts_padding` what a partial region
// lacks counts as zeros.
VITRINE_API Tensor region_means(const Tensor& x, const RegionSize& region, bool counts_padding = false);

// q, k f32 [B, R, C], rows contiguous -> i32 [B, R, topk]: for each region the topk of the largest q[i] . k[j], in falling order;
// ties by the lower index. On a GPU the products of all pairs are made first: B R^2 floats.
VITRINE_API Tensor route_regions(const Tensor& q, const Tensor& k, std::int64_t topk);

// q, k [B, H, W, heads, D], v [B, H, W, heads, Dv], views whose H and W are one stretch; routes i32 [B, regions, topk]
// -> [B, H, W, heads, Dv]. What a partial region lacks are keys and values of zeros that take part in the softmax.
VITRINE_API Tensor routed_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& routes,
                                    const RegionSize& region, std::optional<float> scale = {});  // default: D ** -0.5

struct BiLevelRoutingConfig {
  std::int64_t dim = 0, num_heads = 1;
  std::int64_t n_win = 7;  // regions on each side
  std::int64_t topk = 4;
  std::int64_t side_dwconv = 5;  // odd; 0: no lepe
  std::int64_t qk_dim = 0;       // of all heads together; 0: dim
  std::optional<float> scale{};  // positive; default: qk_dim ** -0.5
  // Maps that n_win does not divide. refuse: an Error; pad: x is padded with zeros before the projection, padded tokens are
  // tokens (auto_pad of bra_legacy.py); partial: regions of (H / n_win) x (W / n_win), as many as cover the map, without the
  // missing tokens in their means (bra_nchw.py).
  enum class Uneven : std::uint8_t { refuse, pad, partial } uneven = Uneven::refuse;
};

struct VITRINE_API BiLevelRoutingAttention {
  BiLevelRoutingAttention() = default;
  // w.qkv.qkv [2 qk_dim + dim, dim], w.lepe, w.wo; with Uneven::partial w.qkv_linear, w.lepe, w.output_linear, all with bias.
  // `proj_options` may carry a layer scale.
  BiLevelRoutingAttention(const Weights& w, const BiLevelRoutingConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;  // x [B, H, W, dim] -> same

  BiLevelRoutingConfig config;
  Linear qkv, proj;
  Linear routing;  // the rows of q and k, in f32
  Conv2d lepe;
  detail::SizeCache<Tensor> regions;  // lists of tokens, by the size of the map
};

// BiFormer's deep stages: attention of all tokens, and a depth-wise convolution ("lepe") of x or of v before the last projection.
struct LepeAttentionConfig {
  std::int64_t dim = 0, num_heads = 8;
  bool qkv_bias = false;
  std::optional<float> scale{};  // default: head_dim ** -0.5
  std::int64_t side_dwconv = 5;  // odd; 0: no lepe
  bool lepe_of_values = false;
};

struct VITRINE_API LepeAttention {
  LepeAttention() = default;
  LepeAttention(const Weights& w, const LepeAttentionConfig& config,
                const LinearOptions& proj_options = {});           // w.qkv, w.proj, w.lepe
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;  // x [B, H, W, dim] -> same

  LepeAttentionConfig config;
  Linear qkv, proj;
  Conv2d lepe;
};

}  // namespace vitrine
