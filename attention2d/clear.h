// CLEAR: attention of a diffusion transformer's text and image tokens in which an image token sees a disc of the image.
//
//   image query (y, x):  all text tokens, the image tokens with (ky - y)^2 + (kx - x)^2 < radius^2 and, with down_factor f,
//                        (H / f)(W / f) pooled tokens: keys and values of each f x f block, summed with learned weights
//   text query:          all text tokens, all image tokens
//   logits = scale q . k, one softmax over all that a query sees
//   scale  = D ** -0.5, or proportional to the sequence: sqrt(ln(m L) / ln(64^2 + 512) / D), L = text + image tokens,
//            m = 10 with pooled tokens, 1 without
//
// Source: arXiv:2412.16112, Huage001/CLEAR attention_processor.py. Rotary embeddings are applied before.
// Cost: about HW (pi radius^2 + T + HW / f^2) + T (T + HW) products of 2 D a head: linear in the image without pooling.
#pragma once

#include <cstdint>
#include <string_view>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

struct ClearOptions {
  std::int64_t height = 0, width = 0;  // of the image, in tokens
  std::int64_t text_length = 0;        // tokens before those of the image
  std::int64_t radius = 0;
  std::int64_t down_factor = 0;  // 0: no pooled tokens
  Tensor spatial_weight{};       // f32 with down_factor^2 elements, rows first ([1, 1, 1, f, 1, f, 1] in checkpoints)
  bool proportional = false;
  std::string_view impl{};  // a candidate's name, or a family's; empty: the best that can run
};

// q [B, T + H W, Hq, D], k [B, T + H W, Hk, D], v [B, T + H W, Hk, Dv], text first; views with any leading strides.
// -> [B, T + H W, Hq, Dv], contiguous, in q's dtype. Throws Error where the sizes do not fit, radius is below 1, or
// down_factor does not divide the image.
VITRINE_API Tensor clear_attention(const Tensor& q, const Tensor& k, const Tensor& v, const ClearOptions& options);

}  // namespace vitrine
