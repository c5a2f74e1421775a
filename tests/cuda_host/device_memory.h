// "Device memory" of the host harness: pages that only kernels and the runtime's copies may touch. Code of the host that reads or
// writes a tensor on the device is ended by the system, as it would be on a machine with a GPU. Under the address sanitizer what
// lies between tensors is poisoned.
#pragma once

#include <cstddef>
#include <memory>

#include <vitrine/layers/memory.h>

namespace vitrine::cuda::emulation {

std::shared_ptr<void> allocate_device_memory(std::size_t bytes);
MemoryStats device_memory();
void reset_peak_device_memory();

// While one lives, device memory can be read and written. One thread at a time.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

}  // namespace vitrine::cuda::emulation
