// Resizing against values that PyTorch 2's F.interpolate gave, and against its formulas written out plainly.
#include "layers/support.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

struct Case {
  ResizeMode mode;
  bool antialias, align_corners;
  std::int64_t height, width;
  std::vector<double> expected;
};

// Of the map [1, 3, 4, 1] with values 7 i i mod 23 - 9.
const Case kCases[] = {
    {ResizeMode::bilinear, false, false, 5, 7, {-9,          -6.5f,       -2.5f,      -3,        -3.142855f, 3.714288f, 8,
                                                -0.9999992f, -0.3571425f, 0.6714289f, 1.800001f, 3.285716f,  7.17143f,  9.6f,
                                                11,          8.857142f,   5.428572f,  9.000001f, 12.92857f,  12.35714f, 12,
                                                5.599999f,   5.599999f,   5.6f,       5.699999f, 6.157142f,  9.014286f, 10.8f,
                                                2,           3.428572f,   5.714286f,  3.5f,      1.642859f,  6.785716f, 10}},
    {ResizeMode::bilinear, false, true, 5, 7, {-9,    -5.5f, -2, -3, -4, 2, 8,  1,     1.25f, 1.5f, 3, 4.5f,
                                               7.25f, 10,    11, 8,  5,  9, 13, 12.5f, 12,    6.5f, 6, 5.5f,
                                               6.25f, 7,     9,  11, 2,  4, 6,  3.5f,  1,     5.5f, 10}},
    {ResizeMode::bilinear, true, false, 5, 7, {-9,          -6.5f,       -2.5f,      -3,        -3.142855f, 3.714288f, 8,
                                               -0.9999992f, -0.3571421f, 0.6714289f, 1.8f,      3.285716f,  7.17143f,  9.6f,
                                               11,          8.857142f,   5.428571f,  9,         12.92857f,  12.35714f, 12,
                                               5.599999f,   5.599999f,   5.6f,       5.699999f, 6.157142f,  9.014286f, 10.8f,
                                               2,           3.428572f,   5.714286f,  3.5f,      1.642859f,  6.785716f, 10}},
    {ResizeMode::bicubic, false, false, 5, 7, {-11.73834f,  -7.927516f,  -3.007188f, -4.62075f, -5.010728f, 2.919799f, 8.930421f,
                                               -0.7146279f, -0.3440175f, 0.4432066f, 1.583252f, 3.946879f,  7.744302f, 10.31471f,
                                               11.5953f,    8.463554f,   4.973759f,  8.531251f, 13.31232f,  12.83272f, 11.90078f,
                                               7.012959f,   6.606966f,   6.127396f,  6.029248f, 7.154682f,  9.685312f, 11.47912f,
                                               0.6438877f,  3.210328f,   6.100817f,  2.50325f,  0.1292672f, 6.029959f, 10.7962f}},
    {ResizeMode::bicubic, false, true, 5, 7, {-9,       -5.3125f,  -2,       -3.46875f, -4,       1.8125f,   8,
                                              1.84375f, 1.229492f, 1.40625f, 3.046875f, 5.625f,   8.301758f, 10.1875f,
                                              11,       7.25f,     5,        8.53125f,  13,       13.25f,    12,
                                              8.375f,   7.037109f, 6.15625f, 6.90625f,  8.59375f, 10.21289f, 11.375f,
                                              2,        4.46875f,  6,        3.03125f,  1,        5.03125f,  10}},
    {ResizeMode::bicubic, true, false, 5, 7, {-11.14255f, -7.993527f, -2.804934f, -4.21816f, -4.780061f, 3.671944f, 8.727866f,
                                              -1.740151f, -1.060018f, 0.2560623f, 1.142724f, 2.88071f,   7.4602f,   10.04723f,
                                              11.47596f,  8.882232f,  5.025814f,  8.6875f,   13.20051f,  12.6075f,  11.92067f,
                                              6.059341f,  6.024902f,  5.966511f,  5.653916f, 6.192646f,  9.397664f, 11.27013f,
                                              0.9435771f, 2.985298f,  6.044002f,  2.772406f, 0.3521327f, 6.674249f, 10.62287f}},
    {ResizeMode::nearest, false, false, 5, 7, {-9, -9, -2, -2, -4, -4, 8, -9, -9, -2, -2, -4, -4, 8, 11, 11, 5, 5,
                                               13, 13, 12, 11, 11, 5,  5, 13, 13, 12, 2,  2,  6,  6, 1,  1,  10}},
    {ResizeMode::bilinear, false, false, 2, 3, {-3.375f, 0, 7.541668f, 4.5f, 4.875f, 9.416668f}},
    {ResizeMode::bilinear, false, true, 2, 3, {-9, -3, 8, 2, 3.5f, 10}},
    {ResizeMode::bilinear, true, false, 2, 3, {-0.8624998f, 1.5f, 7.362502f, 5.45f, 5.5625f, 9.175001f}},
    {ResizeMode::bicubic, false, false, 2, 3, {-3.633424f, -0.5566406f, 7.740049f, 4.955079f, 4.699219f, 9.66327f}},
    {ResizeMode::bicubic, false, true, 2, 3, {-9, -3.46875f, 8, 2, 3.03125f, 10}},
    {ResizeMode::bicubic, true, false, 2, 3, {-1.249483f, 1.243737f, 7.853271f, 5.949536f, 5.730093f, 9.626966f}},
    {ResizeMode::nearest, false, false, 2, 3, {-9, -2, -4, 11, 5, 13}},
};

