// Global (scaled dot product) attention.
//
//   out = softmax(scale q k^T + bias, over the keys that the mask lets through) v
//
// Source: "Attention Is All You Need"; semantics of torch.nn.functional.scaled_dot_product_attention, grouped heads
// as in GQA (arXiv:2305.13245). The CPU kernel is tiled with an online softmax: no N x N matrix is kept.
// Cost: Lq Lk (D + Dv) Hq multiply-adds an image.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct AttentionOptions {
  std::optional<float> scale{};  // default: D ** -0.5
  bool is_causal = false;        // key j is seen by query i where j <= i
  Tensor bias{};                 // f32 [1 or B, 1 or Hq, 1 or Lq, Lk], added after scaling; undefined: none
  // Instead of bias, where it depends on how far a key is: f32 [Hq, Lq + Lk - 1], element j - i + Lq - 1 is added for query i
  // and key j (T5). Of L tokens it takes 2 L numbers a head, not L^2.
  Tensor distance_bias{};
  Tensor mask{};  // boolean, shapes of bias; true: the key is seen
  // A candidate's name ("reference", "flash_avx2"; "flash": its best target); empty: the best that can run.
  std::string_view impl{};
};

// q [B, Lq, Hq, D], k [B, Lk, Hk, D], v [B, Lk, Hk, Dv], Hq a multiple of Hk; views with any leading strides.
// -> [B, Lq, Hq, Dv], contiguous, in q's dtype. A query that sees no key gives zeros.
VITRINE_API Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options = {});

}  // namespace vitrine
