// Fused neighborhood attention: lanes are neighboring queries of a row, so that no product is wasted on keys outside of a
// window.
//
//   queries  y, x0 .. x0 + 15      one vector of logits for each (dy, dx):
//   keys     row ky, packed [d][x]   logit[dy][dx] += q[d] * k[ky][d][start(x) + dx],   start(x) = clamp(x - w / 2, 0, W - w)
//
// Inside of a row start(x) + dx runs with the lanes, at its ends it stands still. AVX-512 picks the vector for each dx out
// of two by a permutation in both cases: unaligned loads, nearly all of which would cross a cache line, take 1.6 times as
// long in the first product. Narrower targets load, and gather at the ends.
//
// Up to kRows query rows share a key row, so that a picked vector serves several products. First product: kRows x kChunk
// sums (rows x dx) stay in registers over d. Second: kRows x kDepth sums (rows x channels) stay there over all keys, each
// key row adding to those of the query rows that see it. Softmax is across vectors, never across lanes.
//
// Key and value rows are packed (converted, transposed) when a tile of query rows first needs them, into a ring that holds
// one window; three-dimensional maps keep whole planes. Dilation: each residue class is a compact map of its own.
//
// Where pairs of bf16 can be multiplied (Pairs of paths.h), words of queries and keys are pairs of channels, those of weights
// and values pairs of offsets, for which a packed vector of values holds the 32 positions from a multiple of 16 on.
#include <vitrine/attention2d/cpu/neighborhood.h>

#include <vitrine/attention2d/cpu/paths.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

#if defined(VITRINE_TARGET_AVX512)
constexpr int kRows = 5, kChunk = 4, kDepth = 4;
constexpr bool kPicks = true;  // by permutations, in and beside the middle of a row
#else
constexpr int kRows = 3, kChunk = 4, kDepth = 3;
constexpr bool kPicks = false;
#endif
constexpr i64 kMaxOffsets = 16;  // dx that are picked out of one pair of vectors; a multiple of kLanes

#if defined(VITRINE_TARGET_BF16)
// A word of two weights a lane.
inline void store_pair(float* to, Vf first, Vf second) {
  const __m512i both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v));  // all of first, then all of second
  const __m512i order = _mm512_add_epi32(
      _mm512_set1_epi32(16 << 16),
      _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(0x10001)));
  _mm512_store_si512(to, _mm512_permutexvar_epi16(order, both));
}
#else
inline void store_pair(float*, Vf, Vf) {}
#endif

// Where the lanes of a block of queries find their windows in a packed row, which holds position x at x + kernel / 2 (so
// that blocks inside of a row begin aligned): lane l's at first + index[0][l].
struct Block {
  i64 x, first;
  bool is_shift;                               // index[0][l] is index[0][0] + l
  alignas(64) int index[kMaxOffsets][kLanes];  // those of offset j: j more
#if defined(VITRINE_TARGET_BF16)
  // As index, of offsets 2 j and 2 j + 1. The last is for an offset without a partner: itself twice, the second time with a
  // weight of 0 (a key outside of the window might be infinite).
  alignas(64) std::uint16_t pairs[kMaxOffsets / 2 + 1][2 * kLanes];
#endif
};

// Picks the vectors of a row: lanes from row[index[j][lane]].
template <bool kIsShift>
struct Window {
#if defined(VITRINE_TARGET_AVX512)
  __m512 low, high;
  explicit Window(const float* row) : low(_mm512_load_ps(row)), high(_mm512_load_ps(row + kLanes)) {}
  Vf at(const Block& block, i64 j) const { return {_mm512_permutex2var_ps(low, _mm512_load_si512(block.index[j]), high)}; }
#else
  const float* row;
  explicit Window(const float* row) : row(row) {}
  Vf at(const Block& block, i64 j) const {
    if constexpr (kIsShift) return load(row + block.index[j][0]);
#if defined(VITRINE_TARGET_AVX2)
    return {_mm256_i32gather_ps(row, _mm256_load_si256(reinterpret_cast<const __m256i*>(block.index[j])), 4)};
#else
    return {row[block.index[j][0]]};
#endif
  }
#endif
};

