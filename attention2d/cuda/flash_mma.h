// Attention on tensor cores, for f16 and bf16: included by flash_f16.cu and flash_bf16.cu.
//
//                       64 keys a step                  a block: up to 64 queries of a head of a group, 16 a warp
//                +---------------------+
//   K tile       |  in shared memory   |                Q stays in registers, as the left operand of mma m16n8k16
//                +---------------------+
//   +--------+   +---------------------+   +-------+
//   | Q      | x |  S, 16 x 64 a warp  | x | V tile|    S becomes the weights P in the registers that it was summed in: as
//   | 16 x d |   |  in registers       |   | 64 x d|    the left operand of the second product they lie in the same lanes
//   +--------+   +---------------------+   +-------+
//                                             = O, 16 x d a warp, in registers, with each row's maximum and sum so far
//
// While S is computed, V's tile arrives (asynchronous copies); while O is, K's next one. Two barriers a step. Rows of a tile are
// found through the lists of tokens: windows, grids, halos and routed regions are read where they lie. Rows in shared memory are
// 16 bytes longer than their channels, so that the eight rows that a matrix load reads lie in different banks.
//
// What bounds it: long sequences the tensor cores (4 n^2 d operations), and before them the exponentials, one for every 4 d
// operations; windows, whose keys are one step, reading q, k, v and writing out once. Fewer queries than 64 take fewer warps,
// fewer keys fewer columns of 16: a window of 4 x 4 tokens costs a sixteenth of a whole tile.
#pragma once

#include <vitrine/attention2d/cuda/flash.h>

