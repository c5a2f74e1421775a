#include <vitrine/attention2d/aggregated.h>

#include <algorithm>
#include <string>
#include <vector>

#include <attention2d/compare.h>
#include <catch.h>
#include <fmt/format.h>
#include <layers/random.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

using cpu::Isa;
using test::contains;
using test::difference;
using test::Random;
using test::tolerance_of;

struct Sizes {
  std::int64_t B, H, W, heads, dim, pooled, window;

  std::string describe() const {
    return fmt::format("B {} map {}x{} heads {} dim {} pooled {} window {}", B, H, W, heads, dim, pooled, window);
  }
};

// q, k, v are views into one projection, as in a model.
struct Inputs {
  Tensor qkv, pooled;
  AggregatedOptions options;

  Inputs(Random& random, const Sizes& s, DType dtype) {
    const std::int64_t area = s.window * s.window;
    qkv = random.tensor({s.B, s.H, s.W, 3, s.heads, s.dim}).to(dtype);
    pooled = random.tensor({s.B, s.pooled, 2, s.heads, s.dim}).to(dtype);
    options.window_size = s.window;
    options.query_embedding = random.tensor({s.heads, s.dim});
    options.temperature = random.tensor({s.heads});
    options.local_bias = random.tensor({s.heads, area});
    options.pool_bias = random.tensor({s.heads, s.pooled, s.H * s.W});
    options.learnable_tokens = random.tensor({s.heads, s.dim, area});
    options.learnable_bias = random.tensor({s.heads, area});
  }
  Tensor run(const std::string& impl) const {
    AggregatedOptions o = options;
    o.impl = impl;
    return aggregated_attention(qkv.select(3, 0), qkv.select(3, 1), qkv.select(3, 2), pooled.select(2, 0), pooled.select(2, 1),
                                o);
  }
};

std::vector<std::string> fused() {
  return test::implementations("fused", {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16});
}

TEST_CASE("fused aggregated attention is the reference on random problems") {
  Random random(11);
  for (int round = 0; round < 40; ++round) {
    const DType dtype = round % 4 == 0 ? DType::bf16 : round % 7 == 0 ? DType::f16 : DType::f32;
    const Sizes sizes{random.integer(1, 2),  random.integer(1, 24), random.integer(1, 40), random.integer(1, 3),
                      random.integer(1, 40), random.integer(1, 30), random.integer(1, 6)};
    INFO(fmt::format("round {}: {} {}", round, name_of(dtype), sizes.describe()));
    const Inputs inputs(random, sizes, dtype);
    const Tensor expected = inputs.run("reference");
    for (const std::string& impl : fused()) {
      INFO(impl);
      CHECK(difference(inputs.run(impl), expected, tolerance_of(dtype)) == "");
    }
  }
}

TEST_CASE("aggregated attention takes every width around its tiles, and maps of several bands") {
  Random random(12);
  for (std::int64_t n = 1; n <= 36; ++n) {
    INFO(n);
    const Inputs inputs(random, {1, n % 3 + 1, n, 1, n, n, 3}, DType::f32);
    const Tensor expected = inputs.run("reference");
    for (const std::string& impl : fused()) CHECK(difference(inputs.run(impl), expected, 1e-5) == "");
  }
  const Inputs tall(random, {1, 70, 9, 1, 8, 5, 5}, DType::f32);
  const Tensor expected = tall.run("reference");
  for (const std::string& impl : fused()) CHECK(difference(tall.run(impl), expected, 1e-5) == "");
}

TEST_CASE("without logits and learnable terms the output is the mean of the values seen") {
  Random random(13);
  const Sizes s{2, 6, 9, 2, 12, 4, 3};
  Inputs inputs(random, s, DType::f32);
  AggregatedOptions& o = inputs.options;
  for (Tensor* t : {&o.temperature, &o.local_bias, &o.pool_bias, &o.learnable_tokens, &o.learnable_bias})
    *t = Tensor::zeros(t->shape());
  Tensor expected = Tensor::zeros({s.B, s.H, s.W, s.heads, s.dim});
  float* to = expected.data<float>();
  const Tensor v = inputs.qkv.select(3, 2).contiguous(), pooled = inputs.pooled.select(2, 1).contiguous();
  for (std::int64_t b = 0; b < s.B; ++b)
    for (std::int64_t y = 0; y < s.H; ++y)
      for (std::int64_t x = 0; x < s.W; ++x)
        for (std::int64_t c = 0; c < s.heads * s.dim; ++c) {
          double sum = 0;
          int seen = 0;
          for (std::int64_t ky = std::max<std::int64_t>(y - 1, 0); ky <= std::min(y + 1, s.H - 1); ++ky)
            for (std::int64_t kx = std::max<std::int64_t>(x - 1, 0); kx <= std::min(x + 1, s.W - 1); ++kx, ++seen)
              sum += v.data<float>()[((b * s.H + ky) * s.W + kx) * s.heads * s.dim + c];
          for (std::int64_t j = 0; j < s.pooled; ++j, ++seen)
            sum += pooled.data<float>()[(b * s.pooled + j) * s.heads * s.dim + c];
          *to++ = static_cast<float>(sum / seen);
        }
  for (const std::string& impl : fused()) {
    INFO(impl);
    CHECK(difference(inputs.run(impl), expected, 1e-5) == "");
  }
}

