// Focal modulation and gnConv, against their definitions written out.
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <attention2d/compare.h>
#include <catch.h>
#include <fmt/format.h>
#include <layers/random.h>

#include <vitrine/attention2d/focal_modulation.h>
#include <vitrine/attention2d/gnconv.h>
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

double gelu(double x) { return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0))); }

// A map in double precision, [H, W, C].
struct Map {
  std::int64_t height, width, channels;
  std::vector<double> values;

  Map(std::int64_t h, std::int64_t w, std::int64_t c)
      : height(h), width(w), channels(c), values(static_cast<std::size_t>(h * w * c)) {}
  double& at(std::int64_t y, std::int64_t x, std::int64_t c) {
    return values[static_cast<std::size_t>((y * width + x) * channels + c)];
  }
  double at(std::int64_t y, std::int64_t x, std::int64_t c) const { return const_cast<Map*>(this)->at(y, x, c); }
  Map part(std::int64_t begin, std::int64_t end) const {
    Map m(height, width, end - begin);
    for (std::int64_t y = 0; y < height; ++y)
      for (std::int64_t x = 0; x < width; ++x)
        for (std::int64_t c = begin; c < end; ++c) m.at(y, x, c - begin) = at(y, x, c);
    return m;
  }
  template <typename F>
  Map with(const F& f) const {  // f(y, x, c)
    Map m = *this;
    for (std::int64_t y = 0; y < height; ++y)
      for (std::int64_t x = 0; x < width; ++x)
        for (std::int64_t c = 0; c < channels; ++c) m.at(y, x, c) = f(y, x, c);
    return m;
  }
};

Map linear(const Map& m, const Weights& w, std::int64_t out) {
  const Tensor weight = w.get("weight", {out, m.channels}), bias = w.get("bias", {out});
  return Map(m.height, m.width, out).with([&](auto y, auto x, auto o) {
    double sum = bias.data<float>()[o];
    for (std::int64_t c = 0; c < m.channels; ++c) sum += m.at(y, x, c) * weight.data<float>()[o * m.channels + c];
    return sum;
  });
}

Map depthwise(const Map& m, const Weights& w, std::int64_t kernel, bool with_bias) {
  const Tensor weight = w.get("weight", {m.channels, 1, kernel, kernel});
  const Tensor bias = with_bias ? w.get("bias", {m.channels}) : Tensor::zeros({m.channels});
  return m.with([&](auto y, auto x, auto c) {
    double sum = bias.data<float>()[c];
    for (std::int64_t i = 0; i < kernel; ++i)
      for (std::int64_t j = 0; j < kernel; ++j) {
        const std::int64_t ky = y + i - kernel / 2, kx = x + j - kernel / 2;
        if (ky >= 0 && ky < m.height && kx >= 0 && kx < m.width)
          sum += m.at(ky, kx, c) * weight.data<float>()[(c * kernel + i) * kernel + j];
      }
    return sum;
  });
}

Map map_of(const Tensor& x) {
  Map m(x.size(1), x.size(2), x.size(3));
  for (std::size_t i = 0; i < m.values.size(); ++i) m.values[i] = x.data<float>()[i];
  return m;
}

Tensor tensor_of(const Map& m) {
  Tensor t = Tensor::empty({1, m.height, m.width, m.channels});
  for (std::size_t i = 0; i < m.values.size(); ++i) t.data<float>()[i] = static_cast<float>(m.values[i]);
  return t;
}

