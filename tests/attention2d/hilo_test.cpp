#include <vitrine/attention2d/hilo.h>

#include <vector>

#include <attention2d/compare.h>
#include <catch.h>
#include <fmt/format.h>
#include <layers/random.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

using test::contains;
using test::difference;
using test::Random;
using test::tolerance_of;

// Each branch from its own projections: windows one after another, averages over windows by pooling.
Tensor by_definition(const Weights& w, const HiLoConfig& c, const Tensor& x) {
  const std::int64_t B = x.size(0), H = x.size(1), W = x.size(2), d = c.dim / c.num_heads, s = c.window_size;
  const std::int64_t lo = s == 1 ? c.num_heads : static_cast<std::int64_t>(static_cast<double>(c.num_heads) * c.alpha),
                     hi = c.num_heads - lo;
  const LinearOptions options{.bias = c.qkv_bias};
  std::vector<Tensor> parts;
  if (hi > 0) {
    const Tensor qkv = Linear(w / "h_qkv", c.dim, 3 * hi * d, options)(x);
    Tensor y = Tensor::empty({B, H, W, hi * d}, x.dtype());
    for (std::int64_t i = 0; i < H; i += s)
      for (std::int64_t j = 0; j < W; j += s) {
        const Tensor window = qkv.slice(1, i, i + s).slice(2, j, j + s).contiguous().view({B, s * s, 3, hi, d});
        Tensor to = y.slice(1, i, i + s).slice(2, j, j + s);
        copy_(to, attention(window.select(2, 0), window.select(2, 1), window.select(2, 2), {.impl = "reference"})
                      .view({B, s, s, hi * d}));
      }
    parts.push_back(Linear(w / "h_proj", hi * d, hi * d)(y));
  }
  if (lo > 0) {
    const Tensor pooled = adaptive_avg_pool2d(x, H / s, W / s);
    const Tensor kv = Linear(w / "l_kv", c.dim, 2 * lo * d, options)(pooled).flatten(1, 2).unflatten(2, {2, lo, d});
    const Tensor q = Linear(w / "l_q", c.dim, lo * d, options)(x).flatten(1, 2).unflatten(2, {lo, d});
    const Tensor y = attention(q, kv.select(2, 0), kv.select(2, 1), {.impl = "reference"});
    parts.push_back(Linear(w / "l_proj", lo * d, lo * d)(y.view({B, H, W, lo * d})));
  }
  return concat(parts, 3);
}

TEST_CASE("HiLo is its formula") {
  Random random(1);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const auto& [heads, window, alpha, height, width] :
         {std::tuple(4, 2, 0.5, 6, 10), std::tuple(12, 2, 0.9, 4, 4), std::tuple(3, 3, 0.4, 9, 6), std::tuple(2, 4, 0.0, 8, 4),
          std::tuple(2, 7, 1.0, 7, 14), std::tuple(5, 1, 0.2, 3, 11)}) {
      INFO(fmt::format("{} heads {} window {} alpha {} map {}x{}", name_of(dtype), heads, window, alpha, height, width));
      const HiLoConfig config{
          .dim = heads * 8, .num_heads = heads, .window_size = window, .alpha = alpha, .qkv_bias = heads % 2 == 0};
      const Weights w(synthetic_weights(), {.dtype = dtype, .device = {}});
      const HiLoAttention layer(w, config);
      const Tensor x = random.tensor({2, height, width, heads * 8}).to(dtype);
      const Tensor expected = by_definition(w, config, x);
      CHECK(difference(layer(x), expected, tolerance_of(dtype)) == "");
      CHECK(difference(layer(x, x), add(expected, x), tolerance_of(dtype)) == "");
    }
}

TEST_CASE("HiLo of window size 1 is multi-head attention") {
  Random random(2);
  const Weights w(synthetic_weights());
  const HiLoAttention layer(w, {.dim = 32, .num_heads = 4, .window_size = 1, .alpha = 0.5, .qkv_bias = true});
  const Tensor x = random.tensor({2, 5, 7, 32}), tokens = x.flatten(1, 2);
  const Tensor weights[] = {w.get("l_q.weight", {32, 32}), w.get("l_kv.weight", {64, 32})},
               biases[] = {w.get("l_q.bias", {32}), w.get("l_kv.bias", {64})};
  const Tensor qkv = Linear(concat(weights, 0), concat(biases, 0), DType::f32)(tokens).unflatten(2, {3, 4, 8});
  const Tensor y = attention(qkv.select(2, 0), qkv.select(2, 1), qkv.select(2, 2)).flatten(2, 3);
  CHECK(difference(layer(x).flatten(1, 2), Linear(w / "l_proj", 32, 32)(y), 1e-5) == "");
}

TEST_CASE("HiLo does not depend on the order of a batch nor on the number of threads") {
  Random random(3);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const HiLoAttention layer(Weights(synthetic_weights(), {.dtype = dtype, .device = {}}), {.dim = 64, .num_heads = 4});
    const Tensor x = random.tensor({3, 6, 10, 64}).to(dtype);
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

TEST_CASE("HiLo refuses what does not fit, in one line") {
  const Weights w(synthetic_weights());
  const auto build = [&](HiLoConfig config) { return HiLoAttention(w / "attn", config); };
  CHECK_THROWS_WITH(build({.dim = 64, .num_heads = 0}), contains("attn: dim 64 is not a multiple of 0 heads"));
  CHECK_THROWS_WITH(build({.dim = 64, .num_heads = 3}), contains("64 is not a multiple of 3 heads"));
  CHECK_THROWS_WITH(build({.dim = 64, .num_heads = 4, .window_size = 0}), contains("window_size is 0"));
  CHECK_THROWS_WITH(build({.dim = 64, .num_heads = 4, .alpha = 1.5}), contains("alpha 1.5, expected 0 to 1"));
  const HiLoAttention layer = build({.dim = 64, .num_heads = 4});
  CHECK_THROWS_WITH(layer(Tensor::zeros({1, 6, 7, 64})), contains("x is [1, 6, 7, 64], expected [B, H, W, 64]"));
  CHECK_THROWS_WITH(layer(Tensor::zeros({1, 6, 8, 32})), contains("x is [1, 6, 8, 32]"));
  CHECK_THROWS_WITH(layer(Tensor::zeros({1, 6, 8, 64}), Tensor::zeros({1, 6, 4, 64})), contains("residual is f32 [1, 6, 4, 64]"));
}

}  // namespace
}  // namespace vitrine