TEST_CASE("aggregated attention does not depend on the number of threads nor on the rest of a batch") {
  const Weights w(synthetic_weights());
  const AggregatedAttention layer(w, {.dim = 48, .num_heads = 2, .window_size = 3, .sr_ratio = 4});
  const Tensor x = Random(14).tensor({3, 17, 22, 48});
  Context one({.threads = 1, .device = {}}), many({.threads = 5, .device = {}});
  const auto under = [&](Context& context) {
    const ContextScope scope(context);
    return layer(x);
  };
  const Tensor expected = under(one);
  CHECK(test::same_bits(under(many), expected));
  for (std::int64_t b = 0; b < 3; ++b) CHECK(difference(layer(x.slice(0, b, b + 1)), expected.slice(0, b, b + 1), 1e-6) == "");
  CHECK(difference(layer(x, x), add(expected, x), 1e-5) == "");
}

TEST_CASE("aggregated attention refuses what does not fit, in one line") {
  Random random(15);
  const Inputs good(random, {1, 5, 6, 2, 8, 4, 3}, DType::f32);
  const auto with = [&](const auto& change) {
    Inputs bad = good;
    change(bad);
    return bad.run("");
  };
  CHECK_THROWS_WITH(with([](Inputs& i) { i.options.window_size = 0; }), contains("window_size 0, expected 1 to"));
  CHECK_THROWS_WITH(with([](Inputs& i) { i.options.window_size = 5; }), contains("local_bias is f32 [2, 9], expected"));
  CHECK_THROWS_WITH(with([](Inputs& i) { i.options.pool_bias = Tensor(); }), contains("pool_bias is undefined"));
  CHECK_THROWS_WITH(with([](Inputs& i) { i.pooled = i.pooled.slice(1, 0, 0); }), contains("no pooled keys"));
  CHECK_THROWS_WITH(with([](Inputs& i) { i.pooled = i.pooled.to(DType::bf16); }),
                    contains("pooled_k is bf16, expected q's type"));
  CHECK_THROWS_WITH(with([&](Inputs& i) { i.pooled = random.tensor({1, 4, 2, 2, 9}); }), contains("do not fit"));
  const Tensor q = good.qkv.select(3, 0), pooled = good.pooled.select(2, 0);
  CHECK_THROWS_WITH(aggregated_attention(q, q.select(1, 0), q, pooled, pooled, good.options),
                    contains("k is [1, 6, 2, 8], expected [B, H, W, heads, head_dim]"));
  CHECK_THROWS_WITH(aggregated_attention(q, q, q, pooled, Tensor(), good.options),
                    contains("pooled_v is undefined, expected [B, P, heads, head_dim]"));

  const Weights w(synthetic_weights());
  CHECK_THROWS_WITH(AggregatedAttention(w, {.dim = 32, .num_heads = 3}), contains("32 is not a multiple of 3 heads"));
  CHECK_THROWS_WITH(AggregatedAttention(w, {.dim = 32, .num_heads = 0}), contains("0 heads"));
  CHECK_THROWS_WITH(AggregatedAttention(w, {.dim = 32, .num_heads = 2, .sr_ratio = 0}), contains("sr_ratio 0"));
  const AggregatedAttention layer(w, {.dim = 32, .num_heads = 2, .sr_ratio = 8});
  CHECK_THROWS_WITH(layer(Tensor::zeros({1, 7, 16, 32})), contains("7 x 16 is smaller than sr_ratio 8"));
  CHECK_THROWS_WITH(layer(Tensor::zeros({1, 8, 8, 31})), contains("expected [B, H, W, 32]"));
}

}  // namespace
}  // namespace vitrine
