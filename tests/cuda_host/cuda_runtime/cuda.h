// Of the driver, what layers/cuda/tensor_map.cpp uses of it; see cuda_runtime_api.h.
#pragma once

#include <cstdint>

using cuuint32_t = std::uint32_t;
using cuuint64_t = std::uint64_t;

enum CUresult { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1 };
enum CUtensorMapDataType { CU_TENSOR_MAP_DATA_TYPE_FLOAT16 = 6, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 = 9 };
enum CUtensorMapInterleave { CU_TENSOR_MAP_INTERLEAVE_NONE = 0 };
enum CUtensorMapSwizzle { CU_TENSOR_MAP_SWIZZLE_128B = 3 };
enum CUtensorMapL2promotion { CU_TENSOR_MAP_L2_PROMOTION_L2_256B = 3 };
enum CUtensorMapFloatOOBfill { CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE = 0 };

struct alignas(128) CUtensorMap {
  cuuint64_t opaque[16];
};

// What the harness keeps in one.
struct EncodedBoxes {
  const unsigned char* data;
  cuuint64_t sizes[5], strides[4];
  cuuint32_t box[5], steps[5];
};
static_assert(sizeof(EncodedBoxes) <= sizeof(CUtensorMap));
