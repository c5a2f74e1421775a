// Memory, copies and streams of the CUDA runtime.
//
// A context has one stream a device. Tensors come from the driver's stream-ordered pool, which keeps what is given back: an
// allocation takes about a microsecond and never waits. A tensor goes back in the order of the stream that it was taken on;
// whoever hands tensors from one context to another waits for the first one's stream (Runtime::synchronize). Copies from the host
// wait until they are done, so that weights are there for every context; uploads (pictures of a batch) do not and are for one
// context.
//
// A stream can record a CUDA graph. Tensors that are taken while it does are nodes of the graph, at addresses that stay the same
// in all its runs; they must be given back before the recording ends. Tensors from before that go meanwhile (the last owner may
// be another thread) are given back after it, as the driver takes no memory back in a graph that it did not give there.
#include <vitrine/layers/cuda/runtime.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cuda/conv.h>
#include <vitrine/layers/cuda/linear.h>
#include <vitrine/layers/cuda/ops.h>
#include <vitrine/layers/error.h>

namespace vitrine::cuda {

void check(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // the next call is not to blame
  throw Error(fmt::format("cuda: {}: {}", what, cudaGetErrorString(status)));
}

bool rounds_f32() {
  static const bool asked = [] {
    const char* text = std::getenv("VITRINE_TF32");
    return text && std::strcmp(text, "1") == 0;
  }();
  return asked;
}

// "80-real" is machine code, for 8.0 and later 8.x; "80-virtual" is compiled for the GPU when it is loaded, for 8.0 and
// everything later; "80" is both. "90a" uses what only 9.0 has, "100f" what only 10.x have.
bool can_run(std::string_view architectures, int major, int minor) {
  while (!architectures.empty()) {
    const std::size_t end = std::min(architectures.find_first_of(",;"), architectures.size());
    const std::string_view one = architectures.substr(0, end);
    architectures.remove_prefix(std::min(end + 1, architectures.size()));
    if (one == "all" || one == "all-major" || one == "native") return true;
    int number = 0;
    const std::string_view rest(std::from_chars(one.data(), one.data() + one.size(), number).ptr, one.data() + one.size());
    const int gpu = 10 * major + minor;
    const bool is_newer = rest.starts_with('a')                      ? gpu == number
                          : rest.starts_with('f') || rest == "-real" ? major == number / 10 && gpu >= number
                                                                     : gpu >= number;
    if (number > 0 && is_newer) return true;
  }
  return false;
}

namespace {

void check_architecture(int device) {
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), fmt::format("device {}", device));
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), fmt::format("device {}", device));
  if (can_run(VITRINE_CUDA_ARCHITECTURES, major, minor)) return;
  cudaDeviceProp properties{};
  cudaGetDeviceProperties(&properties, device);
  throw Error(
      fmt::format("cuda:{}: {} has compute capability {}.{}, but this build is for {}: build with "
                  "-DVITRINE_CUDA_ARCHITECTURES={}{}, or use --device cpu",
                  device, properties.name, major, minor, VITRINE_CUDA_ARCHITECTURES, major, minor));
}

// What a stream is recording.
struct Recording {
  std::int64_t tensors = 0;             // taken in it and not yet given back
  std::int64_t bytes = 0, most = 0;     // of these, now and at most
  std::vector<void*> given_back_after;  // blocks from before
};

// The stream outlives the tensors that were taken on it.
class Stream {
 public:
  explicit Stream(int device) : device_(device) {
    check_architecture(device);
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

  // Null where nothing is recorded.
  std::shared_ptr<Recording> recording() const {
    const std::lock_guard lock(mutex_);
    return recording_;
  }
  void begin_recording() {
    const std::lock_guard lock(mutex_);
    if (recording_) throw Error("cuda: a recording in a recording");
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "the begin of a recording");
    recording_ = std::make_shared<Recording>();
  }
  // Its graph, which is null where a call that cannot be recorded was made; `recording` is what it has counted.
  cudaGraph_t end_recording(std::shared_ptr<Recording>& recording) {
    const std::lock_guard lock(mutex_);
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(stream_, &graph) != cudaSuccess) cudaGetLastError();
    recording = std::exchange(recording_, nullptr);
    for (void* block : recording->given_back_after) cudaFreeAsync(block, stream_);
    return graph;
  }

  // A block that was taken on this stream, in `taken_in` or, where that is null, outside of recordings.
  void give(void* block, std::size_t bytes, const std::shared_ptr<Recording>& taken_in) {
    const std::lock_guard lock(mutex_);
    if (taken_in != recording_) {
      // The graph's own memory goes with the graph.
      if (!taken_in) recording_->given_back_after.push_back(block);
      return;
    }
    cudaFreeAsync(block, stream_);
    if (!taken_in) return;
    --taken_in->tensors;
    taken_in->bytes -= static_cast<std::int64_t>(bytes);
  }

 private:
  int device_;
  cudaStream_t stream_ = nullptr;
  mutable std::mutex mutex_;
  std::shared_ptr<Recording> recording_;
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

