// The functions behind the table of backend.h, from the sources with kernels.
#pragma once

#include <vitrine/attention2d/cuda/backend.h>

namespace vitrine::cuda::ops {

VITRINE_CUDA_ATTENTION(VITRINE_CUDA_DECLARE)
void attention_cudnn(const AttentionArgs& args);
std::string lacks_cudnn(const AttentionArgs& args);
std::string lacks_sm90(const LocalArgs& args, bool is_asked_for);
std::string lacks_tiles(const LocalArgs& args);

}  // namespace vitrine::cuda::ops

namespace vitrine::cuda {

#define VITRINE_CUDA_ALL_ATTENTION                                                                                    \
  VITRINE_CUDA_ATTENTION(VITRINE_CUDA_ENTRY)::vitrine::cuda::ops::attention_cudnn, ::vitrine::cuda::ops::lacks_cudnn, \
      ::vitrine::cuda::ops::lacks_sm90, ::vitrine::cuda::ops::lacks_tiles

}  // namespace vitrine::cuda
