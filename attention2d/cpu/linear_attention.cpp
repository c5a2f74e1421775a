// Linear attention in up to three stages:
//
//   states   a chunk of keys, head by head:   S += phi(K)^T V      64 tokens at a time, S stays in the L1 cache
//   merge    a head:                          the chunks' states in order, then what the rule makes of S and z
//   apply    64 queries, head by head:        out = phi(Q) S
//
// Features of 64 tokens, and their rows of V, are written to the workspace as f32: rows of a fused projection are kilobytes
// apart and would share a few sets of the L1 cache. Features are broadcast from there; rows of V (in S += ...) and of S (in
// phi(Q) S) are the vectors. While a tile is multiplied, the next one is asked for.
// Where the keys are one chunk, an item is a head and does all three.
#include <vitrine/attention2d/cpu/linear_attention.h>

#include <vitrine/attention2d/cpu/integers.h>
#include <vitrine/attention2d/cpu/tile.h>
#include <vitrine/layers/cpu/activations.h>
#include <vitrine/layers/cpu/vectors.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

// 8 x 2 sums hide the latency of a multiply-add with either register file's room to spare.
#if defined(VITRINE_TARGET_AVX512)
constexpr int kRows = 8;
#else
constexpr int kRows = 4;
#endif
constexpr i64 kTile = 64;             // tokens whose features are in the workspace
constexpr i64 kTileFeatures = 16384;  // floats of them at most, or 8 tokens
constexpr i64 kChunk = 256, kMostChunks = 64;

i64 features_of(FeatureMap map, i64 dim) {
  if (map == FeatureMap::taylor1) return 1 + dim;
  if (map == FeatureMap::taylor2) return 1 + dim + dim * (dim + 1) / 2;
  return dim;
}

template <typename T>
const T* row_at(const HeadsView& x, i64 image, i64 head, i64 token) {
  return static_cast<const T*>(x.data) + image * x.image + head * x.head + token * x.token;
}

// --- features ---------------------------------------------------------------------------------------------------

template <typename T>
struct Tokens {
  const T* row;
  i64 step, count, dim;
};

struct Elu1 {  // both sides of x + 1 = 1 + min(x, 0) and e^x agree at 0
  static Vf apply(Vf x) { return select_less(zero(), x, add(x, set1(1.0f)), exp(x)); }
};
struct Exp {
  static Vf apply(Vf x) { return exp(x); }
};

template <typename Map, typename T>
void map_each(const Tokens<T>& x, float scale, float* to, i64 step) {
  const Vf s = set1(scale);
  const T* row = x.row;
  for (i64 j = 0; j < x.count; ++j, row += x.step, to += step)
    for_vectors(x.dim, [&](i64 d, int n) { store_lanes(to + d, Map::apply(mul(load_lanes(row + d, n), s)), n); });
}

void softmax_row(float* row, i64 dim) {
  Vf most = set1(-__builtin_inff());
  for_vectors(dim, [&](i64 d, int n) { most = max(most, keep_n(load_lanes(row + d, n), n, most)); });
  const Vf largest = set1(reduce_max(most));
  Vf sum = zero();
  for_vectors(dim, [&](i64 d, int n) {
    const Vf e = exp(sub(load_lanes(row + d, n), largest));
    store_lanes(row + d, e, n);
    sum = add(sum, keep_n(e, n, zero()));
  });
  const Vf factor = set1(1.0f / reduce_add(sum));
  for_vectors(dim, [&](i64 d, int n) { store_lanes(row + d, mul(load_lanes(row + d, n), factor), n); });
}

// (1, x), and then the products of channels a <= b, those of a = b by sqrt(1/2): (q.k)^2 / 2 has the others twice.
template <typename T>
void taylor_rows(const Tokens<T>& x, float scale, bool second, float* to, i64 step) {
  const Vf s = set1(scale);
  const T* row = x.row;
  for (i64 j = 0; j < x.count; ++j, row += x.step, to += step) {
    to[0] = 1.0f;
    float* first = to + 1;
    for_vectors(x.dim, [&](i64 d, int n) { store_lanes(first + d, mul(load_lanes(row + d, n), s), n); });
    if (!second) continue;
    float* product = first + x.dim;
    for (i64 a = 0; a < x.dim; ++a) {
      const Vf factor = set1(first[a]);
      for_vectors(x.dim - a, [&](i64 d, int n) { store_lanes(product + d, mul(load_lanes(first + a + d, n), factor), n); });
      product[0] *= 0.70710678118654752f;
      product += x.dim - a;
    }
  }
}

