// Local attention as small dense products: a tile of queries against the union of what they see, with a mask inside.
//
//        keys that some query of the tile sees, runs of them, up to kBlock at a time
//        extra |  row ky   |  row ky + 1  | ...
//      +-------+-----------+--------------+
//   q0 | ##### | ####......| ####.........|     S = Q K^T, hidden where a query does not see the key,
//   q1 | ##### | .####.....| .####........|     P = 2^(S - largest), O += P V
//   q2 | ##### | ..####....| ..####.......|
//      +-------+-----------+--------------+
//
// A tile is a box of at most kRows queries, its shape the one that has the least to multiply: a row of queries for wide
// windows, a box for others, whole groups of queries where a stride lets them share a window. Sums stay in registers: a
// vector is 16 keys of a run in the first product, which may begin anywhere in a packed row, and 16 channels in the second.
// Longer lists than kBlock keep the running maximum and sum of the online softmax.
//
// Key and value rows are packed when a tile first needs them, into a ring that holds what one tile sees; three-dimensional
// grids keep whole planes. K is stored by channels, panels of positions, V by positions, panels of channels. Each residue class
// of a dilation is a compact grid of its own.
#include <vitrine/attention2d/cpu/local.h>

#include <vitrine/attention2d/cpu/paths.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

constexpr i64 kPanel = 256;  // positions of a packed row that lie together
constexpr i64 kChunk = 16;   // tiles of an item, along a row
constexpr i64 kAlign = 16;   // where runs begin in rows of several panels
constexpr i64 kMaxRuns = kBlock / kLanes;
constexpr i64 kWide = 2 * kLanes;  // keys of a panel of extra tokens; channels of a panel of values

// Keys at consecutive positions.
struct Run {
  const float *keys, *values;  // packed, at the first one
  i64 value_panel;             // floats between panels of values
  i64 count;
  i64 at;       // its place in a row of S
  i64 t, y, x;  // in the class
  bool is_extra;
};

struct Block {
  Run run[kMaxRuns];
  i64 runs = 0, keys = 0;
};

// sum[r][v] += A[r][words] B[words][vector v]
template <typename Path, int kR, int kV>
[[gnu::always_inline]] inline void add_products(Vf (&sum)[kR][kV], i64 words, const float* a, i64 a_step,
                                                const float* const (&b)[kV], const i64 (&b_step)[kV]) {
  const float* at[kV];
#pragma GCC unroll 2
  for (int v = 0; v < kV; ++v) at[v] = b[v];
  for (i64 i = 0; i < words; ++i, ++a) {
    Vf column[kV];
#pragma GCC unroll 2
    for (int v = 0; v < kV; ++v, at[v - 1] += b_step[v - 1]) column[v] = load(at[v]);
#pragma GCC unroll 16
    for (int r = 0; r < kR; ++r) {
      const Vf element = set1(a[r * a_step]);
#pragma GCC unroll 2
      for (int v = 0; v < kV; ++v) sum[r][v] = Path::multiply_add(element, column[v], sum[r][v]);
    }
  }
}

struct Layout {
  i64 tile[3], tiles[3], chunks;  // queries of a tile; most tiles of a class; chunks of tiles in a row
  i64 shift;                      // queries of a row that its first tile lacks
  i64 key_words, value_step;      // words of a key; channels of a value, whole vectors
  i64 value_width;                // channels of a panel of values
  i64 row_panel, extra_panel;     // floats between the panels of a row's values, and of the extra tokens'
  i64 row_values;                 // floats of a row's values
  i64 ring_planes, ring_rows;     // packed rows that are kept
  i64 panel, panels, key_step;    // positions of a panel, panels of a row, floats between the words of a panel
  i64 align;                      // of the first position of a run
  i64 q_step;
  i64 k_at, v_at, extra_k_at, extra_v_at, q_at, s_at, o_at, tags_at, words;
};

// Positions of the class of residue r that the queries first .. first + count - 1 of it see.
Interval seen_by(const LocalProblem& p, int axis, i64 r, i64 first, i64 count) {
  const Interval* window = p.window[axis] + r;
  return {window[first * p.dilation[axis]].first, window[(first + count - 1) * p.dilation[axis]].end};
}

