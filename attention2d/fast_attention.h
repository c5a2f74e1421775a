// FAST, factorizable attention: the exponential of softmax attention by the first terms of its series, so that sums over the
// keys are moments of k and v.
//
//   f(s) = 1 + s (order 1) or 1 + s + s^2 / 2 (order 2),  s = scale q.k with q and k standardized over their channels
//   out_i = sum_j f(s_ij) v_j / sum_j f(s_ij)
//
// f of order 2 is at least 1/2; that of order 1 may be negative, and its sum come near zero. Source: arXiv:2402.07901 (Fastmax);
// there is no public code. Cost: 2 N C (1 + D) (order 1) or N C (D + 1)(D + 2) (order 2) multiply-adds with heads of D channels.
#pragma once

#include <string_view>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

struct FastAttentionOptions {
  int order = 2;
  float scale = 1;    // positive
  double eps = 1e-6;  // of the standardization: (x - mean) / sqrt(variance + eps)
  std::string_view impl{};
};

// q [B, Lq, H, D], k [B, Lk, H, D], v [B, Lk, H, Dv], views with any leading strides -> [B, Lq, H, Dv], contiguous.
VITRINE_API Tensor fast_attention(const Tensor& q, const Tensor& k, const Tensor& v, const FastAttentionOptions& options = {});

}  // namespace vitrine
