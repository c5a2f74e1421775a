// Splits work over the threads of the current context. One thread count rules oneDNN and own kernels; a kernel never
// starts threads inside threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include <omp.h>

#include <vitrine/layers/context.h>

namespace vitrine::cpu {

// Calls body(begin, end) on disjoint ranges that cover [0, n), each of at least `grain` items, at most one per thread.
template <typename Body>
void parallel_for(std::int64_t n, std::int64_t grain, const Body& body) {
  if (n <= 0) return;
  const std::int64_t most = (n + std::max<std::int64_t>(grain, 1) - 1) / std::max<std::int64_t>(grain, 1);
  const int threads = static_cast<int>(std::min<std::int64_t>(Context::current().threads(), most));
  if (threads <= 1 || omp_in_parallel()) return body(std::int64_t{0}, n);
#pragma omp parallel num_threads(threads)
  {
    const std::int64_t t = omp_get_thread_num(), count = omp_get_num_threads();
    const std::int64_t begin = n * t / count, end = n * (t + 1) / count;
    if (begin < end) body(begin, end);
  }
}

// Hands out items one by one, for items of uneven cost: body(item, thread).
template <typename Body>
void parallel_each(std::int64_t n, const Body& body) {
  const int threads = static_cast<int>(std::min<std::int64_t>(Context::current().threads(), n));
  if (threads <= 1 || omp_in_parallel()) {
    for (std::int64_t i = 0; i < n; ++i) body(i, 0);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (std::int64_t i = 0; i < n; ++i) body(i, omp_get_thread_num());
}

}  // namespace vitrine::cpu
