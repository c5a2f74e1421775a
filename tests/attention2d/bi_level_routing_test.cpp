#include <vitrine/attention2d/bi_level_routing.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <attention2d/compare.h>
#include <catch.h>
#include <fmt/format.h>
#include <layers/random.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/cpu/routing.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

using test::contains;
using test::difference;
using test::Random;
using test::tolerance_of;
using Uneven = BiLevelRoutingConfig::Uneven;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

TEST_CASE("region means are the means of the tokens that there are, on every target") {
  Random random(1);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (std::int64_t channels = 1; channels <= 40; channels += 3) {
      const Tensor wide = random.tensor({2, 7, 9, channels + 5}, dtype), x = wide.slice(3, 2, channels + 2);
      const Tensor means = region_means(x.to(dtype), {3, 4});
      REQUIRE(means.shape() == Shape{2, 9, channels});
      Tensor expected = Tensor::empty({2, 9, channels}), padded = expected.clone();
      for (std::int64_t i = 0; i < expected.numel(); ++i) {
        const std::int64_t c = i % channels, r = i / channels % 9, b = i / channels / 9;
        double sum = 0, count = 0;
        for (std::int64_t y = r / 3 * 3; y < std::min<std::int64_t>(r / 3 * 3 + 3, 7); ++y)
          for (std::int64_t col = r % 3 * 4; col < std::min<std::int64_t>(r % 3 * 4 + 4, 9); ++col, ++count)
            sum += wide.data<float>()[((b * 7 + y) * 9 + col) * (channels + 5) + 2 + c];
        expected.data<float>()[i] = static_cast<float>(sum / count);
        padded.data<float>()[i] = static_cast<float>(sum / 12);
      }
      CHECK(difference(means, expected, 1e-6) == "");
      CHECK(difference(region_means(x.to(dtype), {3, 4}, true), padded, 1e-6) == "");
      for (const cpu::Isa isa : cpu::available_isas()) {
        std::vector<float> one(static_cast<std::size_t>(channels));
        const Tensor stored = x.to(dtype);
        const auto bytes = static_cast<std::int64_t>(size_of(dtype));
        cpu::routing_kernels(isa).mean[static_cast<int>(dtype)](stored.raw(), 3, 4, stored.stride(1) * bytes,
                                                                stored.stride(2) * bytes, channels, 1.0f / 12, one.data());
        CHECK(difference(Tensor::from(one, {channels}), expected.select(0, 0).select(0, 0), 1e-6) == "");
      }
    }
}

TEST_CASE("routes are the regions of the largest products, on every target") {
  Random random(2);
  for (int round = 0; round < 20; ++round) {
    const std::int64_t R = random.integer(1, 30), C = random.integer(1, 40), topk = random.integer(1, R);
    const Tensor both = random.tensor({2, R, 2 * C}), q = both.slice(2, 0, C), k = both.slice(2, C, 2 * C);
    const Tensor routes = route_regions(q, k, topk);
    REQUIRE(routes.shape() == Shape{2, R, topk});
    for (std::int64_t i = 0; i < 2 * R; ++i) {
      const float* query = both.data<float>() + i * 2 * C;
      const float* keys = both.data<float>() + i / R * R * 2 * C + C;
      std::vector<double> score(static_cast<std::size_t>(R));
      for (std::int64_t j = 0; j < R; ++j)
        for (std::int64_t c = 0; c < C; ++c)
          score[static_cast<std::size_t>(j)] += static_cast<double>(query[c]) * keys[j * 2 * C + c];
      std::vector<double> best = score;
      std::sort(best.rbegin(), best.rend());
      for (std::int64_t t = 0; t < topk; ++t) {
        const std::int32_t chosen = routes.data<std::int32_t>()[i * topk + t];
        CHECK(std::abs(score[static_cast<std::size_t>(chosen)] - best[static_cast<std::size_t>(t)]) <= 1e-5);
      }
      for (const cpu::Isa isa : cpu::available_isas()) {
        std::vector<float> values(static_cast<std::size_t>(topk));
        std::vector<std::int32_t> chosen(values.size());
        cpu::routing_kernels(isa).choose(query, keys, 2 * C, R, C, topk, values.data(), chosen.data());
        CHECK(std::equal(chosen.begin(), chosen.end(), routes.data<std::int32_t>() + i * topk));
      }
    }
  }
  // ties fall to the lower index; NaN is never preferred and harms nobody
  const Tensor same = Tensor::full({1, 5, 3}, 1);
  const Tensor tied = route_regions(same, same, 3);
  for (std::int64_t i = 0; i < 15; ++i) CHECK(tied.data<std::int32_t>()[i] == i % 3);
  Tensor nan = same.clone();
  nan.data<float>()[0] = std::nanf("");
  const Tensor routes = route_regions(same, nan, 5);
  std::vector<std::int32_t> all(routes.data<std::int32_t>(), routes.data<std::int32_t>() + 5);
  std::sort(all.begin(), all.end());
  CHECK(all == std::vector<std::int32_t>{0, 1, 2, 3, 4});
}