// The largest of each channel, for token_softmax.
template <typename T>
void column_largest(const Tokens<T>& x, float scale, float* largest) {
  const Vf s = set1(scale);
  for_vectors(x.dim, [&](i64 d, int n) {
    Vf most = load_lanes(largest + d, n);
    for (i64 j = 0; j < x.count; ++j) most = max(most, mul(load_lanes(x.row + j * x.step + d, n), s));
    store_lanes(largest + d, most, n);
  });
}
template <typename T>
void token_softmax_rows(const Tokens<T>& x, float scale, const float* largest, float* to, i64 step) {
  const Vf s = set1(scale);
  for_vectors(x.dim, [&](i64 d, int n) {
    const Vf most = load_lanes(largest + d, n);
    for (i64 j = 0; j < x.count; ++j)
      store_lanes(to + j * step + d, exp(sub(mul(load_lanes(x.row + j * x.step + d, n), s), most)), n);
  });
}

// phi of the tokens' rows to rows `step` apart. `largest`: of token_softmax, whose sum is divided by later.
template <typename T>
void write_features(FeatureMap map, const Tokens<T>& x, float scale, const float* largest, float* to, i64 step) {
  switch (map) {
    case FeatureMap::identity:
      return map_each<None>(x, scale, to, step);
    case FeatureMap::relu:
      return map_each<Relu>(x, scale, to, step);
    case FeatureMap::elu1:
      return map_each<Elu1>(x, scale, to, step);
    case FeatureMap::leaky_relu:
      return map_each<LeakyRelu>(x, scale, to, step);
    case FeatureMap::exp:
      return map_each<Exp>(x, scale, to, step);
    case FeatureMap::sigmoid:
      return map_each<Sigmoid>(x, scale, to, step);
    case FeatureMap::channel_softmax:
      map_each<None>(x, scale, to, step);
      for (i64 j = 0; j < x.count; ++j) softmax_row(to + j * step, x.dim);
      return;
    case FeatureMap::token_softmax:
      return token_softmax_rows(x, scale, largest, to, step);
    case FeatureMap::taylor1:
    case FeatureMap::taylor2:
      return taylor_rows(x, scale, map == FeatureMap::taylor2, to, step);
  }
}

void weight_rows(float* rows, i64 step, i64 count, i64 columns, const float* weights) {
  for (i64 j = 0; j < count; ++j, rows += step) {
    const Vf w = set1(weights[j]);
    for_vectors(columns, [&](i64 d, int n) { store_lanes(rows + d, mul(load_lanes(rows + d, n), w), n); });
  }
}

// Neighbouring channels (a, b) -> (a cos - b sin, b cos + a sin).
void rotate_rows(float* rows, i64 step, i64 count, i64 dim, const float* sin, const float* cos) {
  for (i64 j = 0; j < count; ++j, rows += step, sin += dim, cos += dim) {
#if defined(VITRINE_TARGET_AVX2) || defined(VITRINE_TARGET_AVX512)
    for_vectors(dim, [&](i64 d, int n) {
      const Vf x = load_lanes(rows + d, n), turned = mul(swap_pairs(x), load_lanes(sin + d, n));
      store_lanes(rows + d, fma_add_sub(x, load_lanes(cos + d, n), turned), n);
    });
#else
    for (i64 d = 0; d < dim; d += 2) {
      const float a = rows[d], b = rows[d + 1];
      rows[d] = a * cos[d] - b * sin[d];
      rows[d + 1] = b * cos[d + 1] + a * sin[d + 1];
    }
#endif
  }
}

void add_columns(const Tokens<float>& x, float* sums) {
  for_vectors(x.dim, [&](i64 d, int n) {
    Vf sum = load_lanes(sums + d, n);
    for (i64 j = 0; j < x.count; ++j) sum = add(sum, load_lanes(x.row + j * x.step + d, n));
    store_lanes(sums + d, sum, n);
  });
}

