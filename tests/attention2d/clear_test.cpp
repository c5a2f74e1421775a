#include <vitrine/attention2d/clear.h>

#include <string>
#include <vector>

#include <attention2d/compare.h>
#include <catch.h>
#include <fmt/format.h>
#include <layers/random.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/ops.h>

namespace vitrine {
namespace {

using cpu::Isa;
using test::contains;
using test::difference;
using test::Random;
using test::tolerance_of;

Tensor run(const Tensor& q, const Tensor& k, const Tensor& v, ClearOptions options, const std::string& impl) {
  options.impl = impl;
  return clear_attention(q, k, v, options);
}

std::vector<std::string> discs() {
  return test::implementations("discs", {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16});
}

TEST_CASE("CLEAR's kernels are the reference on random problems") {
  Random random(11);
  for (int round = 0; round < 40; ++round) {
    const DType dtype = round % 4 == 0 ? DType::bf16 : round % 7 == 0 ? DType::f16 : DType::f32;
    const std::int64_t B = random.integer(1, 2), Hk = random.integer(1, 2), Hq = Hk * random.integer(1, 2);
    const std::int64_t D = random.integer(1, 40), Dv = random.integer(1, 40), f = random.integer(0, 3);
    ClearOptions options;
    options.height = random.integer(1, 7) * (f > 0 ? f : 1);
    options.width = random.integer(1, 7) * (f > 0 ? f : 3);
    options.text_length = random.integer(0, 1) * random.integer(1, 40);
    options.radius = random.integer(1, 12);
    options.down_factor = f;
    options.proportional = random.integer(0, 1) == 1;
    if (f > 0) options.spatial_weight = random.tensor({1, 1, 1, f, 1, f, 1});
    const std::int64_t L = options.text_length + options.height * options.width;
    INFO(fmt::format("round {}: {} + {} x {} tokens, radius {} down {} heads {}/{} dims {} {}", round, options.text_length,
                     options.height, options.width, options.radius, f, Hq, Hk, D, Dv));
    const Tensor q = random.tensor({B, L, Hq, D}).to(dtype), k = random.tensor({B, L, Hk, D}).to(dtype),
                 v = random.tensor({B, L, Hk, Dv}).to(dtype);
    const Tensor expected = run(q, k, v, options, "reference");
    for (const std::string& impl : discs()) {
      INFO(impl);
      CHECK(difference(run(q, k, v, options, impl), expected, tolerance_of(dtype)) == "");
    }
  }
}

TEST_CASE("an image wider than a panel, more tokens for all than a block") {
  Random random(12);
  for (const std::int64_t radius : {8, 40})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const ClearOptions options{.height = 3, .width = 300, .text_length = 600, .radius = radius};
      const Tensor x = random.tensor({1, 1500, 3, 1, 24}).to(dtype);
      const Tensor expected = run(x.select(2, 0), x.select(2, 1), x.select(2, 2), options, "reference");
      for (const std::string& impl : discs()) {
        INFO(fmt::format("{} radius {} {}", impl, radius, name_of(dtype)));
        CHECK(difference(run(x.select(2, 0), x.select(2, 1), x.select(2, 2), options, impl), expected, tolerance_of(dtype)) ==
              "");
      }
    }
}

TEST_CASE("a disc that covers the image is global attention over text and image") {
  Random random(13);
  const Tensor q = random.tensor({2, 5 + 54, 2, 16}), k = random.tensor({2, 5 + 54, 2, 16}),
               v = random.tensor({2, 5 + 54, 2, 16});
  const Tensor expected = attention(q, k, v, {.impl = "reference"});
  for (const std::int64_t radius : {std::int64_t{11}, std::int64_t{1} << 40})
    for (const std::string& impl : discs()) {
      INFO(impl);
      const ClearOptions options{.height = 6, .width = 9, .text_length = 5, .radius = radius};
      CHECK(difference(run(q, k, v, options, impl), expected, 1e-5) == "");
    }
}

TEST_CASE("a radius of 1 without text gives each image token its own value") {
  Random random(14);
  const Tensor x = random.tensor({1, 35, 2, 16}), v = random.tensor({1, 35, 2, 16});
  CHECK(difference(run(x, x, v, {.height = 7, .width = 5, .radius = 1}, ""), v, 1e-6) == "");
}

TEST_CASE("the edge of a disc is not in it") {
  Random random(15);
  const Tensor q = random.tensor({1, 81, 1, 16}), k = random.tensor({1, 81, 1, 16}), v = random.tensor({1, 81, 1, 16});
  const auto moved = [&](std::int64_t token) {
    Tensor copy = Tensor::empty(v.shape());
    copy_(copy, v);
    copy.data<float>()[token * 16] += 1;
    return copy;
  };
  const auto center = [&](const Tensor& values) {
    return run(q, k, values, {.height = 9, .width = 9, .radius = 3}, "").slice(1, 40, 41).contiguous();
  };
  CHECK(test::same_bits(center(moved(43)), center(v)));        // dx = 3
  CHECK_FALSE(test::same_bits(center(moved(42)), center(v)));  // dx = 2
  CHECK_FALSE(test::same_bits(center(moved(60)), center(v)));  // dx = dy = 2
}

TEST_CASE("pooled tokens with weights of their mean are averages of blocks, for image queries only") {
  Random random(16);
  const std::int64_t f = 2;
  Tensor weight = Tensor::zeros({f, f});
  for (std::int64_t i = 0; i < f * f; ++i) weight.data<float>()[i] = 0.25f;
  const ClearOptions with{.height = 4, .width = 6, .text_length = 3, .radius = 2, .down_factor = f, .spatial_weight = weight};
  ClearOptions without = with;
  without.down_factor = 0;
  const Tensor x = random.tensor({1, 27, 2, 16});
  const Tensor a = run(x, x, x, with, ""), b = run(x, x, x, without, "");
  CHECK(test::same_bits(a.slice(1, 0, 3).contiguous(), b.slice(1, 0, 3).contiguous()));
  CHECK_FALSE(difference(a, b, 1e-3) == "");
}

TEST_CASE("CLEAR does not depend on the order of a batch nor on the number of threads") {
  Random random(17);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = random.tensor({3, 7 + 13 * 21, 3, 2, 20}).to(dtype);
    const auto attend = [](const Tensor& t) {
      return clear_attention(t.select(2, 0), t.select(2, 1), t.select(2, 2),
                             {.height = 13, .width = 21, .text_length = 7, .radius = 4});
    };
    Context one({.threads = 1, .device = {}}), many({.threads = 5, .device = {}});
    const auto under = [&](Context& context) {
      const ContextScope scope(context);
      return attend(x);
    };
    const Tensor expected = under(one);
    CHECK(test::same_bits(under(many), expected));
    for (std::int64_t b = 0; b < 3; ++b) CHECK(test::same_bits(attend(x.slice(0, b, b + 1)), expected.slice(0, b, b + 1)));
  }
}

