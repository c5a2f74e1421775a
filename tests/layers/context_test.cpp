#include <vitrine/layers/cpu/parallel.h>

#include <sched.h>

#include <atomic>
#include <set>
#include <thread>

#include <vitrine/layers/linear.h>

#include "layers/support.h"

using namespace vitrine;

TEST_CASE("a context is current within its scope, per thread") {
  const int before = Context::current().threads();
  const int omp_before = omp_get_max_threads();
  Context outer({.threads = 3, .device = {}}), inner({.threads = 1, .device = {}});
  {
    ContextScope a(outer);
    CHECK(Context::current().threads() == 3);
    CHECK(omp_get_max_threads() == 3);
    {
      ContextScope b(inner);
      CHECK(&Context::current() == &inner);
    }
    CHECK(&Context::current() == &outer);
    std::thread([&] { CHECK(&Context::current() != &outer); }).join();
  }
  CHECK(Context::current().threads() == before);
  CHECK(omp_get_max_threads() == omp_before);
}

TEST_CASE("thread counts") {
  CHECK(default_threads() >= 1);
  CHECK(Context().threads() == default_threads());
  if (!std::getenv("OMP_NUM_THREADS")) {
    cpu_set_t set;
    CPU_ZERO(&set);
    REQUIRE(sched_getaffinity(0, sizeof set, &set) == 0);
    CHECK(default_threads() <= CPU_COUNT(&set));
  }
  CHECK_THROWS_AS(Context({.threads = -1, .device = {}}), Error);
  CHECK_THROWS_AS(Context({.threads = 1'000'000, .device = {}}), Error);
}

TEST_CASE("macs are counted until reset") {
  Context context;
  context.add_macs(5);
  context.add_macs(7);
  CHECK(context.macs() == 12);
  context.reset_macs();
  CHECK(context.macs() == 0);
}

TEST_CASE("parallel_for covers every item once, in one team size") {
  for (int threads : {1, 2, 5}) {
    Context context({.threads = threads, .device = {}});
    ContextScope scope(context);
    for (std::int64_t n : {0, 1, 7, 64, 1000})
      for (std::int64_t grain : {0, 1, 10, 5000}) {
        std::vector<std::atomic<int>> seen(static_cast<std::size_t>(n));
        std::atomic<int> calls{0};
        cpu::parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
          ++calls;
          for (; begin < end; ++begin) ++seen[static_cast<std::size_t>(begin)];
        });
        for (auto& count : seen) REQUIRE(count == 1);
        CHECK(calls <= threads);
        if (grain >= n) CHECK(calls <= 1);
        cpu::parallel_each(n, [&](std::int64_t i, int thread) {
          if (thread >= 0 && thread < threads) ++seen[static_cast<std::size_t>(i)];
        });
        for (auto& count : seen) REQUIRE(count == 2);
      }
  }
}

TEST_CASE("a team inside a team is one thread") {
  Context context({.threads = 2, .device = {}});
  ContextScope scope(context);
  std::atomic<int> calls{0};
  cpu::parallel_for(2, 1, [&](std::int64_t, std::int64_t) { cpu::parallel_for(100, 1, [&](auto, auto) { ++calls; }); });
  CHECK(calls == 2);
}

TEST_CASE("a dry run follows shapes and leaves out the work") {
  Context context({.threads = 2, .device = {}, .dry_run = true});
  const ContextScope scope(context);
  cpu::parallel_for(100, 1, [](std::int64_t, std::int64_t) { FAIL("called"); });
  cpu::parallel_each(100, [](std::int64_t, int) { FAIL("called"); });
  const Linear linear(Tensor::zeros({48, 1 << 20}), Tensor(), DType::bf16);
  const Tensor y = linear(Tensor::zeros({2, 3, 1 << 20}));
  CHECK(y.shape() == Shape{2, 3, 48});
  CHECK(y.data<float>()[0] == 0.0f);
  CHECK(context.macs() == 6ll * 48 * (1 << 20));
}