float dot(const float* a, const float* b, i64 count) {
  Vf sum = zero();
  for_vectors(count, [&](i64 d, int n) { sum = fma(load_lanes(a + d, n), load_lanes(b + d, n), sum); });
  return reduce_add(sum);
}

void fill(float* to, i64 count, float value) {
  for (i64 i = 0; i < count; ++i) to[i] = value;
}

// --- products ---------------------------------------------------------------------------------------------------

// C[kR][kV vectors] (+)= A[kR][k] B[k][kV vectors]. A's element (r, i) is a[r * step + i], or with kTransposed a[i * step + r].
template <bool kTransposed, int kR, int kV>
void multiply(i64 k, const float* a, i64 a_step, const float* b, i64 b_step, float* c, i64 c_step, bool accumulate) {
  Vf sum[kR][kV];
#pragma GCC unroll 8
  for (int r = 0; r < kR; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kV; ++v) sum[r][v] = accumulate ? load(c + r * c_step + v * kLanes) : zero();
  for (i64 i = 0; i < k; ++i, b += b_step, a += kTransposed ? a_step : 1) {
    Vf column[kV];
#pragma GCC unroll 2
    for (int v = 0; v < kV; ++v) column[v] = load(b + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) {
      const Vf element = set1(a[kTransposed ? r : r * a_step]);
#pragma GCC unroll 2
      for (int v = 0; v < kV; ++v) sum[r][v] = fma(element, column[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kR; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kV; ++v) store(c + r * c_step + v * kLanes, sum[r][v]);
}

template <bool kTransposed, int kR>
void multiply_rows(int rows, i64 k, const float* a, i64 a_step, const float* b, float* c, i64 step, i64 columns,
                   bool accumulate) {
  if constexpr (kR > 1) {
    if (rows < kR) return multiply_rows<kTransposed, kR - 1>(rows, k, a, a_step, b, c, step, columns, accumulate);
  }
  for (i64 at = 0; at < columns; at += 2 * kLanes) {
    if (columns - at > kLanes)
      multiply<kTransposed, kR, 2>(k, a, a_step, b + at, step, c + at, step, accumulate);
    else
      multiply<kTransposed, kR, 1>(k, a, a_step, b + at, step, c + at, step, accumulate);
  }
}

// Rows that are needed next, asked for a few at a time: all at once would wait for each other, and no hardware prefetcher
// follows rows that are kilobytes apart.
template <typename T>
struct Ahead {
  const T* row;
  i64 step, count, columns;

  void fetch(i64 part, i64 parts) const {
    for (i64 j = count * part / parts; j < count * (part + 1) / parts; ++j) prefetch(row + j * step, columns);
  }
};

// C [rows][columns] (+)= A B; rows of B and C are padded to whole vectors, `step` apart.
template <bool kTransposed>
void multiply_all(i64 rows, i64 k, const float* a, i64 a_step, const float* b, float* c, i64 step, i64 columns, bool accumulate,
                  const auto&... ahead) {
  const i64 groups = ceil_div(rows, kRows);
  for (i64 g = 0; g < groups; ++g) {
    (ahead.fetch(g, groups), ...);
    const i64 at = rows * g / groups, count = rows * (g + 1) / groups - at;
    multiply_rows<kTransposed, kRows>(static_cast<int>(count), k, a + at * (kTransposed ? 1 : a_step), a_step, b, c + at * step,
                                      step, columns, accumulate);
  }
}

// --- stages -----------------------------------------------------------------------------------------------------

struct Layout {
  i64 features, columns;                                  // of S
  i64 feature_step, column_step;                          // floats between rows of features; of S and of results
  i64 tile, chunk, chunks, tiles;                         // tokens of a tile; of a chunk of keys; how many; tiles of queries
  i64 z_at, largest_at, total_at, state;                  // within a state, after S; its floats
  i64 phi_at, result_at, factor_at, state_at, workspace;  // within the workspace; its floats
};

Layout layout_of(const LinearAttentionProblem& p) {
  Layout l;
  l.features = features_of(p.key_map, p.dim);
  l.columns = p.value_dim;
  l.feature_step = round_up(l.features, 16);
  l.column_step = round_up(l.columns, 16);
  l.tile = max_of(8, min_of(kTile, kTileFeatures / l.feature_step));
  // as many keys a chunk as pay for its state
  l.chunk = round_up(max_of(kChunk, max_of(l.features, ceil_div(p.keys, kMostChunks))), l.tile);
  l.chunks = max_of(1, ceil_div(p.keys, l.chunk));
  l.tiles = ceil_div(p.queries, l.tile);
  l.z_at = l.features * l.column_step;
  l.largest_at = l.z_at + l.feature_step;
  l.total_at = l.largest_at + l.feature_step;
  l.state = l.total_at + l.column_step;
  l.phi_at = 0;
  l.result_at = l.tile * l.feature_step;
  l.factor_at = l.result_at + l.tile * l.column_step;
  l.state_at = l.factor_at + round_up(l.tile, 16);
  l.workspace = l.state_at + l.state;
  return l;
}

// S, z and what else the rule needs, of keys [first, end).
template <typename T>
void sum_state(const LinearAttentionProblem& p, const Layout& l, i64 image, i64 head, i64 first, i64 end, float* state,
               float* workspace) {
  float *z = state + l.z_at, *largest = state + l.largest_at, *total = state + l.total_at, *phi = workspace + l.phi_at,
        *v = workspace + l.result_at;
  fill(z, l.features, 0.0f);
  fill(total, l.columns, 0.0f);
  const float* weights = p.key_weights ? p.key_weights + (image * p.heads + head) * p.keys : nullptr;
  if (p.key_map == FeatureMap::token_softmax) {
    fill(largest, p.dim, -__builtin_inff());
    column_largest<T>({row_at<T>(p.k, image, head, first), p.k.token, end - first, p.dim}, p.feature_scale, largest);
  }
  for (i64 j = first; j < end; j += l.tile) {
    const i64 count = min_of(l.tile, end - j);
    write_features<T>(p.key_map, {row_at<T>(p.k, image, head, j), p.k.token, count, p.dim}, p.feature_scale, largest, phi,
                      l.feature_step);
    if (weights) weight_rows(phi, l.feature_step, count, l.features, weights + j);
    add_columns({phi, l.feature_step, count, l.features}, z);
    if (p.sin) rotate_rows(phi, l.feature_step, count, p.dim, p.sin + j * p.dim, p.cos + j * p.dim);
    map_each<None, T>({row_at<T>(p.v, image, head, j), p.v.token, count, l.columns}, 1.0f, v, l.column_step);
    // the next tile of this head, or the first one of the next
    const i64 next = j + count < end ? j + count : first, next_head = j + count < end ? head : head + 1;
    const i64 next_count = next_head < p.heads ? min_of(l.tile, end - next) : 0;
    const Ahead<T> k_ahead{row_at<T>(p.k, image, next_head, next), p.k.token, next_count, p.dim};
    const Ahead<T> v_ahead{row_at<T>(p.v, image, next_head, next), p.v.token, next_count, l.columns};
    if (p.rule == StateRule::centred) add_columns({v, l.column_step, count, l.columns}, total);
    multiply_all<true>(l.features, count, phi, l.feature_step, v, state, l.column_step, l.columns, j > first, k_ahead, v_ahead);
  }
}

// state += other, of later keys. Sums of token_softmax have each their own largest.
void add_state(const LinearAttentionProblem& p, const Layout& l, float* state, float* other) {
  if (p.key_map == FeatureMap::token_softmax) {
    float *largest = state + l.largest_at, *others = other + l.largest_at;
    const auto scale_row = [&](float* of, i64 f, float factor) {
      of[l.z_at + f] *= factor;
      for (i64 c = 0; c < l.column_step; ++c) of[f * l.column_step + c] *= factor;
    };
    for (i64 f = 0; f < l.features; ++f) {
      alignas(64) float factor[kLanes];
      store(factor, exp(set1(-__builtin_fabsf(largest[f] - others[f]))));
      scale_row(largest[f] < others[f] ? state : other, f, factor[0]);
      largest[f] = largest[f] < others[f] ? others[f] : largest[f];
    }
  }
  for_vectors(l.z_at + l.features,
              [&](i64 i, int n) { store_lanes(state + i, add(load_lanes(state + i, n), load_lanes(other + i, n)), n); });
  for_vectors(l.columns, [&](i64 c, int n) {
    float* total = state + l.total_at + c;
    store_lanes(total, add(load_lanes(total, n), load_lanes(other + l.total_at + c, n)), n);
  });
}

void multiply_row(float* row, i64 columns, float factor) {
  const Vf f = set1(factor);
  for_vectors(columns, [&](i64 c, int n) { store_lanes(row + c, mul(load_lanes(row + c, n), f), n); });
}

void finish_state(const LinearAttentionProblem& p, const Layout& l, float* state) {
  float *z = state + l.z_at, *total = state + l.total_at;
  if (p.rule == StateRule::centred) multiply_row(total, l.columns, 1.0f / static_cast<float>(p.keys));
  for (i64 f = 0; f < l.features; ++f) {
    float* row = state + f * l.column_step;
    float factor = p.numerator;
    if (p.rule == StateRule::centred) {
      const Vf sum = set1(z[f]);
      for_vectors(l.columns,
                  [&](i64 c, int n) { store_lanes(row + c, fnma(sum, load_lanes(total + c, n), load_lanes(row + c, n)), n); });
    }
    if (p.key_map == FeatureMap::token_softmax) {
      factor /= z[f];
      z[f] = 1.0f;
    }
    if (factor != 1.0f) multiply_row(row, l.columns, factor);
    if (p.rule == StateRule::channel_softmax) softmax_row(row, l.columns);
  }
  if (p.rule == StateRule::ratio) multiply_row(z, l.features, p.denominator);
  if (p.rule == StateRule::channel_softmax) {
    for (i64 r = 0; r < l.features; ++r)
      for (i64 c = 0; c < r; ++c) {
        float &a = state[r * l.column_step + c], &b = state[c * l.column_step + r];
        const float kept = a;
        a = b;
        b = kept;
      }
  }
}

// out of queries [first, first + count).
template <typename T>
void apply_state(const LinearAttentionProblem& p, const Layout& l, i64 image, i64 head, i64 first, i64 count, const float* state,
                 float* workspace) {
  float *phi = workspace + l.phi_at, *result = workspace + l.result_at, *factor = workspace + l.factor_at;
  write_features<T>(p.query_map, {row_at<T>(p.q, image, head, first), p.q.token, count, p.dim}, p.feature_scale, nullptr, phi,
                    l.feature_step);
  fill(factor, count, 1.0f);
  if (p.query_weights) {
    const float* weights = p.query_weights + (image * p.heads + head) * p.queries + first;
    for (i64 i = 0; i < count; ++i) factor[i] = weights[i];
  }
  if (p.rule == StateRule::ratio)
    for (i64 i = 0; i < count; ++i) factor[i] /= dot(phi + i * l.feature_step, state + l.z_at, l.features) + p.eps;
  if (p.sin) rotate_rows(phi, l.feature_step, count, p.dim, p.sin + first * p.dim, p.cos + first * p.dim);
  T* to = const_cast<T*>(row_at<T>(p.out, image, head, first));
  const i64 next_count = l.chunks > 1 && head + 1 < p.heads ? count : 0;
  const Ahead<T> q_ahead{row_at<T>(p.q, image, head + 1, first), p.q.token, next_count, p.dim};
  multiply_all<false>(count, l.features, phi, l.feature_step, state, result, l.column_step, l.columns, false, q_ahead);
  for (i64 i = 0; i < count; ++i, to += p.out.token, result += l.column_step) {
    const Vf f = set1(factor[i]);
    if (p.rule == StateRule::centred)
      for_vectors(l.columns, [&](i64 c, int n) {
        store_lanes(to + c, mul(add(load_lanes(result + c, n), load_lanes(state + l.total_at + c, n)), f), n);
      });
    else
      for_vectors(l.columns, [&](i64 c, int n) { store_lanes(to + c, mul(load_lanes(result + c, n), f), n); });
  }
}

int stages(const LinearAttentionProblem& p) { return layout_of(p).chunks == 1 ? 1 : 3; }

i64 items(const LinearAttentionProblem& p, int stage) {
  const Layout l = layout_of(p);
  if (l.chunks == 1 || stage == 1) return p.images * p.heads;
  return p.images * p.heads * (stage == 0 ? l.chunks : l.tiles);
}

i64 state_floats(const LinearAttentionProblem& p) {
  const Layout l = layout_of(p);
  return l.chunks == 1 ? 0 : p.images * p.heads * l.chunks * l.state;
}

i64 workspace_bytes(const LinearAttentionProblem& p) { return layout_of(p).workspace * static_cast<i64>(sizeof(float)); }

template <typename T>
void run_stage(const LinearAttentionProblem& p, int stage, i64 begin, i64 end, float* states, float* workspace) {
  const Layout l = layout_of(p);
  for (i64 item = begin; item < end; ++item) {
    // heads are innermost in all stages
    const i64 head = item % p.heads, outer = item / p.heads;
    if (l.chunks == 1) {
      float* state = workspace + l.state_at;
      sum_state<T>(p, l, outer, head, 0, p.keys, state, workspace);
      finish_state(p, l, state);
      for (i64 i = 0; i < p.queries; i += l.tile)
        apply_state<T>(p, l, outer, head, i, min_of(l.tile, p.queries - i), state, workspace);
      continue;
    }
    const i64 parts = stage == 0 ? l.chunks : stage == 1 ? 1 : l.tiles, image = outer / parts, part = outer % parts;
    float* state = states + (image * p.heads + head) * l.chunks * l.state;
    if (stage == 0) {
      sum_state<T>(p, l, image, head, part * l.chunk, min_of((part + 1) * l.chunk, p.keys), state + part * l.state, workspace);
    } else if (stage == 1) {
      for (i64 c = 1; c < l.chunks; ++c) add_state(p, l, state, state + c * l.state);
      finish_state(p, l, state);
    } else {
      apply_state<T>(p, l, image, head, part * l.tile, min_of(l.tile, p.queries - part * l.tile), state, workspace);
    }
  }
}

void run(const LinearAttentionProblem& p, int stage, i64 begin, i64 end, float* states, void* workspace) {
  float* words = static_cast<float*>(workspace);
  switch (p.type) {
    case FloatType::f32:
      return run_stage<float>(p, stage, begin, end, states, words);
    case FloatType::f16:
      return run_stage<F16>(p, stage, begin, end, states, words);
    case FloatType::bf16:
      return run_stage<Bf16>(p, stage, begin, end, states, words);
  }
}

// --- sums over the tokens of one tensor --------------------------------------------------------------------------

i64 feature_chunks(const FeatureProblem& p) { return max_of(1, ceil_div(p.tokens, kChunk)); }

i64 feature_workspace_bytes(const FeatureProblem& p) { return kTile * round_up(p.dim, 16) * static_cast<i64>(sizeof(float)); }

// Calls body(image, head, chunk, first, count) with the features of tokens [first, first + count) in the workspace; a chunk
// begins with a call of no tokens.
template <typename T, typename Body>
void for_features(const FeatureProblem& p, i64 begin, i64 end, float* phi, const Body& body) {
  const i64 chunks = feature_chunks(p), step = round_up(p.dim, 16);
  for (i64 item = begin; item < end; ++item) {
    const i64 head = item % p.heads, chunk = item / p.heads % chunks, image = item / p.heads / chunks;
    const i64 last = min_of((chunk + 1) * kChunk, p.tokens);
    body(image, head, chunk, chunk * kChunk, 0);
    for (i64 j = chunk * kChunk; j < last; j += kTile) {
      const i64 count = min_of(kTile, last - j);
      write_features<T>(p.map, {row_at<T>(p.x, image, head, j), p.x.token, count, p.dim}, 1.0f, nullptr, phi, step);
      body(image, head, chunk, j, count);
    }
  }
}

template <typename T>
void sum_features(const FeatureProblem& p, i64 begin, i64 end, float* phi) {
  const i64 chunks = feature_chunks(p), step = round_up(p.dim, 16);
  for_features<T>(p, begin, end, phi, [&](i64 image, i64 head, i64 chunk, i64 first, i64 count) {
    float* sums = p.result + ((image * p.heads + head) * chunks + chunk) * p.dim;
    if (count == 0) return fill(sums, p.dim, 0.0f);
    if (p.weights) weight_rows(phi, step, count, p.dim, p.weights + (image * p.heads + head) * p.tokens + first);
    add_columns({phi, step, count, p.dim}, sums);
  });
}

template <typename T>
void dot_features(const FeatureProblem& p, i64 begin, i64 end, float* phi) {
  const i64 step = round_up(p.dim, 16);
  for_features<T>(p, begin, end, phi, [&](i64 image, i64 head, i64, i64 first, i64 count) {
    const i64 row = image * p.heads + head;
    for (i64 j = 0; j < count; ++j) p.result[row * p.tokens + first + j] = dot(phi + j * step, p.vector + row * p.dim, p.dim);
  });
}

void feature_sums(const FeatureProblem& p, i64 begin, i64 end, void* workspace) {
  float* phi = static_cast<float*>(workspace);
  switch (p.type) {
    case FloatType::f32:
      return sum_features<float>(p, begin, end, phi);
    case FloatType::f16:
      return sum_features<F16>(p, begin, end, phi);
    case FloatType::bf16:
      return sum_features<Bf16>(p, begin, end, phi);
  }
}

void feature_dots(const FeatureProblem& p, i64 begin, i64 end, void* workspace) {
  float* phi = static_cast<float*>(workspace);
  switch (p.type) {
    case FloatType::f32:
      return dot_features<float>(p, begin, end, phi);
    case FloatType::f16:
      return dot_features<F16>(p, begin, end, phi);
    case FloatType::bf16:
      return dot_features<Bf16>(p, begin, end, phi);
  }
}

// --- FLatten's focusing -----------------------------------------------------------------------------------------

// Powers of values up to 1: of the largest, so that none of the squares of a row's larger ones underflow.
void raise(float* x, i64 count, float power) {
  const i64 whole = static_cast<i64>(power);
  if (power > 16.0f || static_cast<float>(whole) != power) {
    for (i64 i = 0; i < count; ++i) x[i] = __builtin_powf(x[i], power);
    return;
  }
  for_vectors(count, [&](i64 i, int n) {
    const Vf base = load_lanes(x + i, n);
    Vf product = base;
    for (i64 k = 1; k < whole; ++k) product = mul(product, base);
    store_lanes(x + i, product, n);
  });
}

float sum_of_squares(const float* x, i64 count) { return dot(x, x, count); }

template <typename T>
void focus_row(T* x, i64 channels, const float* added, const float* inverse_scale, float power, float* u) {
  Vf most = zero();
  for_vectors(channels, [&](i64 c, int n) {
    Vf value = load_lanes(x + c, n);
    if (added) value = add(value, load_lanes(added + c, n));
    value = mul(add(max(zero(), value), set1(1e-6f)), load_lanes(inverse_scale + c, n));
    store_lanes(u + c, value, n);
    most = max(most, value);
  });
  const float largest = reduce_max(most);
  multiply_row(u, channels, 1.0f / largest);
  const float before = sum_of_squares(u, channels);
  raise(u, channels, power);
  const Vf factor = set1(largest * __builtin_sqrtf(before / sum_of_squares(u, channels)));
  for_vectors(channels, [&](i64 c, int n) { store_lanes(x + c, mul(load_lanes(u + c, n), factor), n); });
}

void focus(void* x, FloatType type, i64 channels, const float* added, const float* inverse_scale, float power, float* u) {
  switch (type) {
    case FloatType::f32:
      return focus_row(static_cast<float*>(x), channels, added, inverse_scale, power, u);
    case FloatType::f16:
      return focus_row(static_cast<F16*>(x), channels, added, inverse_scale, power, u);
    case FloatType::bf16:
      return focus_row(static_cast<Bf16*>(x), channels, added, inverse_scale, power, u);
  }
}

constexpr LinearAttentionKernels kTable{
    stages,       items,        state_floats, workspace_bytes, run, feature_chunks, feature_workspace_bytes,
    feature_sums, feature_dots, focus};

}  // namespace

const LinearAttentionKernels& linear_attention_kernels() { return kTable; }

}  // namespace vitrine::cpu::VITRINE_TARGET
