// Any bytes as a .safetensors file. Bytes that begin with a brace are an index of shards, too.
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Input input("model.safetensors.index.json");
  input.set(data, size);
  open_and_read(input.path);
  if (size > 0 && data[0] == '{') open_and_read(input.link);
  return 0;
}
