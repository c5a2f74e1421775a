// Global attention by cuDNN's fused kernel, where it has one (attention_cudnn.cpp).
#pragma once

#include <vitrine/attention2d/cuda/backend.h>

namespace vitrine::cuda {

// False: nothing was done, the own kernel is to do it.
bool attention_cudnn(const AttentionArgs& args);

}  // namespace vitrine::cuda
