// Pictures of results: colour maps, heat overlays, boxes, labels, confusion matrices; and the regions of a map.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/pipelines/image.h>

namespace vitrine {

struct Color {
  std::uint8_t r = 0, g = 0, b = 0;

  friend bool operator==(const Color&, const Color&) = default;
};

enum class ColorMap : std::uint8_t { grey, turbo, viridis };
VITRINE_API ColorMap parse_color_map(std::string_view name);  // throws Error
VITRINE_API Color map_color(ColorMap map, float value);       // value in [0, 1], clamped; NaN is 0

// Maps are row-major, values in [0, 1] (clamped). A map of another size than its picture throws Error.
VITRINE_API Image color_picture(std::span<const float> values, std::int64_t width, std::int64_t height, ColorMap map);  // RGB
VITRINE_API Image grey_picture(std::span<const float> values, std::int64_t width, std::int64_t height);  // value * 255, rounded
// The photo with the map's colours over it, the more opaque the higher the value, up to `opacity`. RGB.
VITRINE_API Image heat_overlay(const Image& photo, std::span<const float> values, ColorMap map = ColorMap::turbo,
                               float opacity = 0.6f);

// A connected part (8 neighbours) of the points of a map that are at or above a threshold.
struct Region {
  std::int64_t left = 0, top = 0, width = 0, height = 0;  // bounding box
  std::int64_t area = 0;                                  // points
  float score = 0.0f;                                     // mean of the map over them
};
// Largest first; those smaller than `min_area` are left out.
VITRINE_API std::vector<Region> find_regions(std::span<const float> values, std::int64_t width, std::int64_t height,
                                             float threshold, std::int64_t min_area = 1);

// Into RGB or grey pictures; what lies outside is cut off.
VITRINE_API void fill_rectangle(Image& image, std::int64_t left, std::int64_t top, std::int64_t width, std::int64_t height,
                                Color color);
VITRINE_API void draw_rectangle(Image& image, std::int64_t left, std::int64_t top, std::int64_t width, std::int64_t height,
                                Color color, std::int64_t thickness = 2);  // outline, inside the rectangle
VITRINE_API void paste_image(Image& image, const Image& part, std::int64_t left, std::int64_t top);

// One line of printable ASCII in a small fixed font, (left, top) its upper left corner; other characters become '?'.
struct TextSize {
  std::int64_t width = 0, height = 0;
};
VITRINE_API TextSize measure_text(std::string_view text, int scale = 2);
VITRINE_API void draw_text(Image& image, std::int64_t left, std::int64_t top, std::string_view text, Color color, int scale = 2);
VITRINE_API void draw_label(Image& image, std::int64_t left, std::int64_t top, std::string_view text, Color background,
                            int scale = 2);  // black or white text on a filled box, moved into the picture

// Side by side with a gap, aligned at the top. RGB.
VITRINE_API Image side_by_side(std::span<const Image> images, std::int64_t gap = 8, Color background = {255, 255, 255});

// Pictures of one size in rows, as many to a row as there are rows, or one more. RGB, or grey where all are.
VITRINE_API Image picture_grid(std::span<const Image> images, std::int64_t gap = 2, Color background = {255, 255, 255});

// counts[row * classes + column]: pictures of class `row` that were taken for `column`. Colour is the share of the row;
// counts are written into the cells where they have room. `names` may be empty.
VITRINE_API Image confusion_picture(std::span<const std::int64_t> counts, std::span<const std::string> names);

}  // namespace vitrine
