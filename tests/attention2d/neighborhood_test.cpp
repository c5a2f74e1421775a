#include <vitrine/attention2d/neighborhood.h>

#include <array>
#include <string>
#include <vector>

#include <attention2d/compare.h>
#include <catch.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <layers/random.h>

#include <vitrine/attention2d/attention.h>
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

std::vector<std::string> fused() { return test::implementations("fused", {Isa::scalar, Isa::avx2, Isa::avx512}); }

std::vector<std::string> classes() {
  return test::implementations("classes", {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16});
}

std::vector<std::string> tiles() {
  return test::implementations("tiles", {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16});
}

std::vector<std::string> both() {
  std::vector<std::string> names = fused();
  for (const std::string& name : tiles()) names.push_back(name);
  return names;
}

Tensor run(const Tensor& q, const Tensor& k, const Tensor& v, NeighborhoodOptions options, const std::string& impl) {
  options.impl = impl;
  return neighborhood_attention(q, k, v, options);
}

void check_against_reference(const Tensor& q, const Tensor& k, const Tensor& v, const NeighborhoodOptions& options,
                             const std::vector<std::string>& implementations) {
  const Tensor expected = run(q, k, v, options, "reference");
  CHECK(difference(run(q, k, v, options, ""), expected, tolerance_of(q.dtype())) == "");
  for (const std::string& impl : implementations) {
    INFO(impl);
    CHECK(difference(run(q, k, v, options, impl), expected, tolerance_of(q.dtype())) == "");
  }
}

// A problem of random sizes; of the options that only the tiles have where `is_general`.
struct RandomProblem {
  Tensor q, k, v;
  NeighborhoodOptions options;
  std::string text;

  RandomProblem(Random& random, DType dtype, bool is_general) {
    const int axes = static_cast<int>(random.integer(1, 3));
    const std::int64_t B = random.integer(1, 2), Hk = random.integer(1, 2), Hq = Hk * random.integer(1, 2);
    const std::int64_t D = random.integer(1, 40), Dv = random.integer(1, 40);
    Shape shape{B};
    bool has_plain_axes = true;
    for (int a = 0; a < axes; ++a) {
      options.kernel_size[a] = random.integer(1, axes == 1 ? 20 : axes == 2 ? 8 : 4);
      options.dilation[a] = random.integer(1, 3);
      options.stride[a] = is_general ? random.integer(1, options.kernel_size[a]) : 1;
      options.is_causal[a] = is_general && random.integer(0, 1) == 1;
      has_plain_axes = has_plain_axes && options.stride[a] == 1 && !options.is_causal[a];
      const std::int64_t least = options.kernel_size[a] * options.dilation[a];
      shape.push_back(random.integer(least, least + (a + 1 == axes ? 40 : axes == 2 ? 8 : 3)));
    }
    const auto tensor = [&](const Shape& tokens, std::int64_t heads, std::int64_t dim) {
      Shape all = tokens;
      all.push_back(heads);
      all.push_back(dim);
      return random.tensor(all).to(dtype);
    };
    q = tensor(shape, Hq, D);
    k = tensor(shape, Hk, D);
    v = tensor(shape, Hk, Dv);
    if (axes == 2 && has_plain_axes && random.integer(0, 1) == 1)
      options.rpb = random.tensor({Hq, 2 * options.kernel_size[0] - 1, 2 * options.kernel_size[1] - 1});
    if (is_general && random.integer(0, 1) == 1) {
      const Shape tokens{B, random.integer(1, 70)};
      options.additional_keys = tensor(tokens, Hk, D);
      options.additional_values = tensor(tokens, Hk, Dv);
    }
    if (random.integer(0, 5) == 0) options.scale = random.integer(0, 1) == 1 ? 0.7f : -0.3f;
    text = fmt::format("q {} k {} {} kernel {} dilation {} stride {} causal {}", q.shape().to_string(), k.shape().to_string(),
                       name_of(dtype), fmt::join(options.kernel_size, "x"), fmt::join(options.dilation, "x"),
                       fmt::join(options.stride, "x"), fmt::join(options.is_causal, "x"));
  }
};

