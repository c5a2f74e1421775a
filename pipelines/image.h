// Pictures: decoding, Pillow's resizing, and writing.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

// 8-bit pixels, rows top to bottom, channels interleaved: 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).
struct Image {
  std::int64_t width = 0, height = 0, channels = 0;
  std::vector<std::uint8_t> pixels;  // height * width * channels

  std::uint8_t* row(std::int64_t y) { return pixels.data() + y * width * channels; }
  const std::uint8_t* row(std::int64_t y) const { return pixels.data() + y * width * channels; }
};

// Reads a picture and gives it with `channels` (1 or 3): JPEG, PNG, BMP, GIF (first frame), PNM, TGA, PSD by stb_image;
// WebP, TIFF and the rarer PNM by OpenCV, loaded when first needed. EXIF orientation is applied; of 16-bit samples the upper
// byte is taken (as Pillow does for colour); grey from colour is Pillow's L (ITU-R 601, fixed point); alpha is dropped as
// Pillow's convert("RGB") does; palettes are resolved. JPEG differs from libjpeg by at most 2 levels. Throws Error:
// `PATH: ...` (missing, empty, not a picture, truncated, more than 2^28 pixels).
VITRINE_API Image read_image(const std::string& path, int channels = 3);
VITRINE_API Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name, int channels = 3);

// PNG, or JPEG by the extension .jpg/.jpeg. Through a temporary file that is renamed; throws Error and leaves nothing.
VITRINE_API void write_image(const std::string& path, const Image& image);

// What a PNG says in words, by keyword, such as how it was made: UTF-8. Keywords are 1 to 79 printable ASCII characters without
// spaces at the ends or two in a row; texts have no zeros and up to 2^24 bytes in all. Throws Error for others.
using PngMetadata = std::map<std::string, std::string>;
// As tEXt, what is not ASCII as iTXt, in front of the pixels.
VITRINE_API void write_png(const std::string& path, const Image& image, const PngMetadata& metadata);
// tEXt, zTXt and iTXt; of equal keywords the last counts. Throws Error: not a PNG, truncated, a damaged text.
VITRINE_API PngMetadata read_png_metadata(const std::string& path);

enum class Filter : std::uint8_t { nearest, box, bilinear, hamming, bicubic, lanczos };
VITRINE_API Filter parse_filter(std::string_view name);  // throws Error

// Pillow's Image.resize, to the byte: support widened by the scale, fixed-point coefficients, a horizontal pass, then a
// vertical one. `box` is left, top, right, bottom in the source. Channels are independent (no premultiplied alpha).
VITRINE_API Image resize_image(const Image& image, std::int64_t width, std::int64_t height, Filter filter,
                               std::optional<std::array<double, 4>> box = std::nullopt);
VITRINE_API Image crop_image(const Image& image, std::int64_t left, std::int64_t top, std::int64_t width, std::int64_t height,
                             std::uint8_t fill = 0);  // may reach beyond the picture: filled
VITRINE_API Image convert_channels(const Image& image, int channels);

}  // namespace vitrine