Map focal_modulation(const Map& x, const Weights& w, const FocalModulationConfig& c) {
  const Map f = linear(x, w / "f", 2 * c.dim + c.focal_level + 1);
  Map context = f.part(c.dim, 2 * c.dim), sum(x.height, x.width, c.dim);
  const double scale = c.normalize_modulator ? 1.0 / static_cast<double>(c.focal_level + 1) : 1.0;
  for (std::int64_t l = 0; l < c.focal_level; ++l) {
    const Map level = depthwise(context, w / "focal_layers" / l / std::int64_t{0}, c.focal_window + c.focal_factor * l, false);
    context = level.with([&](auto y, auto x_, auto ch) { return gelu(level.at(y, x_, ch)); });
    sum = sum.with(
        [&](auto y, auto x_, auto ch) { return sum.at(y, x_, ch) + context.at(y, x_, ch) * f.at(y, x_, 2 * c.dim + l); });
  }
  std::vector<double> whole(static_cast<std::size_t>(c.dim));
  for (std::size_t i = 0; i < context.values.size(); ++i) whole[i % whole.size()] += context.values[i];
  for (double& value : whole) value = gelu(value / static_cast<double>(x.height * x.width));
  sum = sum.with([&](auto y, auto x_, auto ch) {
    return scale * (sum.at(y, x_, ch) + whole[static_cast<std::size_t>(ch)] * f.at(y, x_, 2 * c.dim + c.focal_level));
  });
  const Map h = linear(sum, w / "h", c.dim);
  return linear(h.with([&](auto y, auto x_, auto ch) { return h.at(y, x_, ch) * f.at(y, x_, ch); }), w / "proj", c.dim);
}

Map gnconv(const Map& x, const Weights& w, const GnConvConfig& c) {
  std::vector<std::int64_t> dims;
  for (std::int64_t i = c.order - 1; i >= 0; --i) dims.push_back(c.dim >> i);
  const std::int64_t wide = std::accumulate(dims.begin(), dims.end(), std::int64_t{0});
  const Map both = linear(x, w / "proj_in", dims[0] + wide);
  Map a = both.part(0, dims[0]);
  const Map b = depthwise(both.part(dims[0], dims[0] + wide), w / "dwconv", 7, true);
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (i > 0) a = linear(a, w / "pws" / static_cast<std::int64_t>(i - 1), dims[i]);
    a = a.with([&](auto y, auto x_, auto ch) { return a.at(y, x_, ch) * c.scale * b.at(y, x_, begin + ch); });
    begin += dims[i];
  }
  return linear(a, w / "proj_out", c.dim);
}

TEST_CASE("focal modulation is its definition") {
  const Weights w(synthetic_weights());
  const FocalModulationConfig configs[] = {{.dim = 24, .focal_level = 2, .focal_window = 3},
                                           {.dim = 20, .focal_level = 3, .focal_window = 5, .normalize_modulator = true},
                                           {.dim = 7, .focal_level = 1, .focal_window = 9, .focal_factor = 0},
                                           {.dim = 16, .focal_level = 0}};
  Random random(21);
  std::int64_t index = 0;
  for (const FocalModulationConfig& config : configs) {
    INFO(index);
    const Weights own = w / index++;
    const Tensor x = random.tensor({1, 6, 11, config.dim});
    const FocalModulation layer(own, config);
    const Tensor expected = tensor_of(focal_modulation(map_of(x), own, config));
    CHECK(difference(layer(x), expected, 1e-5) == "");
    CHECK(difference(layer(x, x), add(expected, x), 1e-5) == "");
  }
}

TEST_CASE("gnConv is its definition") {
  const Weights w(synthetic_weights());
  const GnConvConfig configs[] = {{.dim = 24, .order = 1}, {.dim = 24, .order = 3, .scale = 0.5f}, {.dim = 32, .order = 5}};
  Random random(22);
  std::int64_t index = 0;
  for (const GnConvConfig& config : configs) {
    INFO(index);
    const Weights own = w / index++;
    const Tensor x = random.tensor({1, 9, 5, config.dim});
    const GnConv layer(own, config);
    const Tensor expected = tensor_of(gnconv(map_of(x), own, config));
    CHECK(difference(layer(x), expected, 1e-5) == "");
    CHECK(difference(layer(x, x), add(expected, x), 1e-5) == "");
  }
}

