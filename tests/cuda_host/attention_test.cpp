// The mechanisms on the device against the CPU's.
#include <catch.h>

#include <vitrine/attention2d/attention.h>

#include "cuda_host/support.h"

namespace vitrine {

using test::check_same;
using test::random;

TEST_CASE("global attention on the device", "[cuda_host]") {
  cuda::emulation::install();
  struct Case {
    std::int64_t B, queries, keys, heads, key_heads, dim, value_dim;
  };
  for (const DType dtype : test::kFloats)
    for (const Case& c :
         {Case{1, 1, 1, 1, 1, 1, 1}, {2, 33, 65, 2, 1, 40, 24}, {1, 70, 66, 2, 2, 64, 64}, {1, 17, 130, 1, 1, 128, 128}}) {
      const Tensor q = random({c.B, c.queries, c.heads, c.dim}, dtype, 1),
                   k = random({c.B, c.keys, c.key_heads, c.dim}, dtype, 2),
                   v = random({c.B, c.keys, c.key_heads, c.value_dim}, dtype, 3);
      const Tensor bias = random({1, c.heads, c.queries, c.keys}, DType::f32, 4),
                   distances = random({c.heads, c.queries + c.keys - 1}, DType::f32, 5);
      Tensor mask = random({c.B, 1, 1, c.keys}, DType::f32, 6);
      activate_(mask, Activation::relu);
      mask = mask.to(DType::boolean);
      const double bound = 8 * test::rounding(dtype) + 4e-6;
      check_same(
          "attention", dtype, {q, k, v}, [](auto t) { return attention(t[0], t[1], t[2]); }, bound);
      check_same(
          "causal", dtype, {q, k, v}, [](auto t) { return attention(t[0], t[1], t[2], {.is_causal = true}); }, bound);
      check_same(
          "bias", dtype, {q, k, v, bias}, [](auto t) { return attention(t[0], t[1], t[2], {.scale = 0.3f, .bias = t[3]}); },
          bound);
      check_same(
          "distance_bias", dtype, {q, k, v, distances},
          [](auto t) { return attention(t[0], t[1], t[2], {.distance_bias = t[3]}); }, bound);
      check_same(
          "mask", dtype, {q, k, v, mask}, [](auto t) { return attention(t[0], t[1], t[2], {.mask = t[3]}); }, bound);
    }
}

}  // namespace vitrine
