// What the kernels of local attention share: a launch's problem, its tiles, and who sees whom.
//
// A tile is 64 queries (128 in local_sm90.h), a box of one residue class of the dilations; the keys that its queries see lie in a
// box, too, the union of their windows, which goes by in tiles of 64 keys (128). The shapes of both tiles are those with the
// least tiles to compute (a line of 64, a square of 8 x 8, a cube of 4 x 4 x 4 and all between). Which keys of a tile a query
// sees are bits, made once a tile where not all see all of it; tiles of a disc's square that nobody sees are left out.
//
//      queries                 keys: the union of the windows, in tiles       query q, key tile:  0011 1110
//      +-----------+           +-------+-------+                                                  0011 1110
//      | q . . . . |           | K V   | K V   |                                                  0000 0000
//      | . . . . . |           +-------+-------+
//      | . . . . . |           | K V   | K V   |      further tokens, which all see, are tiles at the end
//      +-----------+           +-------+-------+
#pragma once

#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/cuda/tiles.h>
#include <vitrine/layers/cuda/tensor_map.h>

namespace vitrine::cuda::local {

// One and two axes are three with leading sizes of 1.
struct Problem {
  std::int64_t images;
  int heads, key_heads, dim, value_dim;
  int size[3], kernel[3], dilation[3], stride[3];
  LocalAxis::Window window[3];
  int radius_square;  // 0: no disc
  View q, k, v, out, extra_k, extra_v;
  // Elements between neighbours of a residue class; all of a tile is within 2^31 of its first row.
  int k_pitch[3], v_pitch[3], extra_k_pitch, extra_v_pitch;
  int extra;
  float scale;
  const float* rpb;
  std::int64_t rpb_head;
  int rpb_row, rpb_center[2];
  int query_log[3], key_log[3];  // a tile's sides are powers of two
  int classes, tiles[3];         // residue classes; tiles of the largest of them

  VITRINE_DEVICE int step_keys() const { return 1 << (key_log[0] + key_log[1] + key_log[2]); }
};

constexpr const char *kTilesOp = "local_attention_tiles", *kSm90Op = "local_attention_sm90";  // for messages

void attend_f32(const Problem& p, const Tensor& shown);
void attend_f16(const Problem& p, const Tensor& shown);
void attend_bf16(const Problem& p, const Tensor& shown);

// The kernels for compute capability 9.0 (local_sm90.h): tiles are boxes that its copy engine fetches.
struct Sm90Maps {
  TensorMap q, k, v, extra_k, extra_v;
};
void attend_sm90_f16(const Problem& p, const Sm90Maps& maps, const Tensor& shown);
void attend_sm90_bf16(const Problem& p, const Sm90Maps& maps, const Tensor& shown);

struct Interval {
  int first, end;
};

// What the query at place i of the n of its class sees of the class, on one axis.
VITRINE_DEVICE Interval window_at(const Problem& p, int axis, int n, int i) {
  const int kernel = p.kernel[axis], stride = p.stride[axis];
  if (p.window[axis] == LocalAxis::Window::reach) return {most(i - kernel + 1, 0), least(i + kernel, n)};
  const bool is_causal = p.window[axis] == LocalAxis::Window::causal;
  const int leader = stride == 1 ? i : least(i / stride * stride + (is_causal ? stride - 1 : stride / 2), n - 1);
  if (is_causal) return {most(leader - kernel + 1, 0), i + 1};
  const int first = most(least(leader - kernel / 2, n - kernel), 0);
  return {first, first + kernel};
}

// How far a disc reaches in x where the rows are dy apart: the largest dx with dx^2 + dy^2 < radius^2; below zero: nowhere.
VITRINE_DEVICE int half_width(const Problem& p, int dy) {
  const int rest = p.radius_square - 1 - dy * dy;
  if (rest < 0) return -1;
  int dx = static_cast<int>(sqrt_of(static_cast<float>(rest)));
  while (dx * dx > rest) --dx;
  while ((dx + 1) * (dx + 1) <= rest) ++dx;
  return dx;
}

// A residue class of a head of an image.
struct Grid {
  std::int64_t image;
  int head, key_head, residue[3], size[3];

