// Local attention for compute capability 9.0: included by local_sm90_f16.cu and local_sm90_bf16.cu. Also attention of all tokens,
// a window as long as the axis.
//
//   warpgroup 0: one thread fetches            warpgroups 1 and 2: 64 queries each
//     Q [128 x d], once                          S = Q K'       [64 x 128] in registers, from shared memory
//     K, V [128 x d] of a step, in stages        P = 2^(S - m)  stays in registers
//                                                O += P V       [64 x d] in registers
//
// A tile is a box of 128 queries, and a step one of 128 keys, which the copy engine fetches as such, whatever axes there are;
// what lies outside of the map is zeros. S of step i + 1 and O of step i are started together, and O goes on while the
// weights of i + 1 are made; the two computing warpgroups start theirs in turns, so that one makes weights while the other's
// products run. Steps that all queries see whole (most of them, in wide
// windows) have no masks. What bounds it: the tensor cores and, beside them, the exponentials; in narrow windows what tiles
// multiply in vain.
#pragma once

#include <vitrine/attention2d/cuda/local.h>
#include <vitrine/attention2d/cuda/tiles_mma.h>
#include <vitrine/layers/cuda/device_sm90.h>

namespace vitrine::cuda::local {

namespace sm90 {

constexpr int kRows = 128;  // queries of a tile, keys of a step
constexpr int kGroups = 2, kThreads = (1 + kGroups) * kWarpgroup;
constexpr int kSlabBytes = kRows * kSlab * 2;
constexpr int kBlocks = kRows / 8;  // of 8 keys

// What the fetching thread, which alone walks through them, tells of a step.
struct StepNote {
  Step step;
  bool is_whole;  // all queries see all of it
  bool is_last;
};

// Shared memory.
template <int kDim>
struct Tiles {
  static constexpr int kStages = kDim > 64 ? 2 : 4;         // powers of two that there is room for
  static constexpr int kBytes = kDim / kSlab * kSlabBytes;  // of a tile
  std::byte q[kBytes], k[kStages][kBytes], v[kStages][kBytes];
  Arrivals q_there, k_there[kStages], v_there[kStages], k_free[kStages], v_free[kStages];
  // A step is read until its weights are made, after its keys' memory is given back: hence more of these than stages.
  StepNote notes[2 * kStages];