// Picks words of values.
template <typename Path, bool kIsShift>
struct ValueWindow : Window<kIsShift> {
  using Window<kIsShift>::Window;
  Vf at_rest(const Block&) const { return zero(); }  // a word is one offset: nothing is left over
};
#if defined(VITRINE_TARGET_BF16)
template <bool kIsShift>
struct ValueWindow<Pairs, kIsShift> {
  __m512i row;
  explicit ValueWindow(const float* row) : row(_mm512_load_si512(row)) {}
  Vf pick(const std::uint16_t* index) const {
    return {_mm512_castsi512_ps(_mm512_permutexvar_epi16(_mm512_load_si512(index), row))};
  }
  Vf at(const Block& block, i64 j) const { return pick(block.pairs[j]); }
  Vf at_rest(const Block& block) const { return pick(block.pairs[kMaxOffsets / 2]); }
};
#endif

// A key row, as the query rows of a tile see it.
struct Visit {
  const float *keys, *values;  // packed
  int from, seen;              // query rows from .. from + seen - 1
  float* logits[kRows];        // of each of those: the row's [offsets][kLanes], then words of weights
  i64 bias_row[kRows];
};

// The part of a visit with one block: a run of offsets.
struct LogitTask {
  const float* row;  // packed keys from the block's first on, plus the run's first offset
  i64 row_step;      // floats between its words
  const Block* block;
  i64 words, offsets;
  float unit;                // of the logits: they are exponents of 2
  const float* bias[kRows];  // of each query row: [offsets][kLanes]; null: none
  float* logits[kRows];
  const float* queries;  // [words][kRows][kLanes], from the first query row on
};

template <typename Path, int kR, int kN, bool kIsShift>
void add_logits(const LogitTask& t, i64 first) {
  // As many sums as keep the multipliers busy, whose results are late by four cycles.
  constexpr int kTurns = kR * kN < 8 ? 2 : 1;
  Vf sum[kTurns][kR][kN];
#pragma GCC unroll 8
  for (int turn = 0; turn < kTurns; ++turn)
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r)
#pragma GCC unroll 8
      for (int j = 0; j < kN; ++j) sum[turn][r][j] = zero();
  const float* row = t.row;
  const float* q = t.queries;
  const auto add_word = [&](int turn) {
    Vf query[kR];
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) query[r] = load(q + r * kLanes);
    const Window<kIsShift> window(row);
#pragma GCC unroll 8
    for (int j = 0; j < kN; ++j) {
      const Vf key = window.at(*t.block, first + j);
#pragma GCC unroll 8
      for (int r = 0; r < kR; ++r) sum[turn][r][j] = Path::multiply_add(query[r], key, sum[turn][r][j]);
    }
    row += t.row_step;
    q += kRows * kLanes;
  };
  i64 d = 0;
  for (; d + kTurns <= t.words; d += kTurns)
#pragma GCC unroll 8
    for (int turn = 0; turn < kTurns; ++turn) add_word(turn);
  if constexpr (kTurns > 1) {
    if (d < t.words) add_word(0);
  }
  const Vf unit = set1(t.unit);
#pragma GCC unroll 8
  for (int r = 0; r < kR; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < kN; ++j) {
      const Vf bias = t.bias[r] ? load(t.bias[r] + (first + j) * kLanes) : zero();
      const Vf all = kTurns > 1 ? add(sum[0][r][j], sum[kTurns - 1][r][j]) : sum[0][r][j];
      store(t.logits[r] + (first + j) * kLanes, fma(all, unit, bias));
    }
}

// In pieces of kN offsets at most, as even as can be.
template <typename Path, int kR, int kN, bool kIsShift>
void add_piece(int size, const LogitTask& t, i64 first) {
  if constexpr (kN > 1) {
    if (size < kN) return add_piece<Path, kR, kN - 1, kIsShift>(size, t, first);
  }
  add_logits<Path, kR, kN, kIsShift>(t, first);
}

template <typename Path, int kR = kRows>
void run_task(int rows, const LogitTask& t) {
  if constexpr (kR > 1) {
    if (rows < kR) return run_task<Path, kR - 1>(rows, t);
  }
  const i64 pieces = ceil_div(t.offsets, kChunk);
  for (i64 i = 0; i < pieces; ++i) {
    const i64 first = t.offsets * i / pieces;
    const int size = static_cast<int>(t.offsets * (i + 1) / pieces - first);
    if (kPicks || t.block->is_shift)
      add_piece<Path, kR, kChunk, true>(size, t, first);
    else
      add_piece<Path, kR, kChunk, false>(size, t, first);
  }
}

