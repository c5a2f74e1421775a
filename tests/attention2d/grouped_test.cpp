#include <vitrine/attention2d/grouped.h>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <attention2d/compare.h>
#include <catch.h>
#include <fmt/format.h>
#include <layers/random.h>

#include <vitrine/attention2d/attention.h>
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

Tensor run(const Tensor& q, const Tensor& k, const Tensor& v, GroupedOptions options, const std::string& impl) {
  options.impl = impl;
  return grouped_attention(q, k, v, options);
}

void check_against_reference(const Tensor& q, const Tensor& k, const Tensor& v, const GroupedOptions& options) {
  const Tensor expected = run(q, k, v, options, "reference");
  for (const std::string& impl : flash()) {
    INFO(impl);
    CHECK(difference(run(q, k, v, options, impl), expected, tolerance_of(q.dtype())) == "");
  }
}

Tensor indices(const std::vector<std::int32_t>& values, const Shape& shape) {
  Tensor t = Tensor::empty(shape, DType::i32);
  std::copy(values.begin(), values.end(), t.data<std::int32_t>());
  return t;
}

// A random share of the query tokens, each in one group; holes are -1.
Tensor random_queries(Random& random, std::int64_t images, std::int64_t groups, std::int64_t size, std::int64_t tokens) {
  Tensor t = Tensor::empty({images, groups, size}, DType::i32);
  std::vector<std::int32_t> order(static_cast<std::size_t>(std::max(tokens, groups * size)), -1);
  for (std::int64_t b = 0; b < images; ++b) {
    std::fill(order.begin(), order.end(), -1);
    std::iota(order.begin(), order.begin() + tokens, 0);
    for (std::size_t i = order.size() - 1; i > 0; --i)
      std::swap(order[i], order[static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(i)))]);
    std::copy_n(order.begin(), groups * size, t.data<std::int32_t>() + b * groups * size);
  }
  return t;
}

Tensor random_integers(Random& random, const Shape& shape, std::int64_t least, std::int64_t most) {
  Tensor t = Tensor::empty(shape, DType::i32);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data<std::int32_t>()[i] = static_cast<std::int32_t>(random.integer(least, most));
  return t;
}

TEST_CASE("attention in groups is the reference on random problems") {
  Random random(1);
  for (int round = 0; round < 80; ++round) {
    const DType dtype = round % 3 == 0 ? DType::bf16 : round % 7 == 0 ? DType::f16 : DType::f32;
    const std::int64_t B = random.integer(1, 2), Hk = random.integer(1, 2), Hq = Hk * random.integer(1, 3);
    const std::int64_t Lq = random.integer(1, 90), Lk = random.integer(1, 90), D = random.integer(1, 40),
                       Dv = random.integer(1, 40);
    const std::int64_t G = random.integer(1, 5), Nq = random.integer(1, 40), R = random.integer(1, 8), C = random.integer(1, 8);
    GroupedOptions options;
    options.queries = random_queries(random, random.integer(0, 1) ? B : 1, G, Nq, Lq);
    options.keys = random_integers(random, {random.integer(0, 1) ? B : 1, G, R * C}, -1, Lk - 1);
    if (random.integer(0, 1)) options.pad_key = random.tensor({Hk, D}).to(dtype);
    if (random.integer(0, 1)) options.pad_value = random.tensor({Hk, Dv}).to(dtype);
    if (random.integer(0, 3) == 0) options.scale = 0.7f;
    if (random.integer(0, 1)) {
      const std::int64_t P = random.integer(1, 3);
      options.bias = random.tensor({P, random.integer(0, 1) ? Hq : 1, Nq, R * C});
      if (random.integer(0, 1)) options.pattern = random_integers(random, {G}, 0, P - 1);
    }
    if (random.integer(0, 2) == 0) {
      options.row_bias = random.tensor({random.integer(0, 1) ? B : 1, Lq, Hq, R});
      options.column_bias = random.tensor({random.integer(0, 1) ? B : 1, Lq, Hq, C});
    }
    if (random.integer(0, 2) == 0) options.head_scale = random.tensor({Hq});
    options.is_cosine = random.integer(0, 2) == 0;
    INFO(fmt::format("round {}: B {} Hq {} Hk {} Lq {} Lk {} D {} Dv {} {} {} queries {}x{} keys", round, B, Hq, Hk, Lq, Lk, D,
                     Dv, name_of(dtype), Nq, R, C));
    check_against_reference(random.tensor({B, Lq, Hq, D}).to(dtype), random.tensor({B, Lk, Hk, D}).to(dtype),
                            random.tensor({B, Lk, Hk, Dv}).to(dtype), options);
  }
}

