// Tiled attention: out = softmax(scale q k^T + bias) v, the logits of a few queries at a time.
//
//              keys, a block of at most kBlock
//           +-----------------------------+
//   group   |  S = Q K^T, then P = 2^...  |  x  V block   ->  O, kRows x value_dim
//   of up   +-----------------------------+
//   to kRows queries
//
// K and V of a head are packed once into panels of kPanel columns: K as [panel][d][kPanel keys], V as
// [panel][key][kPanel value channels]. Both products are then one micro-kernel, row(A) x panel(B): A's elements are
// broadcast from rows of kStep words (Q, and P in the place of S), kRows x 2 vectors of sums stay in registers.
// Sequences of at most kBlock keys need no second look at their sums (no rescaling); longer ones keep the running
// maximum and sum of the online softmax, for a tile of kGroups groups that share each block while it is in the L2 cache.
//
// bf16 where the target multiplies it: the words of A and B are pairs of bf16 (two channels of Q and K; two keys of P
// and V), the sums are f32. Elsewhere, and for f16, rows are widened to f32 while packing.
#include <vitrine/attention2d/cpu/attention.h>

#include <vitrine/attention2d/cpu/paths.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

constexpr int kPanel = 2 * kLanes;
constexpr int kGroups = 4;
constexpr i64 kFewItems = 16;  // fewer leave threads without work: then tiles are smaller

static_assert(kFlashMaxDim <= kBlock);