// What the tiles of n queries of an axis see together: keys, and lanes of vectors that begin at multiples of `align`.
struct AxisCost {
  i64 keys = 0, lanes = 0;
};
AxisCost axis_cost(const LocalProblem& p, int axis, i64 n, i64 shift, i64 align) {
  AxisCost cost;
  const i64 size = ceil_div(p.size[axis], p.dilation[axis]);
  for (i64 at = -shift; at < size; at += n) {
    const i64 first = max_of(at, 0);
    const Interval seen = seen_by(p, axis, 0, first, min_of(at + n, size) - first);
    cost.keys += seen.end - seen.first;
    cost.lanes += round_up(seen.end - seen.first / align * align, kLanes);
  }
  return cost;
}

// The tile with the least multiplications, counting two more rows for each vector's load. For discs, rows of tiles may begin with
// a smaller one, where what the others see then begins at a multiple of the alignment.
void choose_tile(const LocalProblem& p, Layout& l) {
  AxisCost axis[3][kRows + 1];
  i64 shift[kRows + 1] = {};
  for (int a = 0; a < 3; ++a)
    for (i64 n = 1; n <= kRows; ++n) {
      axis[a][n] = axis_cost(p, a, n, 0, l.align);
      for (i64 s = 1; a == 2 && p.half_width && s < min_of(n, l.align); ++s) {
        const AxisCost shifted = axis_cost(p, a, n, s, l.align);
        if (shifted.lanes + shifted.keys >= axis[a][n].lanes + axis[a][n].keys) continue;
        axis[a][n] = shifted;
        shift[n] = s;
      }
    }
  double least = -1;
  for (i64 t = 1; t <= kRows; ++t)
    for (i64 y = 1; t * y <= kRows; ++y)
      for (i64 x = 1; t * y * x <= kRows; ++x) {
        const auto tiles = [&](int a, i64 n) { return static_cast<double>(ceil_div(ceil_div(p.size[a], p.dilation[a]), n)); };
        const double of_grid = static_cast<double>(axis[0][t].keys) * static_cast<double>(axis[1][y].keys) *
                               static_cast<double>(axis[2][x].lanes + axis[2][x].keys);
        const double of_extra = tiles(0, t) * tiles(1, y) * tiles(2, x) * 2 * static_cast<double>(p.extra);
        const double cost = static_cast<double>(round_up(t * y * x, 2) + 2) * (of_grid + of_extra);
        if (least >= 0 && cost >= least) continue;
        least = cost;
        l.shift = shift[x];
        l.tile[0] = t;
        l.tile[1] = y;
        l.tile[2] = x;
      }
}

// The most positions of a class that a tile sees.
i64 widest(const LocalProblem& p, const Layout& l, int axis) {
  i64 most = 0;
  for (i64 r = 0; r < min_of(p.dilation[axis], p.size[axis]); ++r) {
    const i64 size = ceil_div(p.size[axis] - r, p.dilation[axis]);
    for (i64 i = 0; i < size; i += l.tile[axis]) {
      const Interval seen = seen_by(p, axis, r, i, min_of(l.tile[axis], size - i));
      most = max_of(most, seen.end - seen.first);
    }
  }
  return most;
}

