// The CUDA runtime as the launches see it: the stream of the calling thread, checks. For sources under cuda/ only.
#pragma once

#include <string>
#include <string_view>

#include <cuda_runtime_api.h>

namespace vitrine::cuda {

// The stream of Context::current() on a device, which becomes the thread's current one; made at its first use.
cudaStream_t stream(int device);

// Throws Error "cuda: WHAT: reason" where status is not success; the thread's last error is cleared, the context stays usable.
void check(cudaError_t status, std::string_view what);

}  // namespace vitrine::cuda
