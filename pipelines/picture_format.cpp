#include <vitrine/pipelines/picture_format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>

#include <fmt/format.h>
#include <zlib.h>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/pixels.h>

namespace vitrine {
namespace {

using Bytes = std::span<const std::uint8_t>;

bool starts_with(Bytes bytes, std::string_view magic, std::size_t offset = 0) {
  return bytes.size() >= offset + magic.size() && std::memcmp(bytes.data() + offset, magic.data(), magic.size()) == 0;
}

// Unsigned integers of a byte order; the caller has checked the bounds.
struct Reader {
  Bytes bytes;
  bool little = false;

  std::uint32_t u16(std::size_t at) const {
    return little ? bytes[at] | bytes[at + 1] << 8 : static_cast<std::uint32_t>(bytes[at] << 8 | bytes[at + 1]);
  }
  std::uint32_t u32(std::size_t at) const { return little ? u16(at) | u16(at + 2) << 16 : u16(at) << 16 | u16(at + 2); }
};

// The first value of a SHORT or LONG entry in the first directory of a TIFF structure, which EXIF data is, too.
std::optional<std::uint32_t> tiff_value(Bytes bytes, std::uint32_t tag) {
  const bool little = starts_with(bytes, "II");
  if (bytes.size() < 8 || !(little || starts_with(bytes, "MM"))) return std::nullopt;
  const Reader reader{bytes, little};
  if (reader.u16(2) != 42) return std::nullopt;
  const std::size_t directory = reader.u32(4);
  if (directory + 2 > bytes.size()) return std::nullopt;
  const std::size_t entries = reader.u16(directory);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t at = directory + 2 + i * 12;
    if (at + 12 > bytes.size()) return std::nullopt;
    constexpr std::uint32_t kShort = 3, kLong = 4;
    const std::uint32_t type = reader.u16(at + 2);
    if (reader.u16(at) != tag || reader.u32(at + 4) != 1 || (type != kShort && type != kLong)) continue;
    return type == kShort ? reader.u16(at + 8) : reader.u32(at + 8);
  }
  return std::nullopt;
}

int exif_orientation(Bytes exif) {
  constexpr std::uint32_t kOrientation = 0x0112;
  const std::uint32_t value = tiff_value(exif, kOrientation).value_or(1);
  return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
}

[[noreturn]] void truncated(const std::string& name, std::string_view what) {
  throw Error(fmt::format("{}: truncated {}; the file was cut off, fetch it again", name, what));
}

// Before anything is allocated; 0 where the header does not tell.
PictureHeader checked_size(const PictureHeader& header, const std::string& name) {
  if (header.width > 0 && header.height > kMaxPixels / header.width) {
    throw Error(picture_size_message(name, header.width, header.height));
  }
  return header;
}

// A segment of Huffman tables: class and number, how many codes of each length, their values. stb_image 2.27 writes out of
// its arrays where there are more than 256, and reads on behind the segment.
void check_huffman(Bytes segment, const std::string& name) {
  constexpr std::size_t kLengths = 16, kMostCodes = 256;
  while (!segment.empty()) {
    std::size_t codes = 0;
    for (std::size_t i = 1; i <= kLengths && i < segment.size(); ++i) codes += segment[i];
    if (codes > kMostCodes || segment.size() < 1 + kLengths + codes) throw Error(fmt::format("{}: damaged JPEG tables", name));
    segment = segment.subspan(1 + kLengths + codes);
  }
}

// The largest sample value of a binary PNM, the third number of its header; 0 where there is none.
std::int64_t pnm_maximum(Bytes bytes) {
  std::int64_t value = 0;
  std::size_t at = 2;
  for (int number = 0; number < 3; ++number) {
    for (bool comment = false; at < bytes.size() && (comment || bytes[at] <= ' ' || bytes[at] == '#'); ++at) {
      comment = (comment || bytes[at] == '#') && bytes[at] != '\n';
    }
    constexpr std::int64_t kMost = 65535;
    for (value = 0; at < bytes.size() && bytes[at] >= '0' && bytes[at] <= '9' && value <= kMost; ++at) {
      value = value * 10 + bytes[at] - '0';
    }
  }
  return value;
}

PictureHeader inspect_pnm(Bytes bytes, const std::string& name) {
  PictureHeader header{.format = PictureFormat::pnm};
  header.by_opencv = bytes[1] < '5';  // ASCII and bitmaps
  if (header.by_opencv) return header;
  // stb_image does not scale samples and takes those of 16 bits for the machine's byte order.
  const std::int64_t maximum = pnm_maximum(bytes);
  if (maximum != 255 && maximum != 65535) {
    throw Error(fmt::format("{}: PNM samples up to {}, expected 255 or 65535; the file may be truncated", name, maximum));
  }
  header.by_opencv = maximum == 65535;
  return header;
}

PictureHeader inspect_jpeg(Bytes bytes, const std::string& name) {
  PictureHeader header{.format = PictureFormat::jpeg};
  const Reader reader{bytes};
  std::size_t at = 2;
  while (true) {
    // To the next marker: 0xFF and a byte that is neither stuffing (0) nor fill (0xFF). This skips compressed data as well.
    const auto* next =
        at < bytes.size() ? static_cast<const std::uint8_t*>(std::memchr(bytes.data() + at, 0xFF, bytes.size() - at)) : nullptr;
    if (next == nullptr) truncated(name, "JPEG");
    at = static_cast<std::size_t>(next - bytes.data()) + 1;
    if (at == bytes.size()) truncated(name, "JPEG");
    const std::uint8_t marker = bytes[at];
    if (marker == 0xFF) continue;
    ++at;
    const bool standalone = marker == 0x00 || marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8);
    if (standalone) continue;
    if (marker == 0xD9) return checked_size(header, name);
    if (at + 2 > bytes.size()) truncated(name, "JPEG");
    const std::size_t length = reader.u16(at);
    if (length < 2) throw Error(fmt::format("{}: damaged JPEG: a segment of {} bytes", name, length));
    if (at + length > bytes.size()) truncated(name, "JPEG");
    const Bytes segment = bytes.subspan(at + 2, length - 2);
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame && segment.size() >= 6) {
      header.height = Reader{segment}.u16(1);
      header.width = Reader{segment}.u16(3);
      // libjpeg, through OpenCV, reads some of these, but prints on stderr what it does not like.
      if (marker > 0xC2) {
        throw Error(fmt::format("{}: JPEG with arithmetic coding or without loss; convert it to PNG or plain JPEG", name));
      }
    }
    if (marker == 0xC4) check_huffman(segment, name);
    if (marker == 0xE1 && starts_with(segment, std::string_view("Exif\0\0", 6))) {
      header.orientation = exif_orientation(segment.subspan(6));
    }
    at += length;
  }
}

