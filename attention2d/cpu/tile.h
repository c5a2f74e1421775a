// What the attention kernels share beside simd.h: transposes of square tiles, powers of two, lane selection.
// Included only by kernel sources; see simd.h for why everything is in the target's namespace.
#pragma once

#include <vitrine/layers/cpu/simd.h>

namespace vitrine::cpu::VITRINE_TARGET {

inline constexpr int kLanes = Vf::kLanes;

// Asks for the memory of n elements.
template <typename T>
inline void prefetch(const T* p, i64 n) {
  const char* bytes = reinterpret_cast<const char*>(p);
  for (i64 at = 0; at < n * static_cast<i64>(sizeof(T)); at += 64) __builtin_prefetch(bytes + at);
}

// Lanes below n of a, the others of b.
inline Vf keep_n(Vf a, int n, Vf b) {
#if defined(VITRINE_TARGET_AVX512)
  return {_mm512_mask_blend_ps(lanes_mask(n), b.v, a.v)};
#elif defined(VITRINE_TARGET_AVX2)
  return {_mm256_blendv_ps(b.v, a.v, _mm256_castsi256_ps(lanes_mask(n)))};
#else
  return n > 0 ? a : b;
#endif
}

// 2^x for x <= 0: 2^floor(x) times a minimax polynomial of the rest. Below -150 it is 0; NaN passes.
// Relative error 7.5e-8 with 5 terms; with 3 terms 7.5e-5, for results that are rounded to bf16.
template <int kTerms>
inline Vf exp2_negative(Vf x) {
  static_assert(kTerms == 3 || kTerms == 5);
#if defined(VITRINE_TARGET_AVX512)
  const Vf r{_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
#else
  x = max(set1(-150.0f), x);
  const Vf n = floor(x), r = sub(x, n);
#endif
  Vf p;
  if constexpr (kTerms == 5) {
    p = fma(set1(1.8775760822e-3f), r, set1(8.9893414511e-3f));
    p = fma(p, r, set1(5.5826317001e-2f));
    p = fma(p, r, set1(2.4015361736e-1f));
    p = fma(p, r, set1(6.9315307317e-1f));
    p = fma(p, r, set1(0.9999999251f));
  } else {
    p = fma(set1(7.8024530765e-2f), r, set1(2.2606714627e-1f));
    p = fma(p, r, set1(6.9583354175e-1f));
    p = fma(p, r, set1(9.9992521878e-1f));
  }
#if defined(VITRINE_TARGET_AVX512)
  return {_mm512_scalef_ps(p.v, x.v)};  // by 2^floor(x)
#else
  return scale_by_power(p, n);
#endif
}

// Transposes the square of kLanes x kLanes elements that the vectors hold, one row each.
inline void transpose(Vf (&row)[kLanes]) {
#if defined(VITRINE_TARGET_AVX512)
  __m512 a[16], b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    a[2 * i] = _mm512_unpacklo_ps(row[2 * i].v, row[2 * i + 1].v);
    a[2 * i + 1] = _mm512_unpackhi_ps(row[2 * i].v, row[2 * i + 1].v);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // b[4 i + c]: column c of each group of four, rows 4 i .. 4 i + 3
    const auto pair = [](__m512 lo, __m512 hi, bool upper) {
      const __m512d l = _mm512_castps_pd(lo), h = _mm512_castps_pd(hi);
      return _mm512_castpd_ps(upper ? _mm512_unpackhi_pd(l, h) : _mm512_unpacklo_pd(l, h));
    };
    b[4 * i] = pair(a[4 * i], a[4 * i + 2], false);
    b[4 * i + 1] = pair(a[4 * i], a[4 * i + 2], true);
    b[4 * i + 2] = pair(a[4 * i + 1], a[4 * i + 3], false);
    b[4 * i + 3] = pair(a[4 * i + 1], a[4 * i + 3], true);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512 low = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88), high = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
    const __m512 low_odd = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd), high_odd = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
    row[c].v = _mm512_shuffle_f32x4(low, high, 0x88);
    row[4 + c].v = _mm512_shuffle_f32x4(low_odd, high_odd, 0x88);
    row[8 + c].v = _mm512_shuffle_f32x4(low, high, 0xdd);
    row[12 + c].v = _mm512_shuffle_f32x4(low_odd, high_odd, 0xdd);
  }
#elif defined(VITRINE_TARGET_AVX2)
  __m256 a[8], b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_ps(row[2 * i].v, row[2 * i + 1].v);
    a[2 * i + 1] = _mm256_unpackhi_ps(row[2 * i].v, row[2 * i + 1].v);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    b[4 * i] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
    b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
    b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
    b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    row[c].v = _mm256_permute2f128_ps(b[c], b[4 + c], 0x20);
    row[4 + c].v = _mm256_permute2f128_ps(b[c], b[4 + c], 0x31);
  }
#else
  static_cast<void>(row);
#endif
}

