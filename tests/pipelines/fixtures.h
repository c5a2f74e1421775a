// Pictures and files for the tests of pipelines.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <zlib.h>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/image.h>

namespace vitrine::test {

// A folder that is removed with all in it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "vitrine-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::size_t count() const { return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path_), {})); }

 private:
  std::filesystem::path path_;
};

using Bytes = std::vector<std::uint8_t>;

inline void save(const std::string& path, const Bytes& bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<long>(bytes.size()));
}

// The message of the Error that `action` throws; "" where it throws none.
template <typename Action>
std::string error_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline Bytes load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::string data_file(const std::string& name) { return std::string(VITRINE_SOURCE_DIR) + "/tests/data/pictures/" + name; }

// Bytes that look random and that any language can make: the hash of the index.
inline Image pattern_image(std::int64_t width, std::int64_t height, std::int64_t channels) {
  Image image{width, height, channels, Bytes(static_cast<std::size_t>(width * height * channels))};
  std::uint32_t index = 0;
  for (std::uint8_t& byte : image.pixels) {
    std::uint32_t v = index++ * 2654435761u;
    v ^= v >> 15;
    byte = static_cast<std::uint8_t>((v * 2246822519u) >> 24);
  }
  return image;
}

// The picture of tests/data/pictures: 24x16, red along x, green along y.
inline Image gradient_image() {
  Image image{24, 16, 3, {}};
  for (int y = 0; y < 16; ++y) {
    for (int x = 0; x < 24; ++x) {
      image.pixels.insert(image.pixels.end(), {static_cast<std::uint8_t>(x * 10), static_cast<std::uint8_t>(y * 15), 128});
    }
  }
  return image;
}

inline int largest_difference(const Image& a, const Image& b) {
  if (a.width != b.width || a.height != b.height || a.channels != b.channels) return 256;
  int largest = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) largest = std::max(largest, std::abs(a.pixels[i] - b.pixels[i]));
  return largest;
}

inline std::uint32_t crc_of(const Image& image, std::uint32_t before = 0) {
  return static_cast<std::uint32_t>(crc32(before, image.pixels.data(), static_cast<uInt>(image.pixels.size())));
}

inline void append_u32(Bytes& to, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) to.push_back(static_cast<std::uint8_t>(value >> shift));
}

inline void append_png_chunk(Bytes& file, const std::string& type, const Bytes& body) {
  append_u32(file, static_cast<std::uint32_t>(body.size()));
  Bytes checked(type.begin(), type.end());
  checked.insert(checked.end(), body.begin(), body.end());
  file.insert(file.end(), checked.begin(), checked.end());
  append_u32(file, static_cast<std::uint32_t>(crc32(0, checked.data(), static_cast<uInt>(checked.size()))));
}

inline Bytes deflated(const Bytes& bytes) {
  Bytes packed(compressBound(bytes.size()));
  uLongf size = packed.size();
  compress(packed.data(), &size, bytes.data(), bytes.size());
  packed.resize(size);
  return packed;
}

// Writes a PNG by hand: any depth and colour type, `raw` being the filtered rows.
inline Bytes make_png(std::uint32_t width, std::uint32_t height, int depth, int color_type, const Bytes& raw,
                      const Bytes& palette = {}) {
  Bytes file{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  Bytes header;
  append_u32(header, width);
  append_u32(header, height);
  header.insert(header.end(), {static_cast<std::uint8_t>(depth), static_cast<std::uint8_t>(color_type), 0, 0, 0});
  append_png_chunk(file, "IHDR", header);
  if (!palette.empty()) append_png_chunk(file, "PLTE", palette);
  append_png_chunk(file, "IDAT", deflated(raw));
  append_png_chunk(file, "IEND", {});
  return file;
}

}  // namespace vitrine::test
