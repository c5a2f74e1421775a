// What the tiled attention kernels share: how elements are stored and multiplied, and the running softmax of a row of logits.
// Included only by kernel sources; see simd.h for why everything is in the target's namespace.
#pragma once

#include <vitrine/attention2d/cpu/attention.h>
#include <vitrine/attention2d/cpu/integers.h>
#include <vitrine/attention2d/cpu/tile.h>

namespace vitrine::cpu::VITRINE_TARGET {

// Queries of a tile: 14 x 2 sums, 2 columns of keys and a broadcast fill the 32 registers of AVX-512; 6 x 2 the 16 of AVX2.
#if defined(VITRINE_TARGET_AVX512)
inline constexpr int kRows = 14;
#else
inline constexpr int kRows = 6;
#endif
inline constexpr i64 kBlock = 512;  // keys whose logits are held at a time
inline constexpr i64 kStep =
    kBlock + 16;  // words between rows of logits: an odd number of cache lines, they fall into different sets
inline constexpr float kLog2e = 1.44269504088896341f;
inline constexpr float kMinusInfinity = -__builtin_inff();

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

// Calls run with the path of a type: how this target multiplies its elements.
template <typename Run>
auto with_path(FloatType type, const Run& run) {
  switch (type) {
    case FloatType::f16:
      return run(Widened<F16>{});
    case FloatType::bf16:
#if defined(VITRINE_TARGET_BF16)
      return run(Pairs{});
#else
      return run(Widened<Bf16>{});
#endif
    case FloatType::f32:
      break;
  }
  return run(Widened<float>{});
}

inline int elements_per_word(FloatType type) {
  return with_path(type, []<typename Path>(Path) { return Path::kPerWord; });
}

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

// The largest of a row's first `count` logits.
inline float row_largest(const float* s, i64 count) {
  Vf most[2] = {set1(kMinusInfinity), set1(kMinusInfinity)};
  i64 j = 0;
  for (; j + 2 * kLanes <= count; j += 2 * kLanes) {
    most[0] = max(most[0], load(s + j));
    most[1] = max(most[1], load(s + j + kLanes));
  }
  for (; j < count; j += kLanes) most[0] = max(most[0], keep_n(load(s + j), lanes_left(count, j), set1(kMinusInfinity)));
  return reduce_max(max(most[0], most[1]));
}

// Logits to weights 2^(unit (s - largest)), the first `count` of a row; those up to `end` become 0. Gives their sums by lane.
template <typename Path>
Vf row_weights(float* s, i64 count, i64 end, float unit, float largest) {
  i64 j = 0;
  if (largest == kMinusInfinity) {  // nothing seen so far
    for (; j < end; j += kLanes) Path::store_weights(s, j, zero());
    return zero();
  }
  const Vf u = set1(unit), shift = set1(-largest * unit);
  Vf sum[2] = {zero(), zero()};
  for (; j + 2 * kLanes <= count; j += 2 * kLanes) {
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
  return add(sum[0], sum[1]);
}

// The running softmax of one query.
struct RowState {
  float largest, sum;  // of the logits so far; of 2^(unit (logit - largest))

  // The largest so far with those of a row's next block.
  float largest_with(const float* s, i64 count) const {
    const float next = row_largest(s, count);
    return next > largest ? next : largest;
  }

  // Adds a block's weights, which are of new_largest; gives the factor that sums over earlier blocks take.
  float advance(float new_largest, float unit, Vf weights) {
    float factor = 1.0f;
    if (largest != new_largest) {
      alignas(64) float lanes[kLanes];
      store(lanes, exp2_negative<5>(set1((largest - new_largest) * unit)));
      factor = largest == kMinusInfinity ? 0.0f : lanes[0];
    }
    largest = new_largest;
    sum = sum * factor + reduce_add(weights);
    return factor;
  }
};

inline void scale_row(float* row, i64 count, float factor) {
  for (i64 d = 0; d < count; d += kLanes) store(row + d, mul(load(row + d), set1(factor)));
}

}  // namespace vitrine::cpu::VITRINE_TARGET
