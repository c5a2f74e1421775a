// What the copy engine of compute capability 9.0 must know of a tensor to fetch boxes of it.
#pragma once

#include <cstdint>

#include <vitrine/layers/dtype.h>

namespace vitrine::cuda {

// As the driver makes it (CUtensorMap).
struct alignas(128) TensorMap {
  std::uint64_t opaque[16];
};

inline constexpr int kMostBoxStep = 8, kMostBoxReach = 256;  // reach: box times step

struct BoxAxis {
  std::int64_t size = 1, stride = 0;  // of the tensor, in elements; axes of one element need no stride
  int box = 1, step = 1;              // how many elements of the axis are fetched, and how far apart they are
};

// Boxes of f16 or bf16, innermost axis first: it has stride 1 and boxes of 64, a slab's row (layers/cuda/device_sm90.h).
struct TensorBoxes {
  const void* data;
  DType dtype;
  BoxAxis axes[5];
};

// False where the engine does not take them.
bool make_tensor_map(const TensorBoxes& boxes, TensorMap& map);

// Whether a device has compute capability 9.0 and this build the kernels for it.
bool has_sm90(int device);

}  // namespace vitrine::cuda
