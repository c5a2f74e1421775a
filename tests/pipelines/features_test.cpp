// The parts of the pipelines that need no model: components, maps over pictures, intervals.
#include <catch.h>

#include <cmath>
#include <vector>

#include <vitrine/pipelines/evaluate.h>
#include <vitrine/pipelines/features.h>
#include <vitrine/pipelines/picture_map.h>
#include <vitrine/pipelines/preprocess.h>

using namespace vitrine;

TEST_CASE("principal components of points on known axes") {
  // Three orthogonal directions in five dimensions, with deviations 4, 2 and 1, and a mean that must not matter.
  const float axes[3][5] = {{0.6f, 0.8f, 0, 0, 0}, {0, 0, 1, 0, 0}, {0.8f, -0.6f, 0, 0, 0}};
  std::vector<float> rows;
  std::vector<std::array<float, 3>> expected;
  for (int i = 0; i < 8; ++i) {
    const std::array<float, 3> at{i & 1 ? 4.0f : -4.0f, i & 2 ? 2.0f : -2.0f, i & 4 ? 1.0f : -1.0f};
    expected.push_back(at);
    for (int c = 0; c < 5; ++c) rows.push_back(10.0f + at[0] * axes[0][c] + at[1] * axes[1][c] + at[2] * axes[2][c]);
  }
  const Tensor coordinates = principal_components(Tensor::from(rows, {8, 5}), 4);
  REQUIRE(coordinates.shape() == Shape{8, 4});
  for (int r = 0; r < 8; ++r) {
    for (int k = 0; k < 3; ++k) CHECK(coordinates.data<float>()[r * 4 + k] == Approx(expected[r][k]).margin(1e-4));
    CHECK(coordinates.data<float>()[r * 4 + 3] == 0.0f);  // no variance is left
  }
}

TEST_CASE("components of equal rows, and of one row, are 0") {
  for (const std::int64_t n : {1, 6}) {
    const Tensor coordinates = principal_components(Tensor::full({n, 3}, 2.5f), 3);
    for (std::int64_t i = 0; i < coordinates.numel(); ++i) CHECK(coordinates.data<float>()[i] == 0.0f);
  }
}

TEST_CASE("a map goes back to where its picture was") {
  PreprocessConfig config;
  config.height = config.width = 40;
  config.crop_pct = 1.0;
  Tensor ramp = Tensor::empty({40, 40});
  for (std::int64_t y = 0; y < 40; ++y)
    for (std::int64_t x = 0; x < 40; ++x) ramp.data<float>()[y * 40 + x] = static_cast<float>(x);

  SECTION("squashed: all of it, stretched") {
    config.crop_mode = "squash";
    const auto values = map_to_picture(ramp, config, 80, 10);
    for (std::int64_t x = 1; x < 79; ++x) CHECK(values[3 * 80 + x] == Approx((x + 0.5) / 2 - 0.5).margin(1e-4));
    CHECK(values[0] == 0.0f);
    CHECK(values[79] == 39.0f);
  }
  SECTION("padded: the bands above and below are not the picture's") {
    config.crop_mode = "pad";
    for (std::int64_t i = 0; i < 40; ++i)
      for (const std::int64_t y : {0, 9, 30, 39}) ramp.data<float>()[y * 40 + i] = 1000.0f;
    for (const float value : map_to_picture(ramp, config, 80, 40)) CHECK(value <= 39.0f);
  }
  SECTION("cropped: what the model did not see is marked") {
    config.crop_mode = "center";
    const auto values = map_to_picture(ramp, config, 80, 40, -1.0f);
    for (std::int64_t x = 0; x < 80; ++x) {
      INFO(x);
      CHECK(values[x] == Approx(x < 20 || x >= 60 ? -1.0f : static_cast<float>(x - 20)).margin(1e-4));
    }
  }
  SECTION("a value a patch") {
    config.crop_mode = "squash";
    const Tensor patches = Tensor::from(std::vector<float>{0, 1, 2, 3}, {2, 2});
    const auto values = map_to_picture(patches, config, 4, 4);
    CHECK(values[0] == 0.0f);
    CHECK(values[15] == 3.0f);
    CHECK(values[5] == Approx(0.25f + 0.5f));  // a quarter of the way to the right and down
  }
}

TEST_CASE("Wilson's interval") {
  const Interval half = wilson_interval(50, 100);
  CHECK(half.low == Approx(0.4038).margin(1e-4));
  CHECK(half.high == Approx(0.5962).margin(1e-4));
  const Interval none = wilson_interval(0, 10);
  CHECK(none.low == 0.0);
  CHECK(none.high == Approx(0.2775).margin(1e-4));
  CHECK(wilson_interval(0, 0).high == 1.0);
}
