// Neighborhoods and discs on the device against the CPU's, by both kernels.
#include <catch.h>

#include <string_view>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/clear.h>
#include <vitrine/attention2d/neighborhood.h>

#include "cuda_host/support.h"

namespace vitrine {

using test::attention_bound;
using test::check_same;
using test::random;
using test::with_heads;

namespace {

constexpr std::string_view kKernels[] = {"cuda_tiles", "cuda_plain"};

// The plain kernel is one source for all types, and slow here: it is run in one.
bool is_left_out(std::string_view kernel, DType dtype) { return kernel == "cuda_plain" && dtype != DType::bf16; }

}  // namespace

TEST_CASE("neighborhood attention on the device", "[cuda_host]") {
  cuda::emulation::install();
  struct Case {
    Shape map;  // [B, *S]
    std::int64_t heads, key_heads, dim, value_dim;
    NeighborhoodOptions options;
    bool has_bias = false;
    std::int64_t extra = 0;
  };
  const Case cases[] = {
      {{1, 1}, 1, 1, 1, 1, {.kernel_size = {1, 1, 1}}},
      {{1, 67}, 2, 2, 16, 16, {.kernel_size = {9, 1, 1}}},
      {{2, 130}, 1, 1, 8, 24, {.kernel_size = {60, 1, 1}, .stride = {7, 1, 1}}},
      {{1, 131}, 2, 1, 20, 33, {.kernel_size = {21, 1, 1}, .dilation = {3, 1, 1}, .is_causal = {true, false, false}}, false, 65},
      {{1, 9, 8}, 2, 2, 32, 32, {.kernel_size = {7, 5, 1}}, true},
      {{1, 17, 15}, 2, 1, 40, 8, {.kernel_size = {5, 3, 1}, .dilation = {2, 3, 1}, .scale = -0.3f}, true, 3},
      {{1, 10, 13}, 1, 1, 64, 64, {.kernel_size = {4, 6, 1}, .stride = {3, 2, 1}, .is_causal = {false, true, false}}},
      {{1, 5, 6, 7}, 1, 1, 16, 16, {.kernel_size = {3, 4, 5}, .stride = {1, 2, 1}, .is_causal = {true, false, false}}},
      {{1, 3, 70}, 1, 1, 72, 128, {.kernel_size = {3, 66, 1}}},
  };
  for (const DType dtype : test::kFloats)
    for (const Case& c : cases)
      for (const std::string_view kernel : kKernels) {
        if (is_left_out(kernel, dtype)) continue;
        const Tensor q = random(with_heads(c.map, c.heads, c.dim), dtype, 1),
                     k = random(with_heads(c.map, c.key_heads, c.dim), dtype, 2),
                     v = random(with_heads(c.map, c.key_heads, c.value_dim), dtype, 3);
        Tensor bias, extra_k, extra_v;
        if (c.has_bias)
          bias = random({c.heads, 2 * c.options.kernel_size[0] - 1, 2 * c.options.kernel_size[1] - 1}, DType::f32, 4);
        if (c.extra > 0) {
          extra_k = random({c.map[0], c.extra, c.key_heads, c.dim}, dtype, 5);
          extra_v = random({c.map[0], c.extra, c.key_heads, c.value_dim}, dtype, 6);
        }
        INFO(kernel << " on " << c.map.to_string());
        check_same(
            "neighborhood", dtype, {q, k, v, bias, extra_k, extra_v},
            [&](auto t) {
              NeighborhoodOptions options = c.options;
              options.rpb = t[3];
              options.additional_keys = t[4];
              options.additional_values = t[5];
              if (t[0].device() == test::kGpu) options.impl = kernel;
              return neighborhood_attention(t[0], t[1], t[2], options);
            },
            attention_bound(dtype));
      }
}

TEST_CASE("heads beyond the tiles' take the plain kernel", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats) {
    const Shape shape{1, 6, 1, 130};
    check_same(
        "wide heads", dtype, {random(shape, dtype, 1), random(shape, dtype, 2), random(shape, dtype, 3)},
        [](auto t) {
          return neighborhood_attention(t[0], t[1], t[2], {.kernel_size = {3, 1, 1}});
        },
        attention_bound(dtype));
  }
  const Tensor x = random({1, 6, 1, 130}).to(test::kGpu), wide = random({1, 6, 1, 513}).to(test::kGpu);
  CHECK_THROWS_AS(neighborhood_attention(x, x, x, {.kernel_size = {3, 1, 1}, .impl = "cuda_tiles"}), Error);
  CHECK_THROWS_AS(neighborhood_attention(wide, wide, wide, {.kernel_size = {3, 1, 1}}), Error);
  CHECK_THROWS_AS(neighborhood_attention(x, x.to(Device{}), x, {.kernel_size = {3, 1, 1}}), Error);
  // Nothing of these 4.6 GB is touched.
  const Tensor far = Tensor::empty({1, 64, 1, 35'000'000}, DType::bf16, test::kGpu).slice(3, 0, 64);
  CHECK_THROWS_WITH(neighborhood_attention(far, far, far, {.kernel_size = {64, 1, 1}, .impl = "cuda_tiles"}),
                    test::contains("within 2^31 elements"));
}

