#include "cuda_host/backend.h"

#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/layers/cuda/linear.h>
#include <vitrine/layers/cuda/ops.h>

#include "cuda_host/coverage.h"

// Of layers/cuda/runtime.cpp, which calls the harness's CUDA.
extern "C" const vitrine::cuda::Backend* vitrine_cuda_backend();

namespace vitrine::cuda {

// There is no cuBLASLt here.
std::unique_ptr<const detail::PackedLinear> pack_linear_cublas(const Tensor& weight, const Tensor& bias, DType dtype,
                                                               Device device) {
  return ops::pack_linear(weight, bias, dtype, device);
}

namespace emulation {

namespace {
constexpr AttentionOps kAttention{VITRINE_CUDA_ALL_ATTENTION};
}  // namespace

void install() {
  set_backend(vitrine_cuda_backend());
  set_attention_ops(&kAttention);
  report_coverage_at_exit();
}

}  // namespace emulation

}  // namespace vitrine::cuda