void count_taken(int device, std::int64_t bytes) {
  Counters& count = counters[device];
  const std::int64_t now = count.in_use += bytes;
  std::int64_t peak = count.peak;
  while (now > peak && !count.peak.compare_exchange_weak(peak, now)) {
  }
}

class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "an event"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

// An instantiated graph. What its tensors take is counted while it lives: the driver keeps it for the next run.
class Graph {
 public:
  Graph(std::shared_ptr<Stream> stream, cudaGraph_t graph, std::int64_t bytes)
      : stream_(std::move(stream)), graph_(graph), bytes_(bytes) {
    count_taken(stream_->device(), bytes_);
  }
  // Not before its last run is done.
  ~Graph() {
    if (done_) cudaEventSynchronize(done_->get());
    if (runs_) cudaGraphExecDestroy(runs_);
    cudaGraphDestroy(graph_);
    counters[stream_->device()].in_use -= bytes_;
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void instantiate() {
    check(cudaGraphInstantiate(&runs_, graph_, 0), "a graph of what was recorded");
    done_.emplace();
  }
  void launch(cudaStream_t stream) {
    check(cudaGraphLaunch(runs_, stream), "a recorded graph");
    check(cudaEventRecord(done_->get(), stream), "a recorded graph");
  }

 private:
  std::shared_ptr<Stream> stream_;
  cudaGraph_t graph_;
  std::int64_t bytes_;
  cudaGraphExec_t runs_ = nullptr;
  std::optional<Event> done_;
};

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

// A block that `on` orders, of which what `waits_for` was given may be the last user. Where there is no memory left, waits for
// it.
void* take(std::size_t bytes, cudaStream_t on, const Stream& waits_for) {
  const int device = waits_for.device();
  check(cudaSetDevice(device), fmt::format("device {}", device));
  keep_memory(device);
  void* block = nullptr;
  if (const cudaError_t status = cudaMallocAsync(&block, bytes, on); status != cudaSuccess) {
    cudaGetLastError();
    if (status != cudaErrorMemoryAllocation || waits_for.recording()) check(status, fmt::format("{} bytes of memory", bytes));
    // What the pool keeps may be in pieces that are too small: give it back and ask once more.
    cudaMemPool_t pool = nullptr;
    cudaStreamSynchronize(waits_for.get());
    if (cudaDeviceGetDefaultMemPool(&pool, device) == cudaSuccess) cudaMemPoolTrimTo(pool, 0);
    cudaDeviceGraphMemTrim(device);
    if (cudaMallocAsync(&block, bytes, on) != cudaSuccess) {
      cudaGetLastError();
      std::size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      throw Error(fmt::format("cuda:{}: out of memory: {} bytes asked for, {} of {} free, {} in use by this process", device,
                              bytes, free, total, counters[device].in_use.load()));
    }
  }
  return block;
}

std::shared_ptr<void> allocate(std::size_t bytes, Device device) {
  const std::shared_ptr<Stream> stream = stream_of(device.index);
  const std::size_t taken = std::max<std::size_t>(bytes, 1);
  const std::shared_ptr<Recording> recording = stream->recording();
  void* const block = take(taken, stream->get(), *stream);
  count_taken(device.index, static_cast<std::int64_t>(taken));
  if (recording) {
    ++recording->tensors;
    recording->bytes += static_cast<std::int64_t>(taken);
    recording->most = std::max(recording->most, recording->bytes);
  }
  return {block, [stream, taken, recording](void* b) {
            stream->give(b, taken, recording);
            counters[stream->device()].in_use -= static_cast<std::int64_t>(taken);
          }};
}

// Two pages of pinned memory of a device through which large copies go: one is filled while the other travels.
class Staging {
 public:
  static constexpr std::size_t kPage = std::size_t{8} << 20;

