// Checksums are of Pillow 13's results on the same pictures.
#include <catch.h>
#include <pipelines/fixtures.h>

#include <limits>

using namespace vitrine;
using namespace vitrine::test;

TEST_CASE("resize gives Pillow's bytes at every small size, for every filter and number of channels") {
  struct Row {
    Filter filter;
    std::uint32_t crc[3];  // 1, 3, 4 channels
  };
  const Row rows[] = {
      {Filter::nearest, {0xaa900f2b, 0xa5b9bd63, 0x876f6b98}},  {Filter::box, {0x1ac0ae15, 0xa4c8688e, 0xc0691280}},
      {Filter::bilinear, {0x1cc59ffb, 0xe9939721, 0x95226a2f}}, {Filter::hamming, {0xecc31a3e, 0x315e9744, 0xdac51b5d}},
      {Filter::bicubic, {0x5adf8e8e, 0x9364027a, 0xf05c1571}},  {Filter::lanczos, {0x362f8880, 0x0d9895c4, 0x2dea5f82}},
  };
  for (const Row& row : rows) {
    for (int i = 0; i < 3; ++i) {
      const int channels = i == 0 ? 1 : i + 2;
      std::uint32_t crc = 0;
      for (int w = 1; w <= 40; ++w) {
        const Image source = pattern_image(w, 1 + w * 7 % 23, channels);
        crc = crc_of(resize_image(source, 1 + w * 13 % 37, 1 + w * 5 % 29, row.filter), crc);
      }
      INFO("filter " << static_cast<int>(row.filter) << ", channels " << channels);
      CHECK(crc == row.crc[i]);
    }
  }
}

TEST_CASE("resize gives Pillow's bytes with boxes, single passes and either order of passes") {
  using Box = std::array<double, 4>;
  struct Row {
    std::int64_t width, height, channels, to_width, to_height;
    Filter filter;
    std::optional<Box> box;
    std::uint32_t crc;
  };
  const Row rows[] = {
      {100, 200, 3, 110, 199, Filter::bicubic, std::nullopt, 0xde65de54},
      {100, 200, 3, 70, 139, Filter::bilinear, std::nullopt, 0x7fe5e34f},  // the vertical pass first
      {100, 200, 3, 70, 140, Filter::bilinear, std::nullopt, 0x6f8c8d8f},  // just not
      {600, 4, 3, 3, 4, Filter::lanczos, std::nullopt, 0xfb1e42f2},
      {64, 64, 3, 64, 17, Filter::box, std::nullopt, 0x95083040},
      {64, 64, 1, 17, 64, Filter::hamming, std::nullopt, 0x77130dd5},
      {90, 70, 3, 40, 30, Filter::bicubic, Box{3.25, 4.5, 80.1, 61.75}, 0x0708bb10},
      {90, 70, 3, 90, 30, Filter::bilinear, Box{0, 4.5, 90, 61.75}, 0x68cfa1db},
      {50, 40, 3, 33, 44, Filter::nearest, Box{1.3, 2.7, 40.6, 30.2}, 0x8987cdc5},
      {5, 3, 1, 700, 300, Filter::lanczos, std::nullopt, 0xbf2515a5},
  };
  for (const Row& row : rows) {
    INFO(row.width << "x" << row.height << " to " << row.to_width << "x" << row.to_height);
    const Image source = pattern_image(row.width, row.height, row.channels);
    CHECK(crc_of(resize_image(source, row.to_width, row.to_height, row.filter, row.box)) == row.crc);
  }
}

TEST_CASE("two channels are resized like two pictures") {
  const Image both = pattern_image(37, 23, 2);
  Image result = resize_image(both, 11, 29, Filter::bicubic);
  for (std::size_t c = 0; c < 2; ++c) {
    Image one{37, 23, 1, {}};
    for (std::size_t i = c; i < both.pixels.size(); i += 2) one.pixels.push_back(both.pixels[i]);
    const Image expected = resize_image(one, 11, 29, Filter::bicubic);
    for (std::size_t i = 0; i < expected.pixels.size(); ++i) REQUIRE(result.pixels[2 * i + c] == expected.pixels[i]);
  }
}

TEST_CASE("resize refuses what cannot be done") {
  const Image image = pattern_image(20, 10, 3);
  using Box = std::array<double, 4>;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(resize_image(image, 0, 5, Filter::box), Error);
  CHECK_THROWS_AS(resize_image(image, 5, -1, Filter::box), Error);
  CHECK_THROWS_AS(resize_image(image, std::int64_t{1} << 40, std::int64_t{1} << 40, Filter::box), Error);
  CHECK_THROWS_AS(resize_image(image, 5, 5, Filter::box, Box{0, 0, 21, 10}), Error);
  CHECK_THROWS_AS(resize_image(image, 5, 5, Filter::box, Box{5, 0, 5, 10}), Error);
  CHECK_THROWS_AS(resize_image(image, 5, 5, Filter::box, Box{nan, 0, 5, 10}), Error);
  CHECK_THROWS_AS(resize_image(Image{20, 10, 3, {}}, 5, 5, Filter::box), Error);
  CHECK_THROWS_AS(parse_filter("cubic"), Error);
  CHECK(parse_filter("lanczos") == Filter::lanczos);
}