// The layer's formula with windows gathered one after another; q, k and v zero-padded to whole regions.
Tensor by_definition(const Weights& w, const BiLevelRoutingConfig& c, const Tensor& input) {
  const bool partial = c.uneven == Uneven::partial;
  const std::int64_t B = input.size(0), n = c.n_win, dim = c.dim, qk = c.qk_dim ? c.qk_dim : dim, heads = c.num_heads;
  const auto padded = [&](const Tensor& t, std::int64_t rows, std::int64_t columns) {
    Tensor p = Tensor::zeros({B, rows, columns, t.size(3)}, t.dtype());
    Tensor inside = p.slice(1, 0, t.size(1)).slice(2, 0, t.size(2));
    copy_(inside, t);
    return p;
  };
  const Tensor x = partial ? input : padded(input, ceil_div(input.size(1), n) * n, ceil_div(input.size(2), n) * n);
  const std::int64_t H = x.size(1), W = x.size(2), rh = H / n, rw = W / n, rows = ceil_div(H, rh), columns = ceil_div(W, rw);
  const Tensor qkv = Linear(w / (partial ? "qkv_linear" : "qkv.qkv"), dim, 2 * qk + dim)(x);
  const Tensor whole = padded(qkv, rows * rh, columns * rw);
  const auto window = [&](std::int64_t b, std::int64_t r, std::int64_t first, std::int64_t size) {  // [tokens, size]
    return whole.slice(0, b, b + 1)
        .slice(1, r / columns * rh, r / columns * rh + rh)
        .slice(2, r % columns * rw, r % columns * rw + rw)
        .slice(3, first, first + size)
        .contiguous()
        .view({rh * rw, size});
  };
  Tensor y = Tensor::empty({B, rows * rh, columns * rw, dim}, x.dtype());
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t r = 0; r < rows * columns; ++r) {
      const auto means = [&](std::int64_t region, std::int64_t first) {
        const std::int64_t there = std::min(rh, H - region / columns * rh) * std::min(rw, W - region % columns * rw);
        const Tensor tokens = window(b, region, first, qk).to(DType::f32);
        std::vector<double> mean(static_cast<std::size_t>(qk));
        for (std::int64_t i = 0; i < tokens.numel(); ++i)
          mean[static_cast<std::size_t>(i % qk)] += tokens.data<float>()[i] / static_cast<double>(there);
        return mean;
      };
      const auto query = means(r, 0);
      std::vector<std::pair<double, std::int64_t>> scores;
      for (std::int64_t j = 0; j < rows * columns; ++j) {
        const auto key = means(j, qk);
        scores.emplace_back(-std::inner_product(query.begin(), query.end(), key.begin(), 0.0), j);
      }
      std::sort(scores.begin(), scores.end());
      std::vector<Tensor> keys, values;
      for (std::int64_t t = 0; t < c.topk; ++t) {
        keys.push_back(window(b, scores[static_cast<std::size_t>(t)].second, qk, qk));
        values.push_back(window(b, scores[static_cast<std::size_t>(t)].second, 2 * qk, dim));
      }
      const auto split = [&](const Tensor& t) { return t.view({1, t.size(0), heads, t.size(1) / heads}); };
      Tensor to = y.slice(0, b, b + 1)
                      .slice(1, r / columns * rh, r / columns * rh + rh)
                      .slice(2, r % columns * rw, r % columns * rw + rw);
      const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(qk)));
      copy_(to, attention(split(window(b, r, 0, qk)), split(concat(keys, 0)), split(concat(values, 0)),
                          {.scale = scale, .impl = "reference"})
                    .view({1, rh, rw, dim}));
    }
  y = y.slice(1, 0, H).slice(2, 0, W).contiguous();
  if (c.side_dwconv) {
    const std::int64_t pad = c.side_dwconv / 2;
    add_(y, Conv2d(w / "lepe", dim, dim, c.side_dwconv, c.side_dwconv,
                   {.pad_h = pad, .pad_w = pad, .groups = dim})(qkv.slice(3, 2 * qk, 2 * qk + dim)));
  }
  y = y.slice(1, 0, input.size(1)).slice(2, 0, input.size(2)).contiguous();
  return Linear(w / (partial ? "output_linear" : "wo"), dim, dim)(y);
}

