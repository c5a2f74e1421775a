// Fused aggregated attention: lanes are neighboring positions of a padded map.
//
// A band of rows is packed with the rows and columns that its windows reach over, zeros outside of the map:
//
//   position i = y pitch + x of the padded band, pitch = width + window - 1;  keys[d][i], values[d][i], wall[i] = 0 or -inf
//   the key at (dy, dx) of the query at i is at i + dy pitch + dx, whatever i: lanes run over the ends of rows, where
//   window - 1 of them a row are wasted
//
// Logits of a tile (local ones, then pooled ones), [window^2 + pooled][lanes], are kept whole: softmax is across vectors,
// never across lanes. Pooled keys and values are broadcast one number at a time, as in a matrix product.
#include <vitrine/attention2d/cpu/aggregated.h>

#include <vitrine/attention2d/cpu/integers.h>
#include <vitrine/attention2d/cpu/tile.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

// Sums that stay in registers: kChunk keys (or channels) of kVectors vectors of queries.
#if defined(VITRINE_TARGET_AVX512)
constexpr int kVectors = 2, kChunk = 8;
#elif defined(VITRINE_TARGET_AVX2)
constexpr int kVectors = 2, kChunk = 4;
#else
constexpr int kVectors = 8, kChunk = 4;
#endif
constexpr i64 kTile = kVectors * kLanes;
constexpr i64 kBand = 256;  // positions of a band, at least: packing its edges and the pooled keys is then little beside it
constexpr float kLog2e = 1.44269504088896341f;

struct Layout {
  i64 pitch, rows, bands;  // rows of queries in a band
  i64 step;                // positions of a packed channel, with room for the last tile
  i64 k_at, v_at, wall_at, pooled_k_at, pooled_v_at, q_at, qs_at, logits_at, extra_at, out_at, words;
};

Layout layout_of(const AggregatedProblem& p) {
  Layout l;
  l.pitch = p.size[1] + p.window - 1;
  const i64 wanted = min_of(p.size[0], ceil_div(kBand, l.pitch));
  l.bands = ceil_div(p.size[0], wanted);
  l.rows = ceil_div(p.size[0], l.bands);
  l.step = round_up((l.rows + p.window - 1) * l.pitch + p.window + kTile, 16);
  const i64 area = p.window * p.window, pooled = round_up(p.pooled, kChunk), dim = round_up(p.dim, kChunk);
  i64 at = 0;
  const auto take = [&at](i64 words) {
    const i64 begin = at;
    at += round_up(words, 16);
    return begin;
  };
  l.k_at = take(p.dim * l.step);
  l.v_at = take(dim * l.step);
  l.wall_at = take(l.step);
  l.pooled_k_at = take(pooled * p.dim);
  l.pooled_v_at = take(pooled * dim);
  l.q_at = take(p.dim * kTile);
  l.qs_at = take(p.dim * kTile);
  l.logits_at = take((area + pooled) * kTile);
  l.extra_at = take(area * kTile);
  l.out_at = take(dim * kTile);
  l.words = at;
  return l;
}

template <typename T>
class Band {
 public:
  Band(const AggregatedProblem& problem, const Layout& layout, float* workspace) : p(problem), l(layout), w(workspace) {
    area = p.window * p.window;
    reach = p.window / 2;
    pooled = round_up(p.pooled, kChunk);
    dim = round_up(p.dim, kChunk);
    zeros_until(0, l.words);  // zeros beyond dim and pooled stay
  }

  void attend(i64 image_index, i64 head_index, i64 band) {
    image = image_index;
    head = head_index;
    first = p.size[0] * band / l.bands;
    rows = p.size[0] * (band + 1) / l.bands - first;
    pack_pooled();
    for (i64 y = 0; y < rows + p.window - 1; ++y) pack_row(y);
    const i64 positions = (rows - 1) * l.pitch + p.size[1];
    for (i64 at = 0; at < positions; at += kTile) attend_tile(at, min_of(kTile, positions - at));
  }

 private:
  const AggregatedProblem& p;
  const Layout& l;
  float* w;
  i64 area, reach, pooled, dim, image = 0, head = 0, first = 0, rows = 0;