  VITRINE_DEVICE StepNote& note(int n) { return notes[n % (2 * kStages)]; }
};

// The box of a tile's slabs whose first token is there.
template <int kDim>
VITRINE_DEVICE void fetch_tile(std::byte* to, const TensorMap& map, int head, int x, int y, int t, std::int64_t image,
                               Arrivals& there) {
  arrive_and_announce(there, Tiles<kDim>::kBytes);
  VITRINE_UNROLL
  for (int slab = 0; slab < kDim / kSlab; ++slab)
    fetch_box(to + slab * kSlabBytes, map, {head * kDim + slab * kSlab, x, y, t, static_cast<int>(image)}, there);
}

template <int kDim>
VITRINE_DEVICE void fetch_all(const Problem& p, const Sm90Maps& maps, const Tile& tile, Tiles<kDim>& tiles) {
  const Grid& g = tile.grid;
  const auto place = [&](int a, int i) { return g.residue[a] + i * p.dilation[a]; };
  fetch_tile<kDim>(tiles.q, maps.q, g.head, place(2, tile.first[2]), place(1, tile.first[1]), place(0, tile.first[0]), g.image,
                   tiles.q_there);
  const auto fetch = [&](std::byte* to, const TensorMap& map, const TensorMap& extra, const Step& s, Arrivals& there) {
    if (s.extra >= 0)
      fetch_tile<kDim>(to, extra, g.key_head, s.extra, 0, 0, g.image, there);
    else
      fetch_tile<kDim>(to, map, g.key_head, place(2, s.first[2]), place(1, s.first[1]), place(0, s.first[0]), g.image, there);
  };
  constexpr int kStages = Tiles<kDim>::kStages;
  const auto fetch_values = [&](const Step& s, int n) {
    wait_for(tiles.v_free[n % kStages], (n / kStages % 2) ^ 1);
    fetch(tiles.v[n % kStages], maps.v, maps.extra_v, s, tiles.v_there[n % kStages]);
  };
  // Values one step behind, as they are needed and their memory is given back later than that of keys.
  Step s = before_first(p, tile), before{};
  bool has_more = next_step(p, tile, s);
  int n = 0;
  for (; has_more; ++n) {
    const Step step = s;
    has_more = next_step(p, tile, s);
    wait_for(tiles.k_free[n % kStages], (n / kStages % 2) ^ 1);
    tiles.note(n) = {step, is_whole(p, tile, step), !has_more};
    fetch(tiles.k[n % kStages], maps.k, maps.extra_k, step, tiles.k_there[n % kStages]);
    if (n > 0) fetch_values(before, n - 1);
    before = step;
  }
  fetch_values(before, n - 1);
}

// Logits of keys that a query does not see become -inf; a thread's rows are those of the queries q.
VITRINE_DEVICE void hide_unseen(const Problem& p, const Step& step, const Query (&q)[2], float (&s)[kBlocks][4]) {
  const int lane = lane_index(), t = lane % 4;
  VITRINE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const std::uint32_t mine = seen_by(p, step, q[r], t);  // the four lanes of a row make a word each
    VITRINE_UNROLL
    for (int w = 0; w < 4; ++w) hide_by_bits(s, r, 4 * w, shuffle(mine, lane - t + w) >> (2 * t));
  }
}

// Of four lanes, lane t has part t of four pieces each, and gets all parts of piece t: 16 bytes that lie together.
VITRINE_DEVICE void exchange_in_four(std::uint32_t (&parts)[4]) {
  const int t = lane_index() % 4;
  VITRINE_UNROLL
  for (int bit = 1; bit < 4; bit *= 2) VITRINE_UNROLL
  for (int i = 0; i < 4; ++i) {
    if (i & bit) continue;
    std::uint32_t &lower = parts[i], &upper = parts[i | bit];  // one of them stays
    const std::uint32_t got = shuffle_xor((t & bit) != 0 ? lower : upper, bit);
    ((t & bit) != 0 ? lower : upper) = got;
  }
}

template <typename T, int kDim>
VITRINE_DEVICE void attend(const Problem& p, const Tile& tile, Tiles<kDim>& tiles) {
  constexpr int kStages = Tiles<kDim>::kStages;
  const int group = shuffle(thread_index() / kWarpgroup - 1, 0);  // so that the compiler knows it to be the warp's
  const int lane = lane_index();
  const int first_row = group * 64 + warp_index() % 4 * 16 + lane / 4;
  const Query query[2] = {query_of(p, tile, first_row), query_of(p, tile, first_row + 8)};
  const float unit = p.scale * kLog2e;
  const auto free = [&](Arrivals& a) {
    if (lane == 0) arrive(a);
  };

  const Operand q = operand(tiles.q + group * 64 * kSlab * 2, kSlabBytes);
  float s[kBlocks][4], o[kDim / 8][4];
  std::uint32_t weights[kBlocks / 2][4];
  const auto start_logits = [&](int n) {
    const Operand k = operand(tiles.k[n % kStages], kSlabBytes);
    begin_products();
    VITRINE_UNROLL
    for (int c = 0; c < kDim / 16; ++c) {
      const int at = c / 4 * kSlabBytes + c % 4 * 32;
      multiply_rows<T>(s, advance(q, at), advance(k, at), c > 0);
    }
    commit_products();
  };
  const auto start_values = [&](int n) {
    const Operand v = operand(tiles.v[n % kStages], kSlabBytes);
    begin_products();
    VITRINE_UNROLL
    for (int j = 0; j < kBlocks / 2; ++j) multiply_columns<T>(o, weights[j], advance(v, j * 16 * kSlab * 2), n > 0 || j > 0);
    commit_products();
  };
  const auto wait_for_keys = [&](int n) { wait_for(tiles.k_there[n % kStages], n / kStages % 2); };
  const auto wait_for_values = [&](int n) { wait_for(tiles.v_there[n % kStages], n / kStages % 2); };
  RowState state[2];
  float fade[2];
  const auto weigh_step = [&](int n) {
    const StepNote& note = tiles.note(n);
    if (!note.is_whole) hide_unseen(p, note.step, query, s);
    weigh(s, unit, state, fade);
  };
  const auto pack = [&] {
    VITRINE_UNROLL
    for (int j = 0; j < kBlocks / 2; ++j) pack_weights<T>(s[2 * j], s[2 * j + 1], weights[j]);
    settle(weights);
  };

  wait_for(tiles.q_there, 0);
  wait_for_keys(0);
  start_logits(0);
  wait_products<0>();
  settle(s);
  free(tiles.k_free[0]);
  bool is_last = tiles.note(0).is_last;
  weigh_step(0);
  pack();
  // The groups start their products in turns, so that those of one run while the other makes weights.
  if (group > 0 && !is_last) give_turn(0, kGroups * kWarpgroup);
  int n = 0;
  for (; !is_last; ++n) {
    wait_for_keys(n + 1);
    is_last = tiles.note(n + 1).is_last;
    wait_for_values(n);
    wait_for_turn(group, kGroups * kWarpgroup);
    start_logits(n + 1);
    start_values(n);
    if (group == 0 || !is_last) give_turn(1 - group, kGroups * kWarpgroup);
    wait_products<1>();
    settle(s);
    free(tiles.k_free[(n + 1) % kStages]);
    weigh_step(n + 1);
    wait_products_here<0>(unit);
    settle(o);
    settle(s);  // no packing before this: it would overwrite weights that products still read
    free(tiles.v_free[n % kStages]);
    VITRINE_UNROLL
    for (int c = 0; c < kDim / 8; ++c) VITRINE_UNROLL
    for (int e = 0; e < 4; ++e) o[c][e] *= fade[e / 2];
    settle(o);  // scaled before the products to come begin
    pack();
  }
  wait_for_values(n);
  start_values(n);
  wait_products<0>();
  settle(o);

  VITRINE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const float factor = factor_of(state[r]);
    const Grid& g = tile.grid;
    const Place& place = query[r].place;
    T* const row = const_cast<T*>(g.template row<T>(p, p.out, g.head, place.t, place.y, place.x));
    VITRINE_UNROLL
    for (int c = 0; c < kDim / 8; c += 4) {
      std::uint32_t parts[4];
      VITRINE_UNROLL
      for (int i = 0; i < 4; ++i) parts[i] = pack2<T>(o[c + i][2 * r] * factor, o[c + i][2 * r + 1] * factor);
      exchange_in_four(parts);
      if (place.x >= 0) store_16(row + 8 * (c + lane % 4), parts);
    }
  }
}