TEST_CASE("CLEAR refuses what does not fit, in one line") {
  const Tensor q = Tensor::zeros({1, 20, 2, 16});
  const auto attend = [&](const ClearOptions& options) { return clear_attention(q, q, q, options); };
  const ClearOptions good{.height = 3, .width = 6, .text_length = 2, .radius = 2};
  const auto with = [&](auto change) {
    ClearOptions options = good;
    change(options);
    return options;
  };
  CHECK_NOTHROW(attend(good));
  CHECK_THROWS_WITH(attend(with([](auto& o) { o.text_length = 3; })), contains("20 tokens, expected 3 of text + 3 x 6"));
  CHECK_THROWS_WITH(attend(with([](auto& o) { o.height = 0; })), contains("expected 2 of text + 0 x 6"));
  CHECK_THROWS_WITH(attend(with([](auto& o) { o.height = std::int64_t{1} << 62; })), contains("20 tokens"));
  CHECK_THROWS_WITH(attend(with([](auto& o) { o.radius = 0; })), contains("radius is 0"));
  CHECK_THROWS_WITH(attend(with([](auto& o) { o.down_factor = 2; })), contains("a divisor of 3 and 6"));
  CHECK_THROWS_WITH(attend(with([](auto& o) { o.down_factor = -1; })), contains("down_factor is -1"));
  CHECK_THROWS_WITH(attend(with([](auto& o) { o.down_factor = 3; })), contains("spatial_weight is undefined"));
  CHECK_THROWS_WITH(attend(with([](auto& o) {
                      o.down_factor = 3, o.spatial_weight = Tensor::zeros({2, 3});
                    })),
                    contains("spatial_weight is f32 [2, 3], expected f32 with 3 x 3"));
  CHECK_THROWS_WITH(attend(with([](auto& o) { o.impl = "nothing"; })),
                    contains("no implementation 'nothing'") && contains("reference (can run)"));
  CHECK_THROWS_WITH(clear_attention(q, q, Tensor::zeros({1, 19, 2, 16}), good), contains("do not fit"));
  CHECK_THROWS_WITH(clear_attention(q, Tensor::zeros({1, 20, 3, 16}), Tensor::zeros({1, 20, 3, 16}), good),
                    contains("2 query heads are not a multiple of 3 key heads"));
  CHECK_THROWS_WITH(clear_attention(q.to(DType::bf16), q, q, good), contains("k is f32, expected q's type"));
  CHECK_THROWS_WITH(clear_attention(Tensor(), q, q, good), contains("q is undefined"));
  CHECK_THROWS_WITH(clear_attention(q.slice(3, 0, 0), q.slice(3, 0, 0), q, good), contains("head_dim is 0"));
}

}  // namespace
}  // namespace vitrine