TEST_CASE("a window of the whole map is global attention", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats)
    check_same(
        "whole map", dtype,
        {random({1, 9, 10, 2, 24}, dtype, 1), random({1, 9, 10, 2, 24}, dtype, 2), random({1, 9, 10, 2, 24}, dtype, 3)},
        [](auto t) {
          if (t[0].device() == test::kGpu)
            return neighborhood_attention(t[0], t[1], t[2], {.kernel_size = {9, 10, 1}}).flatten(1, 2);
          return attention(t[0].contiguous().flatten(1, 2), t[1].contiguous().flatten(1, 2), t[2].contiguous().flatten(1, 2));
        },
        attention_bound(dtype));
}

TEST_CASE("causal axes never look ahead on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats)
    for (const std::string_view kernel : kKernels) {
      const Tensor q = random({1, 80, 1, 16}, dtype, 1), k = random({1, 80, 1, 16}, dtype, 2),
                   v = random({1, 80, 1, 16}, dtype, 3);
      const auto run = [&](const Tensor& keys, const Tensor& values) {
        return neighborhood_attention(
                   q.to(test::kGpu), keys.to(test::kGpu), values.to(test::kGpu),
                   {.kernel_size = {20, 1, 1}, .stride = {4, 1, 1}, .is_causal = {true, false, false}, .impl = kernel})
            .to(Device{});
      };
      Tensor other_k = k.clone(), other_v = v.clone();
      Tensor later_k = other_k.slice(1, 50, 80), later_v = other_v.slice(1, 50, 80);
      copy_(later_k, random({1, 30, 1, 16}, dtype, 8));
      copy_(later_v, random({1, 30, 1, 16}, dtype, 9));
      const Tensor a = run(k, v), b = run(other_k, other_v);
      CHECK(test::same_bytes(a.slice(1, 0, 50).contiguous(), b.slice(1, 0, 50).contiguous()));
      CHECK(!test::same_bytes(a.slice(1, 50, 80).contiguous(), b.slice(1, 50, 80).contiguous()));
    }
}

TEST_CASE("CLEAR on the device", "[cuda_host]") {
  cuda::emulation::install();
  struct Case {
    std::int64_t height, width, text, radius, down, dim;
  };
  for (const DType dtype : test::kFloats)
    for (const Case& c :
         {Case{9, 10, 3, 4, 0, 16}, {6, 10, 66, 3, 2, 24}, {12, 8, 0, 1, 4, 8}, {5, 7, 2, std::int64_t{1} << 40, 0, 64}})
      for (const std::string_view kernel : kKernels) {
        if (is_left_out(kernel, dtype)) continue;
        const Shape shape{2, c.text + c.height * c.width, 2, c.dim};
        const Tensor weight = random({std::max<std::int64_t>(1, c.down * c.down)}, DType::f32, 4);
        check_same(
            "clear_attention", dtype, {random(shape, dtype, 1), random(shape, dtype, 2), random(shape, dtype, 3), weight},
            [&](auto t) {
              return clear_attention(t[0], t[1], t[2],
                                     {.height = c.height,
                                      .width = c.width,
                                      .text_length = c.text,
                                      .radius = c.radius,
                                      .down_factor = c.down,
                                      .spatial_weight = t[3],
                                      .proportional = c.down > 0,
                                      .impl = t[0].device() == test::kGpu ? kernel : std::string_view()});
            },
            attention_bound(dtype) * 2);
      }
}

}  // namespace vitrine
