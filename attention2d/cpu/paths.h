// What the tiled attention kernels share: how elements are stored and multiplied, and the running softmax of a row of logits.
// Included only by kernel sources; see simd.h for why everything is in the target's namespace.
#pragma once

#include <vitrine/attention2d/cpu/tile.h>

namespace vitrine::cpu::VITRINE_TARGET {

inline constexpr float kLog2e = 1.44269504088896341f;
inline constexpr float kMinusInfinity = -__builtin_inff();

inline i64 min_of(i64 a, i64 b) { return a < b ? a : b; }
inline i64 max_of(i64 a, i64 b) { return a > b ? a : b; }
inline i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }
inline i64 round_up(i64 a, i64 b) { return ceil_div(a, b) * b; }
inline int lanes_left(i64 end, i64 at) { return static_cast<int>(min_of(end - at, kLanes)); }

// Words are what a micro-kernel counts: an f32, or a pair of bf16.
template <typename T>
struct Widened {
  using Element = T;
  static constexpr int kPerWord = 1, kExpTerms = 5;
  static Vf multiply_add(Vf a, Vf b, Vf c) { return fma(a, b, c); }
  static Vf load_words(const T* p, int elements) { return load_part(p, elements); }
  // Words of the keys in rows p and next (null: none) of V.
  static Vf load_value_words(const T* p, const T*, int n) { return load_part(p, n); }
  static void store_weights(float* row, i64 at, Vf p) { store(row + at, p); }
};

#if defined(VITRINE_TARGET_BF16)
struct Pairs {
  using Element = Bf16;
  static constexpr int kPerWord = 2, kExpTerms = 3;
  static Vf multiply_add(Vf a, Vf b, Vf c) {
    return {_mm512_dpbf16_ps(c.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
  }
  static Vf load_words(const Bf16* p, int elements) {
    const __mmask32 mask = elements >= 32 ? 0xffffffffu : (1u << elements) - 1u;
    return {_mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, p))};
  }
  static Vf load_value_words(const Bf16* p, const Bf16* next, int n) {
    const __mmask16 mask = lanes_mask(n);
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p));
    if (!next) return {_mm512_castsi512_ps(low)};
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, next));
    return {_mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)))};
  }
  // In the place of the logits: element `at` lands at or before the logits of the same vector.
  static void store_weights(float* row, i64 at, Vf p) { store_bf16(reinterpret_cast<std::uint16_t*>(row) + at, p); }
};
#endif

// to[word * step + lane] = word `word` of row[lane], all words of `dim` elements; the last one may be half empty.
template <typename Path>
void pack_transposed(const typename Path::Element* const (&row)[kLanes], i64 dim, float* to, i64 step) {
  using T = typename Path::Element;
  i64 done = 0;
  if constexpr (sizeof(T) * Path::kPerWord == sizeof(float)) {
    const float* words[kLanes];
    for (int r = 0; r < kLanes; ++r) words[r] = reinterpret_cast<const float*>(row[r]);
    done = store_transposed_words(to, step, words, dim / Path::kPerWord, [](Vf v) { return v; });
  }
  store_transposed(to, step, done, ceil_div(dim, Path::kPerWord), [&](int lane, i64 word, int) {
    const i64 at = word * Path::kPerWord;
    return Path::load_words(row[lane] + at, static_cast<int>(min_of(dim - at, kLanes * Path::kPerWord)));
  });
}

// The running softmax of one query.
struct RowState {
  float largest, sum;  // of the logits so far; of 2^(logit - largest)
};

// Logits to weights 2^(unit (s - largest)), the first `count` of a row; those up to `end` become 0. Gives the factor that
// sums over earlier blocks take.
template <typename Path>
float row_softmax(float* s, i64 count, i64 end, float unit, RowState& state) {
  Vf most[2] = {set1(kMinusInfinity), set1(kMinusInfinity)};
  i64 j = 0;
  for (; j + 2 * kLanes <= count; j += 2 * kLanes) {
    most[0] = max(most[0], load(s + j));
    most[1] = max(most[1], load(s + j + kLanes));
  }
  for (; j < count; j += kLanes) most[0] = max(most[0], keep_n(load(s + j), lanes_left(count, j), set1(kMinusInfinity)));
  const float block_largest = reduce_max(max(most[0], most[1]));
  const float largest = block_largest > state.largest ? block_largest : state.largest;
  if (largest == kMinusInfinity) {  // nothing seen so far
    for (j = 0; j < end; j += kLanes) Path::store_weights(s, j, zero());
    return 1.0f;
  }
  const Vf u = set1(unit), shift = set1(-largest * unit);
  Vf sum[2] = {zero(), zero()};
  for (j = 0; j + 2 * kLanes <= count; j += 2 * kLanes) {
    const Vf a = exp2_negative<Path::kExpTerms>(fma(load(s + j), u, shift));
    const Vf b = exp2_negative<Path::kExpTerms>(fma(load(s + j + kLanes), u, shift));
    Path::store_weights(s, j, a);
    Path::store_weights(s, j + kLanes, b);
    sum[0] = add(sum[0], a);
    sum[1] = add(sum[1], b);
  }
  for (; j < end; j += kLanes) {
    const int n = count > j ? lanes_left(count, j) : 0;
    const Vf a = keep_n(exp2_negative<Path::kExpTerms>(fma(load(s + j), u, shift)), n, zero());
    Path::store_weights(s, j, a);
    sum[0] = add(sum[0], a);
  }
  float factor = 1.0f;
  if (state.largest != largest) {
    const float change = state.largest == kMinusInfinity ? kMinusInfinity : (state.largest - largest) * unit;
    alignas(64) float lanes[kLanes];
    store(lanes, exp2_negative<5>(set1(change)));
    factor = lanes[0];
  }
  state = {largest, state.sum * factor + reduce_add(add(sum[0], sum[1]))};
  return factor;
}

}  // namespace vitrine::cpu::VITRINE_TARGET