  template <typename T>
  VITRINE_DEVICE const T* row(const Problem& p, const View& view, int of_head, int t, int y, int x) const {
    return row_at<T>(view, image, of_head, residue[0] + t * p.dilation[0], residue[1] + y * p.dilation[1],
                     residue[2] + x * p.dilation[2]);
  }
  template <typename T>
  VITRINE_DEVICE const T* extra_row(const View& view, int token) const {
    return row_at<T>(view, image, key_head, token);
  }
};

// (image, head, class) number i.
VITRINE_DEVICE Grid grid_at(const Problem& p, int i) {
  Grid g;
  const int at = i / p.classes;
  int residue = i - at * p.classes;
  for (int a = 2; a >= 0; --a) {
    const int all = least(p.dilation[a], p.size[a]);
    g.residue[a] = residue % all;
    residue /= all;
    g.size[a] = (p.size[a] - g.residue[a] + p.dilation[a] - 1) / p.dilation[a];
  }
  g.image = at / p.heads;
  g.head = at % p.heads;
  g.key_head = g.head / (p.heads / p.key_heads);
  return g;
}

// The block's tile of queries; windows move with them, so that those of the first and the last tell what is seen.
struct Tile {
  Grid grid;
  int first[3], last[3];        // of the queries
  Interval seen[3], common[3];  // by any of them, by all

