// Local attention on tensor cores, for f16 and bf16: included by local_f16.cu and local_bf16.cu.
//
// A block is 4 warps of 16 queries. Q stays in registers as the left operand of mma m16n8k16; S, 16 x 64 a warp, becomes the
// weights in the registers that it was summed in, where they lie as the left operand of the second product. While S is computed,
// V's tile arrives (asynchronous copies); while the outputs are, K's next one. Rows in shared memory are 16 bytes longer than
// their channels, so that the eight rows that a matrix load reads lie in different banks. A warp none of whose queries sees a key
// of the tile waits at the barriers only.
//
// What bounds it: for small windows reading q, k, v (each key tile is read by the query tiles around it: from L2); for wide ones
// the tensor cores, of whose work the part outside of the windows is lost: with kernel k on an axis and tiles of s queries and
// keys about (k + s) / k of what is needed on that axis.
#pragma once

#include <vitrine/attention2d/cuda/local.h>

namespace vitrine::cuda::local {

constexpr int kMmaThreads = 4 * kWarp, kMmaPad = 8;

// kSteps: of 16 channels each, heads of any size up to that.
template <typename T, int kSteps>
VITRINE_KERNEL(kMmaThreads)
void local_mma_kernel(Problem p) {
  constexpr int kChannels = kSteps * 16, kPitch = kChannels + kMmaPad;
  auto* const k_tile = reinterpret_cast<T*>(shared_memory());
  T* const v_tile = k_tile + kTile * kPitch;
  auto* const seen = reinterpret_cast<std::uint32_t*>(v_tile + kTile * kPitch);  // [query][part]: two halves of the bits of each
  auto* const bias_at = reinterpret_cast<int*>(seen + kTile * 4);
  Tile tile;
  if (!tile_at(p, block_index().x, tile)) return;

  const auto fetch_rows = [&](T* to, int dim, bool is_aligned, const auto& row_of) {
    constexpr int kPieces = kChannels / 8;
    for (int i = thread_index(); i < kTile * kPieces; i += kMmaThreads) {
      const int row = i / kPieces, channel = i % kPieces * 8;
      const T* from = row_of(row);
      T* piece = to + row * kPitch + channel;
      if (is_aligned) {
        const bool is_there = from && channel < dim;
        async_copy_16(piece, is_there ? from + channel : nullptr, is_there);
      } else {
        for (int c = 0; c < 8; ++c) piece[c] = from && channel + c < dim ? from[channel + c] : T{0};
      }
    }
    async_commit();
  };
  const auto fetch_v = [&](const Step& s) {
    fetch_rows(v_tile, p.value_dim, p.v.is_aligned, [&](int j) { return key_row<T>(p, tile, s, p.v, p.extra_v, j); });
  };
  // K's tile, and what the queries see of it: two threads a query.
  const auto fetch_k = [&](const Step& s) {
    fetch_rows(k_tile, p.dim, p.k.is_aligned, [&](int j) { return key_row<T>(p, tile, s, p.k, p.extra_k, j); });
    const int query = thread_index() / 2, part = thread_index() % 2;
    const Bits bits = seen_by(p, tile, s, query_at(p, tile, query), part);
    seen[query * 4 + part * 2] = static_cast<std::uint32_t>(bits);
    seen[query * 4 + part * 2 + 1] = static_cast<std::uint32_t>(bits >> 32);
    if (p.rpb && thread_index() < kTile) bias_at[thread_index()] = key_bias_at(p, s, thread_index());
  };

  const int lane = lane_index(), first_row = warp_index() * 16;
  fetch_rows(v_tile, p.dim, p.q.is_aligned, [&](int r) -> const T* {
    const Place q = query_at(p, tile, r);
    return q.x < 0 ? nullptr : tile.grid.row<T>(p, p.q, tile.grid.head, q.t, q.y, q.x);
  });
  Step step = step_at(p, tile, 0);
  fetch_k(step);
  async_wait<1>();
  barrier();
  std::uint32_t q[kSteps][4];
  VITRINE_UNROLL
  for (int c = 0; c < kSteps; ++c) load_matrices(q[c], v_tile + (first_row + lane % 16) * kPitch + c * 16 + lane / 16 * 8);
  int query_bias[2] = {};
  if (p.rpb)
    for (int r = 0; r < 2; ++r) query_bias[r] = query_bias_at(p, query_at(p, tile, first_row + lane / 4 + 8 * r));
  const float* const rpb = p.rpb ? p.rpb + tile.grid.head * p.rpb_head : nullptr;
  const bool is_plain = !rpb && p.scale > 0;
  const float unit = is_plain ? p.scale * kLog2e : kLog2e;

  RowState state[2];
  float o[kSteps * 2][4] = {};
  for (int i = 0; i < tile.all_steps; ++i) {
    async_wait<0>();
    barrier();  // K's tile and its bits are there, and V's (at first: Q) is no longer read
    fetch_v(step);
    // Bits of this lane's columns of rows lane / 4 and lane / 4 + 8: those of n = 0..3 in one word, of n = 4..7 in the other.
    std::uint32_t bits[2][2];
    for (int r = 0; r < 2; ++r) {
      const std::uint32_t* of_row = seen + (first_row + lane / 4 + 8 * r) * 4;
      bits[r][0] = of_row[0] | of_row[2];
      bits[r][1] = of_row[1] | of_row[3];
    }
    std::uint32_t any = bits[0][0] | bits[0][1] | bits[1][0] | bits[1][1];
    for (int mask = 4; mask < kWarp; mask *= 2) any |= shuffle_xor(any, mask);
    const bool is_at_work = any != 0;  // of the whole warp: lanes of a row hold the same

    float s[kTile / 8][4] = {};
    if (is_at_work) {
      VITRINE_UNROLL
      for (int j = 0; j < kTile / 16; ++j) VITRINE_UNROLL
      for (int c = 0; c < kSteps; ++c) {
        std::uint32_t b[4];  // keys 0-7 of 16 with channels c, c + 8, then keys 8-15
        load_matrices(b, k_tile + (16 * j + lane / 16 * 8 + lane % 8) * kPitch + c * 16 + lane / 8 % 2 * 8);
        multiply_add<T>(s[2 * j], q[c], b[0], b[1]);
        multiply_add<T>(s[2 * j + 1], q[c], b[2], b[3]);
      }
      // Element e of s[n]: row lane / 4 + e / 2 * 8, key 8 n + lane % 4 * 2 + e % 2.
      VITRINE_UNROLL
      for (int n = 0; n < kTile / 8; ++n) VITRINE_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int shift = n % 4 * 8 + lane % 4 * 2 + e % 2;
        if (!(bits[e / 2][n / 4] >> shift & 1)) {
          s[n][e] = -infinity();
        } else if (!is_plain) {
          s[n][e] *= p.scale;
          if (rpb && step.extra < 0) s[n][e] += rpb[bias_at[n / 4 * 32 + shift] - query_bias[e / 2]];
        }
      }
      RowState::Step advanced[2];
      for (int r = 0; r < 2; ++r) {
        float largest = -infinity();
        VITRINE_UNROLL
        for (int n = 0; n < kTile / 8; ++n) largest = larger(s[n][2 * r], larger(s[n][2 * r + 1], largest));
        largest = larger(largest, shuffle_xor(largest, 1));
        largest = larger(largest, shuffle_xor(largest, 2));
        advanced[r] = state[r].advance(largest, unit);
      }
      VITRINE_UNROLL
      for (int n = 0; n < kTile / 8; ++n) VITRINE_UNROLL
      for (int e = 0; e < 4; ++e) {
        s[n][e] = exp2_of(s[n][e] * unit - advanced[e / 2].base);
        state[e / 2].sum += s[n][e];  // this lane's share of the row
      }
      VITRINE_UNROLL
      for (int n = 0; n < kSteps * 2; ++n) VITRINE_UNROLL
      for (int e = 0; e < 4; ++e) o[n][e] *= advanced[e / 2].fade;
    }
    async_wait<0>();
    barrier();  // V's tile is there, and K's with its bits is no longer read
    if (i + 1 < tile.all_steps) fetch_k(step = step_at(p, tile, i + 1));
    if (!is_at_work) continue;
    VITRINE_UNROLL
    for (int j = 0; j < kTile / 16; ++j) {
      const std::uint32_t a[4] = {pack2<T>(s[2 * j][0], s[2 * j][1]), pack2<T>(s[2 * j][2], s[2 * j][3]),
                                  pack2<T>(s[2 * j + 1][0], s[2 * j + 1][1]), pack2<T>(s[2 * j + 1][2], s[2 * j + 1][3])};
      VITRINE_UNROLL
      for (int c = 0; c < kSteps; ++c) {
        std::uint32_t b[4];  // channels 0-7 of 16 with keys 16 j, + 8, then channels 8-15
        load_matrices_transposed(b, v_tile + (16 * j + lane % 16) * kPitch + c * 16 + lane / 16 * 8);
        multiply_add<T>(o[2 * c], a, b[0], b[1]);
        multiply_add<T>(o[2 * c + 1], a, b[2], b[3]);
      }
    }
  }

