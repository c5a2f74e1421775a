// The table of the kernels of this build.
#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/layers/cuda/ops.h>

namespace {
constexpr vitrine::cuda::AttentionOps kAttention{VITRINE_CUDA_ALL_ATTENTION};
}

extern "C" VITRINE_API const vitrine::cuda::AttentionOps* vitrine_cuda_attention() { return &kAttention; }