// The sums of kDepth channels of a block's query rows.
struct ValueTask {
  const Visit* visits;
  i64 count;
  i64 first;  // of the packed rows: the block's, and the first channel's
  i64 row_step;
  const Block* block;
  i64 offsets;
  float* o;  // [kDepth][kRows][kLanes]
};

// What query rows kFrom .. kFrom + kSeen - 1 get from a key row.
template <typename Path, bool kIsShift, int kFrom, int kSeen>
[[gnu::always_inline]] inline void add_values(const ValueTask& t, const Visit& visit, Vf (&sum)[kDepth][kRows]) {
  const float* row = visit.values + t.first;
  for (i64 run = 0; run < t.offsets; run += kMaxOffsets, row += kMaxOffsets) {
    const i64 offsets = min_of(kMaxOffsets, t.offsets - run);
    const auto add_word = [&](i64 j, const auto& pick) {
      Vf weight[kSeen];
#pragma GCC unroll 8
      for (int r = 0; r < kSeen; ++r) weight[r] = load(visit.logits[r] + (run + j) * kLanes);
#pragma GCC unroll 8
      for (int d = 0; d < kDepth; ++d) {
        const Vf value = pick(ValueWindow<Path, kIsShift>(row + d * t.row_step));
#pragma GCC unroll 8
        for (int r = 0; r < kSeen; ++r) sum[d][kFrom + r] = Path::multiply_add(weight[r], value, sum[d][kFrom + r]);
      }
    };
    const i64 words = offsets / Path::kPerWord;
    for (i64 j = 0; j < words; ++j) add_word(j, [&](const auto& w) { return w.at(*t.block, j); });
    if (offsets % Path::kPerWord != 0) add_word(words, [&](const auto& w) { return w.at_rest(*t.block); });
  }
}

// The same with the rows as numbers of the visit.
template <typename Path, bool kIsShift, int kFrom = 0, int kSeen = 1>
[[gnu::always_inline]] inline void add_visit(const ValueTask& t, const Visit& visit, int rows, Vf (&sum)[kDepth][kRows]) {
  if (rows == kFrom * (kRows + 1) + kSeen) return add_values<Path, kIsShift, kFrom, kSeen>(t, visit, sum);
  if constexpr (kFrom + kSeen < kRows)
    add_visit<Path, kIsShift, kFrom, kSeen + 1>(t, visit, rows, sum);
  else if constexpr (kFrom + 1 < kRows)
    add_visit<Path, kIsShift, kFrom + 1, 1>(t, visit, rows, sum);
}

template <typename Path, bool kIsShift>
void sum_values(const ValueTask& t) {
  Vf sum[kDepth][kRows];
#pragma GCC unroll 8
  for (int d = 0; d < kDepth; ++d)
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sum[d][r] = zero();
  for (const Visit* visit = t.visits; visit != t.visits + t.count; ++visit)
    add_visit<Path, kIsShift>(t, *visit, visit->from * (kRows + 1) + visit->seen, sum);
#pragma GCC unroll 8
  for (int d = 0; d < kDepth; ++d)
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) store(t.o + (d * kRows + r) * kLanes, sum[d][r]);
}

struct Layout {
  i64 classes[3];              // residue classes of the axes
  i64 planes, tiles;           // most planes and tiles of rows in a class
  i64 ring_planes, ring_rows;  // packed rows that are kept
  i64 row_step;                // floats between channels of a packed row
  i64 blocks;                  // most blocks of queries in a row
  i64 window;                  // keys of a query
  i64 q_words;                 // of a query or key
  i64 v_channels;              // of a value, whole kDepths
  i64 k_at, v_at, q_at, o_at, logits_at, bias_at, blocks_at, tags_at, visits_at, pack_at, words;  // in floats
};

