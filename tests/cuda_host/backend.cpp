#include "cuda_host/backend.h"

#include <cstring>

#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/layers/cuda/ops.h>

#include "cuda_host/coverage.h"
#include "cuda_host/device_memory.h"

namespace vitrine::cuda::emulation {

namespace {

CudaDevices devices() { return {{{"host harness", std::int64_t{8} << 30, 9, 0}}, {}}; }
std::shared_ptr<void> allocate(std::size_t bytes, Device) { return allocate_device_memory(bytes); }

void copy(void* to, Device, const void* from, Device, std::size_t bytes) {
  const DeviceAccess access;
  std::memcpy(to, from, bytes);
}

void set_zero(void* to, std::size_t bytes, Device) {
  const DeviceAccess access;
  std::memset(to, 0, bytes);
}

void synchronize(Device) {}  // a launch returns when it is done
MemoryStats memory(Device) { return device_memory(); }
void reset_peak(Device) { reset_peak_device_memory(); }

constexpr Runtime kRuntime{devices, allocate, copy, set_zero, synchronize, memory, reset_peak};
constexpr Ops kOps{VITRINE_CUDA_ALL_OPS ops::pack_linear, ops::pack_conv};
constexpr AttentionOps kAttention{VITRINE_CUDA_ALL_ATTENTION};
constexpr Backend kBackend{"host harness", kRuntime, kOps};

}  // namespace

void install() {
  set_backend(&kBackend);
  set_attention_ops(&kAttention);
  report_coverage_at_exit();
}

}  // namespace vitrine::cuda::emulation
