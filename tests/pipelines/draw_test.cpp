#include <catch.h>
#include <pipelines/fixtures.h>

#include <cmath>
#include <limits>
#include <random>

#include <vitrine/pipelines/draw.h>

using namespace vitrine;
using namespace vitrine::test;

namespace {

Color pixel(const Image& image, std::int64_t x, std::int64_t y) {
  const std::uint8_t* p = image.row(y) + 3 * x;
  return {p[0], p[1], p[2]};
}

Image blank(std::int64_t width, std::int64_t height) {
  return {width, height, 3, Bytes(static_cast<std::size_t>(width * height * 3))};
}

// The same by flooding, point by point.
std::vector<Region> flooded(const std::vector<float>& values, std::int64_t width, std::int64_t height, float threshold) {
  std::vector<Region> regions;
  std::vector<bool> seen(values.size());
  for (std::int64_t start = 0; start < width * height; ++start) {
    if (seen[start] || !(values[start] >= threshold)) continue;
    std::vector<std::int64_t> stack{start};
    seen[start] = true;
    std::int64_t left = width, top = height, right = -1, bottom = -1, area = 0;
    double sum = 0;
    while (!stack.empty()) {
      const std::int64_t at = stack.back(), x = at % width, y = at / width;
      stack.pop_back();
      left = std::min(left, x);
      right = std::max(right, x);
      top = std::min(top, y);
      bottom = std::max(bottom, y);
      ++area;
      sum += values[at];
      for (std::int64_t v = std::max<std::int64_t>(y - 1, 0); v <= std::min(y + 1, height - 1); ++v) {
        for (std::int64_t u = std::max<std::int64_t>(x - 1, 0); u <= std::min(x + 1, width - 1); ++u) {
          if (seen[v * width + u] || !(values[v * width + u] >= threshold)) continue;
          seen[v * width + u] = true;
          stack.push_back(v * width + u);
        }
      }
    }
    regions.push_back({left, top, right - left + 1, bottom - top + 1, area, static_cast<float>(sum / static_cast<double>(area))});
  }
  return regions;
}

}  // namespace

TEST_CASE("colour maps go from dark to their end, and NaN is zero") {
  CHECK(map_color(ColorMap::grey, 0.5f) == Color{128, 128, 128});
  CHECK(map_color(ColorMap::turbo, 0.0f) == Color{48, 18, 59});
  CHECK(map_color(ColorMap::turbo, 7.0f) == Color{122, 4, 3});
  CHECK(map_color(ColorMap::viridis, 1.0f) == Color{253, 231, 37});
  CHECK(map_color(ColorMap::viridis, -1.0f) == map_color(ColorMap::viridis, std::numeric_limits<float>::quiet_NaN()));
  CHECK(parse_color_map("turbo") == ColorMap::turbo);
  CHECK_THROWS_AS(parse_color_map("jet"), Error);
}

TEST_CASE("maps become pictures and overlays") {
  const std::vector<float> values{0.0f, 0.5f, 1.0f, 2.0f, -1.0f, std::numeric_limits<float>::quiet_NaN()};
  CHECK(grey_picture(values, 3, 2).pixels == Bytes{0, 128, 255, 255, 0, 0});
  CHECK(pixel(color_picture(values, 3, 2, ColorMap::turbo), 2, 0) == Color{122, 4, 3});
  const Image photo = pattern_image(3, 2, 3);
  const Image overlay = heat_overlay(photo, values, ColorMap::turbo, 1.0f);
  CHECK(pixel(overlay, 0, 0) == pixel(photo, 0, 0));
  CHECK(pixel(overlay, 2, 1) == pixel(photo, 2, 1));
  CHECK(pixel(overlay, 2, 0) == Color{122, 4, 3});
  CHECK(heat_overlay(photo, values, ColorMap::turbo, 0.0f).pixels == photo.pixels);
  CHECK_THROWS_AS(heat_overlay(photo, std::span(values).first(5)), Error);
  CHECK_THROWS_AS(grey_picture(values, 2, 2), Error);
}

TEST_CASE("regions are those of a flood fill") {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    const std::int64_t width = 1 + static_cast<std::int64_t>(random() % 24),
                       height = 1 + static_cast<std::int64_t>(random() % 24);
    const float threshold = 0.2f + 0.1f * static_cast<float>(round % 7);
    std::vector<float> values(static_cast<std::size_t>(width * height));
    for (float& value : values) value = static_cast<float>(random() % 1000) / 1000.0f;
    if (round % 5 == 0) values[random() % values.size()] = std::numeric_limits<float>::quiet_NaN();
    auto expected = flooded(values, width, height, threshold);
    auto got = find_regions(values, width, height, threshold);
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 1; i < got.size(); ++i) REQUIRE(got[i - 1].area >= got[i].area);
    const auto order = [](const Region& a, const Region& b) {
      return std::tie(a.area, a.left, a.top, a.width, a.height, a.score) <
             std::tie(b.area, b.left, b.top, b.width, b.height, b.score);
    };
    std::sort(expected.begin(), expected.end(), order);
    std::sort(got.begin(), got.end(), order);
    for (std::size_t i = 0; i < got.size(); ++i) {
      REQUIRE(got[i].left == expected[i].left);
      REQUIRE(got[i].top == expected[i].top);
      REQUIRE(got[i].width == expected[i].width);
      REQUIRE(got[i].height == expected[i].height);
      REQUIRE(got[i].area == expected[i].area);
      REQUIRE(got[i].score == Approx(expected[i].score).margin(1e-5));
    }
  }
  const std::vector<float> values{1, 0, 0, 0, 1, 1};
  CHECK(find_regions(values, 6, 1, 0.5f).size() == 2);
  CHECK(find_regions(values, 6, 1, 0.5f, 2).size() == 1);
  CHECK(find_regions(values, 6, 1, 1.5f).empty());
  CHECK_THROWS_AS(find_regions(values, 5, 1, 0.5f), Error);
}