TEST_CASE("neighborhood kernels are the reference on random problems") {
  Random random(1);
  for (int round = 0; round < 120; ++round) {
    const DType dtype = round % 4 == 0 ? DType::bf16 : round % 7 == 0 ? DType::f16 : DType::f32;
    const bool is_general = round >= 60;
    const RandomProblem p(random, dtype, is_general);
    INFO(fmt::format("round {}: {}", round, p.text));
    check_against_reference(p.q, p.k, p.v, p.options, is_general ? tiles() : both());
  }
}

TEST_CASE("where the stride is the kernel, windows attend to themselves") {
  Random random(21);
  const Tensor x = random.tensor({2, 8, 15, 3, 2, 16});
  NeighborhoodOptions options;
  options.kernel_size = options.stride = {4, 5, 1};
  for (const std::string& impl : tiles()) {
    INFO(impl);
    const Tensor out = run(x.select(3, 0), x.select(3, 1), x.select(3, 2), options, impl);
    for (std::int64_t y = 0; y < 8; y += 4)
      for (std::int64_t w = 0; w < 15; w += 5) {
        const auto window = [&](const Tensor& map) {
          return map.slice(1, y, y + 4).slice(2, w, w + 5).contiguous().view({2, 20, 2, 16});
        };
        const Tensor expected =
            attention(window(x.select(3, 0)), window(x.select(3, 1)), window(x.select(3, 2)), {.impl = "reference"});
        CHECK(difference(window(out), expected, 1e-5) == "");
      }
  }
}

TEST_CASE("causal axes never look ahead") {
  Random random(22);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    NeighborhoodOptions options;
    options.kernel_size = {3, 5, 4};
    options.dilation = {2, 1, 1};
    options.stride = {2, 1, 3};
    options.is_causal = {true, false, true};
    const Tensor q = random.tensor({1, 8, 6, 19, 2, 16}).to(dtype), k = random.tensor({1, 8, 6, 19, 2, 16}).to(dtype),
                 v = random.tensor({1, 8, 6, 19, 2, 16}).to(dtype);
    const auto changed = [&](const Tensor& t, int axis, std::int64_t from) {
      Tensor copy = Tensor::empty(t.shape(), t.dtype());
      copy_(copy, t);
      Tensor later = copy.slice(axis, from, t.size(axis));
      copy_(later, random.tensor(later.shape()).to(dtype));
      return copy;
    };
    for (const auto& [axis, from] : {std::pair(1, std::int64_t{5}), std::pair(3, std::int64_t{10})})
      for (const std::string& impl : tiles()) {
        INFO(impl << " axis " << axis);
        const Tensor before = run(q, k, v, options, impl);
        const Tensor after = run(q, changed(k, axis, from), changed(v, axis, from), options, impl);
        CHECK(test::same_bits(after.slice(axis, 0, from).contiguous(), before.slice(axis, 0, from).contiguous()));
        CHECK_FALSE(test::same_bits(after, before));
      }
  }
}

TEST_CASE("additional tokens are further keys under the same softmax") {
  Random random(23);
  const Tensor x = random.tensor({1, 6, 9, 3, 2, 16}), more = random.tensor({1, 700, 2, 2, 16});
  NeighborhoodOptions options;
  options.kernel_size = {6, 9, 1};
  options.additional_keys = more.select(2, 0);
  options.additional_values = more.select(2, 1);
  const auto tokens = [&](int i) { return x.select(3, i).contiguous().view({1, 54, 2, 16}); };
  const Tensor k = concat(std::array{tokens(1), more.select(2, 0)}, 1), v = concat(std::array{tokens(2), more.select(2, 1)}, 1);
  const Tensor expected = attention(tokens(0), k, v, {.impl = "reference"}).view({1, 6, 9, 2, 16});
  for (const std::string& impl : tiles()) {
    INFO(impl);
    CHECK(difference(run(x.select(3, 0), x.select(3, 1), x.select(3, 2), options, impl), expected, 1e-5) == "");
  }
}