PictureHeader inspect_png(Bytes bytes, const std::string& name) {
  PictureHeader header{.format = PictureFormat::png};
  std::uint64_t compressed = 0, row_bits = 0;
  for_each_png_chunk(bytes, name, [&](const PngChunk& chunk) {
    if (chunk.type == "IHDR" && chunk.body.size() == 13) {
      constexpr std::uint64_t kChannels[] = {1, 0, 3, 1, 2, 0, 4};
      header.width = Reader{chunk.body}.u32(0);
      header.height = Reader{chunk.body}.u32(4);
      const std::uint8_t depth = chunk.body[8], color = chunk.body[9];
      row_bits = static_cast<std::uint64_t>(header.width) * depth * (color < 7 ? kChannels[color] : 0);
    }
    if (chunk.type == "IDAT") compressed += chunk.body.size();
    if (chunk.type == "eXIf") header.orientation = exif_orientation(chunk.body);
  });
  checked_size(header, name);
  // Deflate makes at most 1032 bytes of one.
  if (row_bits / 8 * static_cast<std::uint64_t>(header.height) > (compressed + 64) * 1032) truncated(name, "PNG");
  return header;
}

PictureHeader inspect_webp(Bytes bytes, const std::string& name) {
  PictureHeader header{.format = PictureFormat::webp, .by_opencv = true};
  const Reader reader{bytes, true};
  if (static_cast<std::uint64_t>(reader.u32(4)) + 8 > bytes.size()) truncated(name, "WebP");
  for (std::size_t at = 12; bytes.size() - at >= 8;) {
    const std::size_t length = reader.u32(at + 4);
    if (length > bytes.size() - at - 8) truncated(name, "WebP");
    const Bytes body = bytes.subspan(at + 8, length);
    if (starts_with(bytes, "EXIF", at)) {
      header.orientation = exif_orientation(starts_with(body, std::string_view("Exif\0\0", 6)) ? body.subspan(6) : body);
    }
    at += std::min(8 + length + length % 2, bytes.size() - at);
  }
  return header;  // a WebP has at most 16384 x 16384 pixels
}

}  // namespace

bool PngChunk::is_intact() const {
  return crc32(0, reinterpret_cast<const Bytef*>(type.data()), static_cast<uInt>(type.size() + body.size())) == checksum;
}

void for_each_png_chunk(Bytes file, const std::string& name, const std::function<void(const PngChunk&)>& visit) {
  const Reader reader{file};
  for (std::size_t at = kPngSignature.size();;) {
    if (file.size() < at || file.size() - at < 12) truncated(name, "PNG");
    const std::size_t length = reader.u32(at);
    if (length > file.size() - at - 12) truncated(name, "PNG");
    const PngChunk chunk{
        {reinterpret_cast<const char*>(file.data() + at + 4), 4}, file.subspan(at + 8, length), at, reader.u32(at + 8 + length)};
    const bool critical = (chunk.type[0] & 0x20) == 0;
    if (critical && !chunk.is_intact()) throw Error(fmt::format("{}: damaged PNG: the checksum at byte {} is wrong", name, at));
    visit(chunk);
    if (chunk.type == "IEND") return;
    at += length + 12;
  }
}

PictureHeader inspect_picture(std::span<const std::uint8_t> bytes, const std::string& name) {
  if (starts_with(bytes, "\xFF\xD8\xFF")) return inspect_jpeg(bytes, name);
  if (starts_with(bytes, kPngSignature)) return inspect_png(bytes, name);
  if (starts_with(bytes, "RIFF") && starts_with(bytes, "WEBP", 8)) return inspect_webp(bytes, name);
  if (starts_with(bytes, std::string_view("II*\0", 4)) || starts_with(bytes, std::string_view("MM\0*", 4))) {
    constexpr std::uint32_t kWidth = 256, kHeight = 257;  // OpenCV applies a TIFF's orientation itself
    return checked_size({.format = PictureFormat::tiff,
                         .by_opencv = true,
                         .width = tiff_value(bytes, kWidth).value_or(0),
                         .height = tiff_value(bytes, kHeight).value_or(0)},
                        name);
  }
  if (starts_with(bytes, "BM")) return {.format = PictureFormat::bmp};
  if (starts_with(bytes, "GIF8")) return {.format = PictureFormat::gif};
  if (starts_with(bytes, "8BPS")) return {.format = PictureFormat::psd};
  if (bytes.size() > 2 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '6') {
    return inspect_pnm(bytes, name);
  }
  return {};
}

}  // namespace vitrine