TEST_CASE("groups of more keys than a block") {
  Random random(2);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    GroupedOptions options;
    options.queries = random_queries(random, 1, 2, 60, 110);
    options.keys = random_integers(random, {1, 2, 25 * 45}, -1, 299);
    options.row_bias = random.tensor({1, 110, 2, 25});
    options.column_bias = random.tensor({1, 110, 2, 45});
    for (const bool is_cosine : {false, true}) {
      options.is_cosine = is_cosine;
      check_against_reference(random.tensor({1, 110, 2, 24}).to(dtype), random.tensor({1, 300, 1, 24}).to(dtype),
                              random.tensor({1, 300, 1, 24}).to(dtype), options);
    }
  }
}

TEST_CASE("keys in boxes are bilinear between the tokens of a map") {
  Random random(7);
  for (int round = 0; round < 30; ++round) {
    const DType dtype = round % 3 == 0 ? DType::bf16 : DType::f32;
    const std::int64_t B = random.integer(1, 2), Hk = random.integer(1, 2), H = random.integer(1, 9), W = random.integer(1, 9);
    const std::int64_t G = random.integer(1, 3), D = random.integer(1, 40), Dv = random.integer(1, 40);
    GroupedOptions options;
    options.queries = random_queries(random, 1, G, 5, 12);
    options.map = {H, W};
    options.box_keys = {random.integer(1, 5), random.integer(1, 5)};
    options.boxes = random.tensor({B, G, Hk, 4});
    for (std::int64_t i = 0; i < options.boxes.numel(); ++i) options.boxes.data<float>()[i] *= i % 4 < 2 ? 7.0f : 2.0f;
    options.is_cosine = random.integer(0, 2) == 0;
    INFO(fmt::format("round {}: map {}x{} D {} Dv {} {}", round, H, W, D, Dv, name_of(dtype)));
    check_against_reference(random.tensor({B, 12, 2 * Hk, D}).to(dtype), random.tensor({B, H * W, Hk, D}).to(dtype),
                            random.tensor({B, H * W, Hk, Dv}).to(dtype), options);
  }
  // on the tokens themselves they are the tokens; far away, or nowhere, zeros
  const Tensor x = random.tensor({1, 12, 1, 8});
  std::vector<std::int32_t> all(12);
  std::iota(all.begin(), all.end(), 0);
  GroupedOptions options{.queries = indices(all, {1, 1, 12}),
                         .boxes = Tensor::from(std::vector<float>{0, 0, 1, 1}, {1, 1, 1, 4})};
  options.map = options.box_keys = {3, 4};
  CHECK(test::same_bits(grouped_attention(x, x, x, options), attention(x, x, x)));
  for (const float place : {1e30f, -1e30f, std::numeric_limits<float>::quiet_NaN()}) {
    options.boxes = Tensor::from(std::vector<float>{place, 0, 1, 1}, {1, 1, 1, 4});
    CHECK(difference(grouped_attention(x, x, x, options), Tensor::zeros(x.shape()), 0) == "");
  }
}

TEST_CASE("one group of all tokens is global attention") {
  Random random(3);
  const Tensor q = random.tensor({2, 37, 4, 16}), k = random.tensor({2, 37, 2, 16}), v = random.tensor({2, 37, 2, 24});
  std::vector<std::int32_t> all(37);
  std::iota(all.begin(), all.end(), 0);
  const Tensor bias = random.tensor({1, 4, 37, 37});
  const Tensor expected = attention(q, k, v, {.bias = bias});
  CHECK(test::same_bits(
      grouped_attention(q, k, v, {.queries = indices(all, {1, 1, 37}), .keys = indices(all, {1, 1, 37}), .bias = bias}),
      expected));
  // keys in another order, with their bias
  std::vector<std::int32_t> order = all;
  std::rotate(order.begin(), order.begin() + 11, order.end());
  Tensor rotated = Tensor::empty(bias.shape());
  for (std::int64_t row = 0; row < 4 * 37; ++row)
    for (std::size_t j = 0; j < 37; ++j)
      rotated.data<float>()[row * 37 + static_cast<std::int64_t>(j)] = bias.data<float>()[row * 37 + order[j]];
  CHECK(difference(grouped_attention(q, k, v,
                                     {.queries = indices(all, {1, 1, 37}), .keys = indices(order, {1, 1, 37}), .bias = rotated}),
                   expected, 1e-5) == "");
}

