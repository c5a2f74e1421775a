// Linear and channel attention, and what stands beside them, on the device against the CPU's.
#include <catch.h>

#include <vitrine/attention2d/channel_attention.h>
#include <vitrine/attention2d/fast_attention.h>
#include <vitrine/attention2d/flow_attention.h>
#include <vitrine/attention2d/linear_attention.h>

#include "cuda_host/support.h"

namespace vitrine {

using test::check_same;
using test::random;

namespace {

double bound_of(DType dtype) { return 8 * test::rounding(dtype) + 2e-5; }
Tensor whole(const Tensor& t) { return t.defined() ? t.contiguous() : t; }
Tensor positive(const Shape& shape, unsigned seed) { return activate(random(shape, DType::f32, seed), Activation::sigmoid); }

}  // namespace

TEST_CASE("linear attention on the device", "[cuda_host]") {
  cuda::emulation::install();
  struct Case {
    std::int64_t B, queries, keys, heads, dim, value_dim;
    LinearAttentionOptions options;
    bool has_weights = false, turns = false;
  };
  using Map = FeatureMap;
  using Norm = LinearNormalizer;
  const Case cases[] = {
      {1, 1, 1, 1, 1, 1, {}},
      {2, 33, 47, 2, 32, 32, {.query_map = Map::relu, .key_map = Map::relu, .scale = 0.5f}, true},
      {1, 65, 65, 1, 40, 70, {.normalizer = Norm::mean}, true, true},
      {1, 9, 600, 1, 24, 8, {.query_map = Map::channel_softmax, .key_map = Map::token_softmax, .normalizer = Norm::none}},
      {2, 31, 32, 1, 33, 31, {.query_map = Map::exp, .key_map = Map::exp, .feature_scale = 0.2f, .normalizer = Norm::subtract}},
      {1, 20, 20, 1, 12, 16, {.query_map = Map::taylor1, .key_map = Map::taylor1, .feature_scale = 0.3f}},
      {1, 20, 40, 2, 13, 16, {.query_map = Map::taylor2, .key_map = Map::taylor2, .feature_scale = 0.3f}},
      {1, 7, 7, 1, 64, 128, {.query_map = Map::sigmoid, .key_map = Map::leaky_relu, .normalizer = Norm::none}, true},
  };
  for (const DType dtype : test::kFloats)
    for (const Case& c : cases) {
      Tensor u, w, sin, cos;
      if (c.has_weights) {
        u = positive({c.B, c.heads, c.queries}, 4);
        w = positive({c.B, c.heads, c.keys}, 5);
      }
      if (c.turns) {
        sin = random({c.queries, c.dim}, DType::f32, 6);
        cos = random({c.queries, c.dim}, DType::f32, 7);
      }
      INFO(c.queries << " queries, " << c.keys << " keys of " << c.dim);
      check_same(
          "linear_attention", dtype,
          {random({c.B, c.queries, c.heads, c.dim}, dtype, 1), random({c.B, c.keys, c.heads, c.dim}, dtype, 2),
           random({c.B, c.keys, c.heads, c.value_dim}, dtype, 3), u, w, sin, cos},
          [&](auto t) {
            LinearAttentionOptions options = c.options;
            options.query_weights = whole(t[3]);
            options.key_weights = whole(t[4]);
            options.sin = whole(t[5]);
            options.cos = whole(t[6]);
            return linear_attention(t[0], t[1], t[2], options);
          },
          bound_of(dtype) * 4);
    }
}

TEST_CASE("sums of features on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats)
    for (const auto& [tokens, dim] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {300, 33}, {17, 64}})
      for (const FeatureMap map : {FeatureMap::elu1, FeatureMap::channel_softmax}) {
        const Tensor x = random({2, tokens, 2, dim}, dtype, 1), weights = positive({2, 2, tokens}, 2),
                     u = random({2, 2, dim}, DType::f32, 3);
        check_same(
            "feature_sums", DType::f32, {x, weights}, [&](auto t) { return feature_sums(t[0], map, whole(t[1])); }, 2e-5);
        check_same(
            "feature_sums, plain", DType::f32, {x}, [&](auto t) { return feature_sums(t[0], map); }, 2e-5);
        check_same(
            "feature_dots", DType::f32, {x, u}, [&](auto t) { return feature_dots(t[0], map, whole(t[1])); }, 2e-5);
      }
}

TEST_CASE("channel, flow and fast attention on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats)
    for (const std::int64_t dim : {8, 40}) {
      const std::vector<Tensor> qkv{random({2, 70, 2, dim}, dtype, 1), random({2, 70, 2, dim}, dtype, 2),
                                    random({2, 70, 2, dim}, dtype, 3)};
      check_same(
          "channel_attention", dtype, qkv, [](auto t) { return channel_attention(t[0], t[1], t[2], {.scale = 0.1f}); },
          bound_of(dtype));
      check_same(
          "flow_attention", dtype, qkv, [](auto t) { return flow_attention(t[0], t[1], t[2]); }, bound_of(dtype));
      check_same(
          "fast_attention", dtype, qkv, [](auto t) { return fast_attention(t[0], t[1], t[2], {.order = 2}); },
          bound_of(dtype) * 2);
    }
}

}  // namespace vitrine
