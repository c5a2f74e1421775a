// Mixture of heads (MoH): each token weighs the heads of an attention. The first `shared_head` heads always count, of the others
// the `routed_head` largest of a softmax do, with their sum made one; a third softmax weighs the two groups.
//
//   shared = softmax(wg_1 x) shared_head,  routed = softmax(wg x), kept where chosen, / its sum, times routed_head
//   gates  = [2 a shared | 2 b routed],  [a, b] = softmax(wg_0 x);  without routed heads: gates = shared
//
// Gates are computed in f32 whatever the type. Source: arXiv:2410.11842; SkyworkAI/MoH MoH-ViT/attention.py.
#pragma once

#include <cstdint>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

struct HeadGatesConfig {
  std::int64_t dim = 0, num_heads = 1, shared_head = 0, routed_head = 0;
};

struct VITRINE_API HeadGates {
  HeadGates() = default;
  // w.wg, w.wg_0, w.wg_1, without bias, as far as the numbers of heads need them.
  HeadGates(const Weights& w, const HeadGatesConfig& config);
  bool defined() const { return logits.defined(); }
  Tensor operator()(const Tensor& x) const;  // x [..., dim] -> f32 [..., num_heads]

  HeadGatesConfig config;
  Linear logits;  // the rows of wg_1, wg and wg_0
};

}  // namespace vitrine