template <typename Path>
Layout layout_of(const NeighborhoodProblem& p) {
  Layout l;
  l.q_words = ceil_div(p.dim, Path::kPerWord);
  l.v_channels = round_up(p.value_dim, kDepth);
  i64 most[3];
  for (int a = 0; a < 3; ++a) {
    l.classes[a] = p.dilation[a];
    most[a] = ceil_div(p.size[a], p.dilation[a]);
  }
  l.planes = most[0];
  l.tiles = ceil_div(most[1], kRows);
  l.ring_planes = min_of(most[0], p.kernel[0]);
  l.ring_rows = most[0] == 1 ? min_of(most[1], p.kernel[1] + kRows - 1) : most[1];
  // Permutations read one vector more; an odd number of cache lines keeps channels out of each other's sets.
  l.row_step = round_up(most[2] + p.kernel[2] / 2, 16) + 16;
  if (l.row_step / 16 % 2 == 0) l.row_step += 16;
  l.blocks = ceil_div(most[2], kLanes);
  l.window = p.kernel[0] * p.kernel[1] * p.kernel[2];
  l.words = 0;
  const auto place = [&l](i64 words) {
    const i64 at = l.words;
    l.words += round_up(words, 16);
    return at;
  };
  const i64 rows = l.ring_planes * l.ring_rows;
  l.k_at = place(rows * l.q_words * l.row_step);
  l.v_at = place(rows * l.v_channels * l.row_step);
  l.q_at = place(l.q_words * kRows * kLanes);
  l.o_at = place(l.v_channels * kRows * kLanes);
  l.logits_at = place(kRows * l.window * kLanes);
  l.bias_at = place(p.rpb ? l.blocks * (2 * p.kernel[1] - 1) * p.kernel[2] * kLanes : 0);
  l.blocks_at = place(l.blocks * static_cast<i64>(sizeof(Block) / sizeof(float)));
  l.tags_at = place(2 * rows);
  l.visits_at = place(p.kernel[0] * (p.kernel[1] + kRows - 1) * static_cast<i64>(sizeof(Visit) / sizeof(float)));
  l.pack_at = place(Path::kPerWord > 1 ? ceil_div(p.value_dim, Path::kPerWord) * l.row_step : 0);
  return l;
}

// One residue class of one head of one image: a compact map, and the state of the workspace for it.
template <typename Path>
struct Map {
  using T = typename Path::Element;
  const NeighborhoodProblem& p;
  const Layout& l;
  float* workspace;
  i64 image = -1, head = -1, residue[3] = {}, size[3] = {};
  Block* blocks;
  i64* tags;  // which (plane, row) a slot of the ring holds
  Visit* visits;
  i64 visit_count = 0;

  Map(const NeighborhoodProblem& p, const Layout& l, float* workspace)
      : p(p),
        l(l),
        workspace(workspace),
        blocks(reinterpret_cast<Block*>(workspace + l.blocks_at)),
        tags(reinterpret_cast<i64*>(workspace + l.tags_at)),
        visits(reinterpret_cast<Visit*>(workspace + l.visits_at)) {}

  void enter(i64 new_image, i64 new_head, const i64 (&new_residue)[3]) {
    bool same = image == new_image && head == new_head;
    for (int a = 0; a < 3; ++a) same = same && residue[a] == new_residue[a];
    if (same) return;
    const bool other_head = head != new_head;
    image = new_image;
    head = new_head;
    const i64 old_width = size[2];
    for (int a = 0; a < 3; ++a) {
      residue[a] = new_residue[a];
      size[a] = ceil_div(p.size[a] - residue[a], p.dilation[a]);
    }
    for (i64 slot = 0; slot < l.ring_planes * l.ring_rows; ++slot) tags[slot] = -1;
    if (size[2] != old_width) find_windows();
    if (p.rpb && (other_head || size[2] != old_width)) spread_bias();
  }

  i64 start(int axis, i64 at) const { return max_of(0, min_of(at - p.kernel[axis] / 2, size[axis] - p.kernel[axis])); }
  i64 lane_start(const Block& b, int lane) const { return start(2, min_of(b.x + lane, size[2] - 1)); }