template <typename T, int kDim>
VITRINE_KERNEL(kThreads)
void attention_kernel(VITRINE_GRID_CONSTANT const Problem p, VITRINE_GRID_CONSTANT const Sm90Maps maps) {
#if defined(VITRINE_SM90)
  auto& tiles = *reinterpret_cast<Tiles<kDim>*>(shared_memory());
  if (thread_index() == 0) {
    prefetch_map(maps.q);
    prefetch_map(maps.k);
    prefetch_map(maps.v);
    if (p.extra > 0) {
      prefetch_map(maps.extra_k);
      prefetch_map(maps.extra_v);
    }
    init_arrivals(tiles.q_there, 1);
    for (int stage = 0; stage < Tiles<kDim>::kStages; ++stage) {
      init_arrivals(tiles.k_there[stage], 1);
      init_arrivals(tiles.v_there[stage], 1);
      init_arrivals(tiles.k_free[stage], kGroups * 4);  // a thread a warp
      init_arrivals(tiles.v_free[stage], kGroups * 4);
    }
    publish_arrivals();
  }
  Tile tile;
  // The last first: of causal attention it has the most steps.
  if (!tile_at(p, grid_size().x - 1 - block_index().x, tile)) return;
  barrier();
  // Registers are given to threads in equal shares of 168; a fetching one needs few.
  if (thread_index() < kWarpgroup) {
    give_registers<24>();
    if (thread_index() == 0) fetch_all<kDim>(p, maps, tile, tiles);
  } else {
    take_registers<240>();
    attend<T, kDim>(p, tile, tiles);
  }
#endif
}

template <typename T, int kDim>
void launch_attention(const Problem& p, const Sm90Maps& maps, const Tensor& shown) {
  launch({.op = kSm90Op, .x = shown, .grid = blocks_of(p), .threads = kThreads, .shared_bytes = sizeof(Tiles<kDim>)},
         attention_kernel<T, kDim>, p, maps);
}

template <typename T>
void launch_attention(const Problem& p, const Sm90Maps& maps, const Tensor& shown) {
  p.dim == 64 ? launch_attention<T, 64>(p, maps, shown) : launch_attention<T, 128>(p, maps, shown);
}

}  // namespace sm90

}  // namespace vitrine::cuda::local
