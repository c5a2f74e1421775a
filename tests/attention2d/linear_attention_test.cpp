#include <vitrine/attention2d/linear_attention.h>

#include <cmath>
#include <string>
#include <vector>

#include <attention2d/compare.h>
#include <attention2d/tokens.h>
#include <catch.h>
#include <fmt/format.h>
#include <layers/random.h>

#include <vitrine/attention2d/channel_attention.h>
#include <vitrine/attention2d/fast_attention.h>
#include <vitrine/attention2d/flow_attention.h>
#include <vitrine/layers/ops.h>

namespace vitrine {
namespace {

using cpu::Isa;
using test::contains;
using test::difference;
using test::each_pair;
using test::Random;
using test::same_bits_on_threads;
using test::tolerance_of;

std::vector<std::string> fused() { return test::implementations("fused", {Isa::scalar, Isa::avx2, Isa::avx512}); }

constexpr FeatureMap kQueryMaps[] = {FeatureMap::identity,       FeatureMap::relu, FeatureMap::elu1,
                                     FeatureMap::leaky_relu,     FeatureMap::exp,  FeatureMap::sigmoid,
                                     FeatureMap::channel_softmax};

double phi(FeatureMap map, double x) {
  switch (map) {
    case FeatureMap::relu:
      return std::max(x, 0.0);
    case FeatureMap::elu1:
      return x > 0 ? x + 1 : std::exp(x);
    case FeatureMap::leaky_relu:
      return x < 0 ? 0.01 * x : x;
    case FeatureMap::exp:
      return std::exp(x);
    case FeatureMap::sigmoid:
      return 1 / (1 + std::exp(-x));
    default:
      return x;
  }
}

TEST_CASE("linear attention is its quadratic form") {
  Random random(1);
  for (const FeatureMap map :
       {FeatureMap::relu, FeatureMap::elu1, FeatureMap::exp, FeatureMap::sigmoid, FeatureMap::leaky_relu, FeatureMap::identity}) {
    const Tensor q = random.tensor({2, 21, 2, 20}), k = random.tensor({2, 34, 2, 20}), v = random.tensor({2, 34, 2, 24});
    const double eps = 0.5;  // large enough to be seen
    const Tensor expected = each_pair(
        q, k, v,
        [&](const std::vector<double>& a, const std::vector<double>& b, std::int64_t) {
          double sum = 0;
          for (std::size_t d = 0; d < a.size(); ++d) sum += phi(map, 0.3 * a[d]) * phi(map, 0.3 * b[d]);
          return sum;
        },
        [&](double weight, double total) { return weight / (total + eps); });
    const Tensor mean = each_pair(
        q, k, v,
        [&](const std::vector<double>& a, const std::vector<double>& b, std::int64_t) {
          double sum = 0;
          for (std::size_t d = 0; d < a.size(); ++d) sum += phi(map, 0.3 * a[d]) * phi(map, 0.3 * b[d]);
          return sum;
        },
        [&](double weight, double total) { return weight / (total + 34 * eps); });
    const bool may_be_negative = map == FeatureMap::identity || map == FeatureMap::leaky_relu;
    for (std::string impl : fused()) {
      INFO(impl << " map " << static_cast<int>(map));
      LinearAttentionOptions options{
          .query_map = map, .key_map = map, .feature_scale = 0.3f, .eps = static_cast<float>(eps), .impl = impl};
      CHECK(difference(linear_attention(q, k, v, options), expected, may_be_negative ? 1e-3 : 1e-5) == "");
      options.normalizer = LinearNormalizer::mean;
      CHECK(difference(linear_attention(q, k, v, options), mean, may_be_negative ? 1e-3 : 1e-5) == "");
    }
  }
}

TEST_CASE("the kernels of linear attention are the reference on random problems") {
  Random random(2);
  for (int round = 0; round < 120; ++round) {
    const DType dtype = round % 4 == 1 ? DType::bf16 : round % 7 == 2 ? DType::f16 : DType::f32;
    const std::int64_t B = random.integer(1, 2), H = random.integer(1, 3), D = random.integer(1, 70), Dv = random.integer(1, 70);
    const bool is_long = round % 6 == 0;  // several chunks
    const std::int64_t keys = random.integer(1, is_long ? 900 : 90);
    const std::int64_t queries = round % 3 == 0 ? keys : random.integer(1, 150);
    LinearAttentionOptions options;
    options.query_map = kQueryMaps[random.integer(0, 6)];
    options.key_map = round % 5 == 0 ? FeatureMap::token_softmax : kQueryMaps[random.integer(0, 6)];
    options.feature_scale = 0.5f;
    options.eps = 1.0f;
    options.scale = 1.5f;
    options.normalizer = static_cast<LinearNormalizer>(random.integer(0, 3));
    // A sum of features of either sign may come near -eps: those are compared without the division.
    const auto is_signed = [](FeatureMap map) { return map == FeatureMap::identity || map == FeatureMap::leaky_relu; };
    if (is_signed(options.query_map) || is_signed(options.key_map))
      options.normalizer = random.integer(0, 1) ? LinearNormalizer::none : LinearNormalizer::subtract;
    if (options.key_map != FeatureMap::token_softmax && options.normalizer != LinearNormalizer::subtract && round % 2)
      options.key_weights = affine(random.tensor({B, H, keys}), 0.5f, 1.0f);
    if (round % 3 == 1) options.query_weights = random.tensor({B, H, queries});
    if (queries == keys && D % 2 == 0 && options.key_map != FeatureMap::token_softmax &&
        options.normalizer != LinearNormalizer::subtract) {
      options.sin = random.tensor({keys, D});
      options.cos = random.tensor({keys, D});
    }
    // k and v are views of one tensor, as in a fused projection; other tests have q so, too
    const Tensor q = random.tensor({B, queries, H, D}).to(dtype);
    const Tensor kv = random.tensor({B, keys, H, D + Dv}).to(dtype), k = kv.slice(3, 0, D), v = kv.slice(3, D, D + Dv);
    options.impl = "reference";
    const Tensor expected = linear_attention(q, k, v, options);
    for (const std::string& impl : fused()) {
      INFO(fmt::format("round {}: {} q {} k {} Dv {} {} maps {} {} normalizer {}", round, impl, q.shape().to_string(),
                       k.shape().to_string(), Dv, name_of(dtype), static_cast<int>(options.query_map),
                       static_cast<int>(options.key_map), static_cast<int>(options.normalizer)));
      options.impl = impl;
      CHECK(difference(linear_attention(q, k, v, options), expected, tolerance_of(dtype)) == "");
    }
  }
}

TEST_CASE("every head size and number of tokens around the kernels' vectors and tiles") {
  Random random(3);
  for (std::int64_t n = 1; n <= 70; ++n) {
    const Tensor x = random.tensor({1, n, 3, 1, n});
    LinearAttentionOptions options{.query_map = FeatureMap::elu1, .key_map = FeatureMap::elu1, .impl = "reference"};
    const Tensor expected = linear_attention(x.select(2, 0), x.select(2, 1), x.select(2, 2), options);
    for (const std::string& impl : fused()) {
      INFO(impl << " " << n);
      options.impl = impl;
      CHECK(difference(linear_attention(x.select(2, 0), x.select(2, 1), x.select(2, 2), options), expected, 1e-5) == "");
    }
  }
}

TEST_CASE("one key gives its value") {
  Random random(4);
  const Tensor q = random.tensor({2, 9, 2, 16}), k = random.tensor({2, 1, 2, 16}), v = random.tensor({2, 1, 2, 8});
  const Tensor expected = multiply(Tensor::full({2, 9, 2, 8}, 1.0f), v);
  for (const std::string& impl : fused()) {
    INFO(impl);
    CHECK(difference(linear_attention(q, k, v, {.eps = 0, .impl = impl}), expected, 1e-6) == "");
    CHECK(difference(linear_attention(q, k, v, {.normalizer = LinearNormalizer::subtract, .impl = impl}), expected, 1e-6) == "");
  }
}

TEST_CASE("weights that sum to one leave a constant value alone") {
  Random random(5);
  const Tensor q = random.tensor({1, 40, 2, 16}), k = random.tensor({1, 700, 2, 16}), v = Tensor::full({1, 700, 2, 20}, 3.0f);
  const Tensor expected = Tensor::full({1, 40, 2, 20}, 3.0f);
  for (const LinearNormalizer normalizer : {LinearNormalizer::sum, LinearNormalizer::mean, LinearNormalizer::subtract}) {
    INFO(static_cast<int>(normalizer));
    CHECK(difference(linear_attention(q, k, v, {.normalizer = normalizer, .eps = 0}), expected, 1e-5) == "");
  }
  const Tensor softened = linear_attention(
      q, k, v,
      {.query_map = FeatureMap::channel_softmax, .key_map = FeatureMap::token_softmax, .normalizer = LinearNormalizer::none});
  CHECK(difference(softened, expected, 1e-5) == "");
}

TEST_CASE("the order of keys does not matter, nor that of heads and images") {
  Random random(6);
  const Tensor q = random.tensor({2, 30, 3, 24}), k = random.tensor({2, 300, 3, 24}), v = random.tensor({2, 300, 3, 24});
  const auto reversed = [](const Tensor& x, int axis) {
    std::vector<Tensor> parts;
    for (std::int64_t i = x.size(axis); i-- > 0;) parts.push_back(x.slice(axis, i, i + 1));
    return concat(parts, axis);
  };
  const Tensor expected = linear_attention(q, k, v);
  CHECK(difference(linear_attention(q, reversed(k, 1), reversed(v, 1)), expected, 1e-5) == "");
  for (const int axis : {0, 2}) {
    INFO(axis);
    const Tensor turned = linear_attention(reversed(q, axis), reversed(k, axis), reversed(v, axis));
    CHECK(test::same_bits(reversed(turned, axis), expected));
  }
}

TEST_CASE("softmax over tokens keeps large logits finite across chunks") {
  Random random(7);
  const Tensor q = random.tensor({1, 5, 1, 8}), k = affine(random.tensor({1, 1100, 1, 8}), 3000.0f, 0.0f),
               v = random.tensor({1, 1100, 1, 8});
  LinearAttentionOptions options{
      .query_map = FeatureMap::channel_softmax, .key_map = FeatureMap::token_softmax, .normalizer = LinearNormalizer::none};
  options.impl = "reference";
  const Tensor expected = linear_attention(q, k, v, options);
  for (const std::string& impl : fused()) {
    INFO(impl);
    options.impl = impl;
    CHECK(difference(linear_attention(q, k, v, options), expected, 1e-5) == "");
  }
}

TEST_CASE("no key in sight gives zeros") {
  const Tensor q = Tensor::full({1, 4, 1, 8}, -1.0f), v = Tensor::full({1, 4, 1, 8}, 2.0f);
  const Tensor y = linear_attention(q, q, v, {.query_map = FeatureMap::relu, .key_map = FeatureMap::relu, .eps = 1e-5f});
  CHECK(difference(y, Tensor::zeros({1, 4, 1, 8}), 0) == "");
}

TEST_CASE("linear attentions do not depend on the number of threads") {
  Random random(8);
  const Tensor qkv = random.tensor({2, 1000, 3, 3, 40});
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = qkv.to(dtype), q = x.select(2, 0), k = x.select(2, 1), v = x.select(2, 2);
    CHECK(same_bits_on_threads([&] { return linear_attention(q, k, v); }));
    CHECK(same_bits_on_threads([&] { return linear_attention(q, k, v, {.key_map = FeatureMap::token_softmax}); }));
    CHECK(same_bits_on_threads([&] { return linear_attention(q, k, v, {.normalizer = LinearNormalizer::subtract}); }));
    CHECK(same_bits_on_threads([&] { return channel_attention(q, k, v); }));
    CHECK(same_bits_on_threads([&] { return flow_attention(q, k, v); }));
    CHECK(same_bits_on_threads([&] { return fast_attention(q, k, v, {.order = 2}); }));
    CHECK(same_bits_on_threads([&] { return feature_sums(k, FeatureMap::elu1); }));
  }
}

TEST_CASE("sums of features and their products with a vector") {
  Random random(9);
  const Tensor all = random.tensor({2, 300, 2, 2, 21}), x = all.select(2, 1), weights = random.tensor({2, 2, 300}),
               u = random.tensor({2, 2, 21});
  Tensor sums = Tensor::zeros({2, 2, 21}), dots = Tensor::zeros({2, 2, 300});
  for (std::int64_t row = 0; row < 4; ++row)
    for (std::int64_t j = 0; j < 300; ++j) {
      const Tensor token = x.select(0, row / 2).select(0, j).select(0, row % 2);
      double dot = 0;
      for (std::int64_t d = 0; d < 21; ++d) {
        const double value = phi(FeatureMap::sigmoid, token.data<float>()[d]);
        sums.data<float>()[row * 21 + d] += static_cast<float>(weights.data<float>()[row * 300 + j] * value);
        dot += value * u.data<float>()[row * 21 + d];
      }
      dots.data<float>()[row * 300 + j] = static_cast<float>(dot);
    }
  CHECK(difference(feature_sums(x, FeatureMap::sigmoid, weights), sums, 1e-5) == "");
  CHECK(difference(feature_dots(x, FeatureMap::sigmoid, u), dots, 1e-5) == "");
}

TEST_CASE("FAST is the series of the exponential, term by term") {
  Random random(10);
  const auto standardized = [](std::vector<double> x) {
    double mean = 0, variance = 0;
    for (double value : x) mean += value / static_cast<double>(x.size());
    for (double value : x) variance += (value - mean) * (value - mean) / static_cast<double>(x.size());
    for (double& value : x) value = (value - mean) / std::sqrt(variance + 1e-6);
    return x;
  };
  for (const std::int64_t dim : {3, 16, 32}) {
    const Tensor q = random.tensor({2, 13, 2, dim}), k = random.tensor({2, 300, 2, dim}), v = random.tensor({2, 300, 2, 20});
    for (const int order : {1, 2}) {
      const double scale = order == 1 ? 0.01 : 0.4;  // of order 1: weights stay positive
      const Tensor expected = each_pair(
          q, k, v,
          [&](const std::vector<double>& a, const std::vector<double>& b, std::int64_t) {
            const std::vector<double> x = standardized(a), y = standardized(b);
            double s = 0;
            for (std::size_t d = 0; d < x.size(); ++d) s += scale * x[d] * y[d];
            return order == 1 ? 1 + s : 1 + s + s * s / 2;
          },
          [](double weight, double total) { return weight / total; });
      for (std::string impl : fused()) {
        INFO(impl << " head_dim " << dim << " order " << order);
        CHECK(difference(fast_attention(q, k, v, {.order = order, .scale = static_cast<float>(scale), .impl = impl}), expected,
                         1e-5) == "");
      }
      CHECK(difference(fast_attention(q, k, v, {.order = order, .scale = static_cast<float>(scale), .impl = "reference"}),
                       expected, 1e-5) == "");
    }
  }
  const Tensor x = random.tensor({1, 4, 1, 8});
  CHECK_THROWS_WITH(fast_attention(x, x, x, {.order = 3}), contains("order 3, expected 1 or 2"));
  CHECK_THROWS_WITH(fast_attention(x, x, x, {.scale = -1}), contains("scale -1, expected a positive one"));
}

TEST_CASE("channel attention by its formula, on all targets") {
  Random random(11);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const std::int64_t dim : {1, 7, 16, 32, 50}) {
      const Tensor all = random.tensor({2, 300, 3, 2, dim}).to(dtype);
      const Tensor a = all.select(2, 0), b = all.select(2, 1), x = all.select(2, 2);
      const Tensor expected = channel_attention(a, b, x, {.scale = 0.2f, .impl = "reference"});
      for (std::string impl : fused()) {
        INFO(fmt::format("{} {} {}", impl, dim, name_of(dtype)));
        CHECK(difference(channel_attention(a, b, x, {.scale = 0.2f, .impl = impl}), expected, tolerance_of(dtype)) == "");
      }
    }
  // by the roles of tokens and channels turned round: softmax attention between channels whose features are tokens
  const Tensor a = random.tensor({1, 6, 1, 5}), b = random.tensor({1, 6, 1, 5}), x = random.tensor({1, 6, 1, 5});
  const auto turned = [](const Tensor& t) { return permute(t.view({6, 5}), std::array{1, 0}).view({1, 5, 1, 6}); };
  const Tensor expected = each_pair(
      turned(a), turned(b), turned(x),
      [](const std::vector<double>& u, const std::vector<double>& w, std::int64_t) {
        double sum = 0;
        for (std::size_t n = 0; n < u.size(); ++n) sum += 0.7 * u[n] * w[n];
        return std::exp(sum);
      },
      [](double weight, double total) { return weight / total; });
  CHECK(difference(turned(channel_attention(a, b, x, {.scale = 0.7f})).view({30}), expected.view({30}), 1e-5) == "");
  CHECK_THROWS_WITH(channel_attention(a, b, random.tensor({1, 7, 1, 5})), contains("are not of one shape"));
}

