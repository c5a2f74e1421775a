// See cuda_runtime/cuda_runtime_api.h.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <vitrine/layers/error.h>

#include "cuda_host/device_memory.h"
#include "cuda_host/emulation.h"

using vitrine::cuda::emulation::allocate_device_memory;
using vitrine::cuda::emulation::device_memory;
using vitrine::cuda::emulation::DeviceAccess;

// What was captured. Its memory lives as long as it does.
struct CUgraph_st {
  std::vector<std::function<void()>> nodes;
  std::map<void*, std::pair<std::shared_ptr<void>, std::size_t>> blocks;
  std::set<void*> live;  // of the blocks, those that no node frees
};

struct CUgraphExec_st {
  CUgraph_st graph;
  bool has_run = false;
};

struct CUstream_st {
  std::unique_ptr<CUgraph_st> graph;  // where a capture is under way
  std::thread::id thread;             // that began it
  bool is_void = false;
};

struct CUevent_st {
  bool is_captured = false;
};

namespace {

std::atomic<std::int64_t> waits{0};
int capability[2] = {9, 0};
constexpr std::size_t kMemory = std::size_t{8} << 30;

std::mutex blocks_mutex;
auto& blocks = *new std::map<void*, std::shared_ptr<void>>;  // outside of graphs; never destroyed, as some tensors are not
thread_local CUstream_st* captured = nullptr;                // by this thread

cudaError_t refuse(CUstream_st* stream, cudaError_t error) {
  stream->is_void = true;
  return error;
}

// Does it now, or keeps it.
cudaError_t queue(CUstream_st* stream, std::function<void()> work) {
  if (!stream->graph) {
    work();
  } else {
    if (stream->is_void) return cudaErrorStreamCaptureInvalidated;
    stream->graph->nodes.push_back(std::move(work));
  }
  return cudaSuccess;
}

std::function<void()> fill(void* block, int value, std::size_t bytes) {
  return [=] {
    const DeviceAccess access;
    std::memset(block, value, bytes);
  };
}

// Refuses what the driver refuses.
CUresult encode_tensor_map(CUtensorMap* map, CUtensorMapDataType, cuuint32_t rank, void* data, const cuuint64_t* sizes,
                           const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t* steps, CUtensorMapInterleave,
                           CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  constexpr cuuint64_t kMostSize = cuuint64_t{1} << 32, kMostStride = cuuint64_t{1} << 40;
  constexpr cuuint32_t kMostBox = 256, kMostStep = 8, kRow = 64;
  if (rank != 5 || reinterpret_cast<std::uintptr_t>(data) % 16 != 0 || box[0] > kRow || box[0] % 8 != 0)
    return CUDA_ERROR_INVALID_VALUE;
  EncodedBoxes boxes{static_cast<const unsigned char*>(data), {}, {}, {}, {}};
  for (cuuint32_t a = 0; a < rank; ++a) {
    if (sizes[a] < 1 || sizes[a] > kMostSize || box[a] < 1 || box[a] > kMostBox || steps[a] < 1 || steps[a] > kMostStep)
      return CUDA_ERROR_INVALID_VALUE;
    boxes.sizes[a] = sizes[a];
    boxes.box[a] = (box[a] + steps[a] - 1) / steps[a];
    boxes.steps[a] = steps[a];
  }
  for (cuuint32_t a = 0; a + 1 < rank; ++a) {
    const cuuint64_t inside = a == 0 ? sizes[0] * 2 : strides[a - 1] * sizes[a];
    if (strides[a] % 16 != 0 || strides[a] >= kMostStride || strides[a] < inside) return CUDA_ERROR_INVALID_VALUE;
    boxes.strides[a] = strides[a];
  }
  std::memcpy(map, &boxes, sizeof boxes);
  return CUDA_SUCCESS;
}

}  // namespace