Layout layout_of(const LocalProblem& p, int per_word) {
  Layout l;
  i64 most[3];
  for (int a = 0; a < 3; ++a) most[a] = ceil_div(p.size[a], p.dilation[a]);
  l.panels = ceil_div(most[2], kPanel);
  l.panel = l.panels == 1 ? round_up(most[2], kLanes) : kPanel;
  l.align = l.panels == 1 || p.half_width ? per_word : kAlign;  // discs are narrow: a few lanes are much of what they see
  // Vectors may begin anywhere in a panel; an odd number of cache lines keeps words out of each other's sets.
  l.key_step = l.panel + kAlign;
  if (l.key_step / 16 % 2 == 0) l.key_step += 16;
  l.key_words = ceil_div(p.dim, per_word);
  l.value_step = round_up(p.value_dim, kLanes);
  l.value_width = min_of(l.value_step, kWide);
  choose_tile(p, l);
  for (int a = 0; a < 3; ++a) l.tiles[a] = ceil_div(most[a] + (a == 2 ? l.shift : 0), l.tile[a]);
  l.chunks = ceil_div(l.tiles[2], kChunk);
  l.ring_planes = widest(p, l, 0);
  l.ring_rows = most[0] == 1 ? widest(p, l, 1) : most[1];
  l.q_step = round_up(l.key_words, 16) + 16;
  l.words = 0;
  const auto place = [&l](i64 words) {
    const i64 at = l.words;
    l.words += round_up(words, 16);
    return at;
  };
  const i64 rows = l.ring_planes * l.ring_rows, panel_words = l.key_words * l.key_step;
  const i64 value_panels = ceil_div(l.value_step, l.value_width);
  l.row_panel = ceil_div(most[2], per_word) * l.value_width;
  l.extra_panel = ceil_div(p.extra, per_word) * l.value_width;
  l.row_values = value_panels * l.row_panel;
  l.k_at = place(rows * l.panels * panel_words);
  l.v_at = place(rows * l.row_values);
  l.extra_k_at = place(ceil_div(p.extra, kWide) * l.key_words * kWide);
  l.extra_v_at = place(value_panels * l.extra_panel);
  l.q_at = place(kRows * l.q_step);
  l.s_at = place(kRows * kStep);
  l.o_at = place(kRows * l.value_step);
  l.tags_at = place(2 * rows * l.panels);
  return l;
}

// A box of queries.
struct Tile {
  i64 first[3], count[3];
};

// What the queries of a tile see of the runs of a block. Most tiles of a grid look alike: then it is that of the one before.
struct View {
  i64 alike[9 * kRows + 5 * kMaxRuns] = {},
                            count = 0;  // windows and positions of queries and runs, from the tile's first query on
  Interval of[kMaxRuns][kRows];
};

// One residue class of one head of one image, and the state of the workspace for it.
template <typename Path>
struct Grid {
  using T = typename Path::Element;
  const LocalProblem& p;
  const Layout& l;
  float* workspace;
  i64* tags;  // which panel of which (plane, row) a slot of the ring holds
  i64 image = -1, head = -1, key_head = -1, residue[3] = {}, size[3] = {};

  // The tile at hand.
  int rows = 0;
  i64 position[kRows][3];
  Interval seen[kRows][3];
  RowState state[kRows];
  View view;

  Grid(const LocalProblem& p, const Layout& l, float* workspace)
      : p(p), l(l), workspace(workspace), tags(reinterpret_cast<i64*>(workspace + l.tags_at)) {}

  void enter(i64 new_image, i64 new_head, const i64 (&new_residue)[3]) {
    const i64 new_key_head = new_head / (p.heads / p.key_heads);
    const bool same_head = image == new_image && key_head == new_key_head;
    bool same = same_head;
    for (int a = 0; a < 3; ++a) same = same && residue[a] == new_residue[a];
    image = new_image;
    head = new_head;
    key_head = new_key_head;
    for (int a = 0; a < 3; ++a) {
      residue[a] = new_residue[a];
      size[a] = ceil_div(p.size[a] - residue[a], p.dilation[a]);
    }
    if (same) return;
    for (i64 slot = 0; slot < l.ring_planes * l.ring_rows * l.panels; ++slot) tags[slot] = -1;
    if (!same_head) pack_extra();
  }

  const T* token(const GridView& view, i64 of_head, i64 t, i64 y, i64 x) const {
    const i64 at[3] = {residue[0] + t * p.dilation[0], residue[1] + y * p.dilation[1], residue[2] + x * p.dilation[2]};
    return static_cast<const T*>(view.data) + image * view.image + of_head * view.head + at[0] * view.axis[0] +
           at[1] * view.axis[1] + at[2] * view.axis[2];
  }

