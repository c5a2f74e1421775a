// Splits work over the threads of the current context. One thread count rules oneDNN and own kernels; a kernel never
// starts threads inside threads. In a dry run the work is left out.
#pragma once

#include <algorithm>
#include <cstdint>

#include <omp.h>

#include <vitrine/layers/context.h>

namespace vitrine::cpu {

// Calls body(begin, end) on disjoint ranges that cover [0, n), each of at least `grain` items, at most one per thread.
// A team has all threads of the context or one: libgomp ends the threads that a smaller team leaves over, and starting
// them again for the next one costs tens of microseconds each.
template <typename Body>
void parallel_for(std::int64_t n, std::int64_t grain, const Body& body) {
  if (n <= 0) return;
  const std::int64_t most = (n + std::max<std::int64_t>(grain, 1) - 1) / std::max<std::int64_t>(grain, 1);
  if (Context::current().dry_run()) return;
  const int team = Context::current().threads();
  const std::int64_t parts = std::min<std::int64_t>(team, most);
  if (parts <= 1 || omp_in_parallel()) return body(std::int64_t{0}, n);
#pragma omp parallel num_threads(team)
  {
    // The runtime may give fewer threads than asked for: each takes every count-th part.
    const std::int64_t count = omp_get_num_threads();
    for (std::int64_t part = omp_get_thread_num(); part < parts; part += count) body(n * part / parts, n * (part + 1) / parts);
  }
}

// Hands out items one by one, for items of uneven cost: body(item, thread).
template <typename Body>
void parallel_each(std::int64_t n, const Body& body) {
  if (Context::current().dry_run()) return;
  const int team = Context::current().threads();
  if (team <= 1 || n <= 1 || omp_in_parallel()) {
    for (std::int64_t i = 0; i < n; ++i) body(i, 0);
    return;
  }
#pragma omp parallel for num_threads(team) schedule(dynamic, 1)
  for (std::int64_t i = 0; i < n; ++i) body(i, omp_get_thread_num());
}

}  // namespace vitrine::cpu
