// The loop of attention in f32, exact: no tensor cores; see tiles.h.
//
//                64 keys a step             a block: 64 queries of a head; a thread (y, x) of 16 x 16 has
//               +--------------+              S   rows y + 16 i, keys x + 16 j
//               |      K       |              O   rows y + 16 i, channels 4 x + 64 c and the next three
//   +-------+   +--------------+
//   |   Q   | x |  S, then P   | x V = O    Q, P and a tile that is K's, then V's, are in shared memory; 16 lanes of one y
//   +-------+   +--------------+            share a row's maximum and sum
//
// Elements are read four at a time: 8 reads for 64 multiply-adds, so that these are the bound. Rows are 4 elements longer than
// their channels: the 16 bytes of eight neighboring rows lie in different banks.
#pragma once

#include <vitrine/attention2d/cuda/tiles.h>

namespace vitrine::cuda {

constexpr int kF32Threads = 256, kF32Pad = 4, kWeightPitch = kTile + kF32Pad;
using Four = Vector<float, 4>;

VITRINE_DEVICE Four four(const float* from) { return *reinterpret_cast<const Four*>(from); }

// kPieces: 64 channels of v each.
template <typename Block, int kPieces>
VITRINE_KERNEL(kF32Threads)
void tiles_f32_kernel(typename Block::Problem p) {
  const int dim = round_up<4>(p.dim), value_dim = round_up<4>(p.value_dim), pitch = most(dim, value_dim) + kF32Pad;
  auto* const q_tile = reinterpret_cast<float*>(shared_memory());
  float* const tile = q_tile + kTile * pitch;
  float* const weights = tile + kTile * pitch;
  Block block(p, kTile, reinterpret_cast<std::byte*>(weights + kTile * kWeightPitch));
  if (!block.is_there()) return;

  fetch_elements(q_tile, kF32Threads, kTile, pitch, dim, p.dim, [&](int r) { return block.query(r); });
  barrier();
  block.queries_are_there(q_tile, kTile, pitch);
  const int y = thread_index() / 16, x = thread_index() % 16;
  VITRINE_UNROLL
  for (int i = 0; i < 4; ++i) block.take_row(i, y + 16 * i);
  const float unit = block.unit();
  RowState state[4];
  float o[kPieces][4][4] = {};
  while (block.go_on()) {
    const int keys = block.keys();
    barrier();  // nobody reads the tile any more
    fetch_elements(tile, kF32Threads, round_up<16>(keys), pitch, dim, p.dim, [&](int j) { return block.key(j)(0); });
    block.keys_are_coming();
    barrier();
    block.keys_are_there(tile, pitch);
    float s[4][4] = {};
    for (int c = 0; c < dim; c += 4) {
      Four a[4], b[4];
      VITRINE_UNROLL
      for (int i = 0; i < 4; ++i) {
        a[i] = four(q_tile + (y + 16 * i) * pitch + c);
        b[i] = four(tile + (x + 16 * i) * pitch + c);
      }
      VITRINE_UNROLL
      for (int i = 0; i < 4; ++i) VITRINE_UNROLL
      for (int j = 0; j < 4; ++j) VITRINE_UNROLL
      for (int e = 0; e < 4; ++e) s[i][j] += a[i].at[e] * b[j].at[e];
    }
    VITRINE_UNROLL
    for (int i = 0; i < 4; ++i) {
      float largest = -infinity();
      VITRINE_UNROLL
      for (int j = 0; j < 4; ++j) {
        s[i][j] = block.logit(i, x + 16 * j, s[i][j]);
        largest = larger(s[i][j], largest);
      }
      for (int mask = 8; mask > 0; mask /= 2) largest = larger(largest, shuffle_xor(largest, mask));
      const RowState::Step advanced = state[i].advance(largest, unit);
      VITRINE_UNROLL
      for (int j = 0; j < 4; ++j) {
        const float weight = exp2_of(s[i][j] * unit - advanced.base);
        state[i].sum += weight;  // this lane's share of the row
        weights[(y + 16 * i) * kWeightPitch + x + 16 * j] = weight;
      }
      VITRINE_UNROLL
      for (int c = 0; c < kPieces; ++c) VITRINE_UNROLL
      for (int e = 0; e < 4; ++e) o[c][i][e] *= advanced.fade;
    }
    barrier();  // all have done with K
    fetch_elements(tile, kF32Threads, round_up<16>(keys), pitch, value_dim, p.value_dim,
                   [&](int j) { return block.value(j)(0); });
    barrier();
    for (int k = 0; k < keys; k += 4) {
      Four a[4];
      VITRINE_UNROLL
      for (int i = 0; i < 4; ++i) a[i] = four(weights + (y + 16 * i) * kWeightPitch + k);
      VITRINE_UNROLL
      for (int c = 0; c < kPieces; ++c) {
        if (64 * c + 4 * x >= p.value_dim) continue;
        VITRINE_UNROLL
        for (int of_four = 0; of_four < 4; ++of_four) {
          const Four b = four(tile + (k + of_four) * pitch + 64 * c + 4 * x);
          VITRINE_UNROLL
          for (int i = 0; i < 4; ++i) VITRINE_UNROLL
          for (int e = 0; e < 4; ++e) o[c][i][e] += a[i].at[of_four] * b.at[e];
        }
      }
    }
  }

  VITRINE_UNROLL
  for (int i = 0; i < 4; ++i)
    for (int mask = 8; mask > 0; mask /= 2) state[i].sum += shuffle_xor(state[i].sum, mask);
  VITRINE_UNROLL
  for (int i = 0; i < 4; ++i) {
    float* const to = block.out(y + 16 * i);
    if (!to) continue;
    VITRINE_UNROLL
    for (int c = 0; c < kPieces; ++c) VITRINE_UNROLL
    for (int e = 0; e < 4; ++e)
      if (const int channel = 64 * c + 4 * x + e; channel < p.value_dim) to[channel] = o[c][i][e] * state[i].factor();
  }
}

template <typename Block>
void launch_f32(const char* op, const typename Block::Problem& p, const Tensor& shown, std::int64_t blocks) {
  const int widest = p.dim > p.value_dim ? p.dim : p.value_dim;
  const auto pitch = static_cast<std::size_t>((widest + 3) / 4 * 4 + kF32Pad);
  const Launch l{.op = op,
                 .x = shown,
                 .grid = blocks,
                 .threads = kF32Threads,
                 .shared_bytes = kTile * (2 * pitch + kWeightPitch) * sizeof(float) + Block::bytes(kTile)};
  p.value_dim <= 64 ? launch(l, tiles_f32_kernel<Block, 1>, p) : launch(l, tiles_f32_kernel<Block, 2>, p);
}

}  // namespace vitrine::cuda
