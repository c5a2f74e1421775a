// What layers/cuda/device_sm90.h asks of compute capability 9.0, on the host: see emulation.h.
//
// The copy engine and products run beside the threads. Here boxes arrive at once in one half of the blocks and as late as can be
// in the other half, so that both a buffer that is filled while it is read and data that nobody waited for give wrong numbers;
// products read their operands when they are waited for, or (in every other two blocks) when they are committed. What is not
// aligned, outside of shared memory, or not as the instruction's layout is given ends the launch with an Error.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "cuda_host/emulation.h"

namespace vitrine::cuda::emulation {

unsigned shared_address(const void* p);

void init_arrivals(std::uint64_t* arrivals, int count);
void arrive(std::uint64_t* arrivals, int announced_bytes);
void wait_for(const std::uint64_t* arrivals, int parity);

void fetch_box(void* slab, const void* map, const int (&at)[5], std::uint64_t* arrivals);

// Eight elements of an operand in shared memory that lie side by side: of row i from depth k on, or (by columns) those of depth k
// from channel i on, at a multiple of eight.
const std::uint16_t* piece(std::uint64_t operand, bool by_columns, int i, int k);

// What the bits of a 16-bit type are: converting them one by one takes most of a product's time here.
template <typename ToFloat>
const float* values_of_bits(const ToFloat& to_float) {
  static const std::vector<float> values = [&] {
    std::vector<float> all(1 << 16);
    for (std::size_t bits = 0; bits < all.size(); ++bits) all[bits] = to_float(static_cast<std::uint16_t>(bits));
    return all;
  }();
  return values.data();
}

// c [rows lane / 4 and that 8 further on, columns 8 j + 2 t and the next] += or = the products of a thread's rows and of `b(k,
// j)`.
template <typename B>
void add_products(float (*c)[4], int n, const float (&a)[2][16], bool adds, const B& b) {
  for (int j = 0; j < n; ++j) {
    float sum[4];
    for (int e = 0; e < 4; ++e) sum[e] = adds ? c[j][e] : 0.0f;
    for (int k = 0; k < 16; ++k) {
      const std::pair<float, float> of_b = b(k, j);
      for (int r = 0; r < 2; ++r) {
        sum[2 * r] += a[r][k] * of_b.first;
        sum[2 * r + 1] += a[r][k] * of_b.second;
      }
    }
    std::copy(sum, sum + 4, c[j]);
  }
}

struct LaneRows {
  float at[2][16];
};

template <typename ToFloat>
void multiply_rows(float (*c)[4], int n, std::uint64_t a, std::uint64_t b, bool adds, const ToFloat& to_float) {
  meet_warp("multiply_rows", nullptr, 0);
  const float* values = values_of_bits(to_float);
  defer([=, row = thread_index() % 128 / 32 * 16 + thread_index() % 32 / 4, t = thread_index() % 4] {
    LaneRows mine;
    for (int r = 0; r < 2; ++r)
      for (int k = 0; k < 16; ++k) mine.at[r][k] = values[piece(a, false, row + 8 * r, k / 8 * 8)[k % 8]];
    const std::uint16_t* columns[2][2] = {};  // of a block: two columns, two halves of the depth
    add_products(c, n, mine.at, adds, [&](int k, int j) {
      if (k == 0)
        for (int e = 0; e < 2; ++e)
          for (int half = 0; half < 2; ++half) columns[e][half] = piece(b, false, 8 * j + 2 * t + e, 8 * half);
      return std::pair(values[columns[0][k / 8][k % 8]], values[columns[1][k / 8][k % 8]]);
    });
  });
}

template <typename ToFloat>
void multiply_columns(float (*c)[4], int n, const std::uint32_t (&a)[4], std::uint64_t b, bool adds, const ToFloat& to_float) {
  // Where each lane's part of a is: it is read when the products are waited for, and must not change until then.
  const std::uint32_t* const part = a;
  const Brought all = meet_warp("multiply_columns", &part, sizeof part);
  const float* values = values_of_bits(to_float);
  const int lane = thread_index() % 32, t = lane % 4;
  std::array<const std::uint32_t*, 4> of_row;
  for (int i = 0; i < 4; ++i) std::memcpy(&of_row[static_cast<std::size_t>(i)], all.of(lane - t + i), sizeof part);
  defer([=] {
    LaneRows mine;
    for (int r = 0; r < 2; ++r)
      for (int k = 0; k < 16; ++k)  // columns 2 t, 2 t + 1 of a[r], and those 8 further on in a[2 + r]
        mine.at[r][k] = values[of_row[static_cast<std::size_t>(k % 8 / 2)][k / 8 * 2 + r] >> (16 * (k % 2)) & 0xffff];
    add_products(c, n, mine.at, adds, [&](int k, int j) {
      const std::uint16_t* const row = piece(b, true, 8 * j, k);
      return std::pair(values[row[2 * t]], values[row[2 * t + 1]]);
    });
  });
}

}  // namespace vitrine::cuda::emulation
