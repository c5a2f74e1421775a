#include <vitrine/attention2d/attention.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <attention2d/compare.h>
#include <catch.h>
#include <fmt/format.h>
#include <layers/random.h>

#include <vitrine/layers/context.h>

namespace vitrine {
namespace {

using cpu::Isa;
using test::contains;
using test::difference;
using test::Random;
using test::tolerance_of;

std::vector<std::string> flash() {
  return test::implementations("flash", {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16});
}

Tensor run(const Tensor& q, const Tensor& k, const Tensor& v, AttentionOptions options, const std::string& impl) {
  options.impl = impl;
  return attention(q, k, v, options);
}

// Booleans, true where a value of [-1, 1) is above `threshold`.
Tensor random_mask(Random& random, const Shape& shape, float threshold) {
  const Tensor values = random.tensor(shape);
  Tensor mask = Tensor::empty(shape, DType::boolean);
  for (std::int64_t i = 0; i < mask.numel(); ++i) mask.data<bool>()[i] = values.data<float>()[i] > threshold;
  return mask;
}

void check_against_reference(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  const Tensor expected = run(q, k, v, options, "reference");
  for (const std::string& impl : flash()) {
    INFO(impl);
    CHECK(difference(run(q, k, v, options, impl), expected, tolerance_of(q.dtype())) == "");
  }
}

TEST_CASE("tiled attention is the reference on random problems") {
  Random random(1);
  for (int round = 0; round < 60; ++round) {
    const DType dtype = round % 3 == 0 ? DType::bf16 : round % 7 == 0 ? DType::f16 : DType::f32;
    const std::int64_t B = random.integer(1, 2), Hk = random.integer(1, 2), Hq = Hk * random.integer(1, 3);
    const std::int64_t Lq = random.integer(1, 70), Lk = random.integer(1, 90), D = random.integer(1, 80),
                       Dv = random.integer(1, 80);
    AttentionOptions options;
    options.is_causal = random.integer(0, 3) == 0;
    if (random.integer(0, 3) == 0) options.scale = 0.7f;
    const auto one_or = [&](std::int64_t size) { return random.integer(0, 1) ? size : 1; };
    if (random.integer(0, 2) == 0)
      options.bias = random.tensor({one_or(B), one_or(Hq), one_or(Lq), Lk});
    else if (random.integer(0, 1) == 0)
      options.distance_bias = random.tensor({Hq, Lq + Lk - 1});
    if (random.integer(0, 2) == 0) options.mask = random_mask(random, {one_or(B), one_or(Hq), one_or(Lq), Lk}, -0.2f);
    INFO(fmt::format("round {}: B {} Hq {} Hk {} Lq {} Lk {} D {} Dv {} {}", round, B, Hq, Hk, Lq, Lk, D, Dv, name_of(dtype)));
    check_against_reference(random.tensor({B, Lq, Hq, D}).to(dtype), random.tensor({B, Lk, Hk, D}).to(dtype),
                            random.tensor({B, Lk, Hk, Dv}).to(dtype), options);
  }
}

TEST_CASE("tiled attention takes every head size and every number of keys around its vectors") {
  Random random(2);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (std::int64_t n = 1; n <= 66; ++n) {
      INFO(fmt::format("{} {}", n, name_of(dtype)));
      check_against_reference(random.tensor({1, 3, 1, n}).to(dtype), random.tensor({1, n, 1, n}).to(dtype),
                              random.tensor({1, n, 1, n}).to(dtype), {});
    }
  }
}

TEST_CASE("tiled attention over several blocks of keys") {
  Random random(3);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t keys : {511, 512, 513, 1100}) {
      for (const bool is_causal : {false, true}) {
        INFO(fmt::format("{} keys {} causal {}", keys, name_of(dtype), is_causal));
        AttentionOptions options;
        options.is_causal = is_causal;
        // growing logits: every block raises the running maximum
        Tensor k = random.tensor({1, keys, 1, 24});
        for (std::int64_t i = 0; i < k.numel(); ++i)
          k.data<float>()[i] *= static_cast<float>(i / 24) / static_cast<float>(keys) * 4;
        check_against_reference(random.tensor({1, 70, 2, 24}).to(dtype), k.to(dtype), random.tensor({1, keys, 1, 40}).to(dtype),
                                options);
      }
    }
  }
  AttentionOptions masked;
  masked.mask = random_mask(random, {1, 1, 20, 1100}, 0.0f);
  for (std::int64_t i = 0; i < 600; ++i) masked.mask.data<bool>()[i] = false;  // the first query sees nothing of the first block
  check_against_reference(random.tensor({1, 20, 1, 16}), random.tensor({1, 1100, 1, 16}), random.tensor({1, 1100, 1, 16}),
                          masked);
}