  // Through shared memory, so that rows are written 16 bytes a lane.
  for (int r = 0; r < 2; ++r) {
    state[r].sum += shuffle_xor(state[r].sum, 1);
    state[r].sum += shuffle_xor(state[r].sum, 2);
    const float factor = state[r].factor();
    T* const to = k_tile + (first_row + lane / 4 + 8 * r) * kPitch + lane % 4 * 2;
    VITRINE_UNROLL
    for (int n = 0; n < kSteps * 2; ++n) {
      to[8 * n] = from_float<T>(o[n][2 * r] * factor);
      to[8 * n + 1] = from_float<T>(o[n][2 * r + 1] * factor);
    }
  }
  warp_barrier();
  const int pieces = (p.value_dim + 7) / 8;
  for (int i = lane; i < 16 * pieces; i += kWarp) {
    const int r = first_row + i / pieces, channel = i % pieces * 8;
    const Place at = query_at(p, tile, r);
    if (at.x < 0) continue;
    const T* from = k_tile + r * kPitch + channel;
    T* to = const_cast<T*>(tile.grid.row<T>(p, p.out, tile.grid.head, at.t, at.y, at.x)) + channel;
    if (p.out.is_aligned) {
      *reinterpret_cast<Vector<T, 8>*>(to) = *reinterpret_cast<const Vector<T, 8>*>(from);
    } else {
      for (int c = 0; c < 8 && channel + c < p.value_dim; ++c) to[c] = from[c];
    }
  }
}

template <typename T, int kSteps>
void launch_mma(const Problem& p, const Tensor& shown) {
  launch({.op = "local_attention_tiles",
          .x = shown,
          .grid = blocks_of(p),
          .threads = kMmaThreads,
          .shared_bytes = std::size_t{2 * kTile * (kSteps * 16 + kMmaPad)} * sizeof(T) + std::size_t{5 * kTile} * sizeof(int)},
         local_mma_kernel<T, kSteps>, p);
}

template <typename T>
void attend_mma(const Problem& p, const Tensor& shown) {
  const int widest = p.dim > p.value_dim ? p.dim : p.value_dim;
  if (widest <= 32) return launch_mma<T, 2>(p, shown);
  if (widest <= 64) return launch_mma<T, 4>(p, shown);
  launch_mma<T, 8>(p, shown);
}

}  // namespace vitrine::cuda::local