// C[kR][kV vectors] (+)= A[kR][k words] B[k words][kPanel]
template <typename Path, int kR, int kV>
void multiply(i64 k, const float* a, const float* b, float* c, i64 c_step, bool accumulate) {
  Vf sum[kR][kV];
#pragma GCC unroll 16
  for (int r = 0; r < kR; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kV; ++v) sum[r][v] = accumulate ? load(c + r * c_step + v * kLanes) : zero();
  for (i64 i = 0; i < k; ++i, ++a, b += kPanel) {
    Vf column[kV];
#pragma GCC unroll 2
    for (int v = 0; v < kV; ++v) column[v] = load(b + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kR; ++r) {
      const Vf element = set1(a[r * kStep]);
#pragma GCC unroll 2
      for (int v = 0; v < kV; ++v) sum[r][v] = Path::multiply_add(element, column[v], sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kR; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kV; ++v) store(c + r * c_step + v * kLanes, sum[r][v]);
}

// All panels that cover `columns`; the last one may need one vector only.
template <typename Path, int kR>
void multiply_panels(int rows, i64 k, const float* a, const float* b, i64 panel_words, float* c, i64 c_step, i64 columns,
                     bool accumulate) {
  if constexpr (kR > 1) {
    if (rows < kR) return multiply_panels<Path, kR - 1>(rows, k, a, b, panel_words, c, c_step, columns, accumulate);
  }
  for (i64 at = 0; at < columns; at += kPanel, b += panel_words) {
    if (columns - at > kLanes)
      multiply<Path, kR, 2>(k, a, b, c + at, c_step, accumulate);
    else
      multiply<Path, kR, 1>(k, a, b, c + at, c_step, accumulate);
  }
}

struct Layout {
  i64 key_words, value_words;  // of the reductions: channels of Q and K; keys of P and V
  i64 key_panel, value_panel;  // words of a panel
  i64 blocks, block;           // of keys
  i64 tiles, groups;           // tiles of queries a head, groups a tile
  i64 o_step;                  // floats between rows of O
  i64 k_at, v_at, q_at, s_at, o_at, state_at, norm_at, sample_at, words;  // where things are in the workspace, and its size
};

// Elements between rows of sampled keys or values.
i64 sample_step(const FlashProblem& p) { return p.dim > p.value_dim ? p.dim : p.value_dim; }

Layout layout_of(const FlashProblem& p, int per_word) {
  Layout l;
  l.key_words = ceil_div(p.dim, per_word);
  l.value_words = ceil_div(p.keys, per_word);
  l.key_panel = l.key_words * kPanel;
  l.value_panel = l.value_words * kPanel;
  l.blocks = ceil_div(p.keys, kBlock);
  l.block = l.blocks <= 1 ? p.keys : round_up(ceil_div(p.keys, l.blocks), kPanel);
  l.groups = l.blocks > 1 ? kGroups : 1;
  while (l.groups > 1 && p.images * p.groups * p.heads * ceil_div(p.queries, kRows * l.groups) < kFewItems) l.groups /= 2;
  l.tiles = ceil_div(p.queries, kRows * l.groups);
  l.o_step = round_up(p.value_dim, kPanel);
  const auto place = [&l](i64 words) {
    const i64 at = l.words;
    l.words += round_up(words, 16);
    return at;
  };
  l.words = 0;
  l.k_at = place(ceil_div(p.keys, kPanel) * l.key_panel);
  l.v_at = place(ceil_div(p.value_dim, kPanel) * l.value_panel);
  l.q_at = place(l.groups * kRows * kStep);
  l.s_at = place(kRows * kStep);
  l.o_at = place(l.groups * kRows * l.o_step);
  l.state_at = place(3 * l.groups * kRows);
  l.norm_at = place(p.is_cosine ? p.keys : 0);
  l.sample_at = place(p.boxes ? p.keys * sample_step(p) : 0);
  return l;
}

// What items of one head of a group share.
struct Part {
  i64 image, group, head, key_head;
};

Part part_of(const FlashProblem& p, i64 part) {
  const i64 head = part % p.heads;
  return {part / p.heads / p.groups, part / p.heads % p.groups, head, head / (p.heads / p.key_heads)};
}

// The tokens of a part.
template <typename T>
struct Rows {
  const T* base;
  const TokenView* view;
  const std::int32_t* index;
  const T* padding;

  const T* operator[](i64 n) const {
    if (index) return index[n] < 0 ? padding : base + index[n] * view->column;
    if (n < view->columns) return base + n * view->column;  // divisions would take as long as packing the row
    return base + n / view->columns * view->row + n % view->columns * view->column;
  }
};

template <typename T>
Rows<T> rows_of(const TokenView& view, i64 image, i64 head, const std::int32_t* index, const void* padding = nullptr,
                i64 padding_head = 0) {
  const T* pad = padding ? static_cast<const T*>(padding) + head * padding_head : nullptr;
  return {static_cast<const T*>(view.data) + view.image_offset[image] + head * view.head, &view, index, pad};
}

const std::int32_t* query_index(const FlashProblem& p, const Part& part) {
  return p.query_index ? p.query_index + part.image * p.query_index_image + part.group * p.queries : nullptr;
}
const std::int32_t* key_index(const FlashProblem& p, const Part& part) {
  return p.key_index ? p.key_index + part.image * p.key_index_image + part.group * p.keys : nullptr;
}

template <typename T>
Rows<T> query_rows(const FlashProblem& p, const Part& part) {
  return rows_of<T>(p.q, part.image, part.head, query_index(p, part));
}
template <typename T>
Rows<T> key_rows(const FlashProblem& p, const Part& part) {
  return rows_of<T>(p.k, part.image, part.key_head, key_index(p, part), p.pad_key, p.pad_key_head);
}
template <typename T>
Rows<T> value_rows(const FlashProblem& p, const Part& part) {
  return rows_of<T>(p.v, part.image, part.key_head, key_index(p, part), p.pad_value, p.pad_value_head);
}

// 1 / max(|row|, 1e-12)
template <typename T>
float inverse_norm(const T* row, i64 dim) {
  Vf sum = zero();
  for (i64 d = 0; d < dim; d += kLanes) {
    const Vf x = load_part(row + d, lanes_left(dim, d));
    sum = fma(x, x, sum);
  }
  const float norm = __builtin_sqrtf(reduce_add(sum));
  return 1.0f / (norm > 1e-12f ? norm : 1e-12f);
}

template <typename Path>
void pack_keys(const FlashProblem& p, const Layout& l, const Rows<typename Path::Element>& keys, float* to) {
  using T = typename Path::Element;
  for (i64 j = 0; j < p.keys; j += kPanel, to += l.key_panel)
    for (i64 half = 0; half < kPanel && j + half < p.keys; half += kLanes) {
      // lanes past the last key repeat it: their logits are never looked at
      const T* row[kLanes];
      for (int r = 0; r < kLanes; ++r) row[r] = keys[min_of(j + half + r, p.keys - 1)];
      pack_transposed<Path>(row, p.dim, to + half, kPanel);
    }
}

template <typename Path>
void pack_values(const FlashProblem& p, const Layout& l, const Rows<typename Path::Element>& values, float* to) {
  using T = typename Path::Element;
  for (i64 word = 0; word < l.value_words; ++word) {
    const i64 key = word * Path::kPerWord;
    const T* row = values[key];
    const T* next = key + 1 < p.keys ? values[key + 1] : nullptr;
    float* panel = to + word * kPanel;
    for (i64 d = 0; d < p.value_dim; d += kPanel, panel += l.value_panel) {
      store(panel, Path::load_value_words(row + d, next ? next + d : nullptr, lanes_left(p.value_dim, d)));
      if (p.value_dim - d <= kLanes) break;  // the second vector is never read
      const i64 e = d + kLanes;
      store(panel + kLanes, Path::load_value_words(row + e, next ? next + e : nullptr, lanes_left(p.value_dim, e)));
    }
  }
}

struct QueryState {
  RowState softmax;
  float scale;  // of its logits
};

template <typename Path>
void pack_queries(const FlashProblem& p, const Layout& l, const Part& part, const i64* query, i64 count, float* to,
                  QueryState* state) {
  using T = typename Path::Element;
  const Rows<T> queries = query_rows<T>(p, part);
  const float scale = p.head_scale ? p.scale * p.head_scale[part.head] : p.scale;
  for (i64 i = 0; i < count; ++i, to += kStep) {
    const T* row = queries[query[i]];
    for (i64 word = 0; word < l.key_words; word += kLanes) {
      const i64 at = word * Path::kPerWord;
      store(to + word, Path::load_words(row + at, static_cast<int>(min_of(p.dim - at, kLanes * Path::kPerWord))));
    }
    state[i] = {{kMinusInfinity, 0.0f}, p.is_cosine ? scale * inverse_norm(row, p.dim) : scale};
  }
}

// s[i] += row[(first + i) / columns] + column[(first + i) % columns]
void add_axes(const float* row, const float* column, i64 columns, i64 first, i64 count, float* s) {
  for (i64 i = 0; i < count;) {
    const i64 r = (first + i) / columns, c = (first + i) % columns, n = min_of(columns - c, count - i);
    for (i64 j = 0; j < n; ++j) s[i + j] += row[r] + column[c + j];
    i += n;
  }
}

// Scale, bias and mask of one row, where the logits need more than a factor.
void prepare_row(const FlashProblem& p, const Part& part, i64 query, float scale, const float* key_scale, i64 first_key,
                 i64 count, float* s) {
  if (p.is_cosine)
    for (i64 j = 0; j < count; ++j) s[j] *= key_scale[first_key + j];
  if (p.bias) {
    const i64 table = p.pattern ? p.pattern[part.group] * p.bias_pattern : 0;
    const float* bias = p.bias + table + part.image * p.bias_image + part.head * p.bias_head + query * p.bias_row + first_key;
    for (i64 j = 0; j < count; j += kLanes)
      store(s + j, fma(load(s + j), set1(scale), load_part(bias + j, lanes_left(count, j))));
  } else {
    for (i64 j = 0; j < count; ++j) s[j] *= scale;
  }
  if (p.row_bias.data) {
    const i64 token = p.query_index ? query_index(p, part)[query] : query;
    const auto at = [&](const AxisBias& b) { return b.data + part.image * b.image + token * b.token + part.head * b.head; };
    add_axes(at(p.row_bias), at(p.column_bias), p.columns, first_key, count, s);
  }
  if (p.mask) {
    const std::uint8_t* mask = p.mask + part.image * p.mask_image + part.head * p.mask_head + query * p.mask_row + first_key;
    for (i64 j = 0; j < count; ++j) s[j] = mask[j] ? s[j] : kMinusInfinity;
  }
}

template <typename T>
void write_rows(const FlashProblem& p, const Part& part, const i64* query, i64 count, const float* o, i64 o_step,
                const QueryState* state) {
  const Rows<T> out = rows_of<T>(p.out, part.image, part.head, query_index(p, part));
  for (i64 i = 0; i < count; ++i, o += o_step) {
    T* to = const_cast<T*>(out[query[i]]);
    const Vf factor = set1(state[i].softmax.sum == 0.0f ? 0.0f : 1.0f / state[i].softmax.sum);
    i64 d = 0;
    for (; d + kLanes <= p.value_dim; d += kLanes) store(to + d, mul(load(o + d), factor));
    if (d < p.value_dim) store_n(to + d, mul(load(o + d), factor), lanes_left(p.value_dim, d));
  }
}

// Block of keys x group of queries: logits, weights, and their share of O.
template <typename Path>
void attend_group(const FlashProblem& p, const Layout& l, const Part& part, const i64* query, int rows, i64 first_key,
                  i64 block_keys, const float* q, float* o, QueryState* state, float* workspace) {
  const i64 keys = p.is_causal ? min_of(block_keys, query[rows - 1] + 1 - first_key) : block_keys;
  if (keys <= 0) return;
  float* s = workspace + l.s_at;
  multiply_panels<Path, kRows>(rows, l.key_words, q, workspace + l.k_at + first_key / kPanel * l.key_panel, l.key_panel, s, kStep,
                               keys, false);
  const bool plain = !p.bias && !p.mask && !p.row_bias.data && !p.is_cosine && state[0].scale > 0;
  const i64 weight_words = ceil_div(keys, Path::kPerWord);
  // Largest, weights, sum: each is a chain of dependent operations. Step by step for all rows, the rows' chains overlap: a row
  // of 64 logits takes a third of the cycles.
  i64 count[kRows];
  float largest[kRows], unit[kRows];
  Vf sum[kRows];
  for (int r = 0; r < rows; ++r) {
    count[r] = p.is_causal ? min_of(keys, query[r] + 1 - first_key) : keys;
    if (count[r] < 0) count[r] = 0;
    unit[r] = plain ? state[r].scale * kLog2e : kLog2e;
    if (!plain) prepare_row(p, part, query[r], state[r].scale, workspace + l.norm_at, first_key, count[r], s + r * kStep);
    largest[r] = state[r].softmax.largest_with(s + r * kStep, count[r]);
  }
  for (int r = 0; r < rows; ++r)
    sum[r] = row_weights<Path>(s + r * kStep, count[r], weight_words * Path::kPerWord, unit[r], largest[r]);
  for (int r = 0; r < rows; ++r) {
    const float factor = state[r].softmax.advance(largest[r], unit[r], sum[r]);
    if (first_key > 0 && factor != 1.0f) scale_row(o + r * l.o_step, p.value_dim, factor);
  }
  multiply_panels<Path, kRows>(rows, weight_words, s, workspace + l.v_at + first_key / Path::kPerWord * kPanel, l.value_panel, o,
                               l.o_step, p.value_dim, first_key > 0);
}

// While an item is computed, the rows of the next one's queries come closer, and a tile's share of the next head's keys and
// values: rows of a fused projection lie too far apart for the processor to see where they go (12 heads of 197 x 64: 5%).
template <typename T>
void prefetch_next(const FlashProblem& p, const Layout& l, i64 item) {
  const i64 tile = item % l.tiles;
  const Part part = part_of(p, item / l.tiles);
  if (tile > 0 && !p.is_causal) {
    const Rows<T> queries = query_rows<T>(p, part);
    for (i64 i = p.queries * tile / l.tiles; i < p.queries * (tile + 1) / l.tiles; ++i) prefetch(queries[i], p.dim);
  }
  const i64 next = item / l.tiles + 1, parts = p.images * p.groups * p.heads;
  if (next >= parts) return;
  const Part other = part_of(p, next);
  if (p.boxes || (other.key_head == part.key_head && next % p.heads != 0)) return;
  const Rows<T> keys = key_rows<T>(p, other), values = value_rows<T>(p, other);
  for (i64 i = p.keys * tile / l.tiles; i < p.keys * (tile + 1) / l.tiles; ++i) {
    prefetch(keys[i], p.dim);
    prefetch(values[i], p.value_dim);
  }
}

// The rows of a map at the positions of a part's box, one after another at `to`.
template <typename T>
void sample_rows(const FlashProblem& p, const Part& part, const Rows<T>& map, i64 dim, T* to) {
  const float* box = p.boxes + ((part.image * p.groups + part.group) * p.key_heads + part.key_head) * 4;
  for (i64 j = 0; j < p.keys; ++j, to += sample_step(p)) {
    const float y = box[0] + static_cast<float>(j / p.box_columns) * box[2];
    const float x = box[1] + static_cast<float>(j % p.box_columns) * box[3];
    const T* row[4];
    float weight[4];
    int taps = 0;
    // written so that NaN is outside, too
    if (y > -1.0f && y < static_cast<float>(p.map_height) && x > -1.0f && x < static_cast<float>(p.map_width)) {
      const i64 top = static_cast<i64>(y + 1.0f) - 1, left = static_cast<i64>(x + 1.0f) - 1;
      const float down = y - static_cast<float>(top), right = x - static_cast<float>(left);
      for (int tap = 0; tap < 4; ++tap) {
        const i64 ty = top + tap / 2, tx = left + tap % 2;
        if (ty < 0 || ty >= p.map_height || tx < 0 || tx >= p.map_width) continue;
        row[taps] = map[ty * p.map_width + tx];
        weight[taps++] = (tap / 2 ? down : 1.0f - down) * (tap % 2 ? right : 1.0f - right);
      }
    }
    for (i64 d = 0; d < dim; d += kLanes) {
      const int n = lanes_left(dim, d);
      Vf sum = zero();
      for (int tap = 0; tap < taps; ++tap) sum = fma(set1(weight[tap]), load_part(row[tap] + d, n), sum);
      store_part(to + d, sum, n);
    }
  }
}

template <typename Path>
void pack_key_rows(const FlashProblem& p, const Layout& l, const Rows<typename Path::Element>& keys, float* workspace) {
  pack_keys<Path>(p, l, keys, workspace + l.k_at);
  if (!p.is_cosine) return;
  for (i64 j = 0; j < p.keys; ++j) workspace[l.norm_at + j] = inverse_norm(keys[j], p.dim);
}

template <typename Path>
void pack_part(const FlashProblem& p, const Layout& l, const Part& part, float* workspace) {
  using T = typename Path::Element;
  const Rows<T> keys = key_rows<T>(p, part), values = value_rows<T>(p, part);
  if (!p.boxes) {
    pack_key_rows<Path>(p, l, keys, workspace);
    pack_values<Path>(p, l, values, workspace + l.v_at);
    return;
  }
  T* sampled = reinterpret_cast<T*>(workspace + l.sample_at);
  const TokenView view{nullptr, nullptr, 0, 0, sample_step(p), p.keys};
  const Rows<T> rows{sampled, &view, nullptr, nullptr};
  sample_rows(p, part, keys, p.dim, sampled);
  pack_key_rows<Path>(p, l, rows, workspace);
  sample_rows(p, part, values, p.value_dim, sampled);
  pack_values<Path>(p, l, rows, workspace + l.v_at);
}

// Those of the queries first .. last - 1 of a part that are to be computed.
i64 present_queries(const FlashProblem& p, const Part& part, i64 first, i64 last, i64* query) {
  const std::int32_t* index = query_index(p, part);
  i64 count = 0;
  for (i64 i = first; i < last; ++i)
    if (!index || index[i] >= 0) query[count++] = i;
  return count;
}

template <typename Path>
void run_path(const FlashProblem& p, i64 begin, i64 end, float* workspace) {
  const Layout l = layout_of(p, Path::kPerWord);
  QueryState* state = reinterpret_cast<QueryState*>(workspace + l.state_at);
  i64 query[kGroups * kRows];
  i64 packed = -1;  // image, group and key head whose K and V are in the workspace
  for (i64 item = begin; item < end; ++item) {
    const Part part = part_of(p, item / l.tiles);
    // Causal tiles cost more the later they are: from both ends in turn, so that ranges of items cost the same.
    const i64 turn = item % l.tiles, tile = !p.is_causal ? turn : turn % 2 == 0 ? turn / 2 : l.tiles - 1 - turn / 2;
    const i64 count = present_queries(p, part, p.queries * tile / l.tiles, p.queries * (tile + 1) / l.tiles, query);
    if (count == 0) continue;
    const i64 wanted = (part.image * p.groups + part.group) * p.key_heads + part.key_head;
    if (packed != wanted) pack_part<Path>(p, l, part, workspace);
    packed = wanted;
    pack_queries<Path>(p, l, part, query, count, workspace + l.q_at, state);
    if (item + 1 < end) prefetch_next<typename Path::Element>(p, l, item + 1);
    const i64 groups = ceil_div(count, kRows);
    for (i64 key = 0; key < p.keys; key += l.block)
      for (i64 g = 0; g < groups; ++g) {
        const i64 at = count * g / groups, rows = count * (g + 1) / groups - at;
        attend_group<Path>(p, l, part, query + at, static_cast<int>(rows), key, min_of(l.block, p.keys - key),
                           workspace + l.q_at + at * kStep, workspace + l.o_at + at * l.o_step, state + at, workspace);
      }
    write_rows<typename Path::Element>(p, part, query, count, workspace + l.o_at, l.o_step, state);
  }
}

i64 items(const FlashProblem& p) { return p.images * p.groups * p.heads * layout_of(p, elements_per_word(p.type)).tiles; }

i64 workspace_bytes(const FlashProblem& p) {
  return layout_of(p, elements_per_word(p.type)).words * static_cast<i64>(sizeof(float));
}

void run(const FlashProblem& p, i64 begin, i64 end, void* workspace) {
  with_path(p.type, [&]<typename Path>(Path) { run_path<Path>(p, begin, end, static_cast<float*>(workspace)); });
}

}  // namespace

FlashKernel flash_kernel() { return {items, workspace_bytes, run}; }

}  // namespace vitrine::cpu::VITRINE_TARGET
