// What layers/cuda/device_sm90.h asks of compute capability 9.0, on the host: see emulation.h.
//
// The copy engine and products run beside the threads. Here boxes arrive at once in one half of the blocks and as late as can be
// in the other half, so that both a buffer that is filled while it is read and data that nobody waited for give wrong numbers;
// products read their operands when they are waited for. What is not aligned, outside of shared memory, or not as the
// instruction's layout is given ends the launch with an Error.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda_host/emulation.h"

namespace vitrine::cuda::emulation {

unsigned shared_address(const void* p);

void init_arrivals(std::uint64_t* arrivals, int count);
void arrive(std::uint64_t* arrivals, int announced_bytes);
void wait_for(const std::uint64_t* arrivals, int parity);

void fetch_box(void* slab, const void* map, const int (&at)[5], std::uint64_t* arrivals);

// Element of an operand in shared memory: of row (or, of columns, channel) i and depth k.
std::uint16_t element(std::uint64_t operand, bool by_columns, int i, int k);

template <typename ToFloat>
void multiply_rows(float (*c)[4], int n, std::uint64_t a, std::uint64_t b, bool adds, const ToFloat& to_float) {
  meet_warp("multiply_rows", nullptr, 0);
  defer([=, row = thread_index() % 128 / 32 * 16 + thread_index() % 32 / 4, t = thread_index() % 4] {
    float of_a[2][16];
    for (int r = 0; r < 2; ++r)
      for (int k = 0; k < 16; ++k) of_a[r][k] = to_float(element(a, false, row + 8 * r, k));
    for (int j = 0; j < 2 * n; ++j) {
      float of_b[16];
      const int column = j / 2 * 8 + 2 * t + j % 2;
      for (int k = 0; k < 16; ++k) of_b[k] = to_float(element(b, false, column, k));
      for (int r = 0; r < 2; ++r) {
        float sum = adds ? c[j / 2][2 * r + j % 2] : 0.0f;
        for (int k = 0; k < 16; ++k) sum += of_a[r][k] * of_b[k];
        c[j / 2][2 * r + j % 2] = sum;
      }
    }
  });
}

template <typename ToFloat>
void multiply_columns(float (*c)[4], int n, const std::uint32_t (&a)[4], std::uint64_t b, bool adds, const ToFloat& to_float) {
  struct Rows {
    float at[2][16];
  } mine;
  const Brought all = meet_warp("multiply_columns", a, sizeof a);
  const int lane = thread_index() % 32, t = lane % 4;
  for (int r = 0; r < 2; ++r)
    for (int k = 0; k < 16; ++k) {  // columns 2 t, 2 t + 1 of a[r], and those 8 further on in a[2 + r]
      const auto* of = reinterpret_cast<const std::uint32_t*>(all.of(lane - t + k % 8 / 2));
      mine.at[r][k] = to_float(static_cast<std::uint16_t>(of[k / 8 * 2 + r] >> (16 * (k % 2))));
    }
  defer([=] {
    for (int j = 0; j < 2 * n; ++j) {
      float of_b[16];
      const int column = j / 2 * 8 + 2 * t + j % 2;
      for (int k = 0; k < 16; ++k) of_b[k] = to_float(element(b, true, column, k));
      for (int r = 0; r < 2; ++r) {
        float sum = adds ? c[j / 2][2 * r + j % 2] : 0.0f;
        for (int k = 0; k < 16; ++k) sum += mine.at[r][k] * of_b[k];
        c[j / 2][2 * r + j % 2] = sum;
      }
    }
  });
}

}  // namespace vitrine::cuda::emulation