TEST_CASE("queries in no group and groups without keys give zeros") {
  Random random(4);
  const Tensor x = random.tensor({1, 4, 1, 8});
  for (const std::string& impl : {std::string("flash"), std::string("reference")}) {
    const Tensor out = grouped_attention(
        x, x, x, {.queries = indices({2, -1, -1, -1}, {1, 2, 2}), .keys = indices({1, 1, 0, 3}, {1, 2, 2}), .impl = impl});
    CHECK(difference(out.slice(1, 2, 3), x.slice(1, 1, 2), 1e-6) == "");
    for (const std::int64_t token : {0, 1, 3})
      CHECK(difference(out.slice(1, token, token + 1), Tensor::zeros({1, 1, 1, 8}), 0) == "");
  }
  const Tensor none =
      grouped_attention(x, x, x, {.queries = indices({0, 1, 2, 3}, {1, 1, 4}), .keys = Tensor::empty({1, 1, 0}, DType::i32)});
  CHECK(difference(none, Tensor::zeros({1, 4, 1, 8}), 0) == "");
}

TEST_CASE("attention in groups does not depend on the number of threads nor on views") {
  Random random(5);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor qkv = random.tensor({2, 61, 3, 3, 20}).to(dtype);
    GroupedOptions options;
    options.queries = random_queries(random, 1, 3, 21, 61);
    options.keys = random_integers(random, {2, 3, 33}, -1, 60);
    options.bias = random.tensor({1, 3, 21, 33});
    const auto under = [&](int threads, const Tensor& q, const Tensor& k, const Tensor& v) {
      Context context({.threads = threads, .device = {}});
      const ContextScope scope(context);
      return grouped_attention(q, k, v, options);
    };
    const Tensor q = qkv.select(2, 0), k = qkv.select(2, 1), v = qkv.select(2, 2);
    const Tensor expected = under(1, q, k, v);
    CHECK(test::same_bits(under(5, q, k, v), expected));
    CHECK(test::same_bits(under(2, q.contiguous(), k.contiguous(), v.contiguous()), expected));
  }
}

