#include <vitrine/pipelines/image.h>

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/files.h>
#include <vitrine/pipelines/opencv/codecs.h>
#include <vitrine/pipelines/picture_format.h>
#include <vitrine/pipelines/pixels.h>
#include <vitrine/pipelines/stb_decoder.h>

namespace vitrine {
namespace {

// EXIF's orientations: 1 upright, 2 mirrored, 3 half a turn, 4 upside down, 5..8 with rows and columns exchanged.
Image upright(Image image, int orientation) {
  if (orientation == 1) return image;
  const bool exchanged = orientation >= 5;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image result =
      exchanged ? make_image(image.height, image.width, image.channels) : make_image(image.width, image.height, image.channels);
  for (std::int64_t y = 0; y < result.height; ++y) {
    std::uint8_t* to = result.row(y);
    for (std::int64_t x = 0; x < result.width; ++x) {
      std::int64_t column = exchanged ? y : x, row = exchanged ? x : y;
      if (from_right) column = image.width - 1 - column;
      if (from_bottom) row = image.height - 1 - row;
      std::copy_n(image.row(row) + column * image.channels, image.channels, to + x * image.channels);
    }
  }
  return result;
}

}  // namespace

Image make_image(std::int64_t width, std::int64_t height, std::int64_t channels) {
  return {width, height, channels, std::vector<std::uint8_t>(static_cast<std::size_t>(width * height * channels))};
}

void check_image(const Image& image, std::string_view where) {
  const bool sized = image.width >= 1 && image.height >= 1 && image.width <= kMaxPixels / image.height && image.channels >= 1 &&
                     image.channels <= 4;
  if (!sized || image.pixels.size() != static_cast<std::size_t>(image.width * image.height * image.channels)) {
    throw Error(fmt::format("{}: picture of {}x{}x{} with {} bytes; expected 1 to 4 channels and all pixels", where, image.width,
                            image.height, image.channels, image.pixels.size()));
  }
}

std::string picture_size_message(const std::string& name, std::int64_t width, std::int64_t height) {
  return fmt::format("{}: {}x{} pixels, expected at least 1 and at most 2^28; shrink it first", name, width, height);
}

Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name, int channels) {
  if (channels != 1 && channels != 3) throw Error(fmt::format("{}: {} channels asked for, expected 1 or 3", name, channels));
  if (bytes.empty()) throw Error(fmt::format("{}: empty file", name));
  const PictureHeader header = inspect_picture(bytes, name);
  // 16-bit samples become their upper byte in both decoders, as in Pillow for colour. For grey Pillow's convert() cuts
  // them off at 255 instead, which leaves a white picture: not followed.
  Image image = header.by_opencv ? opencv_decode(bytes, name) : stb_decode(bytes, header.format, name);
  return convert_channels(upright(std::move(image), header.orientation), channels);
}

Image read_image(const std::string& path, int channels) { return decode_image(read_file(path, "a picture"), path, channels); }

Image crop_image(const Image& image, std::int64_t left, std::int64_t top, std::int64_t width, std::int64_t height,
                 std::uint8_t fill) {
  check_image(image, "crop");
  if (width < 1 || height < 1 || width > kMaxPixels / height) {
    throw Error(fmt::format("crop: to {}x{}, expected at least 1x1 and at most 2^28 pixels", width, height));
  }
  Image result = make_image(width, height, image.channels);
  std::fill(result.pixels.begin(), result.pixels.end(), fill);
  const std::int64_t begin = std::max<std::int64_t>(left, 0), end = std::min(left + width, image.width);
  if (begin >= end) return result;
  for (std::int64_t y = std::max<std::int64_t>(top, 0); y < std::min(top + height, image.height); ++y) {
    std::memcpy(result.row(y - top) + (begin - left) * image.channels, image.row(y) + begin * image.channels,
                static_cast<std::size_t>((end - begin) * image.channels));
  }
  return result;
}

Image convert_channels(const Image& image, int channels) {
  check_image(image, "convert_channels");
  if (image.channels == channels) return image;
  if (channels != 1 && channels != 3) throw Error(fmt::format("convert_channels: to {}, expected 1 or 3", channels));
  Image result = make_image(image.width, image.height, channels);
  const std::uint8_t* from = image.pixels.data();
  std::uint8_t* to = result.pixels.data();
  for (std::int64_t i = 0; i < image.width * image.height; ++i, from += image.channels, to += channels) {
    if (image.channels <= 2) {
      std::fill_n(to, channels, *from);
    } else if (channels == 3) {
      std::copy_n(from, 3, to);
    } else {  // Pillow's L: ITU-R 601 weights in 16 bits, rounded
      *to = static_cast<std::uint8_t>((from[0] * 19595u + from[1] * 38470u + from[2] * 7471u + 0x8000u) >> 16);
    }
  }
  return result;
}

}  // namespace vitrine