  // Queues copies of the parts; returns when the last page is filled, so that the parts may change then.
  void upload(void* to, std::span<const HostPart> parts, std::size_t bytes, cudaStream_t stream) {
    const std::lock_guard lock(mutex_);
    for (int i = 0; i < 2 && !done_[i]; ++i) {
      check(cudaMallocHost(&pages_[i], kPage), "pinned memory");
      done_[i] = std::make_unique<Event>();
    }
    for (std::size_t at = 0; at < bytes; at += kPage, page_ ^= 1) {
      const std::size_t count = std::min(kPage, bytes - at);
      check(cudaEventSynchronize(done_[page_]->get()), "a copy to the device");
      auto* const page = static_cast<std::byte*>(pages_[page_]);
      for (; !parts.empty() && parts.front().at < at + count; parts = parts.subspan(1)) {
        const HostPart& part = parts.front();
        const std::size_t begin = std::max(part.at, at), end = std::min(part.at + part.bytes, at + count);
        std::memcpy(page + (begin - at), static_cast<const std::byte*>(part.data) + (begin - part.at), end - begin);
        if (part.at + part.bytes > at + count) break;
      }
      check(cudaMemcpyAsync(static_cast<std::byte*>(to) + at, page, count, cudaMemcpyHostToDevice, stream),
            "a copy to the device");
      check(cudaEventRecord(done_[page_]->get(), stream), "a copy to the device");
    }
  }

  // For copies that what is queued elsewhere does not hold up; made at its first use.
  const Stream& beside(int device) {
    const std::lock_guard lock(mutex_);
    if (!beside_) beside_ = std::make_unique<Stream>(device);
    return *beside_;
  }

 private:
  std::mutex mutex_;
  void* pages_[2] = {};
  std::unique_ptr<Event> done_[2];
  int page_ = 0;
  std::unique_ptr<Stream> beside_;
};
// Never destroyed: the driver may be gone before.
Staging& staging(int device) {
  static Staging* const of_devices = new Staging[kMostDevices];
  return of_devices[device];
}

// Pinned memory is dear to make, so that what goes is kept.
std::shared_ptr<void> pinned(std::size_t bytes) {
  struct Kept {
    std::mutex mutex;
    std::multimap<std::size_t, void*> blocks;
  };
  static Kept* const kept = new Kept;
  constexpr std::size_t kLeast = std::size_t{64} << 10;
  std::size_t size = std::bit_ceil(std::max(bytes, kLeast));
  void* block = nullptr;
  {
    const std::lock_guard lock(kept->mutex);
    if (const auto found = kept->blocks.lower_bound(size); found != kept->blocks.end()) {
      std::tie(size, block) = *found;
      kept->blocks.erase(found);
    }
  }
  if (!block) check(cudaMallocHost(&block, size), "pinned memory");
  return {block, [size](void* b) {
            const std::lock_guard lock(kept->mutex);
            kept->blocks.emplace(size, b);
          }};
}

class PinnedDownload final : public Download {
 public:
  PinnedDownload(const void* from, std::size_t bytes, cudaStream_t stream) : block_(pinned(bytes)) {
    check(cudaMemcpyAsync(block_.get(), from, bytes, cudaMemcpyDefault, stream), fmt::format("a copy of {} bytes", bytes));
    check(cudaEventRecord(done_.get(), stream), "a copy to the host");
  }
  ~PinnedDownload() override { cudaEventSynchronize(done_.get()); }

  const void* wait() override {
    check(cudaEventSynchronize(done_.get()), "a copy to the host, or what came before it");
    return block_.get();
  }

