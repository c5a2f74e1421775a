// Rectangles, text, and pictures put together.
#include <vitrine/pipelines/draw.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>

#include <fmt/format.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include <stb/stb_easy_font.h>
#pragma GCC diagnostic pop

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/pixels.h>

namespace vitrine {
namespace {

constexpr Color kBlack{0, 0, 0}, kWhite{255, 255, 255};

// Luminance as in Pillow's L.
std::uint8_t grey_of(Color c) { return static_cast<std::uint8_t>((c.r * 19595u + c.g * 38470u + c.b * 7471u + 0x8000u) >> 16); }
Color readable_on(Color background) { return grey_of(background) > 140 ? kBlack : kWhite; }

Image blank(std::int64_t width, std::int64_t height, Color color) {
  if (width < 1 || height < 1 || width > kMaxPixels / height) {
    throw Error(fmt::format("draw: a picture of {}x{}, expected at most 2^28 pixels", width, height));
  }
  Image image = make_image(width, height, 3);
  fill_rectangle(image, 0, 0, width, height, color);
  return image;
}

// The font's rectangles of one line, in font units.
struct Quad {
  std::int64_t left, top, right, bottom;
};

std::vector<Quad> outline(std::string_view text) {
  std::string line(text);
  for (char& c : line) {
    if (c < ' ' || c > '~') c = '?';
  }
  struct Vertex {
    float x, y, z;
    std::uint8_t color[4];
  };
  constexpr std::size_t kVerticesOfCharacter = 4 * 24;  // no glyph has more than 20 rectangles
  std::vector<Vertex> vertices((line.size() + 1) * kVerticesOfCharacter);
  const int count =
      stb_easy_font_print(0.0f, 0.0f, line.data(), nullptr, vertices.data(), static_cast<int>(vertices.size() * sizeof(Vertex)));
  std::vector<Quad> quads;
  for (int i = 0; i < count; ++i) {
    const Vertex &first = vertices[4 * i], &third = vertices[4 * i + 2];
    quads.push_back({std::lround(first.x), std::lround(first.y), std::lround(third.x), std::lround(third.y)});
  }
  return quads;
}

// A quarter turn to the left: text that reads upward.
Image turned(const Image& image) {
  Image result = make_image(image.height, image.width, image.channels);
  for (std::int64_t y = 0; y < result.height; ++y) {
    for (std::int64_t x = 0; x < result.width; ++x) {
      std::copy_n(image.row(x) + (image.width - 1 - y) * image.channels, image.channels, result.row(y) + x * image.channels);
    }
  }
  return result;
}

Image upward_text(std::string_view text) {
  const TextSize size = measure_text(text, 1);
  Image line = blank(std::max<std::int64_t>(size.width, 1), size.height, kWhite);
  draw_text(line, 0, 0, text, kBlack, 1);
  return turned(line);
}

}  // namespace

void fill_rectangle(Image& image, std::int64_t left, std::int64_t top, std::int64_t width, std::int64_t height, Color color) {
  check_image(image, "draw");
  const std::int64_t begin = std::max<std::int64_t>(left, 0), end = std::min(left + width, image.width);
  const std::uint8_t grey = grey_of(color);
  const std::array<std::uint8_t, 4> value =
      image.channels <= 2 ? std::array<std::uint8_t, 4>{grey, 255} : std::array<std::uint8_t, 4>{color.r, color.g, color.b, 255};
  for (std::int64_t y = std::max<std::int64_t>(top, 0); y < std::min(top + height, image.height); ++y) {
    for (std::int64_t x = begin; x < end; ++x) std::copy_n(value.data(), image.channels, image.row(y) + x * image.channels);
  }
}

void draw_rectangle(Image& image, std::int64_t left, std::int64_t top, std::int64_t width, std::int64_t height, Color color,
                    std::int64_t thickness) {
  const std::int64_t x = std::min(thickness, width), y = std::min(thickness, height);
  fill_rectangle(image, left, top, width, y, color);
  fill_rectangle(image, left, top + height - y, width, y, color);
  fill_rectangle(image, left, top, x, height, color);
  fill_rectangle(image, left + width - x, top, x, height, color);
}

void paste_image(Image& image, const Image& part, std::int64_t left, std::int64_t top) {
  check_image(image, "draw");
  check_image(part, "draw");
  if (image.channels != part.channels) {
    paste_image(image, convert_channels(part, static_cast<int>(image.channels)), left, top);
    return;
  }
  const std::int64_t begin = std::max<std::int64_t>(left, 0), end = std::min(left + part.width, image.width);
  if (begin >= end) return;
  for (std::int64_t y = std::max<std::int64_t>(top, 0); y < std::min(top + part.height, image.height); ++y) {
    std::memcpy(image.row(y) + begin * image.channels, part.row(y - top) + (begin - left) * part.channels,
                static_cast<std::size_t>((end - begin) * image.channels));
  }
}

TextSize measure_text(std::string_view text, int scale) {
  std::int64_t width = 0;
  for (const Quad& quad : outline(text)) width = std::max(width, quad.right);
  constexpr std::int64_t kLine = 12;  // with descenders and the space between lines
  return {width * scale, kLine * scale};
}

void draw_text(Image& image, std::int64_t left, std::int64_t top, std::string_view text, Color color, int scale) {
  for (const Quad& quad : outline(text)) {
    fill_rectangle(image, left + quad.left * scale, top + quad.top * scale, (quad.right - quad.left) * scale,
                   (quad.bottom - quad.top) * scale, color);
  }
}

void draw_label(Image& image, std::int64_t left, std::int64_t top, std::string_view text, Color background, int scale) {
  const TextSize size = measure_text(text, scale);
  const std::int64_t margin = 2 * scale, width = size.width + 2 * margin, height = size.height + margin;
  left = std::max<std::int64_t>(std::min(left, image.width - width), 0);
  top = std::max<std::int64_t>(std::min(top, image.height - height), 0);
  fill_rectangle(image, left, top, width, height, background);
  draw_text(image, left + margin, top + margin, text, readable_on(background), scale);
}

Image side_by_side(std::span<const Image> images, std::int64_t gap, Color background) {
  if (images.empty()) throw Error("draw: no pictures to put side by side");
  std::int64_t width = gap * static_cast<std::int64_t>(images.size() - 1), height = 0;
  for (const Image& image : images) {
    check_image(image, "draw");
    width += image.width;
    height = std::max(height, image.height);
  }
  Image result = blank(width, height, background);
  std::int64_t left = 0;
  for (const Image& image : images) {
    paste_image(result, image, left, 0);
    left += image.width + gap;
  }
  return result;
}

Image picture_grid(std::span<const Image> images, std::int64_t gap, Color background) {
  if (images.empty()) throw Error("draw: no pictures for a grid");
  const auto count = static_cast<std::int64_t>(images.size());
  auto columns = static_cast<std::int64_t>(std::sqrt(static_cast<double>(count)));
  while (columns * columns < count) ++columns;
  const std::int64_t rows = (count + columns - 1) / columns, width = images[0].width, height = images[0].height;
  Image result = blank(columns * (width + gap) - gap, rows * (height + gap) - gap, background);
  bool grey = true;
  for (std::int64_t i = 0; i < count; ++i) {
    const Image& image = images[static_cast<std::size_t>(i)];
    check_image(image, "draw");
    if (image.width != width || image.height != height)
      throw Error(fmt::format("draw: pictures of {}x{} and {}x{} in a grid", width, height, image.width, image.height));
    grey = grey && image.channels < 3;
    paste_image(result, image, i % columns * (width + gap), i / columns * (height + gap));
  }
  return grey ? convert_channels(result, 1) : result;
}

Image confusion_picture(std::span<const std::int64_t> counts, std::span<const std::string> names) {
  const auto classes = std::llround(std::sqrt(static_cast<double>(counts.size())));
  if (classes < 1 || static_cast<std::size_t>(classes * classes) != counts.size() ||
      (!names.empty() && names.size() != static_cast<std::size_t>(classes))) {
    throw Error(fmt::format("confusion matrix: {} counts and {} names, expected n * n and n", counts.size(), names.size()));
  }
  // Cells become smaller as classes become more; counts and names are written while a line of text fits.
  const bool text = classes <= 64;
  const std::int64_t cell = classes <= 20 ? 44 : text ? 20 : std::max<std::int64_t>(1500 / classes, 1);
  const auto name_of = [&](std::int64_t i) { return names.empty() ? fmt::format("{}", i) : names[static_cast<std::size_t>(i)]; };
  constexpr std::int64_t kMargin = 10, kLine = 12;
  std::int64_t names_width = 0;
  for (std::int64_t i = 0; text && i < classes; ++i) names_width = std::max(names_width, measure_text(name_of(i), 1).width);
  const std::int64_t head = names_width + kLine + 3 * kMargin, side = classes * cell;
  Image image = blank(head + side + kMargin, head + side + kMargin, kWhite);
  draw_text(image, head, kMargin, "predicted", kBlack, 1);
  const Image truth = upward_text("true class");
  paste_image(image, truth, kMargin, head + side - truth.height);

  for (std::int64_t row = 0; row < classes; ++row) {
    const std::span<const std::int64_t> line =
        counts.subspan(static_cast<std::size_t>(row * classes), static_cast<std::size_t>(classes));
    const auto total = std::max<std::int64_t>(std::accumulate(line.begin(), line.end(), std::int64_t{0}), 1);
    for (std::int64_t column = 0; column < classes; ++column) {
      const std::int64_t count = line[static_cast<std::size_t>(column)];
      const Color color = map_color(ColorMap::viridis, static_cast<float>(count) / static_cast<float>(total));
      const std::int64_t left = head + column * cell, top = head + row * cell;
      const std::int64_t space = text ? 1 : 0;  // a line between cells
      fill_rectangle(image, left, top, cell - space, cell - space, color);
      const std::string number = fmt::format("{}", count);
      const TextSize size = measure_text(number, 1);
      if (count == 0 || !text || size.width + 2 > cell) continue;
      draw_text(image, left + (cell - size.width) / 2, top + (cell - size.height) / 2 + 2, number, readable_on(color), 1);
    }
    if (!text) continue;
    const std::int64_t middle = head + row * cell + cell / 2 - 4;
    const std::string name = name_of(row);
    draw_text(image, head - kMargin - measure_text(name, 1).width, middle, name, kBlack, 1);
    const Image upward = upward_text(name);
    paste_image(image, upward, middle, head - kMargin - upward.height);
  }
  return image;
}

}  // namespace vitrine
