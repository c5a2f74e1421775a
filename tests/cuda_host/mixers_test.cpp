// What stands beside the mechanisms on the device against the CPU's: aggregated attention, focal levels, filters, gates.
#include <catch.h>

#include <vitrine/attention2d/aggregated.h>
#include <vitrine/attention2d/deformable_merging.h>
#include <vitrine/attention2d/focal_modulation.h>
#include <vitrine/attention2d/global_filter.h>
#include <vitrine/attention2d/head_gates.h>
#include <vitrine/weights/sources.h>

#include "cuda_host/support.h"

namespace vitrine {

using test::check_same;
using test::random;

namespace {

// A layer built on both devices from the same synthetic parameters.
template <typename Make>
void check_layer(const char* what, DType dtype, const Tensor& x, const Make& make, double bound) {
  const auto build = [&](Device device) { return make(Weights(synthetic_weights(), {.dtype = dtype, .device = device})); };
  const auto here = build(Device{}), there = build(test::kGpu);
  check_same(
      what, dtype, {x}, [&](auto t) { return t[0].device() == test::kGpu ? there(t[0]) : here(t[0]); }, bound);
}

}  // namespace

TEST_CASE("aggregated attention on the device", "[cuda_host]") {
  cuda::emulation::install();
  struct Case {
    std::int64_t height, width, heads, dim, pooled, window;
  };
  for (const DType dtype : test::kFloats)
    for (const Case& c : {Case{1, 1, 1, 1, 1, 1}, {5, 6, 2, 24, 4, 3}, {4, 7, 1, 70, 3, 5}, {3, 3, 1, 16, 2, 9}}) {
      const Shape map{2, c.height, c.width, c.heads, c.dim}, pool{2, c.pooled, c.heads, c.dim};
      const std::int64_t area = c.window * c.window;
      check_same(
          "aggregated_attention", dtype,
          {random(map, dtype, 1), random(map, dtype, 2), random(map, dtype, 3), random(pool, dtype, 4), random(pool, dtype, 5),
           random({c.heads, c.dim}, DType::f32, 6), random({c.heads}, DType::f32, 7), random({c.heads, area}, DType::f32, 8),
           random({c.heads, c.pooled, c.height * c.width}, DType::f32, 9), random({c.heads, c.dim, area}, DType::f32, 10),
           random({c.heads, area}, DType::f32, 11)},
          [&](auto t) {
            return aggregated_attention(t[0], t[1], t[2], t[3], t[4],
                                        {.window_size = c.window,
                                         .query_embedding = t[5].contiguous(),
                                         .temperature = t[6].contiguous(),
                                         .local_bias = t[7].contiguous(),
                                         .pool_bias = t[8].contiguous(),
                                         .learnable_tokens = t[9].contiguous(),
                                         .learnable_bias = t[10].contiguous()});
          },
          8 * test::rounding(dtype) + 1e-5);
    }
}

TEST_CASE("small kernels of mixers on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats) {
    const Shape map{2, 5, 6, 7};
    check_same("focal levels", dtype,
               {random(map, dtype, 1), random(map, dtype, 2), random({2, 5, 6, 3}, dtype, 3), random({2, 7}, dtype, 4)},
               [](auto t) {
                 return gather_focal_levels({t[0].contiguous(), t[1].contiguous()}, t[2].contiguous(), t[3].contiguous(), 0.5f);
               });
    check_same("sample_taps", dtype, {random({2, 6, 4, 5}, dtype, 1), random({2, 3, 2, 8}, DType::f32, 2, 2.0f)},
               [](auto t) { return sample_taps(t[0], t[1].contiguous()); });
  }
}

TEST_CASE("layers of filters and gates on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats) {
    check_layer(
        "global and local filter", dtype, random({2, 6, 5, 8}, dtype, 1),
        [](const Weights& w) { return GlobalLocalFilter(w / "filter", 8, 6, 4); }, 16 * test::rounding(dtype) + 2e-5);
    check_layer(
        "deformable merging", dtype, random({2, 6, 4, 8}, dtype, 1), [](const Weights& w) { return DeformableMerging(w, 8, 16); },
        16 * test::rounding(dtype) + 2e-5);
    check_layer(
        "cosine attention", dtype, random({2, 4, 5, 16}, dtype, 1),
        [](const Weights& w) {
          return [layer = CosineAttention(w, {.dim = 16, .num_heads = 2})](const Tensor& t) { return layer(t.contiguous()); };
        },
        16 * test::rounding(dtype) + 2e-5);
  }
  struct Gates {
    std::int64_t heads, shared, routed;
  };
  for (const Gates& g : {Gates{6, 2, 2}, {4, 0, 2}, {4, 4, 0}, {5, 1, 4}})
    check_layer(
        "gates of heads", DType::f32, random({2, 7, 16}, DType::f32, 1),
        [&](const Weights& w) {
          return HeadGates(w, {.dim = 16, .num_heads = g.heads, .shared_head = g.shared, .routed_head = g.routed});
        },
        1e-5);
}

}  // namespace vitrine