  void zeros_until(i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) w[i] = 0;
  }
  const T* token(const GridView& view, i64 y, i64 x) const {
    return static_cast<const T*>(view.data) + image * view.image + y * view.axis[1] + x * view.axis[2] + head * view.head;
  }

  // Rows of kLanes tokens (null: zeros), transposed into to[d * step + lane].
  static void pack_lanes(const T* const (&from)[kLanes], i64 channels, float* to, i64 step) {
    store_transposed(to, step, 0, channels,
                     [&](int lane, i64 d, int n) { return from[lane] ? load_part(from[lane] + d, n) : zero(); });
  }

  // Row y of the padded band: map row first + y - reach. Lanes past a row's end are written by the next row or never read.
  void pack_row(i64 y) {
    const i64 at = y * l.pitch, map_y = first + y - reach;
    const bool inside = map_y >= 0 && map_y < p.size[0];
    float* wall = w + l.wall_at + at;
    for (i64 x = 0; x < l.pitch; ++x) {
      const bool seen = inside && x >= reach && x < reach + p.size[1];
      wall[x] = seen ? 0.0f : -__builtin_inff();
    }
    for (i64 x = 0; x < l.pitch; x += kLanes) {
      const T *keys[kLanes], *values[kLanes];
      for (i64 lane = 0; lane < kLanes; ++lane) {
        const i64 map_x = x + lane - reach;
        const bool seen = inside && map_x >= 0 && map_x < p.size[1];
        keys[lane] = seen ? token(p.k, map_y, map_x) : nullptr;
        values[lane] = seen ? token(p.v, map_y, map_x) : nullptr;
      }
      float* k = w + l.k_at + at + x;
      pack_lanes(keys, p.dim, k, l.step);
      pack_lanes(values, p.dim, w + l.v_at + at + x, l.step);
      const Vf factor = unit_factor(k, l.step);
      for (i64 d = 0; d < p.dim; ++d) store(k + d * l.step, mul(load(k + d * l.step), factor));
    }
  }

  // 1 / max(norm, 1e-12) of each lane's vector.
  Vf unit_factor(const float* x, i64 step) const {
    Vf sum = zero();
    for (i64 d = 0; d < p.dim; ++d) sum = fma(load(x + d * step), load(x + d * step), sum);
    return div(set1(1.0f), max(sqrt(sum), set1(1e-12f)));
  }

  // Keys [pooled / kChunk][dim][kChunk] of length one, values [pooled][dim].
  void pack_pooled() {
    for (i64 j = 0; j < p.pooled; ++j) {
      const T *key = token(p.pooled_k, 0, j), *value = token(p.pooled_v, 0, j);
      float* k = w + l.pooled_k_at + j / kChunk * kChunk * p.dim + j % kChunk;
      float* v = w + l.pooled_v_at + j * dim;
      Vf squares = zero();
      for (i64 d = 0; d < p.dim; d += kLanes) {
        const int n = static_cast<int>(min_of(kLanes, p.dim - d));
        const Vf x = load_part(key + d, n);
        squares = fma(x, x, squares);
        store_part(v + d, load_part(value + d, n), n);
        float row[kLanes];
        store(row, x);
        for (int i = 0; i < n; ++i) k[(d + i) * kChunk] = row[i];
      }
      const float norm = __builtin_sqrtf(reduce_add(squares)), factor = 1.0f / (norm > 1e-12f ? norm : 1e-12f);
      for (i64 d = 0; d < p.dim; ++d) k[d * kChunk] *= factor;
    }
  }

  // Calls body(lane, count, y, x) for the runs of a tile's lanes that are queries of one row.
  template <typename Body>
  void for_runs(i64 at, i64 count, const Body& body) const {
    for (i64 lane = 0; lane < count;) {
      const i64 y = (at + lane) / l.pitch, x = (at + lane) % l.pitch;
      const i64 n = min_of(count - lane, (x < p.size[1] ? p.size[1] : l.pitch) - x);
      if (x < p.size[1]) body(lane, n, y, x);
      lane += n;
    }
  }

  // Normalized queries, and those with embedding, temperature and length, in units of log2.
  void pack_queries(i64 at, i64 count) {
    const T* from[kTile];
    alignas(64) float length[kTile];
    for (i64 lane = 0; lane < kTile; ++lane) from[lane] = nullptr, length[lane] = 0;
    const auto seen = [&](i64 position, i64 size) {
      return min_of(size, position + p.window - reach) - max_of(0, position - reach);
    };
    for_runs(at, count, [&](i64 lane, i64 n, i64 y, i64 x) {
      for (i64 i = 0; i < n; ++i) {
        from[lane + i] = token(p.q, first + y, x + i);
        length[lane + i] = p.log_of_seen[seen(first + y, p.size[0]) * seen(x + i, p.size[1])];
      }
    });
    const float* embedding = p.query_embedding + head * p.dim;
    for (i64 lane = 0; lane < kTile; lane += kLanes) {
      const T* row[kLanes];
      for (int i = 0; i < kLanes; ++i) row[i] = from[lane + i];
      float *q = w + l.q_at + lane, *qs = w + l.qs_at + lane;
      pack_lanes(row, p.dim, q, kTile);
      const Vf unit = unit_factor(q, kTile), scale = mul(load(length + lane), set1(p.temperature[head] * kLog2e));
      for (i64 d = 0; d < p.dim; ++d) {
        const Vf x = mul(load(q + d * kTile), unit);
        store(q + d * kTile, x);
        store(qs + d * kTile, mul(add(x, set1(embedding[d])), scale));
      }
    }
  }

  // kN local offsets of window row dy from dx on: logits, and the learnable term beside the softmax.
  template <int kN>
  void local_logits(i64 at, i64 dy, i64 dx) {
    const i64 offset = dy * p.window + dx;
    const float* keys = w + l.k_at + at + dy * l.pitch + dx;
    const float* tokens = p.learnable_tokens + head * p.dim * area + offset;
    const float *bias = p.local_bias + head * area + offset, *extra_bias = p.learnable_bias + head * area + offset;
    const float* wall = w + l.wall_at + at + dy * l.pitch + dx;
    for (i64 lane = 0; lane < kTile; lane += kLanes) {
      Vf logit[kN], extra[kN];
      for (int j = 0; j < kN; ++j) logit[j] = zero(), extra[j] = set1(extra_bias[j]);
      const float *q = w + l.q_at + lane, *qs = w + l.qs_at + lane;
      for (i64 d = 0; d < p.dim; ++d) {
        const Vf query = load(q + d * kTile), scaled = load(qs + d * kTile);
        const float* key = keys + d * l.step + lane;
#pragma GCC unroll 8
        for (int j = 0; j < kN; ++j) {
          logit[j] = fma(scaled, load(key + j), logit[j]);
          extra[j] = fma(query, set1(tokens[d * area + j]), extra[j]);
        }
      }
      for (int j = 0; j < kN; ++j) {
        store(w + l.logits_at + (offset + j) * kTile + lane,
              add(fma(set1(bias[j]), set1(kLog2e), logit[j]), load(wall + lane + j)));
        store(w + l.extra_at + (offset + j) * kTile + lane, extra[j]);
      }
    }
  }

  void pooled_logits(i64 at, i64 count) {
    float* logits = w + l.logits_at + area * kTile;
    for (i64 j = 0; j < pooled; j += kChunk) {
      const float* key = w + l.pooled_k_at + j * p.dim;
      const float* q = w + l.qs_at;
      Vf sum[kChunk][kVectors];
#pragma GCC unroll 8
      for (int i = 0; i < kChunk; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[i][v] = zero();
      for (i64 d = 0; d < p.dim; ++d, q += kTile, key += kChunk) {
        Vf query[kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) query[v] = load(q + v * kLanes);
#pragma GCC unroll 8
        for (int i = 0; i < kChunk; ++i) {
          const Vf one = set1(key[i]);
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) sum[i][v] = fma(query[v], one, sum[i][v]);
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < kChunk; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) store(logits + (j + i) * kTile + v * kLanes, sum[i][v]);
    }
    const i64 tokens = p.size[0] * p.size[1];
    for_runs(at, count, [&](i64 lane, i64 n, i64 y, i64 x) {
      const float* bias = p.pool_bias + head * p.pooled * tokens + (first + y) * p.size[1] + x;
      for (i64 j = 0; j < p.pooled; ++j) {
        float* row = logits + j * kTile + lane;
        for (i64 i = 0; i < n; i += kLanes) {
          const int part = static_cast<int>(min_of(kLanes, n - i));
          store_part(row + i, fma(load_part(bias + j * tokens + i, part), set1(kLog2e), load_part(row + i, part)), part);
        }
      }
    });
  }

  // Weights in the place of the logits; the local ones with the learnable term.
  void softmax() {
    float* logits = w + l.logits_at;
    for (i64 lane = 0; lane < kTile; lane += kLanes) {
      Vf largest = load(logits + area * kTile + lane);  // a pooled key: always seen
      for (i64 j = 0; j < area + p.pooled; ++j) largest = max(largest, load(logits + j * kTile + lane));
      Vf sum = zero();
      for (i64 j = 0; j < area + p.pooled; ++j) {
        const Vf weight = exp2_negative<5>(sub(load(logits + j * kTile + lane), largest));
        store(logits + j * kTile + lane, weight);
        sum = add(sum, weight);
      }
      const Vf factor = div(set1(1.0f), sum);
      for (i64 j = 0; j < area; ++j) {
        float* weight = logits + j * kTile + lane;
        store(weight, fma(load(weight), factor, load(w + l.extra_at + j * kTile + lane)));
      }
      for (i64 j = area; j < area + p.pooled; ++j) store(logits + j * kTile + lane, mul(load(logits + j * kTile + lane), factor));
    }
  }

  // kChunk channels of the outputs from d on.
  void add_values(i64 at, i64 d) {
    Vf sum[kChunk][kVectors];
#pragma GCC unroll 8
    for (int i = 0; i < kChunk; ++i)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[i][v] = zero();
    const float* weights = w + l.logits_at;
    for (i64 dy = 0; dy < p.window; ++dy)
      for (i64 dx = 0; dx < p.window; ++dx, weights += kTile) {
        const float* values = w + l.v_at + d * l.step + at + dy * l.pitch + dx;
        Vf weight[kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) weight[v] = load(weights + v * kLanes);
#pragma GCC unroll 8
        for (int i = 0; i < kChunk; ++i)
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) sum[i][v] = fma(weight[v], load(values + i * l.step + v * kLanes), sum[i][v]);
      }
    const float* values = w + l.pooled_v_at + d;
    for (i64 j = 0; j < p.pooled; ++j, weights += kTile, values += dim) {
      Vf weight[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) weight[v] = load(weights + v * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < kChunk; ++i) {
        const Vf one = set1(values[i]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[i][v] = fma(weight[v], one, sum[i][v]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kChunk; ++i)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) store(w + l.out_at + (d + i) * kTile + v * kLanes, sum[i][v]);
  }

  void write(i64 at, i64 count) const {
    T* to[kTile] = {};
    for_runs(at, count, [&](i64 lane, i64 n, i64 y, i64 x) {
      for (i64 i = 0; i < n; ++i) to[lane + i] = const_cast<T*>(token(p.out, first + y, x + i));
    });
    for (i64 lane = 0; lane < count; lane += kLanes)
      load_transposed(
          kLanes, p.dim, [&](i64 d) { return load(w + l.out_at + d * kTile + lane); },
          [&](int i, i64 d, int n, Vf v) {
            if (to[lane + i]) store_part(to[lane + i] + d, v, n);
          });
  }

  void attend_tile(i64 at, i64 count) {
    pack_queries(at, count);
    for (i64 dy = 0; dy < p.window; ++dy) {
      i64 dx = 0;
      for (; dx + 3 <= p.window; dx += 3) local_logits<3>(at, dy, dx);
      for (; dx < p.window; ++dx) local_logits<1>(at, dy, dx);
    }
    pooled_logits(at, count);
    softmax();
    for (i64 d = 0; d < p.dim; d += kChunk) add_values(at, d);
    write(at, count);
  }
};

template <typename T>
void run_typed(const AggregatedProblem& p, i64 begin, i64 end, float* workspace) {
  const Layout l = layout_of(p);
  Band<T> band(p, l, workspace);
  for (i64 item = begin; item < end; ++item) band.attend(item / l.bands / p.heads, item / l.bands % p.heads, item % l.bands);
}

i64 items(const AggregatedProblem& p) { return p.images * p.heads * layout_of(p).bands; }

i64 workspace_bytes(const AggregatedProblem& p) { return layout_of(p).words * static_cast<i64>(sizeof(float)); }

void run(const AggregatedProblem& p, i64 begin, i64 end, void* workspace) {
  float* words = static_cast<float*>(workspace);
  switch (p.type) {
    case FloatType::f32:
      return run_typed<float>(p, begin, end, words);
    case FloatType::bf16:
      return run_typed<Bf16>(p, begin, end, words);
    case FloatType::f16:
      return run_typed<F16>(p, begin, end, words);
  }
}

}  // namespace

AggregatedKernel aggregated_kernel() { return {items, workspace_bytes, run}; }

}  // namespace vitrine::cpu::VITRINE_TARGET