  // Positions first .. end - 1 of a row: keys from position `first` on, values from where position 0 of the row is; `first` is
  // even.
  void pack_keys(const T* k, i64 k_step, i64 first, i64 end, float* keys, i64 key_step) const {
    for (i64 x = first; x < end; x += kLanes) {
      const T* row[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) row[lane] = k + min_of(x + lane, end - 1) * k_step;
      pack_transposed<Path>(row, p.dim, keys + x - first, key_step);
    }
  }
  void pack_values(const T* v, i64 v_step, i64 first, i64 end, float* values, i64 panel_step) const {
    for (i64 x = first; x < end; x += Path::kPerWord) {
      float* to = values + x / Path::kPerWord * l.value_width;
      const T* row = v + x * v_step;
      const T* next = Path::kPerWord == 2 && x + 1 < end ? row + v_step : nullptr;
      for (i64 d = 0; d < p.value_dim; d += l.value_width, to += panel_step)
        for (i64 c = 0; c < min_of(l.value_width, p.value_dim - d); c += kLanes)
          store(to + c, Path::load_value_words(row + d + c, next ? next + d + c : nullptr, lanes_left(p.value_dim, d + c)));
    }
  }

  void pack_extra() const {
    const auto base = [&](const GridView& view) {
      return static_cast<const T*>(view.data) + image * view.image + key_head * view.head;
    };
    for (i64 first = 0; first < p.extra; first += kWide)
      pack_keys(base(p.extra_k), p.extra_k.axis[2], first, min_of(first + kWide, p.extra),
                workspace + l.extra_k_at + first * l.key_words, kWide);
    pack_values(base(p.extra_v), p.extra_v.axis[2], 0, p.extra, workspace + l.extra_v_at, l.extra_panel);
  }

  float* keys(i64 slot, i64 panel) const { return workspace + l.k_at + (slot * l.panels + panel) * l.key_words * l.key_step; }
  float* values(i64 slot) const { return workspace + l.v_at + slot * l.row_values; }
  void need_panel(i64 at, i64 t, i64 y, i64 panel) {
    i64& tag = tags[at * l.panels + panel];
    if (tag == t * size[1] + y) return;
    tag = t * size[1] + y;
    const i64 begin = panel * l.panel, end = min_of(begin + l.panel, size[2]);
    pack_keys(token(p.k, key_head, t, y, 0), p.dilation[2] * p.k.axis[2], begin, end, keys(at, panel), l.key_step);
    pack_values(token(p.v, key_head, t, y, 0), p.dilation[2] * p.v.axis[2], begin, end, values(at), l.row_panel);
  }

  template <typename Visit>
  static void for_each(const Tile& tile, const Visit& visit) {
    for (i64 t = tile.first[0]; t < tile.first[0] + tile.count[0]; ++t)
      for (i64 y = tile.first[1]; y < tile.first[1] + tile.count[1]; ++y)
        for (i64 x = tile.first[2]; x < tile.first[2] + tile.count[2]; ++x) visit(t, y, x);
  }

  void take_queries(const Tile& tile) {
    rows = 0;
    for_each(tile, [this](i64 t, i64 y, i64 x) {
      const i64 at[3] = {t, y, x};
      for (int a = 0; a < 3; ++a) {
        position[rows][a] = at[a];
        seen[rows][a] = seen_by(p, a, residue[a], at[a], 1);
      }
      state[rows] = {kMinusInfinity, 0.0f};
      const T* row = token(p.q, head, t, y, x);
      float* to = workspace + l.q_at + rows * l.q_step;
      for (i64 word = 0; word < l.key_words; word += kLanes) {
        const i64 d = word * Path::kPerWord;
        store(to + word, Path::load_words(row + d, static_cast<int>(min_of(p.dim - d, kLanes * Path::kPerWord))));
      }
      ++rows;
    });
  }

  // Asks for the queries of a tile, whose rows lie far apart in a fused projection.
  void prefetch_queries(const Tile& tile) const {
    for_each(tile, [this](i64 t, i64 y, i64 x) { prefetch(token(p.q, head, t, y, x), p.dim); });
  }

  // The half width of row ky's part in what query r sees, negative: it sees none of it.
  i64 half_width(int r, i64 ky) const {
    if (!p.half_width) return size[2];
    const i64 dy = ky - position[r][1];
    return p.half_width[dy < 0 ? -dy : dy];
  }