TEST_CASE("gathering focal levels is the reference") {
  Random random(23);
  for (int round = 0; round < 30; ++round) {
    const DType dtype = round % 3 == 0 ? DType::bf16 : round % 5 == 0 ? DType::f16 : DType::f32;
    const std::int64_t B = random.integer(1, 2), H = random.integer(1, 9), W = random.integer(1, 9), C = random.integer(1, 70);
    const std::int64_t count = round == 7 ? 20 : random.integer(0, 4);
    std::vector<Tensor> levels;
    for (std::int64_t l = 0; l < count; ++l) levels.push_back(random.tensor({B, H, W, C}).to(dtype));
    const Tensor gates = random.tensor({B, H, W, count + 1}).to(dtype), whole = random.tensor({B, C}).to(dtype);
    const Tensor expected = gather_focal_levels(levels, gates, whole, 0.75f, "reference");
    for (const std::string& impl : test::implementations("gather", {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16})) {
      INFO(fmt::format("round {} {} {} levels {}", round, impl, name_of(dtype), count));
      CHECK(difference(gather_focal_levels(levels, gates, whole, 0.75f, impl), expected, tolerance_of(dtype)) == "");
    }
  }
}

TEST_CASE("focal modulation and gnConv do not depend on the number of threads nor on the rest of a batch") {
  const Weights w(synthetic_weights());
  const FocalModulation focal(w / "focal", {.dim = 48});
  const GnConv gn(w / "gn", {.dim = 48, .order = 3});
  const Tensor x = Random(24).tensor({3, 13, 10, 48});
  Context one({.threads = 1, .device = {}}), many({.threads = 5, .device = {}});
  const auto check = [&](const auto& layer) {
    const auto under = [&](Context& context) {
      const ContextScope scope(context);
      return layer(x);
    };
    const Tensor expected = under(one);
    CHECK(test::same_bits(under(many), expected));
    for (std::int64_t b = 0; b < 3; ++b) CHECK(difference(layer(x.slice(0, b, b + 1)), expected.slice(0, b, b + 1), 1e-6) == "");
  };
  check(focal);
  check(gn);
}

TEST_CASE("focal modulation and gnConv refuse what does not fit, in one line") {
  const Weights w(synthetic_weights());
  CHECK_THROWS_WITH(FocalModulation(w, {.dim = 16, .focal_window = 4}),
                    contains("level 0 has a kernel of 4, expected an odd size"));
  CHECK_THROWS_WITH(FocalModulation(w, {.dim = 16, .focal_level = 2, .focal_factor = 1}), contains("level 1 has a kernel of 4"));
  CHECK_THROWS_WITH(FocalModulation(w, {.dim = 0}), contains("dim is 0"));
  CHECK_THROWS_WITH(FocalModulation(w, {.dim = 16, .focal_level = -1}), contains("focal_level -1"));
  CHECK_THROWS_WITH(FocalModulation(w, {.dim = 16})(Tensor::zeros({1, 4, 4, 15})), contains("expected [B, H, W, 16]"));
  CHECK_THROWS_WITH(FocalModulation(w, {.dim = 16})(Tensor::zeros({1, 0, 4, 16})), contains("the map is empty"));
  CHECK_THROWS_WITH(GnConv(w, {.dim = 24, .order = 5}), contains("dim 24 with order 5"));
  CHECK_THROWS_WITH(GnConv(w, {.dim = 24, .order = 0}), contains("order 0"));
  CHECK_THROWS_WITH(GnConv(w / "x", {.dim = 16, .order = 2})(Tensor::zeros({1, 4, 16})), contains("expected [B, H, W, 16]"));

  const Tensor gates = Tensor::zeros({1, 2, 3, 2}), whole = Tensor::zeros({1, 8}), level = Tensor::zeros({1, 2, 3, 8});
  CHECK_THROWS_WITH(gather_focal_levels({level, level}, gates, whole), contains("gates is f32 [1, 2, 3, 2], expected"));
  CHECK_THROWS_WITH(gather_focal_levels({level.slice(1, 0, 1)}, gates, whole), contains("level 0 is f32 [1, 1, 3, 8], expected"));
  CHECK_THROWS_WITH(gather_focal_levels({level}, gates, Tensor::zeros({2, 8})), contains("whole is f32 [2, 8], expected"));
}

}  // namespace
}  // namespace vitrine
