// Halo attention (HaloNet): a block of queries attends to the block and a halo around it.
//
//   logits(i, j) = scale q_i.k_j + q_i.(height_rel[jy - iy + win - 1] + width_rel[jx - ix + win - 1]),  win = block + 2 halo
//
// i is the query's position in its (strided) block, j the key's in its window. Outside the map keys and values are zeros, and
// take part in the softmax. Source: timm layers/halo_attn.py; arXiv:2103.12731.
// Cost: H W / stride^2 win^2 (D + Dv) multiply-adds a head beside the projections.
#pragma once

#include <cstdint>
#include <optional>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/size_cache.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct HaloAttentionConfig {
  std::int64_t dim = 0, num_heads = 1, head_dim = 16, value_head_dim = 16;
  std::int64_t block_size = 8, halo_size = 3, stride = 1;  // stride divides block_size
  bool q_bias = false, kv_bias = false;
};

// x [B, H, W, dim], H and W multiples of block_size -> [B, H / stride, W / stride, num_heads value_head_dim]; no projection.
struct VITRINE_API HaloAttention {
  HaloAttention() = default;
  // w.q [heads D, dim, 1, 1], w.kv [heads (D + Dv), dim, 1, 1], w.pos_embed.height_rel, .width_rel [2 win - 1, D]
  HaloAttention(const Weights& w, const HaloAttentionConfig& config);
  Tensor operator()(const Tensor& x) const;

  HaloAttentionConfig config;
  Linear q, kv;
  Tensor height_rel, width_rel;  // [D, 2 win - 1]
  struct Lists {
    Tensor queries, keys;
  };
  detail::SizeCache<Lists> lists;  // of a map's blocks
};

}  // namespace vitrine
