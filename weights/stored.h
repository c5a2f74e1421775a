// Tensors as files store them, and their way into ours: what safetensors, PyTorch and ONNX files have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include <vitrine/layers/dtype.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::detail {

struct StoredType {
  std::string_view name;    // safetensors' name: "F32", "BF16", "F8_E5M2"
  int bits;                 // of an element
  std::optional<DType> as;  // what loading gives; none: there is no reading it yet
};

const StoredType* stored_type(std::string_view name);  // null for an unknown name
const StoredType& stored_type(DType dtype);            // the one that a tensor of ours is saved as

// Bits that a dense tensor takes; none where the product of its sizes (those that are 0 left out, so that [2^62, 2^62, 0]
// is no trap for a later reader) goes beyond 2^62 bits. An empty tensor takes 0.
std::optional<std::uint64_t> stored_bits(const StoredType& type, const Shape& shape);

class MappedFile;

struct StoredTensor {
  const StoredType* type = nullptr;
  Shape shape;
  const std::byte* at = nullptr;                     // the first element
  std::vector<std::int64_t> strides;                 // in elements, not negative; empty: dense
  bool swapped = false;                              // each element's bytes are in the other order than this machine's
  std::shared_ptr<const MappedFile> file = nullptr;  // that has its bytes, where it is not the one that names it
};

// Whether the elements lie one after the other.
bool is_dense(const StoredTensor& tensor);

// A view of the bytes where these are dense, aligned and of a type that we have; else a copy. Throws Error for a type that
// cannot be read, naming `where`. `owner` keeps the bytes.
Tensor load_stored(const StoredTensor& tensor, std::shared_ptr<const void> owner, std::string_view where);

}  // namespace vitrine::detail
