// Attention in f32, exact: no tensor cores.
//
//                64 keys a step             a block: 64 queries of a head of a group; a thread (y, x) of 16 x 16 has
//               +--------------+              S   rows y + 16 i, keys x + 16 j
//               |      K       |              O   rows y + 16 i, channels 4 x + 64 c and the next three
//   +-------+   +--------------+
//   |   Q   | x |  S, then P   | x V = O    Q, P and a tile that is K's, then V's, are in shared memory; 16 lanes of one y
//   +-------+   +--------------+            share a row's maximum and sum
//
// Elements are read four at a time: 8 reads for 64 multiply-adds, so that these are the bound. Rows are 4 elements longer than
// their channels: the 16 bytes of eight neighboring rows lie in different banks.
#include <vitrine/attention2d/cuda/flash.h>

namespace vitrine::cuda::flash {

namespace {

constexpr int kThreads = 256, kTile = 64, kPad = 4, kWeightPitch = kTile + kPad;
using Four = Vector<float, 4>;

VITRINE_DEVICE Four four(const float* from) { return *reinterpret_cast<const Four*>(from); }

VITRINE_DEVICE int padded(int channels) { return (channels + 3) / 4 * 4; }

// Rows of q, k or v, zeros behind `dim` and where there is no row.
template <typename RowOf>
VITRINE_DEVICE void fetch_rows(float* to, int pitch, int dim, const RowOf& row_of) {
  const int channels = padded(dim);
  for (int row = warp_index(); row < kTile; row += kThreads / kWarp) {
    const float* from = row_of(row);
    for (int c = lane_index(); c < channels; c += kWarp) to[row * pitch + c] = from && c < dim ? from[c] : 0.0f;
  }
}
VITRINE_DEVICE void fetch_blends(const Problem& p, const Part& part, const View& view, int first, float* to, int pitch, int dim) {
  const float* map = row_at<float>(view, part.image, part.key_head, 0);
  const int channels = padded(dim);
  for (int row = warp_index(); row < kTile; row += kThreads / kWarp) {
    const Taps taps = taps_of(p, part, first + row);
    for (int c = lane_index(); c < channels; c += kWarp) to[row * pitch + c] = c < dim ? blend(taps, map, view.token, c) : 0.0f;
  }
}

// 1 / norm of each row of a tile, four lanes a row.
VITRINE_DEVICE void row_norms(const float* tile, int pitch, int dim, float* norms) {
  const int row = thread_index() / 4;
  float sum = 0;
  for (int c = thread_index() % 4; c < dim; c += 4) sum += tile[row * pitch + c] * tile[row * pitch + c];
  sum += shuffle_xor(sum, 1);
  sum += shuffle_xor(sum, 2);
  if (thread_index() % 4 == 0) norms[row] = inverse_norm(sum);
}

// kPieces: 64 channels of v each.
template <int kPieces>
VITRINE_KERNEL(kThreads)
void attention_f32_kernel(Problem p) {
  const int pitch = padded(p.dim > p.value_dim ? p.dim : p.value_dim) + kPad;
  auto* const q_tile = reinterpret_cast<float*>(shared_memory());
  float* const tile = q_tile + kTile * pitch;
  float* const weights = tile + kTile * pitch;
  float* const q_norm = weights + kTile * kWeightPitch;
  float* const k_norm = q_norm + kTile;

  const int tiles = (p.queries + kTile - 1) / kTile;
  const std::int64_t of_part = std::int64_t{block_index().x} / tiles;
  const int turn = static_cast<int>(block_index().x - of_part * tiles);
  const int first_query = (p.is_causal ? tiles - 1 - turn : turn) * kTile;  // the longest first
  const Part part = part_of(p, of_part);
  fetch_rows(q_tile, pitch, p.dim, [&](int row) -> const float* {
    const std::int64_t token = query_token(p, part, first_query + row);
    return token < 0 ? nullptr : row_at<float>(p.q, part.image, part.head, token);
  });
  barrier();
  if (p.is_cosine) row_norms(q_tile, pitch, p.dim, q_norm);
  barrier();

  const int y = thread_index() / 16, x = thread_index() % 16;
  LogitRow row[4];
  RowState state[4];
  VITRINE_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int query = first_query + y + 16 * i;
    row[i] = logit_row(p, part, query, query_token(p, part, query));
    if (p.is_cosine) row[i].scale *= q_norm[y + 16 * i];
    state[i] = {-infinity(), 0};
  }
  float o[kPieces][4][4] = {};
  const int last_query = first_query + kTile < p.queries ? first_query + kTile : p.queries;
  const int end = p.is_causal && last_query < p.keys ? last_query : p.keys;
  for (int first = 0; first < end; first += kTile) {
    barrier();  // nobody reads the tile any more
    if (p.boxes)
      fetch_blends(p, part, p.k, first, tile, pitch, p.dim);
    else
      fetch_rows(tile, pitch, p.dim, [&](int j) { return key_row<float>(p, part, p.k, p.pad_key, p.pad_key_head, first + j); });
    barrier();
    if (p.is_cosine) {
      row_norms(tile, pitch, p.dim, k_norm);
      barrier();
    }
    float s[4][4] = {};
    for (int c = 0; c < padded(p.dim); c += 4) {
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
      const int query = first_query + y + 16 * i;
      float largest = -infinity();
      VITRINE_UNROLL
      for (int j = 0; j < 4; ++j) {
        const int key = first + x + 16 * j;
        if (key >= end || (p.is_causal && key > query))
          s[i][j] = -infinity();
        else
          s[i][j] = logit(p, row[i], key, p.is_cosine ? s[i][j] * k_norm[x + 16 * j] : s[i][j]);
        largest = larger(s[i][j], largest);
      }
      for (int mask = 8; mask > 0; mask /= 2) largest = larger(largest, shuffle_xor(largest, mask));
      const RowState::Step step = state[i].advance(largest, kLog2e);
      VITRINE_UNROLL
      for (int j = 0; j < 4; ++j) {
        const float weight = exp2_of(s[i][j] * kLog2e - step.base);
        state[i].sum += weight;  // this lane's share of the row
        weights[(y + 16 * i) * kWeightPitch + x + 16 * j] = weight;
      }
      VITRINE_UNROLL
      for (int c = 0; c < kPieces; ++c) VITRINE_UNROLL
      for (int e = 0; e < 4; ++e) o[c][i][e] *= step.fade;
    }
    barrier();  // all have done with K
    if (p.boxes)
      fetch_blends(p, part, p.v, first, tile, pitch, p.value_dim);
    else
      fetch_rows(tile, pitch, p.value_dim,
                 [&](int j) { return key_row<float>(p, part, p.v, p.pad_value, p.pad_value_head, first + j); });
    barrier();
    const int keys = end - first < kTile ? padded(end - first) : kTile;
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
    const std::int64_t token = query_token(p, part, first_query + y + 16 * i);
    if (token < 0) continue;
    float* to = const_cast<float*>(row_at<float>(p.out, part.image, part.head, token));
    VITRINE_UNROLL
    for (int c = 0; c < kPieces; ++c) VITRINE_UNROLL
    for (int e = 0; e < 4; ++e)
      if (const int channel = 64 * c + 4 * x + e; channel < p.value_dim) to[channel] = o[c][i][e] * state[i].factor();
  }
}

}  // namespace

void attend_f32(const Problem& p, const Tensor& shown) {
  const int widest = p.dim > p.value_dim ? p.dim : p.value_dim;
  const auto pitch = static_cast<std::size_t>((widest + 3) / 4 * 4 + kPad);
  const Launch l{.op = p.op,
                 .x = shown,
                 .grid = p.parts() * blocks_for(p.queries, kTile),
                 .threads = kThreads,
                 .shared_bytes = (2 * kTile * pitch + kTile * kWeightPitch + 2 * kTile) * sizeof(float)};
  p.value_dim <= 64 ? launch(l, attention_f32_kernel<1>, p) : launch(l, attention_f32_kernel<2>, p);
}

}  // namespace vitrine::cuda::flash
