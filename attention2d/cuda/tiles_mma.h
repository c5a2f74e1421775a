// The loop of attention on tensor cores, for f16 and bf16; see tiles.h.
//
//                       64 keys a step                  a block: up to 64 queries of a head, 16 a warp
//                +---------------------+
//   K tile       |  in shared memory   |                Q stays in registers, as the left operand of mma m16n8k16
//                +---------------------+
//   +--------+   +---------------------+   +-------+
//   | Q      | x |  S, 16 x 64 a warp  | x | V tile|    S becomes the weights P in the registers that it was summed in: as
//   | 16 x d |   |  in registers       |   | 64 x d|    the left operand of the second product they lie in the same lanes
//   +--------+   +---------------------+   +-------+
//                                             = O, 16 x d a warp, in registers, with each row's maximum and sum so far
//
// While S is computed, V's tile arrives (asynchronous copies); while O is, K's next one. Two barriers a step. Rows in shared
// memory are 16 bytes longer than their channels, so that the eight rows that a matrix load reads lie in different banks. A warp
// none of whose queries sees a key of the tile waits at the barriers only.
#pragma once

#include <type_traits>

#include <vitrine/attention2d/cuda/tiles.h>

namespace vitrine::cuda {

constexpr int kMmaWarps = 4, kMmaThreads = kMmaWarps * kWarp;
constexpr int kMmaPad = 8;  // elements between rows in shared memory

// Rows to shared memory, `channels` of each (a multiple of 16; kChannels, where that is not 0), zeros from `dim` on and where
// there is no row. rows_from(j)(more) is row j + more, as tiles.h has them.
template <int kChannels, typename T, typename RowsFrom>
VITRINE_DEVICE void fetch_rows(T* to, int threads, int rows, int pitch, int channels, int dim, bool is_aligned,
                               const RowsFrom& rows_from) {
  if constexpr (!std::is_same_v<decltype(rows_from(0)(0)), const T*>) {
    fetch_elements(to, threads, rows, pitch, channels, dim, [&](int row) { return rows_from(row)(0); });
  } else if (kChannels > 0 && is_aligned) {
    constexpr auto kPieces = static_cast<unsigned>(kChannels > 0 ? kChannels / 8 : 1);  // a power of two
    const auto thread = static_cast<unsigned>(thread_index());
    const auto row = static_cast<int>(thread / kPieces), channel = static_cast<int>(thread % kPieces * 8);
    const auto from = rows_from(row);
    const bool has_channels = channel < dim;
    to += row * pitch + channel;
    const int at_once = threads / static_cast<int>(kPieces);
    VITRINE_UNROLL
    for (int more = 0; more < rows; more += at_once) {
      if (rows % at_once != 0 && row + more >= rows) break;
      const T* const there = from(more);
      const bool is_there = there && has_channels;
      async_copy_16(to + more * pitch, is_there ? there + channel : nullptr, is_there);
    }
  } else {
    const int pieces = channels / 8;
    for (int i = thread_index(); i < rows * pieces; i += threads) {
      const int row = i / pieces, channel = (i - row * pieces) * 8;
      const T* from = rows_from(row)(0);
      T* piece = to + row * pitch + channel;
      if (is_aligned) {
        const bool is_there = from && channel < dim;
        async_copy_16(piece, is_there ? from + channel : nullptr, is_there);
      } else {
        for (int c = 0; c < 8; ++c) piece[c] = from && channel + c < dim ? from[channel + c] : T{0};
      }
    }
  }
  async_commit();
}

// --- a warp's 16 rows of sums, as mma has them: element e of s[n] is of row lane / 4 + e / 2 * 8, column 8 n + lane % 4 * 2 + e
// % 2 ---

// Logits of a tile become weights; what was summed before counts `fade` times as much. Of state[r].sum each lane has a share.
template <int kBlocks>
VITRINE_DEVICE void weigh(float (&s)[kBlocks][4], float unit, RowState (&state)[2], float (&fade)[2]) {
  float base[2];
  VITRINE_UNROLL
  for (int r = 0; r < 2; ++r) {
    float largest_of[2] = {-infinity(), -infinity()};  // even and odd columns: two chains instead of one
    VITRINE_UNROLL
    for (int n = 0; n < kBlocks; ++n) VITRINE_UNROLL
    for (int e = 0; e < 2; ++e) largest_of[e] = larger(s[n][2 * r + e], largest_of[e]);
    float largest = larger(largest_of[0], largest_of[1]);
    largest = larger(largest, shuffle_xor(largest, 1));
    largest = larger(largest, shuffle_xor(largest, 2));
    const RowState::Step step = state[r].advance(largest, unit);
    base[r] = step.base;
    fade[r] = step.fade;
  }
  float sum[4] = {};
  VITRINE_UNROLL
  for (int n = 0; n < kBlocks; ++n) VITRINE_UNROLL
  for (int e = 0; e < 4; ++e) {
    s[n][e] = exp2_of(s[n][e] * unit - base[e / 2]);
    sum[e] += s[n][e];
  }
  VITRINE_UNROLL
  for (int r = 0; r < 2; ++r) state[r].sum += sum[2 * r] + sum[2 * r + 1];
}
VITRINE_DEVICE float factor_of(RowState state) {
  state.sum += shuffle_xor(state.sum, 1);
  state.sum += shuffle_xor(state.sum, 2);
  return state.factor();
}
// 16 columns of sums as the left operand of a product: it has them in the same lanes.
template <typename T>
VITRINE_DEVICE void pack_weights(const float (&first)[4], const float (&second)[4], std::uint32_t (&a)[4]) {
  VITRINE_UNROLL
  for (int r = 0; r < 2; ++r) {
    a[r] = pack2<T>(first[2 * r], first[2 * r + 1]);
    a[r + 2] = pack2<T>(second[2 * r], second[2 * r + 1]);
  }
}

// kSteps: 16 channels each, of all rows in shared memory; or (not exact) up to that, as many as the head needs.
template <typename Block, int kSteps, bool kIsExact>
VITRINE_KERNEL(kMmaThreads)
void tiles_mma_kernel(typename Block::Problem p) {
  using T = typename Block::T;
  constexpr int kChannels = kIsExact ? kSteps * 16 : 0;
  const int dim_steps = kIsExact ? kSteps : (p.dim + 15) / 16, value_steps = kIsExact ? kSteps : (p.value_dim + 15) / 16;
  const int pitch = most(dim_steps, value_steps) * 16 + kMmaPad;
  const int threads = Block::kIsFull ? kMmaThreads : block_size(), rows = threads / kWarp * 16;
  auto* const k_tile = reinterpret_cast<T*>(shared_memory());
  T* const v_tile = k_tile + kTile * pitch;
  T* const q_tile = v_tile + kTile * pitch;
  Block block(p, rows, reinterpret_cast<std::byte*>(q_tile + rows * pitch));
  if (!block.is_there()) return;

  const auto fetch_k = [&] {
    fetch_rows<kChannels>(k_tile, threads, round_up<16>(block.keys()), pitch, dim_steps * 16, p.dim, p.k.is_aligned,
                          [&](int j) { return block.key(j); });
    block.keys_are_coming();
  };
  const auto fetch_v = [&] {
    fetch_rows<kChannels>(v_tile, threads, round_up<16>(block.keys()), pitch, value_steps * 16, p.value_dim, p.v.is_aligned,
                          [&](int j) { return block.value(j); });
  };
  fetch_rows<kChannels>(q_tile, threads, rows, pitch, dim_steps * 16, p.dim, p.q.is_aligned,
                        [&](int r) { return [&block, r](int more) { return block.query(r + more); }; });
  bool has_keys = block.go_on();
  fetch_k();
  if constexpr (Block::kIsShort) fetch_v();
  async_wait<Block::kIsShort ? 2 : 1>();
  barrier();
  const int lane = lane_index(), first_row = warp_index() * 16;
  std::uint32_t q[kSteps][4];
  VITRINE_UNROLL
  for (int c = 0; c < kSteps; ++c)
    if (kIsExact || c < dim_steps) load_matrices(q[c], q_tile + (first_row + lane % 16) * pitch + c * 16 + lane / 16 * 8);
  block.queries_are_there(q_tile, rows, pitch);
  VITRINE_UNROLL
  for (int r = 0; r < 2; ++r) block.take_row(r, first_row + lane / 4 + 8 * r);
  const float unit = block.unit();

  RowState state[2];
  float o[kSteps * 2][4] = {};
  for (int i = 0; has_keys; ++i) {
    if (Block::kIsShort && i == 0) {
      async_wait<1>();
      barrier();  // K's tile is there
    } else {
      async_wait<0>();
      barrier();  // K's tile is there, and V's is no longer read
      fetch_v();
    }
    block.keys_are_there(k_tile, pitch);
    const int columns = round_up<16>(block.keys());  // of the step, in sixteens
    const bool is_at_work = block.is_at_work();
    float s[kTile / 8][4] = {};
    if (is_at_work) {
      VITRINE_UNROLL
      for (int j = 0; j < kTile / 16; ++j) {
        if (16 * j >= columns) continue;
        VITRINE_UNROLL
        for (int c = 0; c < kSteps; ++c) {
          if (!kIsExact && c >= dim_steps) continue;
          std::uint32_t b[4];  // keys 0-7 of 16 with channels c, c + 8, then keys 8-15
          load_matrices(b, k_tile + (16 * j + lane / 16 * 8 + lane % 8) * pitch + c * 16 + lane / 8 % 2 * 8);
          multiply_add<T>(s[2 * j], q[c], b[0], b[1]);
          multiply_add<T>(s[2 * j + 1], q[c], b[2], b[3]);
        }
      }
      if (block.has_logits()) block.make_logits(s);
      float fade[2];
      weigh(s, unit, state, fade);
      VITRINE_UNROLL
      for (int n = 0; n < kSteps * 2; ++n) VITRINE_UNROLL
      for (int e = 0; e < 4; ++e) o[n][e] *= fade[e / 2];
    }
    async_wait<0>();
    barrier();  // V's tile is there, and K's is no longer read
    has_keys = block.go_on();
    if (has_keys) fetch_k();
    if (!is_at_work) continue;
    VITRINE_UNROLL
    for (int j = 0; j < kTile / 16; ++j) {
      if (16 * j >= columns) continue;
      std::uint32_t a[4];
      pack_weights<T>(s[2 * j], s[2 * j + 1], a);
      VITRINE_UNROLL
      for (int c = 0; c < kSteps; ++c) {
        if (!kIsExact && c >= value_steps) continue;
        std::uint32_t b[4];  // channels 0-7 of 16 with keys 16 j, + 8, then channels 8-15
        load_matrices_transposed(b, v_tile + (16 * j + lane % 16) * pitch + c * 16 + lane / 16 * 8);
        multiply_add<T>(o[2 * c], a, b[0], b[1]);
        multiply_add<T>(o[2 * c + 1], a, b[2], b[3]);
      }
    }
  }

  // Through the memory of the warp's queries, so that rows are written 16 bytes a lane.
  VITRINE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const float factor = factor_of(state[r]);
    T* const to = q_tile + (first_row + lane / 4 + 8 * r) * pitch + lane % 4 * 2;
    VITRINE_UNROLL
    for (int n = 0; n < kSteps * 2; ++n) {
      if (!kIsExact && n >= 2 * value_steps) continue;
      to[8 * n] = from_float<T>(o[n][2 * r] * factor);
      to[8 * n + 1] = from_float<T>(o[n][2 * r + 1] * factor);
    }
  }
  warp_barrier();
  const int pieces = (p.value_dim + 7) / 8;
  for (int i = lane; i < 16 * pieces; i += kWarp) {
    const int of_tile = first_row + i / pieces, channel = i % pieces * 8;
    T* to = block.out(of_tile);
    if (!to) continue;
    to += channel;
    const T* from = q_tile + of_tile * pitch + channel;
    if (p.out.is_aligned) {
      *reinterpret_cast<Vector<T, 8>*>(to) = *reinterpret_cast<const Vector<T, 8>*>(from);
    } else {
      for (int c = 0; c < 8 && channel + c < p.value_dim; ++c) to[c] = from[c];
    }
  }
}

template <typename Block, int kSteps, bool kIsExact>
void launch_mma(const char* op, const typename Block::Problem& p, const Tensor& shown, std::int64_t blocks, int warps) {
  const int widest = kIsExact ? kSteps * 16 : p.dim > p.value_dim ? p.dim : p.value_dim, rows = warps * 16;
  const auto pitch = static_cast<std::size_t>((widest + 15) / 16 * 16 + kMmaPad);
  launch({.op = op,
          .x = shown,
          .grid = blocks,
          .threads = warps * kWarp,
          .shared_bytes = static_cast<std::size_t>(2 * kTile + rows) * pitch * sizeof(typename Block::T) + Block::bytes(rows)},
         tiles_mma_kernel<Block, kSteps, kIsExact>, p);
}

}  // namespace vitrine::cuda
