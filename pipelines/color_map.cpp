// Colour maps and the pictures of maps.
#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/draw.h>
#include <vitrine/pipelines/pixels.h>

namespace vitrine {
namespace {

// Sixteen colours at equal steps; between them linear interpolation stays within 7 levels of the published tables (turbo:
// A. Mikhailov, Google, 2019; viridis: S. van der Walt and N. Smith, matplotlib, 2015).
using Knots = std::array<Color, 16>;
constexpr Knots kTurbo{{{48, 18, 59},
                        {65, 67, 167},
                        {71, 113, 233},
                        {62, 155, 254},
                        {34, 197, 226},
                        {26, 228, 182},
                        {70, 248, 132},
                        {136, 255, 78},
                        {185, 246, 53},
                        {225, 221, 55},
                        {250, 186, 57},
                        {253, 141, 39},
                        {240, 91, 18},
                        {214, 53, 6},
                        {175, 24, 1},
                        {122, 4, 3}}};
constexpr Knots kViridis{{{68, 1, 84},
                          {72, 26, 108},
                          {71, 47, 125},
                          {65, 68, 135},
                          {57, 86, 140},
                          {49, 104, 142},
                          {42, 120, 142},
                          {35, 136, 142},
                          {31, 152, 139},
                          {34, 168, 132},
                          {53, 183, 121},
                          {84, 197, 104},
                          {122, 209, 81},
                          {165, 219, 54},
                          {210, 226, 27},
                          {253, 231, 37}}};

float clamped(float value) { return value > 0.0f ? std::min(value, 1.0f) : 0.0f; }  // NaN becomes 0
std::uint8_t to_byte(float value) { return static_cast<std::uint8_t>(std::lround(value)); }
std::uint8_t mix(std::uint8_t a, std::uint8_t b, float share) {
  return to_byte(static_cast<float>(a) + (static_cast<float>(b) - static_cast<float>(a)) * share);
}

void check_map(std::span<const float> values, std::int64_t width, std::int64_t height) {
  if (width < 1 || height < 1 || width > kMaxPixels / height || values.size() != static_cast<std::size_t>(width * height)) {
    throw Error(fmt::format("draw: a map of {} values for {}x{} points", values.size(), width, height));
  }
}

}  // namespace

ColorMap parse_color_map(std::string_view name) {
  if (name == "grey" || name == "gray") return ColorMap::grey;
  if (name == "turbo") return ColorMap::turbo;
  if (name == "viridis") return ColorMap::viridis;
  throw Error(fmt::format("colour map {}: unknown; expected turbo, viridis or grey", name));
}

Color map_color(ColorMap map, float value) {
  value = clamped(value);
  if (map == ColorMap::grey) {
    const std::uint8_t level = to_byte(value * 255.0f);
    return {level, level, level};
  }
  const Knots& knots = map == ColorMap::turbo ? kTurbo : kViridis;
  const float at = value * static_cast<float>(knots.size() - 1);
  const auto i = std::min(static_cast<std::size_t>(at), knots.size() - 2);
  const float share = at - static_cast<float>(i);
  return {mix(knots[i].r, knots[i + 1].r, share), mix(knots[i].g, knots[i + 1].g, share), mix(knots[i].b, knots[i + 1].b, share)};
}

Image color_picture(std::span<const float> values, std::int64_t width, std::int64_t height, ColorMap map) {
  check_map(values, width, height);
  Image image = make_image(width, height, 3);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Color color = map_color(map, values[i]);
    image.pixels[3 * i] = color.r;
    image.pixels[3 * i + 1] = color.g;
    image.pixels[3 * i + 2] = color.b;
  }
  return image;
}

Image grey_picture(std::span<const float> values, std::int64_t width, std::int64_t height) {
  check_map(values, width, height);
  Image image = make_image(width, height, 1);
  std::transform(values.begin(), values.end(), image.pixels.begin(),
                 [](float value) { return to_byte(clamped(value) * 255.0f); });
  return image;
}

Image heat_overlay(const Image& photo, std::span<const float> values, ColorMap map, float opacity) {
  check_map(values, photo.width, photo.height);
  Image image = convert_channels(photo, 3);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Color color = map_color(map, values[i]);
    const float share = clamped(values[i]) * clamped(opacity);
    std::uint8_t* pixel = image.pixels.data() + 3 * i;
    pixel[0] = mix(pixel[0], color.r, share);
    pixel[1] = mix(pixel[1], color.g, share);
    pixel[2] = mix(pixel[2], color.b, share);
  }
  return image;
}

}  // namespace vitrine