namespace vitrine::cuda::flash {

constexpr int kMmaWarps = 4, kMmaThreads = kMmaWarps * kWarp;
constexpr int kMmaKeys = 64;  // of a step
constexpr int kMmaPad = 8;    // elements between rows in shared memory

// What else a kernel looks at beside products: nothing, all that changes logits, and that with keys from boxes.
enum class Extras { none, logits, boxes };

template <typename T>
using Eight = Vector<T, 8>;

// Rows of q, k or v to shared memory, `channels` of each (a multiple of 16), zeros from `dim` on and where there is no row.
template <typename T, typename RowOf>
VITRINE_DEVICE void fetch_rows(T* to, int rows, int pitch, int channels, int dim, bool is_aligned, const RowOf& row_of) {
  const int pieces = channels / 8;
  for (int i = thread_index(); i < rows * pieces; i += block_size()) {
    const int row = i / pieces, channel = (i - row * pieces) * 8;
    const T* from = row_of(row);
    T* piece = to + row * pitch + channel;
    if (is_aligned) {
      const bool is_there = from && channel < dim;
      async_copy_16(piece, is_there ? from + channel : to, is_there);
    } else {
      for (int c = 0; c < 8; ++c) piece[c] = from && channel + c < dim ? from[channel + c] : T{0};
    }
  }
}

// The same for keys between the tokens of a map.
template <typename T>
VITRINE_DEVICE void fetch_blends(const Problem& p, const Part& part, const View& view, T* to, int first, int rows, int pitch,
                                 int channels, int dim) {
  const T* map = row_at<T>(view, part.image, part.key_head, 0);
  for (int row = warp_index(); row < rows; row += block_size() / kWarp) {
    const Taps taps = taps_of(p, part, first + row);
    for (int c = lane_index(); c < channels; c += kWarp)
      to[row * pitch + c] = from_float<T>(c < dim ? blend(taps, map, view.token, c) : 0.0f);
  }
}

// 1 / norm of rows in shared memory, two lanes a row; channels behind `dim` are zeros.
template <typename T>
VITRINE_DEVICE void row_norms(const T* rows, int count, int pitch, int channels, float* norms) {
  for (int i = thread_index(); i < 2 * count; i += block_size()) {  // count is a multiple of 16: whole warps
    const T* row = rows + i / 2 * pitch + i % 2 * (channels / 2);
    float sum = 0;
    for (int c = 0; c < channels / 2; ++c) sum += to_float(row[c]) * to_float(row[c]);
    sum += shuffle_xor(sum, 1);
    if (i % 2 == 0) norms[i / 2] = inverse_norm(sum);
  }
}

// kSteps: 16 channels each; heads of exactly so many channels, or (not exact) of any up to that.
template <typename T, int kSteps, bool kIsExact, Extras kExtras>
VITRINE_KERNEL(kMmaThreads)
void attention_mma_kernel(Problem p) {
  const int dim_steps = kIsExact ? kSteps : (p.dim + 15) / 16, value_steps = kIsExact ? kSteps : (p.value_dim + 15) / 16;
  const int pitch = (dim_steps > value_steps ? dim_steps : value_steps) * 16 + kMmaPad;
  const int rows = block_size() / kWarp * 16, tiles = (p.queries + rows - 1) / rows;
  auto* const k_tile = reinterpret_cast<T*>(shared_memory());
  T* const v_tile = k_tile + kMmaKeys * pitch;
  T* const q_tile = v_tile + kMmaKeys * pitch;
  auto* const q_norm = reinterpret_cast<float*>(q_tile + rows * pitch);
  float* const k_norm = q_norm + rows;

  const std::int64_t of_part = std::int64_t{block_index().x} / tiles;
  const int turn = static_cast<int>(block_index().x - of_part * tiles);
  const int first_query = (p.is_causal ? tiles - 1 - turn : turn) * rows;  // the longest first
  const Part part = part_of(p, of_part);

  const auto fetch_k = [&](int first, int count) {
    if constexpr (kExtras == Extras::boxes)
      fetch_blends(p, part, p.k, k_tile, first, count, pitch, dim_steps * 16, p.dim);
    else
      fetch_rows(k_tile, count, pitch, dim_steps * 16, p.dim, p.k.is_aligned,
                 [&](int row) { return key_row<T>(p, part, p.k, p.pad_key, p.pad_key_head, first + row); });
    async_commit();
  };
  const auto fetch_v = [&](int first, int count) {
    if constexpr (kExtras == Extras::boxes)
      fetch_blends(p, part, p.v, v_tile, first, count, pitch, value_steps * 16, p.value_dim);
    else
      fetch_rows(v_tile, count, pitch, value_steps * 16, p.value_dim, p.v.is_aligned,
                 [&](int row) { return key_row<T>(p, part, p.v, p.pad_value, p.pad_value_head, first + row); });
    async_commit();
  };
  const int last_query = first_query + rows < p.queries ? first_query + rows : p.queries;
  const int end = p.is_causal && last_query < p.keys ? last_query : p.keys;
  // Columns of a step that are computed: those of its keys, in sixteens.
  const auto columns_from = [&](int first) { return end - first < kMmaKeys ? (end - first + 15) / 16 * 16 : kMmaKeys; };

  fetch_rows(q_tile, rows, pitch, dim_steps * 16, p.dim, p.q.is_aligned, [&](int row) -> const T* {
    const std::int64_t token = query_token(p, part, first_query + row);
    return token < 0 ? nullptr : row_at<T>(p.q, part.image, part.head, token);
  });
  async_commit();
  if (end > 0) {  // all at once: a window's keys are one step
    fetch_k(0, columns_from(0));
    fetch_v(0, columns_from(0));
    async_wait<2>();
  } else {
    async_wait<0>();
  }
  barrier();
  const int lane = lane_index(), first_row = warp_index() * 16;
  std::uint32_t q[kSteps][4];
  VITRINE_UNROLL
  for (int c = 0; c < kSteps; ++c)
    if (kIsExact || c < dim_steps) load_matrices(q[c], q_tile + (first_row + lane % 16) * pitch + c * 16 + lane / 16 * 8);
  LogitRow row[2];  // of rows lane / 4 and lane / 4 + 8 of the warp's
  if constexpr (kExtras != Extras::none) {
    if (p.is_cosine) row_norms(q_tile, rows, pitch, dim_steps * 16, q_norm);
    barrier();
    for (int r = 0; r < 2; ++r) {
      const int of_tile = first_row + lane / 4 + 8 * r, i = first_query + of_tile;
      row[r] = logit_row(p, part, i, query_token(p, part, i));
      if (p.is_cosine) row[r].scale *= q_norm[of_tile];
    }
  }
  const float unit = kExtras == Extras::none ? p.scale * kLog2e : kLog2e;

  RowState state[2] = {{-infinity(), 0}, {-infinity(), 0}};
  float o[kSteps * 2][4] = {};
  for (int first = 0; first < end; first += kMmaKeys) {
    const int columns = columns_from(first);
    if (first == 0) {
      async_wait<1>();
      barrier();  // K's tile is there
    } else {
      async_wait<0>();
      barrier();  // K's tile is there, and V's is no longer read
      fetch_v(first, columns);
    }
    if constexpr (kExtras != Extras::none) {
      if (p.is_cosine) {
        row_norms(k_tile, columns, pitch, dim_steps * 16, k_norm);
        barrier();
      }
    }
    float s[kMmaKeys / 8][4] = {};
    VITRINE_UNROLL
    for (int j = 0; j < kMmaKeys / 16; ++j) {
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
    // Element e of s[n]: row lane / 4 + e / 2 * 8, key 8 n + lane % 4 * 2 + e % 2.
    const bool is_edge = first + kMmaKeys > (p.is_causal && first_query + 1 < end ? first_query + 1 : end);
    if (kExtras != Extras::none || is_edge) {
      VITRINE_UNROLL
      for (int n = 0; n < kMmaKeys / 8; ++n) VITRINE_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int of_tile = 8 * n + lane % 4 * 2 + e % 2, key = first + of_tile;
        const int i = first_query + first_row + lane / 4 + e / 2 * 8;
        if (key >= end || (p.is_causal && key > i)) {
          s[n][e] = -infinity();
        } else if constexpr (kExtras != Extras::none) {
          s[n][e] = logit(p, row[e / 2], key, p.is_cosine ? s[n][e] * k_norm[of_tile] : s[n][e]);
        }
      }
    }
    RowState::Step step[2];
    for (int r = 0; r < 2; ++r) {
      float largest = -infinity();
      VITRINE_UNROLL
      for (int n = 0; n < kMmaKeys / 8; ++n) largest = larger(s[n][2 * r], larger(s[n][2 * r + 1], largest));
      largest = larger(largest, shuffle_xor(largest, 1));
      largest = larger(largest, shuffle_xor(largest, 2));
      step[r] = state[r].advance(largest, unit);
    }
    VITRINE_UNROLL
    for (int n = 0; n < kMmaKeys / 8; ++n) VITRINE_UNROLL
    for (int e = 0; e < 4; ++e) {
      s[n][e] = exp2_of(s[n][e] * unit - step[e / 2].base);
      state[e / 2].sum += s[n][e];  // this lane's share of the row
    }
    VITRINE_UNROLL
    for (int n = 0; n < kSteps * 2; ++n) VITRINE_UNROLL
    for (int e = 0; e < 4; ++e) o[n][e] *= step[e / 2].fade;

    async_wait<0>();
    barrier();  // V's tile is there, and K's is no longer read
    if (first + kMmaKeys < end) fetch_k(first + kMmaKeys, columns_from(first + kMmaKeys));
    VITRINE_UNROLL
    for (int j = 0; j < kMmaKeys / 16; ++j) {
      if (16 * j >= columns) continue;
      const std::uint32_t a[4] = {pack2<T>(s[2 * j][0], s[2 * j][1]), pack2<T>(s[2 * j][2], s[2 * j][3]),
                                  pack2<T>(s[2 * j + 1][0], s[2 * j + 1][1]), pack2<T>(s[2 * j + 1][2], s[2 * j + 1][3])};
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
  for (int r = 0; r < 2; ++r) {
    state[r].sum += shuffle_xor(state[r].sum, 1);
    state[r].sum += shuffle_xor(state[r].sum, 2);
    const float factor = state[r].factor();
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
    const std::int64_t token = query_token(p, part, first_query + of_tile);
    if (token < 0) continue;
    const T* from = q_tile + of_tile * pitch + channel;
    T* to = const_cast<T*>(row_at<T>(p.out, part.image, part.head, token)) + channel;
    if (p.out.is_aligned) {
      *reinterpret_cast<Eight<T>*>(to) = *reinterpret_cast<const Eight<T>*>(from);
    } else {
      for (int c = 0; c < 8 && channel + c < p.value_dim; ++c) to[c] = from[c];
    }
  }
}

template <typename T, int kSteps, bool kIsExact, Extras kExtras>
void launch_mma(const Problem& p, const Tensor& shown) {
  const int warps = p.queries <= 16 ? 1 : p.queries <= 32 ? 2 : kMmaWarps;
  const int widest = p.dim > p.value_dim ? p.dim : p.value_dim;
  const auto rows = static_cast<std::size_t>(warps * 16);
  const auto pitch = static_cast<std::size_t>((widest + 15) / 16 * 16 + kMmaPad);
  launch({.op = p.op,
          .x = shown,
          .grid = p.parts() * blocks_for(p.queries, warps * 16),
          .threads = warps * kWarp,
          .shared_bytes = (2 * kMmaKeys + rows) * pitch * sizeof(T) + (kMmaKeys + rows) * sizeof(float)},
         attention_mma_kernel<T, kSteps, kIsExact, kExtras>, p);
}

template <typename T, int kSteps, bool kIsExact>
void launch_mma(const Problem& p, const Tensor& shown) {
  p.is_plain() ? launch_mma<T, kSteps, kIsExact, Extras::none>(p, shown)
               : launch_mma<T, kSteps, kIsExact, Extras::logits>(p, shown);
}

template <typename T>
void attend_mma(const Problem& p, const Tensor& shown) {
  if (p.boxes) return launch_mma<T, 8, false, Extras::boxes>(p, shown);
  if (p.dim == p.value_dim && p.dim == 32) return launch_mma<T, 2, true>(p, shown);
  if (p.dim == p.value_dim && p.dim == 64) return launch_mma<T, 4, true>(p, shown);
  if (p.dim == p.value_dim && p.dim == 128) return launch_mma<T, 8, true>(p, shown);
  launch_mma<T, 8, false>(p, shown);
}

}  // namespace vitrine::cuda::flash