TEST_CASE("a bias of distances is the bias that holds them") {
  Random random(7);
  const std::int64_t lq = 21, lk = 35;
  const Tensor q = random.tensor({2, lq, 3, 16}), k = random.tensor({2, lk, 3, 16}), v = random.tensor({2, lk, 3, 16});
  AttentionOptions written, short_form;
  short_form.distance_bias = random.tensor({3, lq + lk - 1});
  written.bias = Tensor::empty({1, 3, lq, lk});
  for (std::int64_t h = 0; h < 3; ++h)
    for (std::int64_t i = 0; i < lq; ++i)
      for (std::int64_t j = 0; j < lk; ++j)
        written.bias.data<float>()[(h * lq + i) * lk + j] =
            short_form.distance_bias.data<float>()[h * (lq + lk - 1) + j - i + lq - 1];
  for (const std::string impl : {"", "reference"})
    CHECK(difference(run(q, k, v, short_form, impl), run(q, k, v, written, impl), 0) == "");
  short_form.bias = written.bias;
  CHECK_THROWS_WITH(attention(q, k, v, short_form), contains("expected one of them"));
  short_form.bias = {};
  short_form.distance_bias = random.tensor({3, lq + lk});
  CHECK_THROWS_WITH(attention(q, k, v, short_form), contains("distance_bias is f32 [3, 56], expected f32 [3, 55]"));
}

TEST_CASE("attention reads views of a fused projection at any alignment") {
  Random random(4);
  const Tensor fused = random.tensor({2, 19, 3 * 2 * 17 + 5});
  for (std::int64_t shift = 0; shift < 5; ++shift) {
    const Tensor qkv = fused.slice(2, shift, shift + 3 * 2 * 17).unflatten(2, {3, 2, 17});
    const Tensor q = qkv.select(2, 0), k = qkv.select(2, 1), v = qkv.select(2, 2);
    const Tensor expected = attention(q.contiguous(), k.contiguous(), v.contiguous(), {.impl = "reference"});
    for (const std::string& impl : flash()) CHECK(difference(run(q, k, v, {}, impl), expected, 1e-5) == "");
  }
}

TEST_CASE("a query that sees no key gives zeros") {
  Random random(5);
  const Tensor q = random.tensor({1, 4, 2, 16}), k = random.tensor({1, 9, 2, 16}), v = random.tensor({1, 9, 2, 16});
  AttentionOptions options;
  options.mask = Tensor::zeros({1, 1, 4, 9}, DType::boolean);
  for (std::int64_t j = 0; j < 9; ++j) options.mask.data<bool>()[j] = true;  // the first query sees all
  std::vector<std::string> all = flash();
  all.push_back("reference");
  for (const std::string& impl : all) {
    const Tensor out = run(q, k, v, options, impl);
    INFO(impl);
    CHECK(difference(out.slice(1, 1, 4), Tensor::zeros({1, 3, 2, 16}), 0) == "");
    CHECK(difference(out.slice(1, 0, 1), attention(q.slice(1, 0, 1), k, v), 1e-5) == "");
  }
  const Tensor none = attention(q, k.slice(1, 0, 0), v.slice(1, 0, 0));
  CHECK(difference(none, Tensor::zeros({1, 4, 2, 16}), 0) == "");
}

