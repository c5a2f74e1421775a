// The .npy format of NumPy, version 1.0: a magic, the length of a header, the header (a Python dictionary), the data.
#include <vitrine/weights/sources.h>

#include <cstdint>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/file.h>

namespace vitrine {

namespace {

std::string_view descriptor(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "<f4";
    case DType::f16:
      return "<f2";
    case DType::i64:
      return "<i8";
    case DType::i32:
      return "<i4";
    case DType::i8:
      return "|i1";
    case DType::u8:
      return "|u1";
    case DType::boolean:
      return "|b1";
    case DType::bf16:
      break;  // NumPy has none: written as f32
  }
  return "<f4";
}

}  // namespace

void save_npy(const std::string& path, const Tensor& tensor) {
  if (!tensor.defined()) throw Error(fmt::format("{}: cannot be saved: the tensor is empty", path));
  const Tensor dense = (tensor.dtype() == DType::bf16 ? tensor.to(DType::f32) : tensor).contiguous();
  // (3,), (2, 3), (): a tuple of one has its comma.
  const std::string shape =
      fmt::format("({}{})", fmt::join(dense.shape().begin(), dense.shape().end(), ", "), dense.rank() == 1 ? "," : "");
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}", descriptor(dense.dtype()), shape);
  // Magic, version, length (10 bytes), header and its newline fill a multiple of 64 bytes.
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10, ' ');
  header.back() = '\n';
  const auto length = static_cast<std::uint16_t>(header.size());

  detail::AtomicFile file(path);
  file.write(std::string_view("\x93NUMPY\x01\x00", 8));
  file.write(&length, sizeof(length));
  file.write(header);
  file.write(dense.raw(), dense.bytes());
  file.sync();
  file.commit();
}

}  // namespace vitrine
