#include "cuda_host/emulation.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/mman.h>

#include <vitrine/layers/error.h>

#include "cuda_host/device_memory.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Stores the callee's registers on the running stack, its top in *from, and goes on where `to` was left.
extern "C" void vitrine_switch_fiber(void** from, void* to);
asm(R"(
.text
.local vitrine_switch_fiber
.type vitrine_switch_fiber, @function
vitrine_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size vitrine_switch_fiber, .-vitrine_switch_fiber
)");

namespace vitrine::cuda::emulation {

namespace {

constexpr std::size_t kStack = std::size_t{128} << 10;  // instrumented code needs much
constexpr int kWarp = 32;

enum class State { ready, at_warp, at_block, waits, done };

struct Copy {
  void* to;
  const void* from;
  bool valid;
};

struct Fiber {
  void* top = nullptr;
  std::byte* stack = nullptr;
  State state = State::ready;
  const char* meets = "";  // what it does with its warp
  int parity = 0;          // slots of meetings alternate: nobody writes the next one's before all have read this one's
  std::vector<std::vector<Copy>> groups;  // committed copies, oldest first; a deque would allocate for every thread
  std::vector<Copy> open;
  std::function<bool()> goes_on;                             // of one that waits for `meets`
  std::vector<std::vector<std::function<void()>>> deferred;  // committed groups, oldest first
  std::vector<std::function<void()>> open_deferred;
};

// Stacks that an OS thread's fibers use again and again.
class Stacks {
 public:
  std::byte* of(int i) {
    while (static_cast<int>(stacks_.size()) <= i) {
      void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (stack == MAP_FAILED) throw Error("no memory for the stacks of emulated threads");
      stacks_.push_back(static_cast<std::byte*>(stack));
    }
    return stacks_[static_cast<std::size_t>(i)];
  }
  ~Stacks() {
    for (std::byte* stack : stacks_) {
#if defined(__SANITIZE_ADDRESS__)
      // Frames that never returned have left their marks, and the address is for others now.
      ASAN_UNPOISON_MEMORY_REGION(stack, kStack);
#endif
      munmap(stack, kStack);
    }
  }