TEST_CASE("what linear attention refuses") {
  const Tensor x = Tensor::zeros({1, 6, 2, 8});
  const auto attend = [&](const LinearAttentionOptions& options) { return linear_attention(x, x, x, options); };
  CHECK_THROWS_WITH(linear_attention(x, Tensor::zeros({1, 6, 2, 9}), x), contains("do not fit"));
  CHECK_THROWS_WITH(linear_attention(x, x, Tensor::zeros({1, 5, 2, 8})), contains("do not fit"));
  CHECK_THROWS_WITH(linear_attention(x, x.to(DType::bf16), x), contains("k is bf16, expected q's type"));
  CHECK_THROWS_WITH(linear_attention(x, Tensor(), x), contains("k is undefined, expected [B, L, heads, head_dim]"));
  CHECK_THROWS_WITH(linear_attention(x.view({6, 2, 8}), x, x), contains("q is [6, 2, 8], expected [B, L, heads, head_dim]"));
  CHECK_THROWS_WITH(linear_attention(x, Tensor::zeros({1, 0, 2, 8}), Tensor::zeros({1, 0, 2, 8})), contains("there are no keys"));
  const Tensor none = Tensor::zeros({1, 6, 2, 0}), wide = Tensor::zeros({1, 1, 1, 1025});
  CHECK_THROWS_WITH(linear_attention(none, none, x), contains("head_dim is 0"));
  CHECK_THROWS_WITH(linear_attention(wide, wide, wide), contains("head_dim 1025, expected at most 1024"));
  CHECK_THROWS_WITH(attend({.query_map = FeatureMap::token_softmax}), contains("a map of keys"));
  CHECK_THROWS_WITH(attend({.key_map = FeatureMap::taylor1}), contains("needs the same of queries"));
  const Tensor large = Tensor::zeros({1, 1, 1, 180});
  CHECK_THROWS_WITH(linear_attention(large, large, large, {.query_map = FeatureMap::taylor2, .key_map = FeatureMap::taylor2}),
                    contains("head_dim 180 makes more than 16384 features"));
  CHECK_THROWS_WITH(attend({.key_map = FeatureMap::token_softmax, .key_weights = Tensor::zeros({1, 2, 6})}),
                    contains("take no key_weights"));
  CHECK_THROWS_WITH(attend({.key_weights = Tensor::zeros({1, 6, 2})}),
                    contains("key_weights is f32 [1, 6, 2], expected contiguous f32 [1, 2, 6]"));
  CHECK_THROWS_WITH(attend({.query_weights = Tensor::zeros({1, 2, 6}, DType::bf16)}), contains("query_weights is bf16"));
  CHECK_THROWS_WITH(attend({.sin = Tensor::zeros({6, 8})}), contains("of sin and cos one is missing"));
  CHECK_THROWS_WITH(attend({.sin = Tensor::zeros({6, 8}), .cos = Tensor::zeros({6, 4})}),
                    contains("cos is f32 [6, 4], expected"));
  const Tensor rows = Tensor::zeros({6, 8}), five = Tensor::zeros({1, 5, 2, 8});
  CHECK_THROWS_WITH(linear_attention(x, five, five, {.sin = rows, .cos = rows}), contains("6 queries and 5 keys"));
  const Tensor odd = Tensor::zeros({1, 6, 2, 7}), odd_rows = Tensor::zeros({6, 7});
  CHECK_THROWS_WITH(linear_attention(odd, odd, odd, {.sin = odd_rows, .cos = odd_rows}), contains("head_dim 7 is odd"));
  CHECK_THROWS_WITH(attend({.query_map = FeatureMap::taylor1, .key_map = FeatureMap::taylor1, .sin = rows, .cos = rows}),
                    contains("have no rotary positions"));
  CHECK_THROWS_WITH(attend({.impl = "tiled"}), contains("no implementation 'tiled'") && contains("reference (can run)"));
  CHECK_THROWS_WITH(feature_sums(x, FeatureMap::token_softmax), contains("none of head_dim features a token"));
  CHECK_THROWS_WITH(feature_sums(x, FeatureMap::relu, Tensor::zeros({1, 2, 5})), contains("weights is f32 [1, 2, 5]"));
  CHECK_THROWS_WITH(feature_dots(x, FeatureMap::relu, Tensor()), contains("u is undefined"));
  CHECK_THROWS_WITH(flow_attention(x, five, five), contains("6 queries and 5 keys, expected the same tokens"));
}

}  // namespace
}  // namespace vitrine
