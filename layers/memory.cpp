#include <vitrine/layers/memory.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <sstream>
#include <string>
#include <string_view>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <fmt/format.h>

#include <vitrine/layers/error.h>

namespace vitrine {

namespace {

constexpr std::size_t kAlignment = 64;

// Sizes are rounded to an eighth of their power of two, so that tensors of nearly the same size share blocks and at
// most an eighth is wasted; small ones to whole cache lines.
std::size_t size_class(std::size_t bytes) {
  if (bytes <= 256) return 256;
  const std::size_t step = std::max(kAlignment, std::bit_floor(bytes - 1) / 8);
  return (bytes + step - 1) / step * step;
}

// Large ones ask for huge pages where the system gives them on request: kernels that read every head's few channels of each token
// touch so many pages that looking them up would take longer than the reading.
void* allocate_block(std::size_t bytes) {
#if defined(__linux__)
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  if (bytes >= 2 * kHugePage) {
    void* block = std::aligned_alloc(kHugePage, (bytes + kHugePage - 1) / kHugePage * kHugePage);
    if (block) madvise(block, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);  // advice: what it returns does not matter
    return block;
  }
#endif
  return std::aligned_alloc(kAlignment, bytes);
}

// Blocks that came back, by size. With what is in use they are never more than the most that was in use at once, and kSlack: a
// pass that is repeated finds all of its blocks, and large pages need not be cleared for it again.
class Pool {
 public:
  void* take(std::size_t bytes) {
    const auto size = static_cast<std::int64_t>(bytes);
    const std::int64_t now = in_use_.fetch_add(size) + size;
    void* block = find(bytes, now);
    if (!block) block = allocate_block(bytes);
    if (!block) {
      trim();
      block = allocate_block(bytes);
    }
    if (!block) {
      in_use_ -= size;
      throw Error(fmt::format("out of memory: {} bytes asked for, {} in use", bytes, in_use_.load()));
    }
    raise(peak_, now);
    raise(most_, now);
    return block;
  }

  void give(void* block, std::size_t bytes) noexcept {
    const auto size = static_cast<std::int64_t>(bytes);
    [[maybe_unused]] const std::int64_t now = in_use_.fetch_sub(size) - size;
#ifndef VITRINE_SANITIZE  // the sanitizer finds uses after free only in memory that is really freed
    if (keep(block, bytes, now)) return;
#endif
    std::free(block);
  }

  void trim() noexcept {
    std::lock_guard lock(mutex_);
    shrink(0);
  }

  MemoryStats stats() {
    std::lock_guard lock(mutex_);
    return {in_use_, peak_, cached_};
  }
  void reset_peak() { peak_ = in_use_.load(); }

 private:
  // The kept block that came back last, or null, having made room for a new one.
  void* find(std::size_t bytes, std::int64_t in_use) noexcept {
    std::lock_guard lock(mutex_);
    const auto found = free_.lower_bound(bytes);
    if (found != free_.end() && found->first == bytes) return remove(found);
    shrink(std::max(most_.load(), in_use) + kSlack - in_use);
    return nullptr;
  }

  [[maybe_unused]] bool keep(void* block, std::size_t bytes, std::int64_t in_use) noexcept {
    std::lock_guard lock(mutex_);
    const auto size = static_cast<std::int64_t>(bytes);
    if (in_use + cached_ + size > most_ + kSlack) return false;
    try {
      free_.emplace_hint(free_.lower_bound(bytes), bytes, block);  // before those of its size
    } catch (const std::bad_alloc&) {                              // no room for the entry itself
      return false;
    }
    cached_ += size;
    return true;
  }

  using Free = std::multimap<std::size_t, void*>;

  void* remove(Free::iterator block) noexcept {
    void* const found = block->second;
    cached_ -= static_cast<std::int64_t>(block->first);
    free_.erase(block);
    return found;
  }

  // Frees the largest blocks until no more than `most` bytes are kept.
  void shrink(std::int64_t most) noexcept {
    while (cached_ > most) std::free(remove(std::prev(free_.end())));
  }

  static void raise(std::atomic<std::int64_t>& counter, std::int64_t value) noexcept {
    std::int64_t before = counter;
    while (value > before && !counter.compare_exchange_weak(before, value)) {
    }
  }

  static constexpr std::int64_t kSlack = std::int64_t{1} << 30;

  std::mutex mutex_;
  Free free_;
  std::int64_t cached_ = 0;
  std::atomic<std::int64_t> in_use_{0}, peak_{0}, most_{0};  // peak_: since the last reset; most_: ever
};

// Never destroyed: tensors with static lifetime may outlive it otherwise.
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

}  // namespace

MemoryStats memory_stats() { return pool().stats(); }
void reset_peak_memory() { pool().reset_peak(); }
void release_cached_memory() { pool().trim(); }

std::shared_ptr<void> allocate(std::size_t bytes) {
  if (bytes > (std::size_t{1} << 47)) throw Error(fmt::format("out of memory: {} bytes asked for", bytes));
  const std::size_t rounded = size_class(bytes);
  void* block = pool().take(rounded);
  return {block, [rounded](void* b) { pool().give(b, rounded); }};
}

std::shared_ptr<void> allocate_untouched(std::size_t bytes) {
#if defined(__linux__)
  constexpr std::size_t kMapped = std::size_t{1} << 16;  // below it zeros are written as fast as pages are mapped
  if (bytes >= kMapped) {
    void* block = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) throw Error(fmt::format("out of memory: {} bytes asked for in a dry run", bytes));
    return {block, [bytes](void* b) { ::munmap(b, bytes); }};
  }
#endif
  auto block = allocate(bytes);
  std::memset(block.get(), 0, bytes);
  return block;
}

namespace {

// A field of a file of "NAME:  N kB" lines; 0 where it is not there.
std::int64_t bytes_in(const char* path, std::string_view field) {
  std::ifstream lines(path);
  for (std::string line; std::getline(lines, line);) {
    std::int64_t kilobytes = 0;
    if (line.starts_with(field) && std::istringstream(line.substr(field.size())) >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

}  // namespace

std::int64_t peak_resident_bytes() { return bytes_in("/proc/self/status", "VmHWM:"); }
std::int64_t available_bytes() { return bytes_in("/proc/meminfo", "MemAvailable:"); }

}  // namespace vitrine