 private:
  std::vector<std::byte*> stacks_;
};

struct Running {
  const std::string* op = nullptr;
  const std::function<void()>* body = nullptr;
  Block block;
  std::vector<Fiber> fibers;
  std::vector<std::byte> slots;  // [warp][parity][lane]
  int current = 0;
  const char* fault = nullptr;  // what a thread did wrong
  std::vector<std::function<void()>> background;
  struct Meeting {
    int threads = 0, came = 0, round = 0;
  } meetings[15];
  void* scheduler = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  const void* scheduler_stack = nullptr;
  std::size_t scheduler_bytes = 0;
#endif
};

thread_local Running* running = nullptr;
thread_local Stacks stacks;
std::atomic<Order> order_of_threads{Order::forward};
std::mutex counting;
std::map<std::pair<std::string, std::string>, std::int64_t> counts;  // of launches, by op and type

// Back to the scheduler; returns when this fiber's turn comes again.
void pause(Fiber& fiber, State state) {
  fiber.state = state;
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(state == State::done ? nullptr : &fake, running->scheduler_stack, running->scheduler_bytes);
#endif
  vitrine_switch_fiber(&fiber.top, running->scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &running->scheduler_stack, &running->scheduler_bytes);
#endif
  (*running->body)();
  pause(running->fibers[static_cast<std::size_t>(running->current)], State::done);
  std::abort();  // nobody wakes what is done
}

void start(Fiber& fiber, int i) {
  fiber.stack = stacks.of(i);
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(fiber.stack, kStack);  // of the frames that the one before has left
#endif
  // As if it had been paused at the entry of fiber_main: six registers, the address to return to, and a place for the alignment
  // that a called function finds.
  auto** top = reinterpret_cast<void**>(fiber.stack + kStack) - 8;
  std::fill(top, top + 8, nullptr);
  top[6] = reinterpret_cast<void*>(&fiber_main);
  fiber.top = top;
}

void resume(int i) {
  Fiber& fiber = running->fibers[static_cast<std::size_t>(i)];
  running->current = i;
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, fiber.stack, kStack);
#endif
  vitrine_switch_fiber(&running->scheduler, fiber.top);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

[[noreturn]] void fail(const std::string& what) {
  const Block& b = running->block;
  throw Error(fmt::format("{}: block {}, {}, {}: {}", *running->op, b.index[0], b.index[1], b.index[2], what));
}

// Lets the threads of a warp go on where all of them are at one meeting; whether it did.
bool release_warp(int warp) {
  const int first = warp * kWarp, last = std::min(first + kWarp, running->block.threads);
  int waiting = 0;
  bool may_come = false;  // some are elsewhere, and may still come
  const Fiber* one = nullptr;
  for (int i = first; i < last; ++i) {
    const Fiber& fiber = running->fibers[static_cast<std::size_t>(i)];
    may_come = may_come || fiber.state == State::waits;
    if (fiber.state != State::at_warp) continue;
    if (one && std::strcmp(one->meets, fiber.meets) != 0)
      fail(fmt::format("threads of warp {} meet for different things: {} and {}", warp, one->meets, fiber.meets));
    one = &fiber;
    ++waiting;
  }
  if (waiting == 0 || may_come) return false;
  if (waiting < last - first || last - first < kWarp)
    fail(fmt::format("only {} threads of warp {} come to its {}", waiting, warp, one->meets));
  for (int i = first; i < last; ++i) running->fibers[static_cast<std::size_t>(i)].state = State::ready;
  return true;
}

void run_block() {
  auto& fibers = running->fibers;
  const int threads = running->block.threads, warps = (threads + kWarp - 1) / kWarp;
  for (int i = 0; i < threads; ++i) {
    fibers[static_cast<std::size_t>(i)] = Fiber{};
    start(fibers[static_cast<std::size_t>(i)], i);
  }
  running->background.clear();
  std::fill(std::begin(running->meetings), std::end(running->meetings), Running::Meeting{});
  const bool backward = order_of_threads == Order::backward;
  const auto is = [](State state) { return [state](const Fiber& f) { return f.state == state; }; };
  while (true) {
    for (int warp = 0; warp < warps; ++warp) {  // a warp goes on by itself until it waits for the others
      const int w = backward ? warps - 1 - warp : warp, first = w * kWarp, last = std::min(first + kWarp, threads);
      do {
        for (int i = 0; i < last - first; ++i) {
          const int thread = backward ? last - 1 - i : first + i;
          if (fibers[static_cast<std::size_t>(thread)].state == State::ready) resume(thread);
          if (running->fault) fail(running->fault);
        }
      } while (release_warp(w));
    }
    const auto finished = std::count_if(fibers.begin(), fibers.end(), is(State::done));
    if (finished == threads) break;
    const auto wake = [&] {
      bool any = false;
      for (Fiber& fiber : fibers)
        if (fiber.state == State::waits && fiber.goes_on()) {
          fiber.state = State::ready;
          any = true;
        }
      if (running->fault) fail(running->fault);
      return any;
    };
    if (wake()) continue;
    if (!running->background.empty()) {
      // One at a time, in half of these blocks the last first: whoever waits for one must not find another there by luck.
      auto& all = running->background;
      const auto next = running->block.index[0] % 4 == 1 ? all.end() - 1 : all.begin();
      const auto work = std::move(*next);
      all.erase(next);
      work();
      continue;
    }
    if (const auto waits = std::find_if(fibers.begin(), fibers.end(), is(State::waits)); waits != fibers.end())
      fail(fmt::format("thread {} waits for {}, which nobody brings", waits - fibers.begin(), waits->meets));
    if (finished > 0) fail(fmt::format("{} of {} threads never come to a barrier", finished, threads));
    for (Fiber& fiber : fibers) fiber.state = State::ready;
  }
  for (const Fiber& fiber : fibers)
    if (!fiber.open.empty() || !fiber.groups.empty() || !fiber.open_deferred.empty() || !fiber.deferred.empty())
      fail("a thread ends with asynchronous copies or products that nobody waits for");
  for (const Running::Meeting& meeting : running->meetings)
    if (meeting.came > 0) fail("a turn is given that nobody waits for");
}

}  // namespace

void set_order(Order order) { order_of_threads = order; }
std::int64_t launches() {
  const std::lock_guard lock(counting);
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0},
                         [](std::int64_t sum, const auto& entry) { return sum + entry.second; });
}
std::int64_t launches(std::string_view op, std::string_view dtype) {
  const std::lock_guard lock(counting);
  const auto found = counts.find({std::string(op), std::string(dtype)});
  return found == counts.end() ? 0 : found->second;
}

