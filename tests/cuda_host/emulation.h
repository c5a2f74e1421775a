// A block of GPU threads on the host: each thread is a fiber that runs until it meets others (a barrier, an exchange within its
// warp). What layers/cuda/device.h asks of CUDA is computed here as the instructions define it.
//
// What goes wrong on a GPU in silence ends a launch here with an Error: threads of a warp at different meeting points, a barrier
// that some threads never reach, an asynchronous copy that is misaligned. Shared memory holds NaNs when a block begins, copies
// arrive no earlier than they are waited for, and the order in which threads run can be turned around, so that a missing barrier
// gives wrong numbers. Under the address sanitizer shared memory and tensors have red zones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

struct CUstream_st;  // a stream of cuda_runtime/cuda_runtime_api.h

namespace vitrine::cuda::emulation {

struct Block {
  int index[3] = {}, grid[3] = {1, 1, 1};
  int threads = 1;
  std::byte* shared = nullptr;
  std::size_t shared_bytes = 0;
};

// In which order the threads between two meeting points run.
enum class Order { forward, backward };
void set_order(Order order);

// A launch: now, or at every run of the graph that the stream is captured for.
struct Grid {
  int blocks[3] = {1, 1, 1};
  int threads = 1;
  std::size_t shared_bytes = 0;
};
// Runs `thread` for all threads of all blocks. Throws Error, which has `what`, where threads do not meet.
// `what` names it in messages; launches are counted by op and type when they run.
void launch(CUstream_st* stream, const std::string& what, const char* op, std::string_view dtype, const Grid& grid,
            std::function<void()> thread);
void queue_launch(CUstream_st* stream, std::function<void()> work);  // what that is made of, of cuda_runtime.cpp
std::int64_t stream_waits();  // how often the host has waited for all that a stream was given
std::int64_t launches();      // so far
std::int64_t launches(std::string_view op, std::string_view dtype);

// --- for device.h: of the calling thread ---
int thread_index();
const Block& block();
void meet_block();

// What the lanes of a warp brought to their meeting.
class Brought {
 public:
  static constexpr std::size_t kBytes = 48;
  explicit Brought(const std::byte* slots) : slots_(slots) {}
  const std::byte* of(int lane) const { return slots_ + static_cast<std::size_t>(lane) * kBytes; }

 private:
  const std::byte* slots_;
};
Brought meet_warp(const char* what, const void* data, std::size_t bytes);

// Until ready(), which other threads or the background bring about; `what` is for the message where nobody does.
void wait_until(const char* what, std::function<bool()> ready);
// Of `threads` threads, some of which do not wait for the others: the barrier of that number, of 15.
void meet_by_name(const char* what, int number, int threads, bool waits);
// Pauses until all others have gone as far as they can; once for those that run in the same round, once for what these wake.
void let_others_run();
// What an engine does beside the threads: at once in blocks of even number, in the others when no thread can go on without it,
// one by one, forwards or backwards.
void in_background(std::function<void()> work);
// In groups, of which a wait does all but the last `left`; in half of the blocks they are done when they are committed.
void defer(std::function<void()> work);
void commit_deferred();
void wait_deferred(int left);
void fault(const char* what);  // ends the launch when the thread pauses

void store_16(void* to, const std::uint32_t (&parts)[4]);
void async_copy(void* to, const void* from, bool valid);
void async_commit();
void async_wait(int left);

void load_matrices(std::uint32_t (&part)[4], const void* row, bool transposed);

template <typename ToFloat>
void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1, const ToFloat& to_float) {
  struct Operands {
    float a[8], b[4];
  } mine;
  const auto half = [&](std::uint32_t pair, int which) { return to_float(static_cast<std::uint16_t>(pair >> (16 * which))); };
  for (int i = 0; i < 8; ++i) mine.a[i] = half(a[i / 2], i % 2);
  for (int i = 0; i < 4; ++i) mine.b[i] = half(i < 2 ? b0 : b1, i % 2);
  const Brought all = meet_warp("multiply_add", &mine, sizeof mine);
  const auto at_a = [&](int row, int k) {  // element (row, k) of a
    return reinterpret_cast<const Operands*>(all.of(row % 8 * 4 + k % 8 / 2))->a[2 * (row / 8 + 2 * (k / 8)) + k % 2];
  };
  const auto at_b = [&](int k, int column) {
    return reinterpret_cast<const Operands*>(all.of(column * 4 + k % 8 / 2))->b[2 * (k / 8) + k % 2];
  };
  const int lane = thread_index() % 32, g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; ++i) {
    float sum = c[i];
    for (int k = 0; k < 16; ++k) sum += at_a(g + i / 2 * 8, k) * at_b(k, 2 * t + i % 2);
    c[i] = sum;
  }
}

}  // namespace vitrine::cuda::emulation
