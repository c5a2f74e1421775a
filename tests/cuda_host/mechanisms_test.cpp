// Mechanisms that have no stored cases of a layer, or kernels of their own beside attention's, on the device against the CPU's.
#include <catch.h>

#include <vitrine/attention2d/bi_level_routing.h>
#include <vitrine/attention2d/head_gates.h>
#include <vitrine/attention2d/stripe.h>
#include <vitrine/attention2d/token_merge.h>
#include <vitrine/attention2d/varied_window.h>
#include <vitrine/attention2d/window.h>
#include <vitrine/weights/sources.h>

#include "cuda_host/support.h"

namespace vitrine {

using test::attention_bound;
using test::check_same;
using test::random;

namespace {

// The layer of the device that its input is on.
template <typename Layer, typename Config>
Layer layer_on(const Tensor& x, const Config& config) {
  return Layer(Weights(synthetic_weights(), {.dtype = x.dtype(), .device = x.device()}), config);
}

}  // namespace

TEST_CASE("means of regions and routes on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats)
    for (const bool counts_padding : {false, true})
      check_same("region_means", dtype, {random({2, 7, 10, 130}, dtype, 1)}, [&](auto t) {
        return region_means(t[0], {3, 4}, counts_padding);
      });
  for (const std::int64_t regions : {1, 9, 70})
    check_same("route_regions", DType::f32, {random({2, regions, 20}, DType::f32, 2), random({2, regions, 20}, DType::f32, 3)},
               [&](auto t) { return route_regions(t[0], t[1], std::min<std::int64_t>(regions, 5)); });
  for (const DType dtype : test::kFloats)
    check_same(
        "routed_attention", dtype, {random({2, 5, 7, 2, 16}, dtype, 4), random({2, 9, 6}, DType::f32, 5)},
        [](auto t) {
          const Tensor q = t[0].contiguous(), routes = route_regions(t[1], t[1], 2);
          return routed_attention(q, q, q, routes, {2, 3});
        },
        attention_bound(dtype));
}

TEST_CASE("windows of varied size on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats)
    check_same(
        "varied_window", dtype, {random({2, 9, 7, 32}, dtype, 1)},
        [](auto t) {
          const VariedWindowAttentionConfig config{.dim = 32, .num_heads = 2, .window_size = {4, 3}};
          return layer_on<VariedWindowAttention>(t[0], config)(t[0]);
        },
        attention_bound(dtype));
}

TEST_CASE("stripes on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats)
    check_same(
        "stripes", dtype, {random({2, 48, 96}, dtype, 1)},
        [](auto t) {
          const Tensor parts = t[0].contiguous().unflatten(2, {3, 32});
          const StripeAttentionConfig config{.dim = 32, .num_heads = 2, .size = {3, 4}};
          return layer_on<StripeAttention>(t[0], config)(parts.select(2, 0), parts.select(2, 1), parts.select(2, 2), 6, 8);
        },
        attention_bound(dtype));
}

TEST_CASE("one layer on maps of several sizes on the device", "[cuda_host]") {
  cuda::emulation::install();
  const WindowAttentionConfig config{.dim = 32, .num_heads = 2, .window_size = {4, 4}, .shift_size = {2, 2}};
  const Weights on_cpu(synthetic_weights()), on_gpu(synthetic_weights(), {.dtype = DType::f32, .device = test::kGpu});
  const WindowAttention here(on_cpu, config), there(on_gpu, config);
  for (const auto& [height, width] : {std::pair(8, 8), std::pair(5, 9), std::pair(8, 8), std::pair(3, 2)}) {
    const Tensor x = random({1, height, width, 32}, DType::f32, 1);
    const auto expected = test::values(here(x));
    test::check_close(test::values(there(x.to(test::kGpu)).to(Device{})), {expected.begin(), expected.end()},
                      attention_bound(DType::f32));
  }
}

TEST_CASE("gates of heads on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats)
    for (const auto& [shared, routed] : {std::pair(2, 3), std::pair(0, 4), std::pair(1, 2), std::pair(6, 0)})
      check_same(
          "head_gates", dtype, {random({2, 70, 16}, dtype, 1)},
          [shared = shared, routed = routed](auto t) {
            const HeadGatesConfig config{.dim = 16, .num_heads = 6, .shared_head = shared, .routed_head = routed};
            return layer_on<HeadGates>(t[0], config)(t[0]);
          },
          1e-5);
}

TEST_CASE("merged tokens on the device", "[cuda_host]") {
  cuda::emulation::install();
  const auto check = [](DType dtype, std::int64_t height, std::int64_t width, std::int64_t cell, double part) {
    const auto merged = [=](const Tensor& x) {
      const TokenMatches m = match_tokens(x, {height, width, cell, cell});
      return merge_tokens(x, m, static_cast<std::int64_t>(part * static_cast<double>(m.sources.size(1))));
    };
    const Tensor x = random({2, height * width, 20}, dtype, 1);
    check_same("merge_tokens", dtype, {x}, [&](auto t) { return merged(t[0]).tokens; });
    check_same("unmerge_tokens", dtype, {x}, [&](auto t) {
      const MergedTokens m = merged(t[0]);
      return unmerge_tokens(m.tokens, m.origin);
    });
  };
  for (const DType dtype : test::kFloats) check(dtype, 7, 9, 3, 0.4);
  for (const double part : {0.0, 0.4, 1.0}) check(DType::f32, 4, 6, 2, part);
  check(DType::f32, 2, 2, 1, 1.0);  // all are destinations
}

}  // namespace vitrine
