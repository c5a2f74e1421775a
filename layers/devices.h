// The devices that this build and machine have.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/export.h>
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

}  // namespace vitrine