Tensor small_map() {
  Tensor x = Tensor::empty({1, 3, 4, 1});
  for (int i = 0; i < 12; ++i) x.data<float>()[i] = static_cast<float>(i * i * 7 % 23 - 9);
  return x;
}

// One output value's weight on each input position, in f64: F.interpolate's definition.
std::vector<double> weights(std::int64_t in, std::int64_t out, std::int64_t i, const Resize& options) {
  std::vector<double> w(static_cast<std::size_t>(in));
  const bool is_cubic = options.mode == ResizeMode::bicubic;
  const double scale = options.align_corners ? (out > 1 ? double(in - 1) / double(out - 1) : 0.0) : double(in) / double(out);
  const auto kernel = [&](double x, double a) {
    x = std::fabs(x);
    if (!is_cubic) return std::max(0.0, 1 - x);
    return x < 1 ? (a + 2) * x * x * x - (a + 3) * x * x + 1 : x < 2 ? a * (x * x * x - 5 * x * x + 8 * x - 4) : 0.0;
  };
  if (options.antialias) {
    const double stretch = std::max(scale, 1.0), center = scale * (double(i) + 0.5), support = (is_cubic ? 2 : 1) * stretch;
    double total = 0;
    for (std::int64_t k = std::max<std::int64_t>(0, std::int64_t(center - support + 0.5));
         k < std::min(in, std::int64_t(center + support + 0.5)); ++k)
      total += w[std::size_t(k)] = kernel((double(k) - center + 0.5) / stretch, -0.5);
    for (double& v : w) v /= total;
    return w;
  }
  double at = options.align_corners ? scale * double(i) : scale * (double(i) + 0.5) - 0.5;
  if (!is_cubic) at = std::max(at, 0.0);
  const auto left = static_cast<std::int64_t>(std::floor(at));
  for (std::int64_t k = left - 1; k <= left + 2; ++k)
    w[std::size_t(std::clamp<std::int64_t>(k, 0, in - 1))] += kernel(at - double(k), -0.75);
  return w;
}