  void find_windows() {
    for (i64 i = 0; i * kLanes < size[2]; ++i) {
      Block& b = blocks[i];
      b.x = i * kLanes;
      const i64 packed = lane_start(b, 0) + p.kernel[2] / 2;
      b.first = packed / kLanes * kLanes;
      b.is_shift = true;
      for (int lane = 0; lane < kLanes; ++lane) {
        const int shift = static_cast<int>(lane_start(b, lane) + p.kernel[2] / 2 - b.first);
        b.is_shift = b.is_shift && shift == packed - b.first + lane;
        for (int j = 0; j < kMaxOffsets; ++j) b.index[j][lane] = shift + j;
#if defined(VITRINE_TARGET_BF16)
        for (int j = 0; j < kMaxOffsets; ++j) b.pairs[j / 2][2 * lane + j % 2] = static_cast<std::uint16_t>(shift + j);
        const auto rest = static_cast<std::uint16_t>(shift + p.kernel[2] % kMaxOffsets - 1);
        b.pairs[kMaxOffsets / 2][2 * lane] = b.pairs[kMaxOffsets / 2][2 * lane + 1] = rest;
#endif
      }
    }
  }

  // rpb by block, row offset and column offset, a value a lane, in units of the exponent of 2.
  i64 bias_row() const { return p.kernel[2] * kLanes; }
  const float* bias_of(i64 block, i64 row_offset) const {
    return workspace + l.bias_at + (block * (2 * p.kernel[1] - 1) + row_offset) * bias_row();
  }
  void spread_bias() {
    const i64 rows = 2 * p.kernel[1] - 1;
    const float* table = p.rpb + head * p.rpb_head;
    for (i64 i = 0; i * kLanes < size[2]; ++i) {
      const Block& b = blocks[i];
      float* to = workspace + l.bias_at + i * rows * bias_row();
      for (i64 row = 0; row < rows; ++row)
        for (i64 dx = 0; dx < p.kernel[2]; ++dx)
          for (int lane = 0; lane < kLanes; ++lane) {
            const i64 x = min_of(b.x + lane, size[2] - 1);
            *to++ = table[row * p.rpb_row + start(2, x) + dx - x + p.kernel[2] - 1] * kLog2e;
          }
    }
  }

  const T* token(const GridView& view, i64 of_head, i64 t, i64 y, i64 x) const {
    const i64 at[3] = {residue[0] + t * p.dilation[0], residue[1] + y * p.dilation[1], residue[2] + x * p.dilation[2]};
    return static_cast<const T*>(view.data) + image * view.image + of_head * view.head + at[0] * view.axis[0] +
           at[1] * view.axis[1] + at[2] * view.axis[2];
  }

  // to[word * to_step + lane] = words of positions x .. x + kLanes - 1 of a row, those outside of it moved to its ends.
  void pack_positions(const T* row, i64 step, i64 x, i64 dim, float* to, i64 to_step) const {
    const T* token[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) token[lane] = row + max_of(0, min_of(x + lane, size[2] - 1)) * step;
    pack_transposed<Path>(token, dim, to, to_step);
  }

  void pack_row(const GridView& view, i64 t, i64 y, i64 dim, float* to) const {
    const i64 key_head = head / (p.heads / p.key_heads), pad = p.kernel[2] / 2;
    const T* row = token(view, key_head, t, y, 0);
    for (i64 at = 0; at < size[2] + pad; at += kLanes)  // what is outside of the map is never picked
      pack_positions(row, p.dilation[2] * view.axis[2], at - pad, dim, to + at, l.row_step);
  }

  // Pairs of channels become rows of single channels, in vectors of 2 kLanes positions.
  void pack_values(i64 t, i64 y, float* to) const {
    if constexpr (Path::kPerWord == 1) return pack_row(p.v, t, y, p.value_dim, to);
#if defined(VITRINE_TARGET_BF16)
    float* words = workspace + l.pack_at;
    pack_row(p.v, t, y, p.value_dim, words);
    alignas(64) std::uint16_t even[2 * kLanes];
    for (int i = 0; i < 2 * kLanes; ++i) even[i] = static_cast<std::uint16_t>(2 * i);
    const __m512i first = _mm512_load_si512(even), second = _mm512_add_epi16(first, _mm512_set1_epi16(1));
    for (i64 d = 0; d < p.value_dim; d += 2, words += l.row_step, to += 2 * l.row_step)
      for (i64 at = 0; at < size[2] + p.kernel[2] / 2; at += kLanes) {
        const __m512i low = _mm512_load_si512(words + at), high = _mm512_load_si512(words + at + kLanes);
        _mm512_store_si512(to + at, _mm512_permutex2var_epi16(low, first, high));
        if (d + 1 < p.value_dim) _mm512_store_si512(to + l.row_step + at, _mm512_permutex2var_epi16(low, second, high));
      }
#endif
  }