namespace vitrine::cuda::emulation {

void queue_launch(CUstream_st* stream, std::function<void()> work) {
  if (queue(stream, std::move(work)) != cudaSuccess) throw Error("a launch on a stream whose capture is void");
}

std::int64_t stream_waits() { return waits; }

void set_compute_capability(int major, int minor) {
  capability[0] = major;
  capability[1] = minor;
}

}  // namespace vitrine::cuda::emulation

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    default:
      return "an error";
  }
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"host harness", kMemory, capability[0], capability[1]};
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = capability[attribute == cudaDevAttrComputeCapabilityMinor];
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool is_known = std::string_view(symbol) == "cuTensorMapEncodeTiled";
  *function = is_known ? reinterpret_cast<void*>(&encode_tensor_map) : nullptr;
  *result = is_known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  ++waits;
  return stream->graph ? refuse(stream, cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const bool isolated = stream->graph && !event->is_captured;
  return isolated ? refuse(stream, cudaErrorStreamCaptureIsolation) : cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->is_captured = stream->graph != nullptr;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return event->is_captured ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

cudaError_t cudaMallocAsync(void** block, std::size_t bytes, cudaStream_t stream) {
  if (stream->is_void) return cudaErrorStreamCaptureInvalidated;
  std::shared_ptr<void> taken;
  try {
    taken = allocate_device_memory(bytes);
  } catch (const vitrine::Error&) {
    return cudaErrorMemoryAllocation;
  }
  *block = taken.get();
  if (CUgraph_st* graph = stream->graph.get()) {
    graph->blocks.emplace(*block, std::pair(std::move(taken), bytes));
    graph->live.insert(*block);
    return queue(stream, fill(*block, 0xff, bytes));
  }
  const std::lock_guard lock(blocks_mutex);
  blocks.emplace(*block, std::move(taken));
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* block, cudaStream_t stream) {
  if (CUgraph_st* graph = stream->graph.get()) {
    if (graph->live.erase(block) == 0) return refuse(stream, cudaErrorInvalidValue);
    return queue(stream, fill(block, 0xff, graph->blocks.at(block).second));
  }
  const std::lock_guard lock(blocks_mutex);
  return blocks.erase(block) == 1 ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaMallocHost(void** block, std::size_t bytes) {
  if (captured) return refuse(captured, cudaErrorStreamCaptureUnsupported);
  *block = std::malloc(bytes);
  return *block ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return queue(stream, [=] {
    const DeviceAccess access;
    std::memcpy(to, from, bytes);
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return queue(stream, fill(to, value, bytes));
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = kMemory - static_cast<std::size_t>(device_memory().in_use);
  *total = kMemory;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  *pool = nullptr;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value) {
  *static_cast<std::uint64_t*>(value) = static_cast<std::uint64_t>(device_memory().in_use);
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) { return cudaSuccess; }
cudaError_t cudaDeviceGraphMemTrim(int) { return cudaSuccess; }

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream->graph) return cudaErrorIllegalState;
  stream->graph = std::make_unique<CUgraph_st>();
  stream->thread = std::this_thread::get_id();
  captured = stream;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!stream->graph) return cudaErrorIllegalState;
  if (stream->thread != std::this_thread::get_id()) return refuse(stream, cudaErrorStreamCaptureWrongThread);
  captured = nullptr;
  std::unique_ptr<CUgraph_st> made = std::move(stream->graph);
  if (std::exchange(stream->is_void, false)) return cudaErrorStreamCaptureInvalidated;
  *graph = made.release();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* runs, cudaGraph_t graph, unsigned long long) {
  *runs = new CUgraphExec_st{*graph};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t runs, cudaStream_t stream) {
  if (stream->graph) return refuse(stream, cudaErrorStreamCaptureUnsupported);
  if (std::exchange(runs->has_run, true) && !runs->graph.live.empty()) return cudaErrorInvalidValue;
  const DeviceAccess access;  // once for all: to open and to close memory takes longer than most nodes
  for (const auto& node : runs->graph.nodes) node();
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t runs) {
  delete runs;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