  VITRINE_DEVICE bool has_query(int axis, int i) const { return i < grid.size[axis]; }
};

struct Place {
  int t, y, x;
};
// Of element i of a tile whose sides are 2^log.
VITRINE_DEVICE Place place_in(const int (&log)[3], int i) {
  return {i >> (log[2] + log[1]), (i >> log[2]) & ((1 << log[1]) - 1), i & ((1 << log[2]) - 1)};
}

// False where the class has no such tile.
VITRINE_DEVICE bool tile_at(const Problem& p, int i, Tile& tile) {
  for (int a = 2; a >= 0; --a) {
    const int next = i / p.tiles[a];
    tile.first[a] = (i - next * p.tiles[a]) << p.query_log[a];
    i = next;
  }
  tile.grid = grid_at(p, i);
  for (int a = 0; a < 3; ++a) {
    const int n = tile.grid.size[a];
    if (tile.first[a] >= n) return false;
    tile.last[a] = least(tile.first[a] + (1 << p.query_log[a]), n) - 1;
    const Interval of_first = window_at(p, a, n, tile.first[a]), of_last = window_at(p, a, n, tile.last[a]);
    tile.seen[a] = {of_first.first, of_last.end};
    tile.common[a] = {of_last.first, of_first.end};
  }
  return true;
}

// The place of query r, with x = -1 where there is none.
VITRINE_DEVICE Place query_at(const Problem& p, const Tile& tile, int r) {
  Place q = place_in(p.query_log, r);
  q.t += tile.first[0];
  q.y += tile.first[1];
  q.x += tile.first[2];
  if (!tile.has_query(0, q.t) || !tile.has_query(1, q.y) || !tile.has_query(2, q.x)) q.x = -1;
  return q;
}

// One step: a tile of keys of the grid, or of the further tokens from `extra` on.
struct Step {
  int first[3];
  int extra;  // below zero: of the grid
};
VITRINE_DEVICE int end_of(const Problem& p, const Step& s, int axis) { return s.first[axis] + (1 << p.key_log[axis]); }

// Whether any query of the tile sees a key of the step.
VITRINE_DEVICE bool is_seen(const Problem& p, const Tile& tile, const Step& s) {
  if (s.extra >= 0 || !p.radius_square) return true;
  int squares = 0;
  for (int a = 1; a < 3; ++a) {
    const int gap = most(most(s.first[a] - tile.last[a], tile.first[a] - end_of(p, s, a) + 1), 0);
    squares += gap * gap;
  }
  return squares < p.radius_square;
}
// Whether all see all of it.
VITRINE_DEVICE bool is_whole(const Problem& p, const Tile& tile, const Step& s) {
  if (s.extra >= 0) return s.extra + p.step_keys() <= p.extra;
  int squares = 0;
  for (int a = 0; a < 3; ++a) {
    if (s.first[a] < tile.common[a].first || end_of(p, s, a) > tile.common[a].end) return false;
    const int far = most(end_of(p, s, a) - 1 - tile.first[a], tile.last[a] - s.first[a]);
    if (a > 0) squares += far * far;
  }
  return !p.radius_square || squares < p.radius_square;
}

VITRINE_DEVICE Step before_first(const Problem& p, const Tile& tile) {
  return {{tile.seen[0].first, tile.seen[1].first, tile.seen[2].first - (1 << p.key_log[2])}, -1};
}
// The next step that is seen; false behind the last. By sums: a division takes as long as many products.
VITRINE_DEVICE bool next_step(const Problem& p, const Tile& tile, Step& s) {
  while (s.extra < 0) {
    int a = 2;
    for (; a >= 0; --a) {
      s.first[a] += 1 << p.key_log[a];
      if (s.first[a] < tile.seen[a].end) break;
      s.first[a] = tile.seen[a].first;
    }
    if (a < 0) {
      s.extra = 0;
      return p.extra > 0;
    }
    if (is_seen(p, tile, s)) return true;
  }
  s.extra += p.step_keys();
  return s.extra < p.extra;
}

// The first row of a step, in k or v.
template <typename T>
VITRINE_DEVICE const T* first_row(const Problem& p, const Tile& tile, const Step& s, const View& view, const View& extra) {
  if (s.extra >= 0) return tile.grid.extra_row<T>(extra, s.extra);
  return tile.grid.row<T>(p, view, tile.grid.key_head, s.first[0], s.first[1], s.first[2]);
}
// Rows j + more as tiles.h has them: sides are powers of two, so that the places of both add up.
template <typename T>
class Rows {
 public:
  VITRINE_DEVICE Rows(const Problem& p, const Tile& tile, const Step& s, const T* first, const int (&pitch)[3], int extra_pitch,
                      int j) {
    const bool is_grid = s.extra < 0;  // chosen one by one: an if around all takes 16 registers more
    const int all = p.key_log[0] + p.key_log[1] + p.key_log[2];
    for (int a = 0; a < 3; ++a) {
      log_[a] = is_grid ? p.key_log[a] : a == 2 ? all : 0;
      pitch_[a] = is_grid ? pitch[a] : a == 2 ? extra_pitch : 0;
      room_[a] = is_grid ? tile.seen[a].end - s.first[a] : a == 2 ? p.extra - s.extra : 1;
    }
    const Place mine = place_in(log_, j);
    room_[0] -= mine.t;
    room_[1] -= mine.y;
    room_[2] -= mine.x;
    row_ = first + offset(mine);
  }
  // Null: none, to be zeros.
  VITRINE_DEVICE const T* operator()(int more) const {
    const Place there = place_in(log_, more);
    return there.t < room_[0] && there.y < room_[1] && there.x < room_[2] ? row_ + offset(there) : nullptr;
  }

 private:
  VITRINE_DEVICE int offset(const Place& at) const { return at.t * pitch_[0] + at.y * pitch_[1] + at.x * pitch_[2]; }