TEST_CASE("the layers of both repositories are their formulas") {
  struct Case {
    std::int64_t height, width, dim, heads, n_win, topk, side, qk_dim;
    Uneven uneven;
  };
  Random random(3);
  for (const Case& c : {Case{14, 14, 32, 2, 7, 4, 5, 0, Uneven::refuse}, Case{6, 9, 24, 3, 3, 2, 3, 12, Uneven::refuse},
                        Case{8, 4, 16, 1, 4, 16, 0, 0, Uneven::pad}, Case{10, 13, 24, 2, 4, 3, 5, 0, Uneven::pad},
                        Case{3, 11, 16, 4, 4, 1, 7, 8, Uneven::pad}, Case{10, 13, 24, 2, 4, 3, 5, 0, Uneven::partial},
                        Case{7, 5, 16, 1, 2, 5, 0, 0, Uneven::partial}, Case{9, 12, 24, 2, 3, 2, 3, 0, Uneven::partial}})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      INFO(fmt::format("{}x{} n_win {} topk {} {}", c.height, c.width, c.n_win, c.topk, name_of(dtype)));
      const BiLevelRoutingConfig config{.dim = c.dim,
                                        .num_heads = c.heads,
                                        .n_win = c.n_win,
                                        .topk = c.topk,
                                        .side_dwconv = c.side,
                                        .qk_dim = c.qk_dim,
                                        .uneven = c.uneven};
      const Weights w(synthetic_weights(), {.dtype = dtype, .device = {}});
      const BiLevelRoutingAttention layer(w, config);
      const Tensor x = random.tensor({2, c.height, c.width, c.dim}).to(dtype);
      if (dtype == DType::bf16) {  // rounded projections may choose other regions: compare where all are chosen
        if (c.topk != c.n_win * c.n_win) continue;
      }
      const Tensor expected = by_definition(w, config, x);
      CHECK(difference(layer(x), expected, tolerance_of(dtype)) == "");
      CHECK(difference(layer(x, x), add(expected, x), tolerance_of(dtype)) == "");
    }
}

TEST_CASE("routing to all regions is global attention and the convolution") {
  Random random(4);
  const Weights w(synthetic_weights());
  const BiLevelRoutingAttention layer(w, {.dim = 32, .num_heads = 2, .n_win = 3, .topk = 9, .side_dwconv = 5});
  const Tensor x = random.tensor({2, 6, 12, 32});
  const Tensor qkv = Linear(w / "qkv" / "qkv", 32, 96)(x);
  const Tensor tokens = qkv.flatten(1, 2).unflatten(2, {3, 2, 16});
  Tensor y =
      attention(tokens.select(2, 0), tokens.select(2, 1), tokens.select(2, 2), {.scale = static_cast<float>(1 / std::sqrt(32.0))})
          .view({2, 6, 12, 32});
  add_(y, Conv2d(w / "lepe", 32, 32, 5, 5, {.pad_h = 2, .pad_w = 2, .groups = 32})(qkv.slice(3, 64, 96)));
  CHECK(difference(layer(x), Linear(w / "wo", 32, 32)(y), 1e-5) == "");
}

