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

// Whether tensor cores may round f32 to ten bits: VITRINE_TF32=1.
bool rounds_f32();

// Whether code for `architectures`, as CMAKE_CUDA_ARCHITECTURES lists them, with commas or semicolons between, runs on a GPU of
// this compute capability.
bool can_run(std::string_view architectures, int major, int minor);

}  // namespace vitrine::cuda
