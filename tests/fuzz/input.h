// What the targets share: the input as a file, and a checkpoint read to its last byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

#include <vitrine/layers/error.h>
#include <vitrine/weights/sources.h>

// One anonymous file for all inputs, and a link to it under a name of its own.
struct Input {
  explicit Input(const std::string& name)
      : descriptor(memfd_create("input", 0)), path("/proc/self/fd/" + std::to_string(descriptor)) {
    directory = std::filesystem::temp_directory_path() / "vitrine-fuzz-XXXXXX";
    if (descriptor < 0 || !mkdtemp(directory.data())) std::abort();
    link = directory + "/" + name;
    if (symlink(path.c_str(), link.c_str()) != 0) std::abort();
  }
  ~Input() {
    unlink(link.c_str());
    rmdir(directory.c_str());
  }

  void set(const std::uint8_t* data, std::size_t size) const {
    if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  }

  int descriptor;
  std::string path, directory, link;
};

// Opening gives an Error of one line, or a source of which every tensor can be read to its last byte.
inline void open_and_read(const std::string& path) {
  try {
    const auto source = vitrine::open_weights(path);
    for (const std::string& name : source->names()) {
      if (!source->find(name)) std::abort();
      try {
        const vitrine::Tensor tensor = source->load(name, {});
        const auto* bytes = static_cast<const unsigned char*>(tensor.raw());
        unsigned sum = 0;
        for (std::size_t i = 0; i < tensor.bytes(); ++i) sum += bytes[i];
        static volatile unsigned sink;
        sink = sink + sum;
      } catch (const vitrine::Error&) {  // a stored type that cannot be read yet
      }
      source->release(name);
    }
    source->metadata();
  } catch (const vitrine::Error& e) {
    if (std::string(e.what()).find('\n') != std::string::npos) std::abort();
  }
}
