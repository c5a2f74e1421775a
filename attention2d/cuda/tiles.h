// What the kernels of attention share: rows in memory, the running softmax, and a query that a warp attends with alone.
//
// The tiled kernels (tiles_mma.h in 16 bits, tiles_f32.h) are one loop for all mechanisms: tiles of 64 keys go by a tile of up to
// 64 queries. A mechanism is a class Block that says which rows these are and what happens to logits; all threads call it alike,
// those of a warp with the same lines in the same order:
//
//   Problem, T              arguments of the launch, with q, k, v, out (View), dim and value_dim; the elements
//   kIsFull                 tiles have 64 queries always; else a launch may have fewer warps for fewer queries
//   kIsShort                there is often one tile of keys only (windows): K's and V's first are fetched at once
//   bytes(rows)             shared memory of its own
//   Block(p, rows, memory)  finds the block's queries; is_there(): there are any
//   query(r), out(r)        row r of the tile in q and in out, null where there is none
//   go_on()                 makes the next tile of keys the present one, at first the first; false behind the last
//   keys()                  how many it has
//   key(j), value(j)        its rows, as functions of `more`: key(j)(more) is row j + more, a pointer (null: zeros) or what has
//                           operator[] by channel and is computed; `more` is the same for all threads, and for full tiles has no
//                           bit that j has
//   keys_are_coming()       is called while K's tile is on the way; a barrier follows
//   queries_are_there(...)  when the tile of queries is in shared memory
//   take_row(r, of_tile)    the thread's row r is that of the tile
//   keys_are_there(...)     when K's tile is in shared memory, before its logits
//   is_at_work()            whether any row of the warp sees a key of it
//   unit(), has_logits()    weights are 2^(unit logit), where a logit is the product or, where has_logits() says so of the
//                           present tile, what these make of it:
//   make_logits(s)          for a thread's sums as tiles_mma.h has them
//   logit(r, j, product)    for one, in tiles_f32.h
#pragma once

#include <vitrine/layers/cuda/launch.h>
#include <vitrine/layers/cuda/math.h>

namespace vitrine::cuda {

constexpr int kTile = 64;  // keys, and the most queries, of a tile

// [image, 1 to 3 axes, head, channels], strides in elements; the axes are the last of three. Rows may be copied by 16 bytes where
// they are aligned.
struct View {
  const void* data;
  std::int64_t image, axis[3], head;
  bool is_aligned;
};
inline View view_of(const Tensor& t) {
  View v{t.raw(), t.stride(0), {}, t.stride(-2), false};
  const int axes = t.rank() - 3;
  for (int a = 0; a < axes; ++a) v.axis[3 - axes + a] = t.stride(a + 1);
  const std::int64_t piece = 16 / static_cast<std::int64_t>(size_of(t.dtype()));
  v.is_aligned = reinterpret_cast<std::uintptr_t>(t.raw()) % 16 == 0 && t.size(-1) % piece == 0;
  for (int a = 0; a + 1 < t.rank(); ++a) v.is_aligned = v.is_aligned && (t.size(a) == 1 || t.stride(a) % piece == 0);
  return v;
}

template <typename T>
VITRINE_DEVICE const T* row_at(const View& v, std::int64_t image, std::int64_t head, std::int64_t z, std::int64_t y,
                               std::int64_t x) {
  return static_cast<const T*>(v.data) + image * v.image + head * v.head + z * v.axis[0] + y * v.axis[1] + x * v.axis[2];
}
template <typename T>
VITRINE_DEVICE const T* row_at(const View& v, std::int64_t image, std::int64_t head, std::int64_t token) {
  return static_cast<const T*>(v.data) + image * v.image + head * v.head + token * v.axis[2];
}

VITRINE_DEVICE int least(int a, int b) { return a < b ? a : b; }
VITRINE_DEVICE int most(int a, int b) { return a > b ? a : b; }
template <int n>
VITRINE_DEVICE int round_up(int size) {
  return (size + n - 1) / n * n;
}

constexpr float kLog2e = 1.44269504088896341f;

// 1 / max(|x|, 1e-12), of the sum of squares.
VITRINE_DEVICE float inverse_norm(float squares) {
  const float norm = sqrt_of(squares);
  return 1.0f / (norm < 1e-12f ? 1e-12f : norm);
}

// Maximum and sum of a row's weights so far; the weight of a logit l is 2^(unit l - base).
struct RowState {
  float largest = -infinity(), sum = 0;