TEST_CASE("long lines, wide windows, large heads") {
  Random random(24);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = random.tensor({1, 700, 3, 1, 24}).to(dtype);
    for (const std::int64_t dilation : {1, 2}) {
      NeighborhoodOptions options;
      options.kernel_size = {255, 1, 1};
      options.dilation = {dilation, 1, 1};
      INFO(name_of(dtype) << " dilation " << dilation);
      check_against_reference(x.select(2, 0), x.select(2, 1), x.select(2, 2), options, tiles());
    }
    const Tensor wide = random.tensor({1, 4, 5, 3, 1, 600}).to(dtype);
    check_against_reference(wide.select(3, 0), wide.select(3, 1), wide.select(3, 2), {.kernel_size = {3, 3, 1}}, tiles());
  }
}

TEST_CASE("fused neighborhood attention takes every width and head size around its vectors") {
  Random random(2);
  for (std::int64_t n = 3; n <= 40; ++n) {
    INFO(n);
    NeighborhoodOptions options;
    options.kernel_size = {3, 3, 1};
    options.rpb = random.tensor({1, 5, 5});
    const Tensor x = random.tensor({1, 5, n, 3, 1, n});
    check_against_reference(x.select(3, 0), x.select(3, 1), x.select(3, 2), options, both());
  }
}

TEST_CASE("kernels wider than a vector") {
  Random random(3);
  NeighborhoodOptions options;
  for (const std::int64_t kernel : {15, 16, 17, 18, 33, 40}) {
    INFO(kernel);
    options.kernel_size = {2, kernel, 1};
    options.rpb = random.tensor({2, 3, 2 * kernel - 1});
    const Tensor x = random.tensor({1, 4, 45, 3, 2, 8});
    check_against_reference(x.select(3, 0), x.select(3, 1), x.select(3, 2), options, both());
  }
}

TEST_CASE("a kernel of the map's size is full attention") {
  Random random(4);
  const Tensor x = random.tensor({2, 6, 9, 3, 2, 16});
  const auto part = [&](int i) { return x.select(3, i); };
  NeighborhoodOptions options;
  options.kernel_size = {6, 9, 1};
  const auto tokens = [&](int i) { return part(i).contiguous().view({2, 54, 2, 16}); };
  const Tensor expected = attention(tokens(0), tokens(1), tokens(2), {.impl = "reference"}).view({2, 6, 9, 2, 16});
  std::vector<std::string> all = both();
  for (const std::string& impl : classes()) all.push_back(impl);
  for (const std::string& impl : all) {
    INFO(impl);
    CHECK(difference(run(part(0), part(1), part(2), options, impl), expected, 1e-5) == "");
  }
}

TEST_CASE("windows that are all of a residue class") {
  Random random(8);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t dilation : {1, 2, 3}) {
      NeighborhoodOptions options;
      options.kernel_size = {5, 7, 1};
      options.dilation = {dilation, 2, 1};
      options.rpb = random.tensor({4, 9, 13});
      const Tensor q = random.tensor({2, 5 * dilation, 14, 4, 24}).to(dtype),
                   k = random.tensor({2, 5 * dilation, 14, 2, 24}).to(dtype);
      const Tensor v = random.tensor({2, 5 * dilation, 14, 2, 20}).to(dtype);
      const Tensor expected = run(q, k, v, options, "reference");
      for (const std::string& impl : classes()) {
        INFO(fmt::format("{} {} dilation {}", impl, name_of(dtype), dilation));
        CHECK(difference(run(q, k, v, options, impl), expected, tolerance_of(dtype)) == "");
      }
    }
  }
  NeighborhoodOptions line;
  line.kernel_size = {6, 1, 1};
  line.dilation = {3, 1, 1};
  const Tensor x = random.tensor({2, 18, 3, 1, 16});
  const Tensor expected = run(x.select(2, 0), x.select(2, 1), x.select(2, 2), line, "reference");
  for (const std::string& impl : classes())
    CHECK(difference(run(x.select(2, 0), x.select(2, 1), x.select(2, 2), line, impl), expected, 1e-5) == "");
}

