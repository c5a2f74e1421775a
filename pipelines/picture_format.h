// What a file of a picture is, read from its headers before anything is decoded: not part of the public interface.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace vitrine {

enum class PictureFormat : std::uint8_t { unknown, jpeg, png, bmp, gif, pnm, psd, webp, tiff };

struct PictureHeader {
  PictureFormat format = PictureFormat::unknown;
  bool by_opencv = false;              // a format, or a variant of one, that stb_image lacks
  std::int64_t width = 0, height = 0;  // where this parser knows them, else 0
  int orientation = 1;                 // EXIF's: 1 is upright
};

// Walks through the segments of a JPEG and the chunks of a PNG to their end, so that what was cut off is noticed: decoders
// fill it with grey. Throws Error: `NAME: truncated ...`, `NAME: damaged ...`, `NAME: 20000x20000 pixels ...`.
PictureHeader inspect_picture(std::span<const std::uint8_t> bytes, const std::string& name);

}  // namespace vitrine