TEST_CASE("bi-level routing does not depend on the order of a batch nor on the number of threads") {
  Random random(5);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const BiLevelRoutingAttention layer(Weights(synthetic_weights(), {.dtype = dtype, .device = {}}),
                                        {.dim = 32, .num_heads = 2, .n_win = 4, .topk = 3, .uneven = Uneven::partial});
    const Tensor x = random.tensor({3, 10, 13, 32}).to(dtype);
    const auto under = [&](int threads) {
      Context context({.threads = threads, .device = {}});
      const ContextScope scope(context);
      return layer(x);
    };
    const Tensor expected = under(1);
    CHECK(test::same_bits(under(5), expected));
    for (std::int64_t b = 0; b < 3; ++b) CHECK(difference(layer(x.slice(0, b, b + 1)), expected.slice(0, b, b + 1), 1e-6) == "");
  }
}

TEST_CASE("bi-level routing refuses what does not fit, in one line") {
  const Tensor map = Tensor::zeros({1, 6, 8, 2, 4}), means = Tensor::zeros({1, 4, 8});
  CHECK_THROWS_WITH(region_means(map.flatten(3, 4), {0, 2}), contains("regions of 0x2 on a map of 6x8"));
  CHECK_THROWS_WITH(region_means(map, {2, 2}), contains("region_means"));
  CHECK_THROWS_WITH(route_regions(means, means, 5), contains("topk is 5, expected 1 to the number of regions, 4"));
  CHECK_THROWS_WITH(route_regions(means, means, 0), contains("topk is 0"));
  CHECK_THROWS_WITH(route_regions(means, Tensor::zeros({1, 3, 8}), 1), contains("k is [1, 3, 8]"));
  const Tensor routes = Tensor::zeros({1, 4, 2}, DType::i32);
  CHECK_THROWS_WITH(routed_attention(map, map, map.select(0, 0), routes, {3, 4}), contains("v is [6, 8, 2, 4]"));
  CHECK_THROWS_WITH(routed_attention(map, map, map, routes, {7, 4}), contains("regions of 7x4 on a map of 6x8"));
  CHECK_THROWS_WITH(routed_attention(map, map, map, routes, {3, 3}),
                    contains("routes are [1, 4, 2], expected contiguous i32 [1, 6, topk]"));
  Tensor far = routes.clone();
  far.data<std::int32_t>()[3] = 4;
  CHECK_THROWS_WITH(routed_attention(map, map, map, far, {3, 4}), contains("a route to region 4, there are 4"));

  const Weights w(synthetic_weights());
  const auto build = [&](BiLevelRoutingConfig config) { return BiLevelRoutingAttention(w / "attn", config); };
  CHECK_THROWS_WITH(build({.dim = 24, .num_heads = 0}), contains("attn: dim 24 is not a multiple of 0 heads"));
  CHECK_THROWS_WITH(build({.dim = 24, .num_heads = 3, .qk_dim = 10}), contains("qk_dim 10 is not a multiple of 3 heads"));
  CHECK_THROWS_WITH(build({.dim = 24, .n_win = 0}), contains("n_win is 0, expected 1 to"));
  CHECK_THROWS_WITH(build({.dim = 24, .side_dwconv = 4}), contains("side_dwconv 4, expected an odd number"));
  const BiLevelRoutingAttention layer = build({.dim = 24, .n_win = 2, .topk = 5});
  CHECK_THROWS_WITH(layer(Tensor::zeros({1, 4, 4, 16})), contains("x is [1, 4, 4, 16], expected [B, H, W, 24]"));
  CHECK_THROWS_WITH(layer(Tensor::zeros({1, 4, 5, 24})), contains("a map of 4x5 cannot be cut into 2x2 regions"));
  CHECK_THROWS_WITH(layer(Tensor::zeros({1, 0, 4, 24})), contains("a map of 0x4"));
  CHECK_THROWS_WITH(layer(Tensor::zeros({1, 4, 4, 24})), contains("topk is 5, a map of 4x4 has 4 regions"));
}

}  // namespace
}  // namespace vitrine
