// Any bytes as a .safetensors file: opening it gives an Error or a source of which every tensor can be read to its last
// byte. Bytes that begin with a brace are an index of shards, too.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

namespace vitrine {

// The op set is not linked; the reader hands out what is stored and never converts through it.
Tensor cast(const Tensor&, DType) { std::abort(); }
void copy_(Tensor&, const Tensor&) { std::abort(); }

}  // namespace vitrine

namespace {

// One anonymous file for all inputs, and a link to it with the extension of an index.
struct Input {
  Input() : descriptor(memfd_create("input", 0)), path("/proc/self/fd/" + std::to_string(descriptor)) {
    directory = std::filesystem::temp_directory_path() / "vitrine-fuzz-XXXXXX";
    if (descriptor < 0 || !mkdtemp(directory.data())) std::abort();
    index = directory + "/model.safetensors.index.json";
    if (symlink(path.c_str(), index.c_str()) != 0) std::abort();
  }
  ~Input() {
    unlink(index.c_str());
    rmdir(directory.c_str());
  }

  int descriptor;
  std::string path, directory, index;
};

void open_and_read(const std::string& path) {
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Input input;
  if (ftruncate(input.descriptor, 0) != 0 || pwrite(input.descriptor, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  open_and_read(input.path);
  if (size > 0 && data[0] == '{') open_and_read(input.index);
  return 0;
}
