// LinFusion's generalized linear attention, in the place of a diffusion U-Net's self-attention.
//
//   q = elu(to_q(x + to_q_(x))) + 1,  k = elu(to_k(c + to_k_(c))) + 1,  v = to_v(c)
//   out = q (k^T v / N) / (q.mean(k) + 1e-4), N the number of queries, the mean over the keys
//
// to_q_ and to_k_ are Linear, LayerNorm, LeakyReLU, Linear, or the identity. Source: arXiv:2409.02097, Huage001/LinFusion
// src/linfusion/attention.py. Cost: 2 N C head_dim multiply-adds beside the projections, against 2 N^2 C of softmax attention.
#pragma once

#include <cstdint>
#include <string_view>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/modules.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// Of projected q [B, N, heads, D], k and v [B, M, heads, D], which may be views -> [B, N, heads, D].
VITRINE_API Tensor linfusion_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::string_view impl = {});

struct LinFusionAttentionConfig {
  std::int64_t dim = 0, num_heads = 1;
  std::int64_t query_hidden = 0, key_hidden = 0;  // widths within to_q_ and to_k_; 0: the identity
};

struct VITRINE_API LinFusionAttention {
  LinFusionAttention() = default;
  // w.to_q, w.to_k, w.to_v, w.to_out.0, w.to_q_.{0, 1, 3}, w.to_k_.{0, 1, 3}
  LinFusionAttention(const Weights& w, const LinFusionAttentionConfig& config, const LinearOptions& out_options = {});
  // x [B, N, C], context [B, M, C] or undefined (x itself) -> [B, N, C]
  Tensor operator()(const Tensor& x, const Tensor& context = {}, Tensor residual = {}) const;

  // x + MLP(x), the residual within; undefined layers: x, which the following projection then doubles.
  struct Mixer {
    Linear in, out;
    LayerNorm norm;
    Tensor operator()(const Tensor& x) const;
  };

  LinFusionAttentionConfig config;
  Mixer mix_q, mix_k;
  Linear to_q, to_k, to_v, to_out;
};

}  // namespace vitrine