  // The keys of a run that query r sees.
  Interval seen_of(const Run& run, int r) const {
    if (run.is_extra) return {0, run.count};
    const auto is_in = [](i64 i, const Interval& w) { return i >= w.first && i < w.end; };
    const i64 half = is_in(run.t, seen[r][0]) && is_in(run.y, seen[r][1]) ? half_width(r, run.y) : -1;
    if (half < 0) return {0, 0};
    const i64 x = position[r][2];
    const i64 first = max_of(0, max_of(seen[r][2].first, x - half) - run.x);
    const i64 end = min_of(run.count, min_of(seen[r][2].end, x + half + 1) - run.x);
    return first < end ? Interval{first, end} : Interval{0, 0};
  }

  void look_at(const Block& block) {
    const i64* origin = position[0];
    i64 n = 0;
    bool is_known = true;
    const auto note = [&](i64 value) {
      is_known = is_known && view.alike[n] == value;
      view.alike[n++] = value;
    };
    for (int r = 0; r < rows; ++r)
      for (int a = 0; a < 3; ++a) {
        note(position[r][a] - origin[a]);
        note(seen[r][a].first - origin[a]);
        note(seen[r][a].end - origin[a]);
      }
    for (i64 i = 0; i < block.runs; ++i) {
      const Run& run = block.run[i];
      note(run.is_extra ? 1 : 0);
      note(run.count);
      note(run.is_extra ? 0 : run.t - origin[0]);
      note(run.is_extra ? 0 : run.y - origin[1]);
      note(run.is_extra ? 0 : run.x - origin[2]);
    }
    is_known = is_known && view.count == n;
    view.count = n;
    if (is_known) return;
    for (i64 i = 0; i < block.runs; ++i)
      for (int r = 0; r < rows; ++r) view.of[i][r] = seen_of(block.run[i], r);
  }

  // Scale and bias where the logits need more than a factor; minus infinity where query r does not see the key.
  void prepare_row(const Block& block, int r, bool is_plain, float* s) const {
    for (i64 i = 0; i < block.runs; ++i) {
      const Run& run = block.run[i];
      const Interval& in = view.of[i][r];
      float* logits = s + run.at;
      if (!is_plain) {
        for (i64 j = 0; j < run.count; ++j) logits[j] *= p.scale;
        if (p.rpb && !run.is_extra) {
          const float* bias = p.rpb + head * p.rpb_head + (run.y - position[r][1] + p.rpb_center[0]) * p.rpb_row;
          const i64 center = run.x - position[r][2] + p.rpb_center[1];
          for (i64 j = in.first; j < in.end; ++j) logits[j] += bias[center + j];
        }
      }
      for (i64 j = 0; j < run.count; j += kLanes) {
        if (in.first <= j && j + kLanes <= in.end) continue;
        const Vf hidden = set1(kMinusInfinity);
        const Vf before_end = keep_n(load(logits + j), static_cast<int>(max_of(0, min_of(in.end - j, kLanes))), hidden);
        store(logits + j, keep_n(hidden, static_cast<int>(max_of(0, min_of(in.first - j, kLanes))), before_end));
      }
    }
  }

  template <int kR>
  void multiply_keys(const Block& block) const {
    const float* vector[kMaxRuns];
    i64 step[kMaxRuns], vectors = 0;
    for (i64 i = 0; i < block.runs; ++i) {
      const Run& run = block.run[i];
      for (i64 x = 0; x < run.count; x += kLanes, ++vectors) {
        step[vectors] = run.is_extra ? kWide : l.key_step;
        vector[vectors] = run.keys + (run.is_extra ? x / kWide * kWide * l.key_words + x % kWide : x);
      }
    }
    const auto multiply = [&]<int kV>(const float* const(&keys)[kV], const i64(&steps)[kV], float* s) {
      Vf sum[kR][kV];
#pragma GCC unroll 16
      for (int r = 0; r < kR; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < kV; ++v) sum[r][v] = zero();
      add_products<Path, kR, kV>(sum, l.key_words, workspace + l.q_at, l.q_step, keys, steps);
#pragma GCC unroll 16
      for (int r = 0; r < kR; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < kV; ++v) store(s + r * kStep + v * kLanes, sum[r][v]);
    };
    float* s = workspace + l.s_at;
    i64 i = 0;
    for (; i + 1 < vectors; i += 2, s += 2 * kLanes) multiply({vector[i], vector[i + 1]}, {step[i], step[i + 1]}, s);
    if (i < vectors) multiply({vector[i]}, {step[i]}, s);
  }

