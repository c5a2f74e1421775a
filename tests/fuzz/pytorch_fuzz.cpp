// Any bytes as a PyTorch checkpoint: a zip archive or the older stream, with the pickle inside. Mutations of a whole archive
// seldom leave its offsets right, so that the bytes also become the pickle of an archive that is.
#include <string>

#include <weights/pytorch_files.h>

#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Input input("model.pth");
  input.set(data, size);
  open_and_read(input.link);
  const std::string pickle(reinterpret_cast<const char*>(data), size);
  const std::string archive =
      zip({{"m/data.pkl", pickle}, {"m/data/0", four_floats()}, {"m/data/1", std::string(64, '\1')}, {"m/byteorder", "little"}});
  input.set(reinterpret_cast<const std::uint8_t*>(archive.data()), archive.size());
  open_and_read(input.link);
  return 0;
}
