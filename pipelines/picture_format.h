// What a file of a picture is, read from its headers before anything is decoded: not part of the public interface.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

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

inline constexpr std::string_view kPngSignature = "\x89PNG\r\n\x1A\n";

struct PngChunk {
  std::string_view type;               // "IHDR", in the file
  std::span<const std::uint8_t> body;  // behind it
  std::size_t at = 0;                  // of the chunk in the file
  std::uint32_t checksum = 0;          // as the file has it

  bool is_intact() const;
};
// The chunks of a PNG from the first to IEND; those without which there is no picture are intact. Throws Error: `NAME: truncated
// PNG`, `NAME: damaged PNG: the checksum at byte 33 is wrong`.
void for_each_png_chunk(std::span<const std::uint8_t> file, const std::string& name,
                        const std::function<void(const PngChunk&)>& visit);

}  // namespace vitrine