TEST_CASE("dilation is the same as neighborhoods of each residue class") {
  Random random(5);
  const Tensor x = random.tensor({1, 13, 17, 3, 2, 16});
  NeighborhoodOptions dilated, dense;
  dilated.kernel_size = dense.kernel_size = {3, 5, 1};
  dilated.dilation = {3, 2, 1};
  const Tensor out = run(x.select(3, 0), x.select(3, 1), x.select(3, 2), dilated, "");
  for (std::int64_t ry = 0; ry < 3; ++ry)
    for (std::int64_t rx = 0; rx < 2; ++rx) {
      const std::int64_t rows = (13 - ry + 2) / 3, columns = (17 - rx + 1) / 2;
      Tensor map = Tensor::empty({1, rows, columns, 3, 2, 16}), expected = Tensor::empty({1, rows, columns, 2, 16});
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < columns; ++j) {
          Tensor to = map.select(1, i).select(1, j), to_expected = expected.select(1, i).select(1, j);
          copy_(to, x.select(1, ry + 3 * i).select(1, rx + 2 * j));
          copy_(to_expected, out.select(1, ry + 3 * i).select(1, rx + 2 * j));
        }
      CHECK(difference(run(map.select(3, 0), map.select(3, 1), map.select(3, 2), dense, ""), expected, 1e-5) == "");
    }
}

TEST_CASE("neighborhood attention does not depend on the order of a batch nor on the number of threads") {
  Random random(6);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = random.tensor({3, 11, 19, 3, 2, 20}).to(dtype);
    const Tensor rpb = random.tensor({2, 9, 9});
    const auto attend = [&](const Tensor& map, std::int64_t dilation) {
      return neighborhood_attention(map.select(3, 0), map.select(3, 1), map.select(3, 2),
                                    {.kernel_size = {5, 5, 1}, .dilation = {dilation, dilation, 1}, .rpb = rpb});
    };
    for (const std::int64_t dilation : {1, 2}) {
      Context one({.threads = 1, .device = {}}), many({.threads = 5, .device = {}});
      const auto under = [&](Context& context) {
        const ContextScope scope(context);
        return attend(x, dilation);
      };
      const Tensor expected = under(one);
      CHECK(test::same_bits(under(many), expected));
      for (std::int64_t b = 0; b < 3; ++b)
        CHECK(test::same_bits(attend(x.slice(0, b, b + 1), dilation), expected.slice(0, b, b + 1)));
    }
  }
}

TEST_CASE("NAT's layer pads a map that is smaller than its window, before the projection") {
  const Weights w(synthetic_weights());
  const NeighborhoodAttentionConfig config{.dim = 32, .num_heads = 2, .kernel_size = {5, 5}, .dilation = {2, 1}};
  const NeighborhoodAttention layer(w, config);
  Random random(7);
  const Tensor x = random.tensor({2, 7, 4, 32});
  Tensor padded = Tensor::zeros({2, 10, 5, 32});
  Tensor inside = padded.slice(1, 0, 7).slice(2, 0, 4);
  copy_(inside, x);
  const Tensor expected = layer(padded).slice(1, 0, 7).slice(2, 0, 4);
  CHECK(difference(layer(x), expected, 1e-5) == "");
  CHECK(difference(layer(x, x), add(expected.contiguous(), x), 1e-5) == "");
}

TEST_CASE("a wide window takes the tiles only where no implementation is named") {
  Random random(25);
  const Tensor x = random.tensor({1, 300, 3, 1, 16});
  NeighborhoodOptions options;
  options.kernel_size = {127, 1, 1};
  const auto attend = [&](const std::string& impl) { return run(x.select(2, 0), x.select(2, 1), x.select(2, 2), options, impl); };
  const std::string expected = cpu::isa() >= Isa::avx512 ? "tiles" : "fused";
  CHECK(test::same_bits(attend(""), attend(expected)));
  CHECK_FALSE(test::same_bits(attend("tiles"), attend("fused")));  // the two can be told apart
}