namespace {

void run(const std::string& op, const Grid& launched, const std::function<void()>& thread) {
  const int(&grid)[3] = launched.blocks;
  const int threads = launched.threads;
  const std::size_t shared_bytes = launched.shared_bytes;
  const DeviceAccess access;
  const std::int64_t blocks = std::int64_t{grid[0]} * grid[1] * grid[2];
  std::exception_ptr failure;
  std::atomic<bool> failed{false};
#pragma omp parallel
  {
    Running mine;
    mine.op = &op;
    mine.body = &thread;
    mine.block.threads = threads;
    mine.block.shared_bytes = shared_bytes;
    std::copy(grid, grid + 3, mine.block.grid);
    mine.fibers.resize(static_cast<std::size_t>(threads));
    mine.slots.resize(static_cast<std::size_t>((threads + kWarp - 1) / kWarp * 2 * kWarp) * Brought::kBytes);
    running = &mine;
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < blocks; ++i) {
      if (failed) continue;
      try {
        mine.block.index[0] = static_cast<int>(i % grid[0]);
        mine.block.index[1] = static_cast<int>(i / grid[0] % grid[1]);
        mine.block.index[2] = static_cast<int>(i / grid[0] / grid[1]);
        void* shared = nullptr;
        if (posix_memalign(&shared, 1024, std::max<std::size_t>(shared_bytes, 1)) != 0) throw Error("no shared memory");
        const std::unique_ptr<void, void (*)(void*)> owner(shared, std::free);
        std::memset(shared, 0xff, shared_bytes);  // NaN in all floating types
        mine.block.shared = static_cast<std::byte*>(shared);
        run_block();
      } catch (...) {
#pragma omp critical
        if (!failed.exchange(true)) failure = std::current_exception();
      }
    }
    running = nullptr;
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

void launch(CUstream_st* stream, const std::string& op, const char* name, std::string_view dtype, const Grid& grid,
            std::function<void()> thread) {
  const auto& [blocks, threads, shared_bytes] = grid;
  if (threads < 1 || threads > 1024 || blocks[0] < 1 || blocks[1] < 1 || blocks[2] < 1 || blocks[1] > 65535 || blocks[2] > 65535)
    throw Error(fmt::format("{}: a launch of {} x {} x {} blocks of {} threads", op, blocks[0], blocks[1], blocks[2], threads));
  constexpr std::size_t kMostShared = 227 << 10;
  if (shared_bytes > kMostShared) throw Error(fmt::format("{}: {} bytes of shared memory", op, shared_bytes));
  queue_launch(stream, [op, key = std::pair<std::string, std::string>(name, dtype), grid, thread = std::move(thread)] {
    {
      const std::lock_guard lock(counting);
      ++counts[key];
    }
    run(op, grid, thread);
  });
}

int thread_index() { return running->current; }
const Block& block() { return running->block; }

namespace {
Fiber& self() { return running->fibers[static_cast<std::size_t>(running->current)]; }
}  // namespace

void meet_block() { pause(self(), State::at_block); }

Brought meet_warp(const char* what, const void* data, std::size_t bytes) {
  Fiber& fiber = self();
  const int thread = running->current;
  std::byte* slots =
      running->slots.data() + static_cast<std::size_t>(thread / kWarp * 2 + fiber.parity) * kWarp * Brought::kBytes;
  if (bytes > 0) std::memcpy(slots + static_cast<std::size_t>(thread % kWarp) * Brought::kBytes, data, bytes);
  fiber.parity ^= 1;
  fiber.meets = what;
  pause(fiber, State::at_warp);
  return Brought(slots);
}

void wait_until(const char* what, std::function<bool()> ready) {
  if (ready()) return;
  self().meets = what;
  self().goes_on = std::move(ready);
  pause(self(), State::waits);
}

void meet_by_name(const char* what, int number, int threads, bool waits) {
  meet_warp(what, nullptr, 0);  // all of a warp's threads
  if (number >= 15) return fault("there are 15 turns");
  Running::Meeting& meeting = running->meetings[number];
  if (threads % kWarp != 0 || (meeting.came > 0 && meeting.threads != threads))
    return fault("threads of a turn do not agree how many they are");
  meeting.threads = threads;
  const int round = meeting.round;
  if (++meeting.came == threads) {
    meeting.came = 0;
    ++meeting.round;
  }
  if (waits) wait_until(what, [&meeting, round] { return meeting.round != round; });
}

void let_others_run() {
  for (int i = 0; i < 2; ++i) {
    self().meets = "others";
    self().goes_on = [] { return true; };
    pause(self(), State::waits);
  }
}

void in_background(std::function<void()> work) {
  if (running->block.index[0] % 2 == 0)
    work();
  else
    running->background.push_back(std::move(work));
}

void defer(std::function<void()> work) { self().open_deferred.push_back(std::move(work)); }
void commit_deferred() {
  const bool is_early = running->block.index[0] / 2 % 2 == 1;
  if (is_early)
    for (const auto& work : self().open_deferred) work();
  self().deferred.push_back(is_early ? std::vector<std::function<void()>>{} : std::move(self().open_deferred));
  self().open_deferred.clear();
}
void wait_deferred(int left) {
  auto& groups = self().deferred;
  const auto kept = groups.size() > static_cast<std::size_t>(left) ? groups.end() - left : groups.begin();
  for (auto group = groups.begin(); group != kept; ++group)
    for (const auto& work : *group) work();
  groups.erase(groups.begin(), kept);
}

// No exception passes a fiber: the scheduler throws, of the first.
void fault(const char* what) {
  if (!running->fault) running->fault = what;
}

void store_16(void* to, const std::uint32_t (&parts)[4]) {
  if (reinterpret_cast<std::uintptr_t>(to) % 16 != 0) return fault("a store is not aligned to 16 bytes");
  std::memcpy(to, parts, sizeof parts);
}

void async_copy(void* to, const void* from, bool valid) {
  if (reinterpret_cast<std::uintptr_t>(to) % 16 != 0 || (valid && reinterpret_cast<std::uintptr_t>(from) % 16 != 0))
    fault("an asynchronous copy is not aligned to 16 bytes");
  self().open.push_back({to, from, valid});
}

void async_commit() {
  self().groups.push_back(std::move(self().open));
  self().open.clear();
}

void async_wait(int left) {
  auto& groups = self().groups;
  const auto kept = groups.size() > static_cast<std::size_t>(left) ? groups.end() - left : groups.begin();
  for (auto group = groups.begin(); group != kept; ++group)
    for (const Copy& copy : *group) {
      if (copy.valid)
        std::memcpy(copy.to, copy.from, 16);
      else
        std::memset(copy.to, 0, 16);
    }
  groups.erase(groups.begin(), kept);
}

void load_matrices(std::uint32_t (&part)[4], const void* row, bool transposed) {
  const Brought rows = meet_warp(transposed ? "load_matrices_transposed" : "load_matrices", row, 16);
  const int lane = running->current % kWarp;
  for (int matrix = 0; matrix < 4; ++matrix) {
    const auto element = [&](int r, int c) {
      std::uint16_t bits;
      std::memcpy(&bits, rows.of(8 * matrix + r) + 2 * c, sizeof bits);
      return static_cast<std::uint32_t>(bits);
    };
    const int i = lane / 4, j = 2 * (lane % 4);
    part[matrix] = transposed ? element(j, i) | element(j + 1, i) << 16 : element(i, j) | element(i, j + 1) << 16;
  }
}

}  // namespace vitrine::cuda::emulation
