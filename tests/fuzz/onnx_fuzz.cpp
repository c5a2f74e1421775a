// Any bytes as an ONNX model.
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Input input("model.onnx");
  input.set(data, size);
  open_and_read(input.link);
  return 0;
}