  struct Step {
    float base, fade;  // fade: what was summed before counts so much
  };
  VITRINE_DEVICE Step advance(float block_largest, float unit) {
    const float next = larger(block_largest, largest);
    const float base = next == -infinity() ? 0.0f : next * unit;  // nothing seen yet: all weights are zero
    const float fade = exp2_of(largest * unit - base);
    largest = next;
    sum *= fade;
    return {base, fade};
  }
  VITRINE_DEVICE float factor() const { return sum == 0.0f ? 0.0f : 1.0f / sum; }
};

// Of a thread's sums as tiles_mma.h has them: use(sum, r, j) for its row r and key j of the tile.
template <int kBlocks, typename Use>
VITRINE_DEVICE void each_sum(float (&s)[kBlocks][4], const Use& use) {
  VITRINE_UNROLL
  for (int n = 0; n < kBlocks; ++n) VITRINE_UNROLL
  for (int e = 0; e < 4; ++e) use(s[n][e], e / 2, 8 * n + lane_index() % 4 * 2 + e % 2);
}

// --- rows to shared memory -----------------------------------------------------------------------------------------------------

// `channels` of each row, a warp a row, zeros from `dim` on and where there is none.
template <typename T, typename RowOf>
VITRINE_DEVICE void fetch_elements(T* to, int threads, int rows, int pitch, int channels, int dim, const RowOf& row_of) {
  for (int row = warp_index(); row < rows; row += threads / kWarp) {
    const auto from = row_of(row);
    for (int c = lane_index(); c < channels; c += kWarp)
      to[row * pitch + c] = from_float<T>(from && c < dim ? to_float(from[c]) : 0.0f);
  }
}

// 1 / norm of rows there, four lanes a row.
template <typename T>
VITRINE_DEVICE void row_norms(const T* tile, int rows, int pitch, int dim, float* norms) {
  for (int i = thread_index(); i < 4 * rows; i += block_size()) {  // a multiple of 8 rows: whole warps
    const T* row = tile + i / 4 * pitch;
    float sum = 0;
    for (int c = i % 4; c < dim; c += 4) sum += to_float(row[c]) * to_float(row[c]);
    sum += shuffle_xor(sum, 1);
    sum += shuffle_xor(sum, 2);
    if (i % 4 == 0) norms[i / 4] = inverse_norm(sum);
  }
}

// --- a warp a query ------------------------------------------------------------------------------------------------------------

// Every 32nd channel of a row, from the lane's number on; zeros behind `dim`.
template <int kOfLane>
struct LaneRow {
  float at[kOfLane] = {};

  template <typename Row>
  VITRINE_DEVICE static LaneRow of(const Row& row, int dim) {
    LaneRow lanes;
    VITRINE_UNROLL
    for (int c = 0; c < kOfLane; ++c)
      if (const int channel = lane_index() + c * kWarp; row && channel < dim) lanes.at[c] = to_float(row[channel]);
    return lanes;
  }
  VITRINE_DEVICE void add(float factor, const LaneRow& o) {
    VITRINE_UNROLL
    for (int c = 0; c < kOfLane; ++c) at[c] += factor * o.at[c];
  }
  VITRINE_DEVICE void scale(float factor) {
    VITRINE_UNROLL
    for (int c = 0; c < kOfLane; ++c) at[c] *= factor;
  }
  // Rounds to the row's channels.
  template <typename T>
  VITRINE_DEVICE void store(T* row, int dim) const {
    VITRINE_UNROLL
    for (int c = 0; c < kOfLane; ++c)
      if (const int channel = lane_index() + c * kWarp; channel < dim) row[channel] = from_float<T>(at[c]);
  }
};
template <int kOfLane>
VITRINE_DEVICE float dot(const LaneRow<kOfLane>& a, const LaneRow<kOfLane>& b) {
  float sum = 0;
  VITRINE_UNROLL
  for (int c = 0; c < kOfLane; ++c) sum += a.at[c] * b.at[c];
  return warp_sum(sum);
}

// The weighted mean of values, under the running softmax of their logits.
template <int kOfLane>
struct LaneMean {
  RowState state;
  LaneRow<kOfLane> sum;

  VITRINE_DEVICE void add(float logit, const LaneRow<kOfLane>& value) {
    const RowState::Step step = state.advance(logit, kLog2e);
    const float weight = exp2_of(logit * kLog2e - step.base);
    state.sum += weight;
    sum.scale(step.fade);
    sum.add(weight, value);
  }
  VITRINE_DEVICE LaneRow<kOfLane> mean() const {
    LaneRow<kOfLane> row = sum;
    row.scale(state.factor());
    return row;
  }
};

}  // namespace vitrine::cuda
