// Memory, copies and streams of the CUDA runtime.
//
// A context has one stream a device. Tensors come from the driver's stream-ordered pool, which keeps what is given back: an
// allocation takes about a microsecond and never waits. A tensor goes back in the order of the stream that it was taken on;
// whoever hands tensors from one context to another waits for the first one's stream (Runtime::synchronize). Copies from the host
// wait until they are done, so that weights are there for every context.
#include <vitrine/layers/cuda/runtime.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <mutex>
#include <vector>

#include <fmt/format.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cuda/linear.h>
#include <vitrine/layers/cuda/ops.h>
#include <vitrine/layers/error.h>

namespace vitrine::cuda {

void check(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // the next call is not to blame
  throw Error(fmt::format("cuda: {}: {}", what, cudaGetErrorString(status)));
}

namespace {

// The stream outlives the tensors that were taken on it.
class Stream {
 public:
  explicit Stream(int device) : device_(device) {
    check(cudaSetDevice(device), fmt::format("device {}", device));
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a new stream");
  }
  ~Stream() {
    cudaSetDevice(device_);
    cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const { return stream_; }
  int device() const { return device_; }

 private:
  int device_;
  cudaStream_t stream_ = nullptr;
};

using Streams = std::vector<std::shared_ptr<Stream>>;  // by device, of a context

const std::shared_ptr<Stream>& stream_of(int device) {
  std::shared_ptr<void>& state = Context::current().backend_state();
  if (!state) state = std::make_shared<Streams>();
  Streams& streams = *static_cast<Streams*>(state.get());
  if (static_cast<int>(streams.size()) <= device) streams.resize(static_cast<std::size_t>(device) + 1);
  std::shared_ptr<Stream>& stream = streams[static_cast<std::size_t>(device)];
  if (!stream) stream = std::make_shared<Stream>(device);
  return stream;
}

struct Counters {
  std::atomic<std::int64_t> in_use{0}, peak{0};
};
constexpr int kMostDevices = 64;
Counters counters[kMostDevices];

// The pool keeps what is given back instead of returning it to the driver at every synchronization.
void keep_memory(int device) {
  static std::once_flag once[kMostDevices];
  std::call_once(once[device], [device] {
    cudaMemPool_t pool = nullptr;
    check(cudaDeviceGetDefaultMemPool(&pool, device), "the memory pool");
    std::uint64_t everything = std::numeric_limits<std::uint64_t>::max();
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &everything), "the memory pool");
  });
}

std::shared_ptr<void> allocate(std::size_t bytes, Device device) {
  const std::shared_ptr<Stream> stream = stream_of(device.index);
  check(cudaSetDevice(device.index), fmt::format("device {}", device.index));
  keep_memory(device.index);
  void* block = nullptr;
  const std::size_t taken = std::max<std::size_t>(bytes, 1);
  if (const cudaError_t status = cudaMallocAsync(&block, taken, stream->get()); status != cudaSuccess) {
    cudaGetLastError();
    if (status != cudaErrorMemoryAllocation) check(status, fmt::format("{} bytes of memory", taken));
    // What the pool keeps may be in pieces that are too small: give it back and ask once more.
    cudaMemPool_t pool = nullptr;
    cudaStreamSynchronize(stream->get());
    if (cudaDeviceGetDefaultMemPool(&pool, device.index) == cudaSuccess) cudaMemPoolTrimTo(pool, 0);
    if (cudaMallocAsync(&block, taken, stream->get()) != cudaSuccess) {
      cudaGetLastError();
      std::size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      throw Error(fmt::format("cuda:{}: out of memory: {} bytes asked for, {} of {} free, {} in use by this process",
                              device.index, taken, free, total, counters[device.index].in_use.load()));
    }
  }
  Counters& count = counters[device.index];
  const std::int64_t now = count.in_use += static_cast<std::int64_t>(taken);
  std::int64_t peak = count.peak;
  while (now > peak && !count.peak.compare_exchange_weak(peak, now)) {
  }
  return {block, [stream, taken](void* b) {
            cudaFreeAsync(b, stream->get());
            counters[stream->device()].in_use -= static_cast<std::int64_t>(taken);
          }};
}

// Two pages of pinned memory through which large copies go: one is filled while the other travels.
class Staging {
 public:
  static constexpr std::size_t kPage = std::size_t{8} << 20;

