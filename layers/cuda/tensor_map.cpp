#include <vitrine/layers/cuda/tensor_map.h>

#include <cuda.h>
#include <cuda_runtime_api.h>

namespace vitrine::cuda {

namespace {

static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap));

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// Of the driver, which is not linked: a machine without one loads this library, too. Null where it has none.
Encode encode() {
  static const Encode found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    constexpr unsigned kSince = 12000;
    const cudaError_t status =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kSince, cudaEnableDefault, &result);
    if (status == cudaSuccess && result == cudaDriverEntryPointSuccess) return reinterpret_cast<Encode>(function);
    cudaGetLastError();
    return Encode{};
  }();
  return found;
}

}  // namespace

bool make_tensor_map(const TensorBoxes& boxes, TensorMap& map) {
  constexpr int kAxes = 5;
  constexpr std::uint64_t kBytes = 2, kPiece = 16;
  if (!encode() || (boxes.dtype != DType::f16 && boxes.dtype != DType::bf16)) return false;
  cuuint64_t sizes[kAxes], strides[kAxes - 1];
  cuuint32_t box[kAxes], steps[kAxes];
  std::uint64_t inside = kBytes;  // bytes of all that is inside of the axis
  for (int a = 0; a < kAxes; ++a) {
    const BoxAxis& axis = boxes.axes[a];
    std::uint64_t stride = static_cast<std::uint64_t>(axis.stride) * kBytes;
    if (axis.size == 1) stride = a == 0 ? kBytes : (inside + kPiece - 1) / kPiece * kPiece;
    // Each axis lies outside of those before it, as the engine wants it.
    if (axis.size < 1 || axis.stride < 0 || stride < inside || (a == 0 && stride != kBytes)) return false;
    if (a > 0) strides[a - 1] = stride;
    sizes[a] = static_cast<cuuint64_t>(axis.size);
    box[a] = static_cast<cuuint32_t>(axis.box * axis.step);
    steps[a] = static_cast<cuuint32_t>(axis.step);
    inside = stride * static_cast<std::uint64_t>(axis.size);
  }
  auto* const made = reinterpret_cast<CUtensorMap*>(&map);
  return encode()(made, boxes.dtype == DType::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, kAxes,
                  const_cast<void*>(boxes.data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                  CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

bool has_sm90(int device) {
#if defined(VITRINE_CUDA_SM90)
  int major = 0, minor = 0;
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess && major == 9 && minor == 0 &&
         encode();
#else
  static_cast<void>(device);
  return false;
#endif
}

}  // namespace vitrine::cuda
