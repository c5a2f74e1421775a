// Files for the tests of this folder: a folder of their own, and safetensors files made by hand.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include <unistd.h>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/weights/sources.h>

// A folder that goes with everything in it. Its name has a space and a letter beyond ASCII.
class Folder {
 public:
  Folder() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() / fmt::format("vitrine tést {}-{}", getpid(), count++);
    std::filesystem::create_directories(path_);
  }
  ~Folder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string operator/(std::string_view name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }
  std::size_t entries() const {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator(path_), std::filesystem::directory_iterator()));
  }

 private:
  std::filesystem::path path_;
};

inline void write_bytes(const std::string& path, std::string_view bytes) {
  std::filesystem::remove(path);  // some file systems write through where a file is overwritten: 30 times slower
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

inline std::string read_bytes(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

// A file with this header and as many bytes of data; `length` where the header should lie about itself.
inline std::string safetensors(std::string_view header, std::size_t data, std::uint64_t length = ~0ull) {
  if (length == ~0ull) length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + std::string(header) + std::string(data, '\1');
}

// The message of the Error that opening and loading everything gives; empty without one. Other exceptions pass.
inline std::string trouble(const std::string& path) {
  try {
    const auto source = vitrine::open_weights(path);
    for (const std::string& name : source->names()) source->load(name, {});
  } catch (const vitrine::Error& e) {
    return e.what();
  }
  return "";
}
