// The CPU allocator: 64-byte aligned blocks, kept for reuse by size, with counters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <vitrine/layers/export.h>

namespace vitrine {

struct MemoryStats {
  std::int64_t in_use = 0;  // bytes of live tensors and packed weights
  std::int64_t peak = 0;    // the largest in_use since the last reset_peak_memory()
  std::int64_t cached = 0;  // bytes kept for reuse
};

VITRINE_API MemoryStats memory_stats();
VITRINE_API void reset_peak_memory();
VITRINE_API std::int64_t peak_resident_bytes();  // the most that the process held; 0 where the system does not say
VITRINE_API std::int64_t available_bytes();      // that the system can still give; 0 where it does not say
VITRINE_API void release_cached_memory();        // gives kept blocks back to the system

// A block of at least `bytes` bytes, 64-byte aligned; goes back to the cache with its last owner.
// Throws Error with the amount asked for where the system has no more.
VITRINE_API std::shared_ptr<void> allocate(std::size_t bytes);
// The same, of zeros, for dry runs: whatever its size it takes room only where it is written to, and it is not counted.
VITRINE_API std::shared_ptr<void> allocate_untouched(std::size_t bytes);

}  // namespace vitrine