  template <int kR>
  void multiply_values(const Block& block, bool is_first) const {
    const auto multiply = [&]<int kV>(const i64(&channel)[kV]) {
      float* o = workspace + l.o_at + channel[0];
      Vf sum[kR][kV];
#pragma GCC unroll 16
      for (int r = 0; r < kR; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < kV; ++v) sum[r][v] = is_first ? zero() : load(o + r * l.value_step + v * kLanes);
      for (i64 i = 0; i < block.runs; ++i) {
        const Run& run = block.run[i];
        const float* values[kV];
        i64 steps[kV];
        for (int v = 0; v < kV; ++v) {
          values[v] = run.values + channel[0] / l.value_width * run.value_panel + v * kLanes;
          steps[v] = l.value_width;
        }
        add_products<Path, kR, kV>(sum, ceil_div(run.count, Path::kPerWord), workspace + l.s_at + run.at / Path::kPerWord, kStep,
                                   values, steps);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kR; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < kV; ++v) store(o + r * l.value_step + v * kLanes, sum[r][v]);
    };
    i64 d = 0;
    for (; d + 2 * kLanes <= l.value_step; d += 2 * kLanes) multiply({d, d + kLanes});
    if (d < l.value_step) multiply({d});
  }

  // Step by step for all rows, whose chains of dependent operations then overlap.
  void softmax(const Block& block, bool is_first) {
    const bool is_plain = !p.rpb && p.scale > 0;
    const float unit = is_plain ? p.scale * kLog2e : kLog2e;
    float* logits = workspace + l.s_at;
    float largest[kRows];
    Vf sum[kRows];
    look_at(block);
    for (int r = 0; r < rows; ++r) {
      prepare_row(block, r, is_plain, logits + r * kStep);
      largest[r] = state[r].largest_with(logits + r * kStep, block.keys);
    }
    for (int r = 0; r < rows; ++r) sum[r] = row_weights<Path>(logits + r * kStep, block.keys, block.keys, unit, largest[r]);
    for (int r = 0; r < rows; ++r) {
      const float factor = state[r].advance(largest[r], unit, sum[r]);
      if (!is_first && factor != 1.0f) scale_row(workspace + l.o_at + r * l.value_step, p.value_dim, factor);
    }
  }

  // Even numbers of rows only: what an odd one has too many is computed and not looked at.
  template <int kR = kRows>
  void attend_block(const Block& block, bool is_first) {
    if constexpr (kR > 2) {
      if (rows <= kR - 2) return attend_block<kR - 2>(block, is_first);
    }
    multiply_keys<kR>(block);
    softmax(block, is_first);
    multiply_values<kR>(block, is_first);
  }

  // Runs of all keys that some query of the tile sees, a block at a time.
  template <typename Attend>
  void visit_keys(const Tile& tile, const Attend& attend) {
    Block block;
    const auto add = [&](Run run) {
      if (block.keys + round_up(run.count, kLanes) > kBlock) {
        attend(block);
        block.runs = block.keys = 0;
      }
      run.at = block.keys;
      block.keys += round_up(run.count, kLanes);
      block.run[block.runs++] = run;
    };
    for (i64 e = 0; e < p.extra; e += kBlock)
      add({workspace + l.extra_k_at + e * l.key_words, workspace + l.extra_v_at + e / Path::kPerWord * l.value_width,
           l.extra_panel, min_of(kBlock, p.extra - e), 0, 0, 0, 0, true});
    Interval all[3];
    for (int a = 0; a < 3; ++a) all[a] = seen_by(p, a, residue[a], tile.first[a], tile.count[a]);
    for (i64 t = all[0].first; t < all[0].end; ++t) {
      const i64 plane = t % l.ring_planes * l.ring_rows;
      i64 row = all[1].first % l.ring_rows - 1;
      for (i64 y = all[1].first; y < all[1].end; ++y) {
        row = row + 1 == l.ring_rows ? 0 : row + 1;
        const i64 at = plane + row;
        i64 half = -1;
        for (int r = 0; r < rows; ++r) half = max_of(half, half_width(r, y));
        if (half < 0) continue;
        const i64 begin = max_of(all[2].first, tile.first[2] - half) / l.align * l.align;
        const i64 end = min_of(all[2].end, tile.first[2] + tile.count[2] + half);
        for (i64 x = begin; x < end;) {
          const i64 panel = x / l.panel, n = min_of((panel + 1) * l.panel, end) - x;
          need_panel(at, t, y, panel);
          add({keys(at, panel) + x % l.panel, values(at) + x / Path::kPerWord * l.value_width, l.row_panel, n, 0, t, y, x,
               false});
          x += n;
        }
      }
    }
    if (block.runs > 0) attend(block);
  }