TEST_CASE("causal attention never looks ahead") {
  Random random(7);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto& [queries, keys] : {std::pair(40, 40), std::pair(30, 50), std::pair(50, 30), std::pair(560, 560)}) {
      const Tensor q = random.tensor({1, queries, 2, 24}).to(dtype);
      const Tensor k = random.tensor({1, keys, 1, 24}), v = random.tensor({1, keys, 1, 24});
      const std::int64_t seen = random.integer(1, std::min(queries, keys) - 1);  // by the queries that are compared
      Tensor other_k = k.clone(), other_v = v.clone();
      for (std::int64_t i = seen * 24; i < keys * 24; ++i) other_k.data<float>()[i] = other_v.data<float>()[i] = 3;
      std::vector<std::string> all = flash();
      all.push_back("reference");
      for (const std::string& impl : all) {
        INFO(fmt::format("{} {} of {} queries, {} keys, {}", impl, seen, queries, keys, name_of(dtype)));
        const Tensor out = run(q, k.to(dtype), v.to(dtype), {.is_causal = true}, impl);
        const Tensor other = run(q, other_k.to(dtype), other_v.to(dtype), {.is_causal = true}, impl);
        CHECK(test::same_bits(other.slice(1, 0, seen), out.slice(1, 0, seen)));
        CHECK(!test::same_bits(other.slice(1, seen, seen + 1), out.slice(1, seen, seen + 1)));
      }
    }
  }
}

TEST_CASE("attention does not depend on the order of a batch nor on the number of threads") {
  Random random(6);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor qkv = random.tensor({3, 61, 3, 3, 20}).to(dtype);
    const auto attend = [](const Tensor& x, bool is_causal) {
      return attention(x.select(2, 0), x.select(2, 1), x.select(2, 2), {.is_causal = is_causal});
    };
    for (const bool is_causal : {false, true}) {
      Context one({.threads = 1, .device = {}}), many({.threads = 5, .device = {}});
      const auto under = [&](Context& context) {
        const ContextScope scope(context);
        return attend(qkv, is_causal);
      };
      const Tensor expected = under(one);
      CHECK(test::same_bits(under(many), expected));
      for (std::int64_t b = 0; b < 3; ++b)
        CHECK(test::same_bits(attend(qkv.slice(0, b, b + 1), is_causal), expected.slice(0, b, b + 1)));
    }
  }
}

TEST_CASE("attention refuses what does not fit, in one line") {
  const Tensor q = Tensor::zeros({2, 5, 4, 8}), k = Tensor::zeros({2, 7, 2, 8});
  CHECK_THROWS_WITH(attention(q.select(0, 0), k, k), contains("q is [5, 4, 8], expected [B, L, heads, head_dim]"));
  CHECK_THROWS_WITH(attention(q, Tensor::zeros({2, 7, 3, 8}), Tensor::zeros({2, 7, 3, 8})),
                    contains("4 query heads are not a multiple of 3 key heads"));
  CHECK_THROWS_WITH(attention(q, k, Tensor::zeros({2, 6, 2, 8})), contains("do not fit"));
  CHECK_THROWS_WITH(attention(q, Tensor::zeros({2, 7, 2, 8}, DType::bf16), k), contains("k is bf16"));
  CHECK_THROWS_WITH(attention(q, k, k, {.bias = Tensor::zeros({1, 4, 5, 6})}), contains("bias is [1, 4, 5, 6], expected"));
  CHECK_THROWS_WITH(attention(q, k, k, {.mask = Tensor::zeros({1, 4, 5, 7})}), contains("mask is f32, expected"));
  CHECK_THROWS_WITH(attention(q, k, k, {.impl = "magic"}), contains("no implementation 'magic'") &&
                                                               contains("reference (can run)") &&
                                                               contains("flash_scalar (can run)"));
  CHECK_THROWS_WITH(
      attention(Tensor::zeros({1, 2, 1, 600}), Tensor::zeros({1, 2, 1, 600}), Tensor::zeros({1, 2, 1, 600}), {.impl = "flash"}),
      contains("head_dim 600 is above 512"));
}

}  // namespace
}  // namespace vitrine
