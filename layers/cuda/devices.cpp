#include <vitrine/layers/devices.h>

#include <cuda_runtime_api.h>

namespace vitrine {

CudaDevices cuda_devices() {
  CudaDevices found;
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess) {
    found.reason = status == cudaErrorInsufficientDriver ? "no NVIDIA driver, or one older than this build's CUDA"
                                                         : cudaGetErrorString(status);
    return found;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    found.devices.push_back(
        {properties.name, static_cast<std::int64_t>(properties.totalGlobalMem), properties.major, properties.minor});
  }
  if (found.devices.empty()) found.reason = "no GPU found";
  return found;
}

}  // namespace vitrine
