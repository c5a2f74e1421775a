#include "cuda_host/device_memory.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>

#include <fmt/format.h>
#include <sys/mman.h>

#include <vitrine/layers/error.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace vitrine::cuda::emulation {

namespace {

constexpr std::size_t kArena = std::size_t{8} << 30, kAlignment = 256, kPage = 2 << 20;

class Arena {
 public:
  Arena() {
    void* const space = mmap(nullptr, kArena + kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED) throw Error("no address space for the emulated device's memory");
    // Each launch opens and closes all pages: by large ones this costs little, by small ones most of a test's time.
    base_ = static_cast<std::byte*>(space) + kPage - reinterpret_cast<std::uintptr_t>(space) % kPage;
    madvise(base_, kArena, MADV_HUGEPAGE);
#if defined(__SANITIZE_ADDRESS__)
    ASAN_POISON_MEMORY_REGION(base_, kArena);
#endif
  }

  void* take(std::size_t bytes) {
    std::lock_guard lock(mutex_);
    const std::size_t room = (bytes + 2 * kAlignment - 1) / kAlignment * kAlignment;  // with a gap behind it
    std::size_t at = end_;
    const auto fits = std::find_if(free_.begin(), free_.end(), [room](const auto& block) { return block.second >= room; });
    if (fits != free_.end()) {
      at = fits->first;
      const std::size_t left = fits->second - room;
      free_.erase(fits);
      if (left > 0) free_.emplace(at + room, left);
    } else {
      if (end_ + room > kArena)
        throw Error(fmt::format("cuda:0: out of memory: {} bytes asked for, {} of {} free", bytes, kArena - end_, kArena));
      end_ += room;
    }
    used_.emplace(at, std::pair(room, bytes));
    stats_.in_use += static_cast<std::int64_t>(bytes);
    stats_.peak = std::max(stats_.peak, stats_.in_use);
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(base_ + at, bytes);
#endif
    return base_ + at;
  }

  void give(void* block) {
    std::lock_guard lock(mutex_);
    const auto at = static_cast<std::size_t>(static_cast<std::byte*>(block) - base_);
    auto [room, bytes] = used_.at(at);
    used_.erase(at);
    stats_.in_use -= static_cast<std::int64_t>(bytes);
#if defined(__SANITIZE_ADDRESS__)
    ASAN_POISON_MEMORY_REGION(base_ + at, bytes);
#endif
    auto next = free_.lower_bound(at);
    if (next != free_.end() && at + room == next->first) {
      room += next->second;
      next = free_.erase(next);
    }
    if (next != free_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == at) {
        before->second += room;
        return;
      }
    }
    free_.emplace(at, room);
  }

  void open(bool opens) {
    const std::size_t bytes = std::max((end_ + kPage - 1) / kPage * kPage, kPage);
    if (mprotect(base_, bytes, opens ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) throw Error("mprotect of device memory failed");
  }

  MemoryStats stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peak() {
    std::lock_guard lock(mutex_);
    stats_.peak = stats_.in_use;
  }

 private:
  std::mutex mutex_;
  std::byte* base_;
  std::size_t end_ = 0;
  std::map<std::size_t, std::size_t> free_;                          // begin, bytes
  std::map<std::size_t, std::pair<std::size_t, std::size_t>> used_;  // begin; room, bytes
  MemoryStats stats_;
};

Arena& arena() {
  static Arena* const instance = new Arena;
  return *instance;
}

std::mutex access;
thread_local int accesses = 0;  // of this thread, one in the other

}  // namespace

std::shared_ptr<void> allocate_device_memory(std::size_t bytes) {
  return {arena().take(std::max<std::size_t>(bytes, 1)), [](void* block) { arena().give(block); }};
}
MemoryStats device_memory() { return arena().stats(); }
void reset_peak_device_memory() { arena().reset_peak(); }

DeviceAccess::DeviceAccess() {
  if (accesses++ > 0) return;
  access.lock();
  arena().open(true);
}
DeviceAccess::~DeviceAccess() {
  if (--accesses > 0) return;
  arena().open(false);
  access.unlock();
}

}  // namespace vitrine::cuda::emulation