TEST_CASE("rectangles and pasted pictures are cut at the edges") {
  Image image = blank(10, 8);
  draw_rectangle(image, 2, 1, 5, 4, {255, 0, 0}, 1);
  CHECK(pixel(image, 2, 1) == Color{255, 0, 0});
  CHECK(pixel(image, 6, 4) == Color{255, 0, 0});
  CHECK(pixel(image, 3, 2) == Color{});
  CHECK(pixel(image, 7, 4) == Color{});
  const Bytes before = image.pixels;
  fill_rectangle(image, 20, 20, 5, 5, {1, 1, 1});
  fill_rectangle(image, -9, -9, 5, 5, {1, 1, 1});
  CHECK(image.pixels == before);
  draw_rectangle(image, -5, -5, 100, 100, {9, 9, 9}, 200);
  CHECK(std::all_of(image.pixels.begin(), image.pixels.end(), [](std::uint8_t value) { return value == 9; }));
  paste_image(image, Image{2, 2, 1, {50, 60, 70, 80}}, 9, 7);
  CHECK(pixel(image, 9, 7) == Color{50, 50, 50});
  paste_image(image, blank(4, 4), -10, 0);
  CHECK(pixel(image, 0, 0) == Color{9, 9, 9});
}

TEST_CASE("text stays in its measure, and odd characters do no harm") {
  const std::string text = "Score 0.87 {gjpqy}";
  const TextSize size = measure_text(text, 3);
  Image image = blank(size.width + 40, size.height + 40);
  draw_text(image, 20, 20, text, {255, 255, 255}, 3);
  std::int64_t inked = 0;
  for (std::int64_t y = 0; y < image.height; ++y) {
    for (std::int64_t x = 0; x < image.width; ++x) {
      if (pixel(image, x, y) == Color{}) continue;
      ++inked;
      REQUIRE(x >= 20);
      REQUIRE(x < 20 + size.width);
      REQUIRE(y >= 20);
      REQUIRE(y < 20 + size.height);
    }
  }
  CHECK(inked > 500);
  CHECK(measure_text("", 2).width == 0);
  std::string all;
  for (int c = 1; c < 256; ++c) all += static_cast<char>(c);
  draw_text(image, -1000, 5, all + all + all, {1, 2, 3});
  draw_label(image, 1000, -1000, "label", {255, 255, 0});
  CHECK(pixel(image, image.width - 1, 0) == Color{255, 255, 0});
  Image tiny = blank(1, 1);
  draw_label(tiny, 0, 0, "longer than the picture", {255, 255, 0});
}

TEST_CASE("pictures side by side") {
  const std::vector<Image> images{pattern_image(4, 3, 3), pattern_image(2, 5, 1)};
  const Image both = side_by_side(images, 2, {7, 8, 9});
  CHECK(both.width == 8);
  CHECK(both.height == 5);
  CHECK(pixel(both, 3, 2) == pixel(images[0], 3, 2));
  CHECK(pixel(both, 0, 4) == Color{7, 8, 9});
  CHECK(pixel(both, 5, 0) == Color{7, 8, 9});
  CHECK(both.row(4)[3 * 7] == images[1].row(4)[1]);
  CHECK_THROWS_AS(side_by_side({}), Error);
}

TEST_CASE("confusion matrices of few and of many classes") {
  const std::vector<std::int64_t> counts{90, 10, 0, 100};
  const std::vector<std::string> names{"yes", "no"};
  const Image two = confusion_picture(counts, names);
  CHECK(std::count(two.pixels.begin(), two.pixels.end(), 0) > 100);
  const Color best = map_color(ColorMap::viridis, 1.0f);
  bool found = false;
  for (std::int64_t y = 0; y < two.height; ++y) {
    for (std::int64_t x = 0; x < two.width; ++x) found = found || pixel(two, x, y) == best;
  }
  CHECK(found);
  CHECK(confusion_picture(std::vector<std::int64_t>(1000 * 1000), {}).width < 2000);
  CHECK(confusion_picture(std::vector<std::int64_t>{0}, {}).width > 10);
  CHECK_THROWS_AS(confusion_picture(std::vector<std::int64_t>(5), {}), Error);
  CHECK_THROWS_AS(confusion_picture(counts, std::span(names).first(1)), Error);
}