  i64 slot(i64 t, i64 y) const { return t % l.ring_planes * l.ring_rows + y % l.ring_rows; }
  float* keys(i64 t, i64 y) const { return workspace + l.k_at + slot(t, y) * l.q_words * l.row_step; }
  float* values(i64 t, i64 y) const { return workspace + l.v_at + slot(t, y) * l.v_channels * l.row_step; }
  void need_row(i64 t, i64 y) {
    i64& tag = tags[slot(t, y)];
    if (tag == t * size[1] + y) return;
    tag = t * size[1] + y;
    pack_row(p.k, t, y, p.dim, keys(t, y));
    pack_values(t, y, values(t, y));
  }

  void pack_queries(i64 t, i64 y, int rows, const Block& b) {
    for (int r = 0; r < rows; ++r)
      pack_positions(token(p.q, head, t, y + r, 0), p.dilation[2] * p.q.axis[2], b.x, p.dim, workspace + l.q_at + r * kLanes,
                     kRows * kLanes);
  }

  // Weights in the place of the logits of a query row; gives one over their sum.
  Vf softmax(float* logits) const {
    Vf most = load(logits), other = most;
    i64 i = 1;
    for (; i + 1 < l.window; i += 2) {
      most = max(most, load(logits + i * kLanes));
      other = max(other, load(logits + (i + 1) * kLanes));
    }
    if (i < l.window) most = max(most, load(logits + i * kLanes));
    const Vf largest = max(most, other);
    Vf sum = zero();
    const auto next = [&](i64 at) {
      const Vf weight = exp2_negative<Path::kExpTerms>(sub(load(logits + at * kLanes), largest));
      sum = add(sum, weight);
      return weight;
    };
    if constexpr (Path::kPerWord == 1) {
      for (i = 0; i < l.window; ++i) store(logits + i * kLanes, next(i));
    } else {
      for (i = 0; i < l.window; i += p.kernel[2])
        for (i64 run = 0; run < p.kernel[2]; run += kMaxOffsets) {
          const i64 offsets = min_of(kMaxOffsets, p.kernel[2] - run);
          for (i64 j = 0; j < offsets; j += 2) {
            const Vf weight = next(i + run + j);
            store_pair(logits + (i + run + j / 2) * kLanes, weight, j + 1 < offsets ? next(i + run + j + 1) : zero());
          }
        }
    }
    return div(set1(1.0f), sum);
  }

  void write_row(i64 t, i64 y, const Block& b, const float* o, Vf factor) {
    T* to = const_cast<T*>(token(p.out, head, t, y, b.x));
    const i64 step = p.dilation[2] * p.out.axis[2];
    load_transposed(
        static_cast<int>(min_of(kLanes, size[2] - b.x)), p.value_dim,
        [&](i64 d) { return mul(load(o + d * kRows * kLanes), factor); },
        [&](int lane, i64 d, int n, Vf v) { store_part(to + lane * step + d, v, n); });
  }

  // Every key row of the windows of query rows y .. y + rows - 1, packed, with the rows that see it.
  void find_visits(i64 t, i64 y, int rows) {
    const i64 first_plane = start(0, t), last = start(1, y + rows - 1) + p.kernel[1];
    visit_count = 0;
    for (i64 kt = first_plane; kt < first_plane + p.kernel[0]; ++kt)
      for (i64 ky = start(1, y); ky < last; ++ky) {
        need_row(kt, ky);
        Visit& visit = visits[visit_count++];
        visit.keys = keys(kt, ky);
        visit.values = values(kt, ky);
        visit.from = visit.seen = 0;
        for (int r = 0; r < rows; ++r) {
          const i64 dy = ky - start(1, y + r);
          if (dy < 0 || dy >= p.kernel[1]) continue;
          if (visit.seen == 0) visit.from = r;
          visit.logits[visit.seen] =
              workspace + l.logits_at + (r * l.window + ((kt - first_plane) * p.kernel[1] + dy) * p.kernel[2]) * kLanes;
          visit.bias_row[visit.seen++] = ky - (y + r) + p.kernel[1] - 1;
        }
      }
  }

