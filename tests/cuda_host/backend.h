// Puts the harness in the place of a GPU: after install(), Device{cuda, 0} is the host, on which the own kernels run as fibers.
#pragma once

#include <cstdint>

namespace vitrine::cuda::emulation {

void install();

// Whether layers and attention find a cuDNN (cudnn.cpp) from now on; on a GPU it is there or not. How often it was used.
void set_cudnn(bool is_there);
std::int64_t cudnn_runs();

}  // namespace vitrine::cuda::emulation