std::vector<double> reference(const Tensor& x, std::int64_t height, std::int64_t width, const Resize& options) {
  const std::vector<float> v = values(x);
  const std::int64_t B = x.size(0), H = x.size(1), W = x.size(2), C = x.size(3);
  std::vector<double> y;
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t i = 0; i < height; ++i)
      for (std::int64_t j = 0; j < width; ++j) {
        const std::vector<double> rows = weights(H, height, i, options), columns = weights(W, width, j, options);
        for (std::int64_t c = 0; c < C; ++c) {
          double total = 0;
          for (std::int64_t r = 0; r < H; ++r)
            for (std::int64_t k = 0; k < W; ++k)
              total += rows[std::size_t(r)] * columns[std::size_t(k)] * v[std::size_t(((b * H + r) * W + k) * C + c)];
          y.push_back(total);
        }
      }
  return y;
}

}  // namespace

TEST_CASE("resize gives PyTorch's values") {
  for (const Case& c : kCases) {
    INFO(static_cast<int>(c.mode) << c.antialias << c.align_corners << " to " << c.height << "x" << c.width);
    check_close(resize(small_map(), c.height, c.width, {c.mode, c.antialias, c.align_corners}), c.expected, 1e-5);
  }
}

TEST_CASE("resize agrees with its formulas for all sizes, channels, dtypes and views") {
  for (auto mode : {ResizeMode::bilinear, ResizeMode::bicubic})
    for (bool antialias : {false, true})
      for (bool align : {false, true})
        for (auto [H, W, height, width, C] : {std::array<std::int64_t, 5>{7, 9, 7, 9, 3},
                                              {7, 9, 16, 4, 1},
                                              {5, 1, 1, 6, 17},
                                              {1, 1, 3, 3, 2},
                                              {23, 31, 5, 3, 4},
                                              {4, 4, 37, 29, 33}}) {
          const Resize options{mode, antialias, align};
          INFO(static_cast<int>(mode) << antialias << align << " " << H << "x" << W << " to " << height << "x" << width);
          const Tensor x = random({2, H, W, C});
          check_close(resize(x, height, width, options), reference(x, height, width, options), 2e-5);
          CHECK(same_bytes(resize(strided(x), height, width, options), resize(x, height, width, options)));
          for (DType dtype : {DType::f16, DType::bf16})
            check_close(resize(x.to(dtype), height, width, options), reference(x.to(dtype), height, width, options),
                        2e-5 + rounding(dtype));
        }
}

TEST_CASE("resize to the same size changes nothing") {
  const Tensor x = random({2, 6, 5, 3});
  for (auto mode : {ResizeMode::nearest, ResizeMode::bilinear, ResizeMode::bicubic})
    CHECK(same_bytes(resize(x, 6, 5, {mode}), x));
}

TEST_CASE("nearest copies the pixels below") {
  const Tensor x = random({1, 5, 7, 3}, DType::bf16);
  const Tensor y = resize(strided(x), 8, 3, {ResizeMode::nearest});
  for (std::int64_t i = 0; i < 8; ++i)
    for (std::int64_t j = 0; j < 3; ++j)
      CHECK(values(y.select(1, i).select(1, j)) == values(x.select(1, i * 5 / 8).select(1, j * 7 / 3)));
}

TEST_CASE("resize refuses what has no meaning") {
  const Tensor x = random({1, 4, 4, 2});
  CHECK_THROWS_AS(resize(x, 0, 4), Error);
  CHECK_THROWS_AS(resize(Tensor::empty({1, 0, 4, 2}), 4, 4), Error);
  CHECK_THROWS_AS(resize(random({4, 4, 2}), 4, 4), Error);
  CHECK_THROWS_AS(resize(x, 4, 4, {ResizeMode::nearest, true}), Error);
  CHECK(resize(Tensor::empty({0, 4, 4, 2}), 8, 8).shape() == Shape{0, 8, 8, 2});
}

TEST_CASE("resize: one thread is as many") {
  for (DType dtype : kFloats) {
    const Tensor x = random({2, 40, 50, 24}, dtype);
    for (auto mode : {ResizeMode::nearest, ResizeMode::bilinear, ResizeMode::bicubic})
      check_threads([&] { return resize(x, 90, 61, {mode}); });
    check_threads([&] { return resize(x, 13, 21, {ResizeMode::bicubic, true}); });
  }
}