  const T* row_;
  int log_[3], pitch_[3], room_[3];  // further tokens are a line
};

// Bits first .. end - 1 of places that begin at `from`, of which there are n, at most 32.
VITRINE_DEVICE std::uint32_t bits_of(int first, int end, int from, int n) {
  first = most(first - from, 0);
  end = least(end - from, n);
  if (first >= end) return 0;
  return (end == 32 ? ~0u : (1u << end) - 1) & ~((1u << first) - 1);
}

// A query and what it sees of each axis.
struct Query {
  Place place;  // with x = -1 where there is none
  Interval t, y, x;
};
VITRINE_DEVICE Query query_of(const Problem& p, const Tile& tile, int r) {
  const Place q = query_at(p, tile, r);
  const int(&n)[3] = tile.grid.size;
  return {q, window_at(p, 0, n[0], q.t), window_at(p, 1, n[1], q.y), window_at(p, 2, n[2], q.x)};
}

// Which of the keys 32 w .. 32 w + 31 of a step it sees.
VITRINE_DEVICE std::uint32_t seen_by(const Problem& p, const Step& s, const Query& q, int w) {
  if (q.place.x < 0) return 0;
  if (s.extra >= 0) return bits_of(0, p.extra, s.extra + 32 * w, 32);
  // A row of the tile is a part of the word, or several words are a row.
  const int row_log = p.key_log[2], in_word = least(1 << row_log, 32), row = 32 * w >> row_log;
  const int from = s.first[2] + 32 * w - (row << row_log);
  std::uint32_t all = 0;
  for (int i = 0; i < 32 / in_word; ++i) {
    const int kt = s.first[0] + ((row + i) >> p.key_log[1]), ky = s.first[1] + ((row + i) & ((1 << p.key_log[1]) - 1));
    if (kt < q.t.first || kt >= q.t.end || ky < q.y.first || ky >= q.y.end) continue;
    Interval seen = q.x;
    if (p.radius_square) {
      const int reach = half_width(p, ky - q.place.y);
      seen = {most(q.x.first, q.place.x - reach), least(q.x.end, q.place.x + reach + 1)};
    }
    all |= bits_of(seen.first, seen.end, from, in_word) << (i << row_log);
  }
  return all;
}

// Place of key j's bias less that of its query, in the table of relative positions.
VITRINE_DEVICE int key_bias_at(const Problem& p, const Step& s, int j) {
  const Place k = place_in(p.key_log, j);
  return (s.first[1] + k.y + p.rpb_center[0]) * p.rpb_row + s.first[2] + k.x + p.rpb_center[1];
}
VITRINE_DEVICE int query_bias_at(const Problem& p, const Place& q) { return q.y * p.rpb_row + q.x; }

// Of sums as tiles_mma.h has them, logits that row r does not see become -inf: those of four blocks of 8 keys from `block` on, of
// which the lane has bits 8 n and 8 n + 1.
template <int kBlocks>
VITRINE_DEVICE void hide_by_bits(float (&s)[kBlocks][4], int r, int block, std::uint32_t bits) {
  VITRINE_UNROLL
  for (int n = 0; n < 4; ++n) VITRINE_UNROLL
  for (int e = 0; e < 2; ++e)
    if ((bits >> (8 * n + e) & 1) == 0) s[block + n][2 * r + e] = -infinity();
}

// As tiles.h has it; kRows: of a thread.
template <typename Element, int kRows>
class Block {
 public:
  using Problem = local::Problem;
  using T = Element;
  static constexpr bool kIsFull = true, kIsShort = false;
  static constexpr std::size_t bytes(int) { return std::size_t{3 * kTile} * sizeof(int); }

  VITRINE_DEVICE Block(const Problem& p, int, std::byte* memory)
      : p_(p),
        seen_(reinterpret_cast<std::uint32_t*>(memory)),
        bias_at_(reinterpret_cast<int*>(seen_ + kTile * 2)),
        is_there_(tile_at(p, block_index().x, tile_)),
        rpb_(p.rpb ? p.rpb + tile_.grid.head * p.rpb_head : nullptr),
        is_plain_(!p.rpb && p.scale > 0) {
    if (is_there_) step_ = before_first(p, tile_);
  }
  VITRINE_DEVICE bool is_there() const { return is_there_; }

  VITRINE_DEVICE const T* query(int r) const { return row(p_.q, r); }
  VITRINE_DEVICE T* out(int r) const { return const_cast<T*>(row(p_.out, r)); }

  VITRINE_DEVICE bool go_on() {
    if (!next_step(p_, tile_, step_)) return false;
    is_whole_ = is_whole(p_, tile_, step_);
    k_ = first_row<T>(p_, tile_, step_, p_.k, p_.extra_k);
    v_ = first_row<T>(p_, tile_, step_, p_.v, p_.extra_v);
    return true;
  }
  VITRINE_DEVICE int keys() const { return kTile; }
  VITRINE_DEVICE Rows<T> key(int j) const { return {p_, tile_, step_, k_, p_.k_pitch, p_.extra_k_pitch, j}; }
  VITRINE_DEVICE Rows<T> value(int j) const { return {p_, tile_, step_, v_, p_.v_pitch, p_.extra_v_pitch, j}; }

