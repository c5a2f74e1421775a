// The same tests on a real GPU: what they ask of the harness, by the library's own backend.
#include <atomic>
#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>

#include <vitrine/layers/cuda/backend.h>

#include "cuda_host/backend.h"
#include "cuda_host/device_memory.h"
#include "cuda_host/emulation.h"

namespace vitrine::cuda::emulation {

// ctest takes the line for a skipped test.
void install() {
  const CudaDevices found = cuda_devices();
  if (!found.devices.empty()) return;
  fmt::print("skipped: no GPU to test on: {}\n", found.reason);
  std::fflush(stdout);
  std::_Exit(0);
}

void set_order(Order) {}  // the GPU's own

std::int64_t launches() {  // not counted: each question sees one more
  static std::atomic<std::int64_t> asked{0};
  return ++asked;
}

std::int64_t stream_waits() { return 0; }  // not counted

void set_cudnn(bool) {}  // the machine's own; VITRINE_CUDNN=0 leaves it out
std::int64_t cudnn_runs() { return launches(); }

MemoryStats device_memory() { return backend().runtime.memory({DeviceType::cuda, 0}); }
void reset_peak_device_memory() { backend().runtime.reset_peak_memory({DeviceType::cuda, 0}); }

}  // namespace vitrine::cuda::emulation
