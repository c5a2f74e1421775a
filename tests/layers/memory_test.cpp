#include <vitrine/layers/memory.h>

#include <thread>

#include "layers/support.h"

using namespace vitrine;
using test::contains;

TEST_CASE("the counters follow what lives") {
  release_cached_memory();
  const MemoryStats before = memory_stats();
  reset_peak_memory();
  {
    auto a = allocate(1 << 20);
    CHECK(memory_stats().in_use == before.in_use + (1 << 20));
    auto b = allocate(1 << 20);
    a.reset();
    CHECK(memory_stats().in_use == before.in_use + (1 << 20));
    CHECK(memory_stats().peak == before.in_use + (2 << 20));
  }
  CHECK(memory_stats().in_use == before.in_use);
  CHECK(memory_stats().peak == before.in_use + (2 << 20));
  reset_peak_memory();
  CHECK(memory_stats().peak == before.in_use);
  release_cached_memory();
  CHECK(memory_stats().cached == 0);
}

TEST_CASE("blocks are aligned and waste at most an eighth") {
  for (std::size_t bytes : {0, 1, 63, 64, 257, 300, 511, 513, 1000, 4097, 100'000, 1'000'001}) {
    const auto before = memory_stats().in_use;
    const auto block = allocate(bytes);
    const auto used = static_cast<std::size_t>(memory_stats().in_use - before);
    INFO(bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(block.get()) % 64 == 0);
    CHECK(used >= bytes);
    CHECK(used % 64 == 0);
    CHECK(used <= std::max<std::size_t>(256, bytes + bytes / 8 + 64));
    std::memset(block.get(), 1, bytes);
  }
}

#ifndef VITRINE_SANITIZE  // which turns the cache off
TEST_CASE("a block that was given back is handed out again") {
  release_cached_memory();
  void* first = allocate(50'000).get();
  CHECK(memory_stats().cached >= 50'000);
  CHECK(allocate(50'001).get() == first);  // the same size class
}

TEST_CASE("what is kept stays within what was in use at once and a gigabyte") {
  release_cached_memory();
  constexpr std::size_t kGiga = std::size_t{1} << 30;  // not touched, so that none of it takes room
  void* first = allocate(2 * kGiga).get();
  CHECK(allocate(2 * kGiga).get() == first);
  for (std::size_t eighths = 8; eighths < 16; ++eighths) static_cast<void>(allocate(eighths * kGiga / 8));
  const std::int64_t kept = memory_stats().cached;
  CHECK(kept > static_cast<std::int64_t>(2 * kGiga));
  CHECK(kept <= static_cast<std::int64_t>(3 * kGiga) + memory_stats().in_use);
  release_cached_memory();
}
#endif

TEST_CASE("more than there is gives an Error with the amount") {
  CHECK_THROWS_WITH(allocate(std::size_t{1} << 60), contains("out of memory"));
}

TEST_CASE("threads may allocate at once") {
  const auto before = memory_stats().in_use;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([t] {
      for (int i = 0; i < 500; ++i) std::memset(allocate(static_cast<std::size_t>(300 + 64 * (i % 7))).get(), t, 300);
    });
  for (auto& thread : threads) thread.join();
  CHECK(memory_stats().in_use == before);
}