  // What the queries see of them: two threads a query. (Its windows are found anew: kept, they would take the registers of which
  // a third block beside these is made.)
  VITRINE_DEVICE void keys_are_coming() const {
    const int query = thread_index() / 2, half = thread_index() % 2;
    if (query < kTile && !is_whole_) seen_[query * 2 + half] = seen_by(p_, step_, query_of(p_, tile_, query), half);
    if (rpb_ && thread_index() < kTile) bias_at_[thread_index()] = key_bias_at(p_, step_, thread_index());
  }
  VITRINE_DEVICE void queries_are_there(const T*, int, int) const {}
  VITRINE_DEVICE void take_row(int r, int of_tile) {
    const Place q = query_at(p_, tile_, of_tile);
    row_[r] = q.x >= 0 ? of_tile : -1;
    query_bias_[r] = rpb_ ? query_bias_at(p_, q) : 0;
  }
  VITRINE_DEVICE void keys_are_there(const T*, int) {
    VITRINE_UNROLL
    for (int r = 0; r < kRows; ++r)
      for (int half = 0; half < 2; ++half) bits_[r][half] = row_[r] < 0 ? 0 : is_whole_ ? ~0u : seen_[row_[r] * 2 + half];
  }

  VITRINE_DEVICE bool is_at_work() const {
    std::uint32_t any = 0;
    VITRINE_UNROLL
    for (int r = 0; r < kRows; ++r) any |= bits_[r][0] | bits_[r][1];
    return warp_any(any != 0);
  }
  VITRINE_DEVICE float unit() const { return is_plain_ ? p_.scale * kLog2e : kLog2e; }
  VITRINE_DEVICE bool has_logits() const { return !is_whole_ || !is_plain_; }
  template <int kBlocks>
  VITRINE_DEVICE void make_logits(float (&s)[kBlocks][4]) const {
    if (!is_plain_) {
      each_sum(s, [&](float& x, int, int) { x *= p_.scale; });
      if (has_bias())
        each_sum(s, [&](float& x, int r, int j) {
          if (sees(r, j)) x += bias(r, j);
        });
    }
    const int t = lane_index() % 4;
    VITRINE_UNROLL
    for (int r = 0; r < 2; ++r) VITRINE_UNROLL
    for (int half = 0; half < 2; ++half) hide_by_bits(s, r, 4 * half, bits_[r][half] >> (2 * t));
  }
  VITRINE_DEVICE float logit(int r, int j, float product) const {
    if (!sees(r, j)) return -infinity();
    if (is_plain_) return product;
    return product * p_.scale + (has_bias() ? bias(r, j) : 0.0f);
  }

 private:
  VITRINE_DEVICE bool sees(int r, int j) const {
    const std::uint32_t bits = j < 32 ? bits_[r][0] : bits_[r][1];  // an index would put the block into memory
    return (bits >> j % 32 & 1) != 0;
  }
  VITRINE_DEVICE bool has_bias() const { return rpb_ && step_.extra < 0; }
  VITRINE_DEVICE float bias(int r, int j) const { return rpb_[bias_at_[j] - query_bias_[r]]; }
  VITRINE_DEVICE const T* row(const View& view, int r) const {
    const Place q = query_at(p_, tile_, r);
    return q.x < 0 ? nullptr : tile_.grid.template row<T>(p_, view, tile_.grid.head, q.t, q.y, q.x);
  }

  const Problem& p_;
  Tile tile_;
  Step step_;
  const T *k_, *v_;      // the step's first rows
  std::uint32_t* seen_;  // [query][half of the keys]
  int* bias_at_;         // of each key
  bool is_there_;
  const float* rpb_;
  bool is_plain_;                       // logits are products times one positive factor
  bool is_whole_;                       // all queries see all of the step
  int row_[kRows], query_bias_[kRows];  // below zero: no query
  std::uint32_t bits_[kRows][2];
};

inline std::int64_t blocks_of(const Problem& p) { return p.images * p.heads * p.classes * p.tiles[0] * p.tiles[1] * p.tiles[2]; }

}  // namespace vitrine::cuda::local