TEST_CASE("neighborhood attention refuses what does not fit, in one line") {
  const Tensor q = Tensor::zeros({1, 9, 8, 2, 16});
  const auto attend = [&](const NeighborhoodOptions& options) { return neighborhood_attention(q, q, q, options); };
  CHECK_THROWS_WITH(attend({.kernel_size = {7, 9, 1}}), contains("axis 1 of size 8 with kernel_size 9 and dilation 1"));
  CHECK_THROWS_WITH(attend({.kernel_size = {5, 5, 1}, .dilation = {2, 1, 1}}), contains("axis 0 of size 9"));
  CHECK_THROWS_WITH(attend({.kernel_size = {3, 3, 1}, .stride = {4, 1, 1}}),
                    contains("stride 4, expected 1 to its kernel_size 3"));
  CHECK_THROWS_WITH(attend({.kernel_size = {3, 3, 1}, .rpb = Tensor::zeros({2, 5, 4})}),
                    contains("rpb is f32 [2, 5, 4], expected"));
  CHECK_THROWS_WITH(attend({.kernel_size = {3, 3, 1}, .is_causal = {true, false, false}, .rpb = Tensor::zeros({2, 5, 5})}),
                    contains("no causal axis"));
  CHECK_THROWS_WITH(attend({.kernel_size = {3, 3, 1}, .additional_keys = Tensor::zeros({1, 4, 2, 16})}),
                    contains("one is missing"));
  CHECK_THROWS_WITH(neighborhood_attention(q, q, Tensor::zeros({1, 9, 9, 2, 16}), {.kernel_size = {3, 3, 1}}),
                    contains("do not fit"));
  CHECK_THROWS_WITH(
      attend({.kernel_size = {3, 3, 1}, .is_causal = {true, false, false}, .impl = "fused"}),
      contains("no implementation 'fused'") && contains("fused_scalar (a causal axis)") && contains("reference (can run)"));
}

TEST_CASE("text before a map: image tokens see it and their window, text sees all") {
  Random random(41);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const std::int64_t T = 5, H = 6, W = 9;
    const Tensor q = random.tensor({2, T + H * W, 4, 16}).to(dtype), k = random.tensor({2, T + H * W, 2, 16}).to(dtype),
                 v = random.tensor({2, T + H * W, 2, 12}).to(dtype);
    const auto image = [&](const Tensor& t) { return t.slice(1, T, T + H * W).unflatten(1, {H, W}); };
    NeighborhoodOptions options{.kernel_size = {3, 5, 1}};
    const Tensor out = joint_neighborhood_attention(q, k, v, T, H, W, options);
    CHECK(test::same_bits(out.slice(1, 0, T).contiguous(), attention(q.slice(1, 0, T), k, v)));
    options.additional_keys = k.slice(1, 0, T);
    options.additional_values = v.slice(1, 0, T);
    options.impl = "reference";
    CHECK(difference(image(out).contiguous(), neighborhood_attention(image(q), image(k), image(v), options),
                     tolerance_of(dtype)) == "");
    // A window that is the map: global attention.
    const Tensor all = joint_neighborhood_attention(q, k, v, T, H, W, {.kernel_size = {H, W, 1}});
    CHECK(difference(all, attention(q, k, v, {.impl = "reference"}), tolerance_of(dtype)) == "");
  }
  const Tensor x = Tensor::zeros({1, 20, 2, 8});
  const Tensor bare = joint_neighborhood_attention(x, x, x, 0, 4, 5, {.kernel_size = {3, 3, 1}});
  CHECK(bare.shape() == x.shape());
  const auto refused = [&](const Tensor& t, std::int64_t text, std::int64_t height, std::int64_t width,
                           NeighborhoodOptions options) {
    options.kernel_size = {3, 3, 1};
    CHECK_THROWS_WITH(joint_neighborhood_attention(t, t, t, text, height, width, options),
                      contains("joint_neighborhood_attention: "));
  };
  refused(x, 1, 4, 5, {});
  refused(x, -1, 3, 7, {});
  refused(x, 0, 0, 5, {});
  refused(x, 0, std::int64_t{1} << 62, 4, {});
  refused(Tensor(), 0, 4, 5, {});
  refused(Tensor::zeros({20, 2, 8}), 0, 4, 5, {});
  refused(x, 0, 4, 5, {.rpb = Tensor::zeros({2, 5, 5})});
  refused(x, 0, 4, 5, {.additional_keys = x, .additional_values = x});
}

}  // namespace
}  // namespace vitrine