 private:
  std::shared_ptr<void> block_;
  Event done_;
};

// Said before the driver finds it, which would only say that the recording is void.
void refuse_in_recording(int device, std::string_view what) {
  if (stream_of(device)->recording()) throw Error(fmt::format("cuda: {} cannot be recorded", what));
}

void copy(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes) {
  const bool uploads = from_device.type == DeviceType::cpu, downloads = to_device.type == DeviceType::cpu;
  const int device = downloads ? from_device.index : to_device.index;
  if (uploads || downloads) refuse_in_recording(device, uploads ? "a copy from the host" : "a copy to the host");
  const cudaStream_t on = stream(device);
  constexpr std::size_t kSmall = std::size_t{64} << 10;  // the driver has a page of its own for these
  if (uploads && bytes > kSmall) {
    const HostPart whole{from, bytes, 0};
    staging(device).upload(to, {&whole, 1}, bytes, on);
  } else {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, on), fmt::format("a copy of {} bytes", bytes));
  }
  if (uploads || downloads) check(cudaStreamSynchronize(on), "a copy between host and device, or what came before it");
}

// The block is taken and filled on a stream of its own, which does not wait for the context's; that waits for the copies and
// gives the block back when it has used it.
std::shared_ptr<void> upload(std::span<const HostPart> parts, std::size_t bytes, Device device) {
  refuse_in_recording(device.index, "a copy from the host");
  const std::shared_ptr<Stream> stream = stream_of(device.index);
  const cudaStream_t beside = staging(device.index).beside(device.index).get();
  const std::size_t taken = std::max<std::size_t>(bytes, 1);
  void* const block = take(taken, beside, *stream);
  count_taken(device.index, static_cast<std::int64_t>(taken));
  std::shared_ptr<void> result(block, [stream, taken](void* b) {
    stream->give(b, taken, nullptr);
    counters[stream->device()].in_use -= static_cast<std::int64_t>(taken);
  });
  staging(device.index).upload(block, parts, bytes, beside);
  const Event done;
  check(cudaEventRecord(done.get(), beside), "a copy to the device");
  check(cudaStreamWaitEvent(stream->get(), done.get(), 0), "waiting for a copy to the device");
  return result;
}

std::unique_ptr<Download> download(const void* from, std::size_t bytes, Device device) {
  refuse_in_recording(device.index, "a copy to the host");
  return std::make_unique<PinnedDownload>(from, bytes, stream(device.index));
}

void set_zero(void* to, std::size_t bytes, Device device) {
  check(cudaMemsetAsync(to, 0, bytes, stream(device.index)), fmt::format("{} bytes of zeros", bytes));
}

void synchronize(Device device) {
  refuse_in_recording(device.index, "waiting for the device");
  check(cudaStreamSynchronize(stream(device.index)), "what was queued on the device");
}

std::shared_ptr<const void> current_stream(Device device) { return stream_of(device.index); }

void begin_recording(Device device) {
  check(cudaSetDevice(device.index), fmt::format("device {}", device.index));
  stream_of(device.index)->begin_recording();
}

std::shared_ptr<void> end_recording(Device device, bool keeps) {
  const std::shared_ptr<Stream> stream = stream_of(device.index);
  std::shared_ptr<Recording> recording;
  const cudaGraph_t recorded = stream->end_recording(recording);
  if (!recorded) {
    if (!keeps) return nullptr;
    throw Error("cuda: something was asked for that cannot be recorded");
  }
  auto graph = std::make_shared<Graph>(stream, recorded, recording->most);
  if (!keeps) return nullptr;
  if (recording->tensors > 0)
    throw Error(fmt::format("cuda: {} tensors that were made in a recording are still held", recording->tensors));
  graph->instantiate();
  return graph;
}

void replay(void* recorded, Device device) { static_cast<Graph*>(recorded)->launch(stream(device.index)); }

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

constexpr Runtime kRuntime{devices, allocate,          copy,           upload,          download,      set_zero, synchronize,
                           memory,  reset_peak_memory, current_stream, begin_recording, end_recording, replay};
constexpr Ops kOps{VITRINE_CUDA_ALL_OPS pack_linear_cublas, pack_conv_cudnn};
constexpr Backend kBackend{VITRINE_VERSION, kRuntime, kOps};

}  // namespace

cudaStream_t stream(int device) {
  const cudaStream_t found = stream_of(device)->get();
  check(cudaSetDevice(device), fmt::format("device {}", device));
  return found;
}

}  // namespace vitrine::cuda

extern "C" VITRINE_API const vitrine::cuda::Backend* vitrine_cuda_backend() { return &vitrine::cuda::kBackend; }