// Rows of words in memory, transposed: to[d * step + lane] = change(word d of row[lane]), d < dim rounded down to fours, which
// it returns. Quarters of rows are loaded into the quarters of a vector, so that half of a transpose's shuffles suffice:
// shuffles of whole vectors, one a cycle, are what packing waits for.
template <typename Change>
inline i64 store_transposed_words(float* to, i64 step, const float* const (&row)[kLanes], i64 dim, const Change& change) {
  i64 d = 0;
#if defined(VITRINE_TARGET_AVX512) || defined(VITRINE_TARGET_AVX2)
  for (; d + 4 <= dim; d += 4, to += 4 * step) {
    Vf part[4];  // quarter l of part j: words d .. d + 3 of row 4 l + j
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
#if defined(VITRINE_TARGET_AVX512)
      __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(row[j] + d));
      v = _mm512_insertf32x4(v, _mm_loadu_ps(row[j + 4] + d), 1);
      v = _mm512_insertf32x4(v, _mm_loadu_ps(row[j + 8] + d), 2);
      part[j].v = _mm512_insertf32x4(v, _mm_loadu_ps(row[j + 12] + d), 3);
#else
      part[j].v = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row[j] + d)), _mm_loadu_ps(row[j + 4] + d), 1);
#endif
    }
#if defined(VITRINE_TARGET_AVX512)
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(part[0].v, part[1].v));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(part[0].v, part[1].v));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(part[2].v, part[3].v));
    const __m512d e = _mm512_castps_pd(_mm512_unpackhi_ps(part[2].v, part[3].v));
    store(to, change(Vf{_mm512_castpd_ps(_mm512_unpacklo_pd(a, c))}));
    store(to + step, change(Vf{_mm512_castpd_ps(_mm512_unpackhi_pd(a, c))}));
    store(to + 2 * step, change(Vf{_mm512_castpd_ps(_mm512_unpacklo_pd(b, e))}));
    store(to + 3 * step, change(Vf{_mm512_castpd_ps(_mm512_unpackhi_pd(b, e))}));
#else
    const __m256 a = _mm256_unpacklo_ps(part[0].v, part[1].v), b = _mm256_unpackhi_ps(part[0].v, part[1].v);
    const __m256 c = _mm256_unpacklo_ps(part[2].v, part[3].v), e = _mm256_unpackhi_ps(part[2].v, part[3].v);
    store(to, change(Vf{_mm256_shuffle_ps(a, c, 0x44)}));
    store(to + step, change(Vf{_mm256_shuffle_ps(a, c, 0xee)}));
    store(to + 2 * step, change(Vf{_mm256_shuffle_ps(b, e, 0x44)}));
    store(to + 3 * step, change(Vf{_mm256_shuffle_ps(b, e, 0xee)}));
#endif
  }
#else
  static_cast<void>(to), static_cast<void>(step), static_cast<void>(row), static_cast<void>(dim), static_cast<void>(change);
#endif
  return d;
}

// The same for elements that load(lane, d, n) gives, n <= kLanes of them from element d of a row on and zeros after them;
// begins at d.
template <typename Load>
inline void store_transposed(float* to, i64 step, i64 d, i64 dim, const Load& load) {
  Vf square[kLanes];
  for (; d + kLanes <= dim; d += kLanes) {
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) square[lane] = load(lane, d, kLanes);
    transpose(square);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store(to + (d + i) * step, square[i]);
  }
  if (d == dim) return;
  const int rest = static_cast<int>(dim - d);
  for (int lane = 0; lane < kLanes; ++lane) square[lane] = load(lane, d, rest);
  transpose(square);
  for (int i = 0; i < rest; ++i) store(to + (d + i) * step, square[i]);
}

// The other way round: row `lane` of `rows` gets elements d < dim from element(d). save(lane, d, n, v) stores n of them.
template <typename Element, typename Save>
inline void load_transposed(int rows, i64 dim, const Element& element, const Save& save) {
  Vf square[kLanes];
  for (i64 d = 0; d < dim; d += kLanes) {
    const int n = dim - d < kLanes ? static_cast<int>(dim - d) : kLanes;
    if (n == kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) square[i] = element(d + i);
    } else {
      for (int i = 0; i < kLanes; ++i) square[i] = i < n ? element(d + i) : zero();
    }
    transpose(square);
    if (n == kLanes && rows == kLanes) {
#pragma GCC unroll 16
      for (int lane = 0; lane < kLanes; ++lane) save(lane, d, kLanes, square[lane]);
    } else {
      for (int lane = 0; lane < rows; ++lane) save(lane, d, n, square[lane]);
    }
  }
}

// Loads and stores of n elements, n known or not.
template <typename T>
inline Vf load_part(const T* p, int n) {
  return n >= kLanes ? load(p) : load_n(p, n);
}
template <typename T>
inline void store_part(T* p, Vf v, int n) {
  n >= kLanes ? store(p, v) : store_n(p, v, n);
}

}  // namespace vitrine::cpu::VITRINE_TARGET
