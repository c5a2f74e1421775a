// The devices that this build and machine have.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/layers/memory.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

struct CudaDevice {
  std::string name;
  std::int64_t memory = 0;   // bytes
  int major = 0, minor = 0;  // compute capability
};

// What the machine has, and in `reason` why there is nothing: built without CUDA, no driver, no GPU.
struct CudaDevices {
  std::vector<CudaDevice> devices;
  std::string reason;
};
VITRINE_API CudaDevices cuda_devices();

// "cpu", "cuda" or "cuda:1" -> a device that can compute; throws Error with the reason where it cannot.
VITRINE_API Device parse_device(std::string_view name);

// "cpu", or "cuda:0 NVIDIA H100": the device by its own name, for reports.
VITRINE_API std::string describe_device(Device device);

// Waits until the device has done what the calling thread's context gave it; the CPU has, always.
VITRINE_API void synchronize(Device device);
// x itself, when it has been computed. For what one thread makes and all threads use: model weights, tables that are kept.
VITRINE_API Tensor finished(Tensor x);

// Whether the device computes beside the host: ops queue work and return, and what it can do is better left to it.
VITRINE_API bool is_accelerator(Device device);

namespace cuda {
class Download;
}

// The values of a tensor on their way to the host, copied after what the context's stream has been given and before what it is
// given next. Who queues more work before get() keeps the device busy meanwhile.
class VITRINE_API HostCopy {
 public:
  HostCopy() = default;
  explicit HostCopy(const Tensor& x);  // of a tensor on the host: itself
  Tensor get();                        // waits for the copy and for nothing that was queued later; once

 private:
  Tensor host_;
  std::shared_ptr<cuda::Download> download_;
};

// The tensors that are alive on a device, and how many there have been at once since the last reset.
VITRINE_API MemoryStats memory_stats(Device device);
VITRINE_API void reset_peak_memory(Device device);

}  // namespace vitrine