TEST_CASE("attention in groups refuses what does not fit, in one line") {
  const Tensor x = Tensor::zeros({2, 6, 2, 8}), index = indices({0, 1, 2, 3, 4, 5}, {1, 2, 3});
  const auto with = [&](auto change) {
    GroupedOptions o{.queries = index, .keys = index};
    change(o);
    grouped_attention(x, x, x, o);
  };
  using O = GroupedOptions;
  CHECK_NOTHROW(with([](O&) {}));
  CHECK_THROWS_WITH(grouped_attention(x.select(0, 0), x, x, {.queries = index, .keys = index}), contains("q is [6, 2, 8]"));
  CHECK_THROWS_WITH(grouped_attention(x, x.to(DType::bf16), x, {.queries = index, .keys = index}), contains("k is bf16"));
  CHECK_THROWS_WITH(grouped_attention(x, x, x.slice(1, 0, 4), {.queries = index, .keys = index}), contains("do not fit"));
  const Tensor three = Tensor::zeros({2, 6, 3, 8});
  CHECK_THROWS_WITH(grouped_attention(x, three, three, {.queries = index, .keys = index}), contains("2 query heads are not"));
  const Tensor none = Tensor::zeros({2, 6, 2, 0});
  CHECK_THROWS_WITH(grouped_attention(none, none, none, {.queries = index, .keys = index}), contains("head_dim is 0"));
  CHECK_THROWS_WITH(with([](O& o) { o.queries = {}; }),
                    contains("queries is undefined, expected contiguous i32 [1 or 2, groups"));
  CHECK_THROWS_WITH(with([](O& o) { o.keys = Tensor::zeros({3, 2, 3}, DType::i32); }), contains("keys is i32 [3, 2, 3]"));
  CHECK_THROWS_WITH(with([](O& o) { o.keys = Tensor::zeros({1, 3, 3}, DType::i32); }), contains("2 groups of queries, 3 groups"));
  CHECK_THROWS_WITH(with([](O& o) {
                      o.keys = indices({0, 1, 2, 3, 6, 5}, {1, 2, 3});
                    }),
                    contains("keys has index 6, expected -1 to 5"));
  CHECK_THROWS_WITH(with([](O& o) { o.queries = indices({0, 1, 2, 3, -2, 5}, {1, 2, 3}); }), contains("queries has index -2"));
  CHECK_THROWS_WITH(with([](O& o) { o.queries = indices({0, 1, 2, 3, 0, 5}, {1, 2, 3}); }), contains("token 0 is in two groups"));
  CHECK_THROWS_WITH(with([](O& o) {
                      o.pad_key = Tensor::zeros({2, 7});
                    }),
                    contains("pad_key is f32 [2, 7], expected f32 [2, 8]"));
  CHECK_THROWS_WITH(with([](O& o) { o.pad_value = Tensor::zeros({2, 8}, DType::f16); }), contains("pad_value is f16"));
  CHECK_THROWS_WITH(with([](O& o) { o.bias = Tensor::zeros({1, 2, 3, 4}); }), contains("bias is f32 [1, 2, 3, 4], expected"));
  CHECK_THROWS_WITH(with([](O& o) { o.pattern = indices({0}, {1}); }), contains("pattern is i32 [1], expected i32 [2]"));
  CHECK_THROWS_WITH(with([](O& o) { o.pattern = indices({0, 1}, {2}); }), contains("pattern has 1, expected 0 to 0"));
  CHECK_THROWS_WITH(with([](O& o) { o.row_bias = Tensor::zeros({1, 6, 2, 3}); }), contains("one is missing"));
  CHECK_THROWS_WITH(with([](O& o) { o.row_bias = o.column_bias = Tensor::zeros({1, 5, 2, 3}); }), contains("row_bias is f32"));
  CHECK_THROWS_WITH(with([](O& o) {
                      o.row_bias = o.column_bias = Tensor::zeros({1, 6, 2, 2});
                    }),
                    contains("2 rows and 2 columns of bias, expected 3 keys"));
  CHECK_THROWS_WITH(with([](O& o) { o.head_scale = Tensor::zeros({3}); }), contains("head_scale is f32 [3], expected f32 [2]"));
  const Tensor boxes = Tensor::zeros({2, 2, 2, 4});
  CHECK_THROWS_WITH(with([&](O& o) { o.boxes = boxes; }), contains("keys and boxes are both given"));
  const auto boxed = [&](const Tensor& given, std::array<std::int64_t, 2> map, std::array<std::int64_t, 2> keys) {
    return [=](O& o) {
      o.keys = {};
      o.boxes = given;
      o.map = map;
      o.box_keys = keys;
    };
  };
  CHECK_NOTHROW(with(boxed(boxes, {3, 2}, {1, 5})));
  CHECK_THROWS_WITH(with(boxed(Tensor::zeros({2, 2, 2, 3}), {3, 2}, {1, 5})), contains("boxes is f32 [2, 2, 2, 3], expected"));
  CHECK_THROWS_WITH(with(boxed(Tensor::zeros({2, 2, 2, 8}).slice(3, 0, 4), {3, 2}, {1, 5})), contains("boxes are strided"));
  CHECK_THROWS_WITH(with(boxed(boxes, {3, 3}, {1, 5})), contains("the map of boxes is 3x3, expected 6 tokens"));
  CHECK_THROWS_WITH(with(boxed(boxes, {3, 2}, {0, 5})), contains("box_keys is 0x5"));
  CHECK_THROWS_WITH(with([](O& o) { o.impl = "magic"; }), contains("no implementation 'magic'"));
}

}  // namespace
}  // namespace vitrine