  void compute_logits(i64 block) {
    LogitTask task;
    task.row_step = l.row_step;
    task.block = blocks + block;
    task.words = l.q_words;
    task.unit = p.scale * kLog2e;
    for (const Visit* visit = visits; visit != visits + visit_count; ++visit) {
      task.queries = workspace + l.q_at + visit->from * kLanes;
      for (i64 dx = 0; dx < p.kernel[2]; dx += kMaxOffsets) {
        task.offsets = min_of(kMaxOffsets, p.kernel[2] - dx);
        task.row = visit->keys + task.block->first + dx;
        for (int r = 0; r < visit->seen; ++r) {
          task.logits[r] = visit->logits[r] + dx * kLanes;
          task.bias[r] = p.rpb ? bias_of(block, visit->bias_row[r]) + dx * kLanes : nullptr;
        }
        run_task<Path>(visit->seen, task);
      }
    }
  }

  void compute_outputs(i64 block, float* o) {
    ValueTask task;
    task.visits = visits;
    task.count = visit_count;
    task.row_step = l.row_step;
    task.block = blocks + block;
    task.offsets = p.kernel[2];
    for (i64 d = 0; d < p.value_dim; d += kDepth) {
      task.first = d * l.row_step + task.block->first;
      task.o = o + d * kRows * kLanes;
      kPicks || task.block->is_shift ? sum_values<Path, true>(task) : sum_values<Path, false>(task);
    }
  }

  void attend(i64 t, i64 y, int rows) {
    find_visits(t, y, rows);
    float* o = workspace + l.o_at;
    for (i64 block = 0; block * kLanes < size[2]; ++block) {
      pack_queries(t, y, rows, blocks[block]);
      compute_logits(block);
      Vf factor[kRows];
      for (int r = 0; r < rows; ++r) factor[r] = softmax(workspace + l.logits_at + r * l.window * kLanes);
      compute_outputs(block, o);
      for (int r = 0; r < rows; ++r) write_row(t, y + r, blocks[block], o + r * kLanes, factor[r]);
    }
  }
};

template <typename Path>
void run_path(const NeighborhoodProblem& p, i64 begin, i64 end, float* workspace) {
  const Layout l = layout_of<Path>(p);
  Map<Path> map(p, l, workspace);
  for (i64 item = begin; item < end; ++item) {
    i64 rest = item;
    const auto take = [&rest](i64 count) {
      const i64 i = rest % count;
      rest /= count;
      return i;
    };
    const i64 tile = take(l.tiles), t = take(l.planes);
    const i64 rx = take(l.classes[2]), ry = take(l.classes[1]), rt = take(l.classes[0]);
    const i64 head = take(p.heads);
    map.enter(rest, head, {rt, ry, rx});
    const i64 y = map.size[1] * tile / l.tiles, next = map.size[1] * (tile + 1) / l.tiles;
    if (t < map.size[0] && y < next) map.attend(t, y, static_cast<int>(next - y));  // classes differ by one row or plane
  }
}

#if defined(VITRINE_TARGET_BF16)
using Bf16Path = Pairs;
#else
using Bf16Path = Widened<Bf16>;
#endif

// Calls f with a path's tag for the problem's type.
template <typename F>
auto with_path(FloatType type, const F& f) {
  switch (type) {
    case FloatType::bf16:
      return f(Bf16Path());
    case FloatType::f16:
      return f(Widened<F16>());
    default:
      return f(Widened<float>());
  }
}

i64 items(const NeighborhoodProblem& p) {
  const Layout l = layout_of<Widened<float>>(p);  // the same for all paths
  return p.images * p.heads * l.classes[0] * l.classes[1] * l.classes[2] * l.planes * l.tiles;
}

i64 workspace_bytes(const NeighborhoodProblem& p) {
  return with_path(p.type, [&](auto path) { return layout_of<decltype(path)>(p).words; }) * static_cast<i64>(sizeof(float));
}

void run(const NeighborhoodProblem& p, i64 begin, i64 end, void* workspace) {
  with_path(p.type, [&](auto path) { run_path<decltype(path)>(p, begin, end, static_cast<float*>(workspace)); });
}

}  // namespace

NeighborhoodKernel neighborhood_kernel() { return {items, workspace_bytes, run}; }

}  // namespace vitrine::cpu::VITRINE_TARGET