  void upload(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
    std::lock_guard lock(mutex_);
    for (int i = 0; i < 2 && !pages_[i]; ++i) {
      check(cudaMallocHost(&pages_[i], kPage), "pinned memory");
      check(cudaEventCreateWithFlags(&done_[i], cudaEventDisableTiming), "an event");
    }
    int page = 0;
    for (std::size_t at = 0; at < bytes; at += kPage, page ^= 1) {
      const std::size_t count = std::min(kPage, bytes - at);
      check(cudaEventSynchronize(done_[page]), "a copy to the device");
      std::memcpy(pages_[page], static_cast<const std::byte*>(from) + at, count);
      check(cudaMemcpyAsync(static_cast<std::byte*>(to) + at, pages_[page], count, cudaMemcpyHostToDevice, stream),
            "a copy to the device");
      check(cudaEventRecord(done_[page], stream), "a copy to the device");
    }
    check(cudaStreamSynchronize(stream), "a copy to the device");
  }

 private:
  std::mutex mutex_;
  void* pages_[2] = {};
  cudaEvent_t done_[2] = {};
};
// Never destroyed: the driver may be gone before.
Staging& staging() {
  static Staging* const instance = new Staging;
  return *instance;
}

void copy(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes) {
  const bool uploads = from_device.type == DeviceType::cpu, downloads = to_device.type == DeviceType::cpu;
  const cudaStream_t on = stream(downloads ? from_device.index : to_device.index);
  constexpr std::size_t kSmall = std::size_t{64} << 10;  // the driver has a page of its own for these
  if (uploads && bytes > kSmall) return staging().upload(to, from, bytes, on);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, on), fmt::format("a copy of {} bytes", bytes));
  if (uploads || downloads) check(cudaStreamSynchronize(on), "a copy between host and device, or what came before it");
}

void set_zero(void* to, std::size_t bytes, Device device) {
  check(cudaMemsetAsync(to, 0, bytes, stream(device.index)), fmt::format("{} bytes of zeros", bytes));
}

void synchronize(Device device) { check(cudaStreamSynchronize(stream(device.index)), "what was queued on the device"); }

MemoryStats memory(Device device) {
  const Counters& count = counters[device.index];
  MemoryStats stats{.in_use = count.in_use, .peak = count.peak, .cached = 0};
  cudaMemPool_t pool = nullptr;
  std::uint64_t reserved = 0;
  if (cudaDeviceGetDefaultMemPool(&pool, device.index) == cudaSuccess &&
      cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved) == cudaSuccess)
    stats.cached = std::max<std::int64_t>(0, static_cast<std::int64_t>(reserved) - stats.in_use);
  return stats;
}

void reset_peak_memory(Device device) { counters[device.index].peak = counters[device.index].in_use.load(); }

CudaDevices devices() {
  CudaDevices found;
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess) {
    cudaGetLastError();
    found.reason = status == cudaErrorInsufficientDriver ? "no NVIDIA driver, or one older than this build's CUDA"
                                                         : cudaGetErrorString(status);
    return found;
  }
  for (int i = 0; i < std::min(count, kMostDevices); ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    found.devices.push_back(
        {properties.name, static_cast<std::int64_t>(properties.totalGlobalMem), properties.major, properties.minor});
  }
  if (found.devices.empty()) found.reason = "no GPU found";
  return found;
}

constexpr Runtime kRuntime{devices, allocate, copy, set_zero, synchronize, memory, reset_peak_memory};
constexpr Ops kOps{VITRINE_CUDA_ALL_OPS pack_linear_cublas, ops::pack_conv};
constexpr Backend kBackend{VITRINE_VERSION, kRuntime, kOps};

}  // namespace

cudaStream_t stream(int device) {
  const cudaStream_t found = stream_of(device)->get();
  check(cudaSetDevice(device), fmt::format("device {}", device));
  return found;
}

}  // namespace vitrine::cuda

extern "C" VITRINE_API const vitrine::cuda::Backend* vitrine_cuda_backend() { return &vitrine::cuda::kBackend; }
