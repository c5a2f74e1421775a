// The feature maps of linear attention, and what is made of its sums. Apart from linear_attention.h, because kernel sources
// include it and nothing with code in it.
#pragma once

#include <cstdint>

namespace vitrine {

// Of the head_dim channels x of a token and head:
enum class FeatureMap : std::uint8_t {
  identity,         // x
  relu,             // max(x, 0)
  elu1,             // elu(x) + 1
  leaky_relu,       // slope 0.01
  exp,              // e^x
  sigmoid,          // 1 / (1 + e^-x)
  channel_softmax,  // softmax over the channels
  token_softmax,    // softmax of each channel over all tokens; of keys only
  taylor1,          // (1, x): phi(q).phi(k) = 1 + q.k; 1 + head_dim features
  taylor2,          // (1, x, the products of two channels): 1 + q.k + (q.k)^2 / 2; 1 + D + D (D + 1) / 2 features
};

// What becomes of the state S = sum_j w_j phi(k_j) v_j^T, z = sum_j w_j phi(k_j), and so of out_i = u_i phi(q_i) ...
enum class StateRule : std::uint8_t {
  plain,            // numerator S
  ratio,            // numerator S / (phi(q_i).(denominator z) + eps)
  centred,          // numerator (S - z m^T), plus m, the mean of v
  channel_softmax,  // A^T with A = softmax over the columns of numerator S; features are as many as value channels
};

}  // namespace vitrine