  void attend(const Tile& tile) {
    take_queries(tile);
    bool is_first = true;
    visit_keys(tile, [&](const Block& block) {
      attend_block(block, is_first);
      is_first = false;
    });
    for (int r = 0; r < rows; ++r) {
      T* to = const_cast<T*>(token(p.out, head, position[r][0], position[r][1], position[r][2]));
      const float* o = workspace + l.o_at + r * l.value_step;
      const Vf factor = set1(state[r].sum == 0.0f ? 0.0f : 1.0f / state[r].sum);
      for (i64 d = 0; d < p.value_dim; d += kLanes) store_part(to + d, mul(load(o + d), factor), lanes_left(p.value_dim, d));
    }
  }
};

template <typename Path>
void run_path(const LocalProblem& p, i64 begin, i64 end, float* workspace) {
  const Layout l = layout_of(p, Path::kPerWord);
  Grid<Path> grid(p, l, workspace);
  for (i64 item = begin; item < end; ++item) {
    i64 rest = item;
    const auto take = [&rest](i64 count) {
      const i64 i = rest % count;
      rest /= count;
      return i;
    };
    const i64 chunk = take(l.chunks), y = take(l.tiles[1]), t = take(l.tiles[0]);
    const i64 rx = take(p.dilation[2]), ry = take(p.dilation[1]), rt = take(p.dilation[0]);
    const i64 head = take(p.heads);
    grid.enter(rest, head, {rt, ry, rx});
    const auto tile_at = [&](i64 x) {
      const i64 at[3] = {t * l.tile[0], y * l.tile[1], x * l.tile[2] - l.shift};
      Tile tile;
      for (int a = 0; a < 3; ++a) {
        tile.first[a] = max_of(at[a], 0);
        tile.count[a] = min_of(at[a] + l.tile[a], grid.size[a]) - tile.first[a];
      }
      return tile;
    };
    for (i64 x = l.tiles[2] * chunk / l.chunks; x < l.tiles[2] * (chunk + 1) / l.chunks; ++x) {
      const Tile tile = tile_at(x);
      if (tile.count[0] <= 0 || tile.count[1] <= 0 || tile.count[2] <= 0) continue;  // classes differ by one position
      grid.prefetch_queries(tile_at(x + 1));
      grid.attend(tile);
    }
  }
}

i64 items(const LocalProblem& p) {
  const Layout l = layout_of(p, elements_per_word(p.type));
  return p.images * p.heads * p.dilation[0] * p.dilation[1] * p.dilation[2] * l.tiles[0] * l.tiles[1] * l.chunks;
}

i64 workspace_bytes(const LocalProblem& p) {
  return layout_of(p, elements_per_word(p.type)).words * static_cast<i64>(sizeof(float));
}

void run(const LocalProblem& p, i64 begin, i64 end, void* workspace) {
  with_path(p.type, [&]<typename Path>(Path) { run_path<Path>(p, begin, end, static_cast<float*>(workspace)); });
}

}  // namespace

LocalKernel local_kernel() { return {items, workspace_bytes, run}; }

}  // namespace vitrine::cpu::VITRINE_TARGET
