// Pooling and means: PyTorch's values on a small map, the definitions on others.
#include "layers/support.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

struct Case {
  Pool2d pool;
  std::vector<double> average, maximum;
};

// Of the map [1, 3, 4, 1] with values 7 i i mod 23 - 9, by PyTorch 2.
const Case kCases[] = {
    {{2, 2, 2, 2, 0, 0, true, false}, {1.25f, 7.25f}, {11, 13}},
    {{3, 3, 2, 2, 1, 1, true, false}, {0.5555556f, 3.555556f, 2.666667f, 5.222222f}, {11, 13, 11, 13}},
    {{3, 3, 2, 2, 1, 1, false, true}, {1.25f, 5.333333f, 10, 6, 7.833333f, 11}, {11, 13, 12, 11, 13, 12}},
    {{3, 2, 2, 3, 1, 0, false, true}, {1.25f, 10, 6, 11}, {11, 12, 11, 12}},
    {{2, 3, 2, 3, 1, 1, true, true}, {-1.833333f, 0.6666667f, 4, 6}, {-2, 8, 11, 13}},
};

const std::vector<double> kAdaptive2x3 = {1.25f, 3, 7.25f, 6, 6.25f, 9}, kAdaptive5x1 = {-1.75f, 4.25f, 10.25f, 7.5f, 4.75f};

Tensor small_map() {
  Tensor x = Tensor::empty({1, 3, 4, 1});
  for (int i = 0; i < 12; ++i) x.data<float>()[i] = static_cast<float>(i * i * 7 % 23 - 9);
  return x;
}

// The same values in every channel, so that all lanes and tails of the channel axis are tried.
Tensor in_channels(const Tensor& map, std::int64_t channels) {
  return add(Tensor::zeros({map.size(0), map.size(1), map.size(2), channels}), map);
}
std::vector<double> in_channels(const std::vector<double>& map, std::int64_t channels) {
  std::vector<double> all;
  for (double v : map) all.insert(all.end(), static_cast<std::size_t>(channels), v);
  return all;
}

}  // namespace

TEST_CASE("pooling gives PyTorch's values") {
  for (const Case& c : kCases)
    for (std::int64_t channels : {1, 5, 40})
      for (DType dtype : kFloats) {
        INFO(c.pool.kernel_h << "x" << c.pool.kernel_w << " ceil " << c.pool.ceil_mode << " channels " << channels);
        const Tensor x = strided(in_channels(small_map(), channels).to(dtype));
        check_close(avg_pool2d(x, c.pool), in_channels(c.average, channels), 1e-6 + rounding(dtype));
        check_close(max_pool2d(x, c.pool), in_channels(c.maximum, channels), 0);
      }
  check_close(adaptive_avg_pool2d(small_map(), 2, 3), kAdaptive2x3, 1e-6);
  check_close(adaptive_avg_pool2d(small_map(), 5, 1), kAdaptive5x1, 1e-6);
}

TEST_CASE("pooling refuses what has no meaning") {
  const Tensor x = random({1, 4, 4, 2});
  CHECK_THROWS_AS(avg_pool2d(x, {.kernel_h = 0}), Error);
  CHECK_THROWS_AS(max_pool2d(x, {.stride_w = 0}), Error);
  CHECK_THROWS_AS(max_pool2d(x, {.pad_h = 2}), Error);
  CHECK_THROWS_AS(max_pool2d(x, {.kernel_h = 5}), Error);
  CHECK_THROWS_AS(avg_pool2d(random({4, 4, 2}), {}), Error);
  CHECK_THROWS_AS(adaptive_avg_pool2d(Tensor::empty({1, 0, 4, 2}), 1, 1), Error);
  CHECK(avg_pool2d(Tensor::empty({0, 4, 4, 2}), {}).shape() == Shape{0, 2, 2, 2});
  CHECK(adaptive_avg_pool2d(x, 4, 4).shape() == x.shape());
  CHECK(max_pool2d(Tensor::empty({1, 4, 4, 0}), {}).numel() == 0);
}

TEST_CASE("the mean over any run of axes") {
  for (DType dtype : kFloats) {
    const Tensor x = random({2, 3, 4, 5}, dtype);
    const std::vector<float> v = values(x);
    for (auto [first, last] : {std::pair{0, 0}, {1, 1}, {1, 2}, {0, 2}, {2, 2}}) {
      std::vector<double> sums;
      Shape shape;
      std::int64_t count = 1;
      for (int i = 0; i < 4; ++i) {
        if (i < first || i > last)
          shape.push_back(x.size(i));
        else
          count *= x.size(i);
      }
      sums.resize(static_cast<std::size_t>(shape.numel()));
      for (std::int64_t i = 0; i < x.numel(); ++i) {
        std::int64_t rest = i, at = 0, step = 1;
        for (int axis = 3; axis >= 0; --axis) {
          if (axis < first || axis > last) {
            at += rest % x.size(axis) * step;
            step *= x.size(axis);
          }
          rest /= x.size(axis);
        }
        sums[static_cast<std::size_t>(at)] += v[static_cast<std::size_t>(i)] / static_cast<double>(count);
      }
      CHECK(mean(x, first, last).shape() == shape);
      check_close(mean(x, first, last), sums, 1e-6 + rounding(dtype));
      CHECK(same_bytes(mean(strided(x), first, last), mean(x, first, last)));
    }
  }
  const Tensor x = random({2, 3, 4});
  CHECK_THROWS_WITH(mean(x, 1, 2), contains("the last axis stays"));
  CHECK_THROWS_AS(mean(x, 1, 0), Error);
  CHECK(std::isnan(mean(Tensor::empty({1, 0, 1}), 1, 1).item()));  // as in PyTorch
  // A long sum does not drift: f32 alone would be off by 1e-4 and more.
  CHECK(std::fabs(mean(Tensor::full({1, 3'000'000, 1}, 0.1f), 1, 1).item() - 0.1f) < 1e-7f);
}

TEST_CASE("pooling and means: one thread is as many") {
  for (DType dtype : kFloats) {
    const Tensor x = random({2, 60, 50, 40}, dtype);
    check_threads([&] { return avg_pool2d(x, {3, 3, 2, 2, 1, 1}); });
    check_threads([&] { return max_pool2d(x, {3, 3, 1, 1, 1, 1}); });
    check_threads([&] { return adaptive_avg_pool2d(x, 7, 9); });
    check_threads([&] { return mean(x, 1, 2); });
    check_threads([&] { return mean(x, 0, 0); });
  }
}
