// What the tests of attention between tokens share: the quadratic form, and the same work under several thread counts.
#pragma once

#include <cstdint>
#include <vector>

#include <attention2d/compare.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::test {

// Attention by its N x N weights, in double: out_i = sum_j normalize(weight(q_i, k_j, j), sum of the weights) v_j.
// q [B, Lq, H, D], k [B, Lk, H, D], v [B, Lk, H, Dv], f32.
template <typename Weight, typename Normalize>
Tensor each_pair(const Tensor& q, const Tensor& k, const Tensor& v, const Weight& weight, const Normalize& normalize) {
  const std::int64_t queries = q.size(1), keys = k.size(1), value_dim = v.size(3);
  const auto row = [](const Tensor& x, std::int64_t b, std::int64_t n, std::int64_t h) {
    const Tensor one = x.select(0, b).select(0, n).select(0, h);
    return std::vector<double>(one.data<float>(), one.data<float>() + one.numel());
  };
  Tensor out = Tensor::zeros({q.size(0), queries, q.size(2), value_dim});
  float* to = out.data<float>();
  for (std::int64_t b = 0; b < q.size(0); ++b)
    for (std::int64_t i = 0; i < queries; ++i)
      for (std::int64_t h = 0; h < q.size(2); ++h, to += value_dim) {
        const std::vector<double> query = row(q, b, i, h);
        std::vector<double> weights, sums(static_cast<std::size_t>(value_dim));
        double total = 0;
        for (std::int64_t j = 0; j < keys; ++j) total += weights.emplace_back(weight(query, row(k, b, j, h), j));
        for (std::int64_t j = 0; j < keys; ++j) {
          const std::vector<double> value = row(v, b, j, h);
          for (std::size_t d = 0; d < sums.size(); ++d)
            sums[d] += normalize(weights[static_cast<std::size_t>(j)], total) * value[d];
        }
        for (std::size_t d = 0; d < sums.size(); ++d) to[d] = static_cast<float>(sums[d]);
      }
  return out;
}

// Whether one thread and five give the same bits, and five do so again.
template <typename Make>
bool same_bits_on_threads(const Make& make) {
  const auto on = [&](int threads) {
    Context context({.threads = threads, .device = {}});
    const ContextScope scope(context);
    return make();
  };
  const Tensor expected = on(1);
  return same_bits(on(5), expected) && same_bits(on(5), expected);
}

}  // namespace vitrine::test
