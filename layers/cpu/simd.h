// Vectors of floats for own kernels: one spelling for the scalar, AVX2 and AVX-512 targets.
//
// Included only by kernel sources, which are compiled once a target; everything lives in that target's namespace, so
// that no inline function built for one instruction set is kept by the linker for another. No standard containers or
// algorithms here for the same reason.
#pragma once

#include <cstdint>

#if defined(VITRINE_TARGET_AVX2) || defined(VITRINE_TARGET_AVX512)
// g++ 12 takes the deliberately undefined operands inside its own AVX-512 intrinsics for mistakes (its bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#ifndef VITRINE_TARGET
#error "kernel sources are compiled by vitrine_kernels(), which names the target"
#endif

namespace vitrine::cpu::VITRINE_TARGET {

using i64 = std::int64_t;

inline float bits_to_float(std::uint32_t u) {
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}
inline std::uint32_t float_to_bits(float f) {
  std::uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  return u;
}
inline float bf16_to_float(std::uint16_t b) { return bits_to_float(static_cast<std::uint32_t>(b) << 16); }
inline std::uint16_t float_to_bf16(float f) {  // round to nearest even, NaN kept
  const std::uint32_t u = float_to_bits(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((u >> 16) | 0x40u);
  return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

#if defined(VITRINE_TARGET_AVX512)

struct Vf {
  static constexpr int kLanes = 16;
  __m512 v;
};
inline __mmask16 lanes_mask(int n) { return n >= 16 ? 0xffff : static_cast<__mmask16>((1u << n) - 1u); }
inline Vf set1(float x) { return {_mm512_set1_ps(x)}; }
inline Vf zero() { return {_mm512_setzero_ps()}; }
inline Vf load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Vf load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(lanes_mask(n), p)}; }  // the rest is 0
inline void store(float* p, Vf a) { _mm512_storeu_ps(p, a.v); }
inline void store_n(float* p, Vf a, int n) { _mm512_mask_storeu_ps(p, lanes_mask(n), a.v); }
inline Vf widen_bf16(__m256i h) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))}; }
inline Vf load_bf16(const std::uint16_t* p) { return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline Vf load_bf16_n(const std::uint16_t* p, int n) { return widen_bf16(_mm256_maskz_loadu_epi16(lanes_mask(n), p)); }
inline __m256i narrow_bf16(Vf a) {
#if defined(VITRINE_TARGET_BF16)
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a.v));  // subnormals become 0, unlike on the other targets
#else
  const __m512i u = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  r = _mm512_mask_or_epi32(r, nan, _mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
  return _mm512_cvtepi32_epi16(r);
#endif
}
inline void store_bf16(std::uint16_t* p, Vf a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_bf16(a)); }
inline void store_bf16_n(std::uint16_t* p, Vf a, int n) { _mm256_mask_storeu_epi16(p, lanes_mask(n), narrow_bf16(a)); }
inline Vf load_f16(const std::uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
inline Vf load_f16_n(const std::uint16_t* p, int n) { return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes_mask(n), p))}; }
inline void store_f16(std::uint16_t* p, Vf a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_f16_n(std::uint16_t* p, Vf a, int n) {
  _mm256_mask_storeu_epi16(p, lanes_mask(n), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
inline Vf load_i8(const std::int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline Vf add(Vf a, Vf b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vf sub(Vf a, Vf b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vf mul(Vf a, Vf b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vf div(Vf a, Vf b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vf fma(Vf a, Vf b, Vf c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }    // a b + c
inline Vf fnma(Vf a, Vf b, Vf c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a b
inline Vf max(Vf a, Vf b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vf min(Vf a, Vf b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vf sqrt(Vf a) { return {_mm512_sqrt_ps(a.v)}; }
inline Vf abs(Vf a) { return {_mm512_abs_ps(a.v)}; }
inline Vf copysign(Vf magnitude, Vf sign) {
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_set1_epi32(0x7fffffff), _mm512_castps_si512(magnitude.v),
                                                        _mm512_castps_si512(sign.v), 0xca))};
}
// x within [-limit, limit]; NaN may become the limit
inline Vf clamp_magnitude(Vf x, Vf limit) { return {_mm512_range_ps(x.v, limit.v, 2)}; }
inline Vf round(Vf a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Vf floor(Vf a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
inline Vf scale_by_power(Vf a, Vf n) { return {_mm512_scalef_ps(a.v, n.v)}; }  // a 2^n, n integral
inline Vf select_less(Vf a, Vf b, Vf yes, Vf no) {                             // a < b ? yes : no; a NaN gives no
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
inline Vf max_or_nan(Vf a, Vf b) {  // NaN where either is; max() gives b there
  const __m512 m = _mm512_max_ps(a.v, b.v);
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), m, a.v)};
}
inline Vf swap_pairs(Vf a) { return {_mm512_permute_ps(a.v, 0xb1)}; }                    // (x1, x0, x3, x2, ...)
inline Vf fma_add_sub(Vf a, Vf b, Vf c) { return {_mm512_fmaddsub_ps(a.v, b.v, c.v)}; }  // even: a b - c, odd: a b + c
inline float reduce_add(Vf a) { return _mm512_reduce_add_ps(a.v); }
inline float reduce_max(Vf a) { return _mm512_reduce_max_ps(a.v); }

#elif defined(VITRINE_TARGET_AVX2)

struct Vf {
  static constexpr int kLanes = 8;
  __m256 v;
};
inline __m256i lanes_mask(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
inline Vf set1(float x) { return {_mm256_set1_ps(x)}; }
inline Vf zero() { return {_mm256_setzero_ps()}; }
inline Vf load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline Vf load_n(const float* p, int n) { return n >= 8 ? load(p) : Vf{_mm256_maskload_ps(p, lanes_mask(n))}; }
inline void store(float* p, Vf a) { _mm256_storeu_ps(p, a.v); }
inline void store_n(float* p, Vf a, int n) { n >= 8 ? store(p, a) : _mm256_maskstore_ps(p, lanes_mask(n), a.v); }
inline __m128i load_half_n(const std::uint16_t* p, int n) {
  alignas(16) std::uint16_t t[8] = {};
  __builtin_memcpy(t, p, static_cast<unsigned>(n < 8 ? n : 8) * 2u);
  return _mm_load_si128(reinterpret_cast<const __m128i*>(t));
}
inline void store_half_n(std::uint16_t* p, __m128i a, int n) {
  alignas(16) std::uint16_t t[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(t), a);
  __builtin_memcpy(p, t, static_cast<unsigned>(n < 8 ? n : 8) * 2u);
}
inline Vf widen_bf16(__m128i h) { return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16))}; }
inline Vf load_bf16(const std::uint16_t* p) { return widen_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline Vf load_bf16_n(const std::uint16_t* p, int n) { return widen_bf16(load_half_n(p, n)); }
inline __m128i narrow_bf16(Vf a) {
  const __m256i u = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i r = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
  const __m256i w = _mm256_blendv_epi8(r, quiet, nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
}
inline void store_bf16(std::uint16_t* p, Vf a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow_bf16(a)); }
inline void store_bf16_n(std::uint16_t* p, Vf a, int n) { store_half_n(p, narrow_bf16(a), n); }
inline Vf load_f16(const std::uint16_t* p) { return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
inline Vf load_f16_n(const std::uint16_t* p, int n) { return {_mm256_cvtph_ps(load_half_n(p, n))}; }
inline void store_f16(std::uint16_t* p, Vf a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_f16_n(std::uint16_t* p, Vf a, int n) { store_half_n(p, _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT), n); }
inline Vf load_i8(const std::int8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
inline Vf add(Vf a, Vf b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vf sub(Vf a, Vf b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vf mul(Vf a, Vf b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vf div(Vf a, Vf b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vf fma(Vf a, Vf b, Vf c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vf fnma(Vf a, Vf b, Vf c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
inline Vf max(Vf a, Vf b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vf min(Vf a, Vf b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Vf sqrt(Vf a) { return {_mm256_sqrt_ps(a.v)}; }
inline Vf abs(Vf a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline Vf copysign(Vf magnitude, Vf sign) {
  const __m256 m = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(m, magnitude.v), _mm256_and_ps(m, sign.v))};
}
inline Vf clamp_magnitude(Vf x, Vf limit) { return max(sub(zero(), limit), min(limit, x)); }
inline Vf round(Vf a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Vf floor(Vf a) { return {_mm256_floor_ps(a.v)}; }
inline Vf scale_by_power(Vf a, Vf n) {  // in two steps, so that results down to the subnormals come out
  const __m256i i = _mm256_cvtps_epi32(n.v), half = _mm256_srai_epi32(i, 1), rest = _mm256_sub_epi32(i, half);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256 s = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 t = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return {_mm256_mul_ps(_mm256_mul_ps(a.v, s), t)};
}
inline Vf select_less(Vf a, Vf b, Vf yes, Vf no) { return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))}; }
inline Vf max_or_nan(Vf a, Vf b) {
  return {_mm256_blendv_ps(_mm256_max_ps(a.v, b.v), a.v, _mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q))};
}
inline Vf swap_pairs(Vf a) { return {_mm256_permute_ps(a.v, 0xb1)}; }
inline Vf fma_add_sub(Vf a, Vf b, Vf c) { return {_mm256_fmaddsub_ps(a.v, b.v, c.v)}; }
inline float reduce_add(Vf a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float reduce_max(Vf a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

#else  // scalar: the reference; one lane, plain arithmetic

struct Vf {
  static constexpr int kLanes = 1;
  float v;
};
float f16_to_float(std::uint16_t h);
std::uint16_t float_to_f16(float f);
inline Vf set1(float x) { return {x}; }
inline Vf zero() { return {0.0f}; }
inline Vf load(const float* p) { return {*p}; }
inline Vf load_n(const float* p, int n) { return {n > 0 ? *p : 0.0f}; }
inline void store(float* p, Vf a) { *p = a.v; }
inline void store_n(float* p, Vf a, int n) {
  if (n > 0) *p = a.v;
}
inline Vf load_bf16(const std::uint16_t* p) { return {bf16_to_float(*p)}; }
inline Vf load_bf16_n(const std::uint16_t* p, int n) { return {n > 0 ? bf16_to_float(*p) : 0.0f}; }
inline void store_bf16(std::uint16_t* p, Vf a) { *p = float_to_bf16(a.v); }
inline void store_bf16_n(std::uint16_t* p, Vf a, int n) {
  if (n > 0) *p = float_to_bf16(a.v);
}
inline Vf load_f16(const std::uint16_t* p) { return {f16_to_float(*p)}; }
inline Vf load_f16_n(const std::uint16_t* p, int n) { return {n > 0 ? f16_to_float(*p) : 0.0f}; }
inline void store_f16(std::uint16_t* p, Vf a) { *p = float_to_f16(a.v); }
inline void store_f16_n(std::uint16_t* p, Vf a, int n) {
  if (n > 0) *p = float_to_f16(a.v);
}
inline Vf load_i8(const std::int8_t* p) { return {static_cast<float>(*p)}; }
inline Vf add(Vf a, Vf b) { return {a.v + b.v}; }
inline Vf sub(Vf a, Vf b) { return {a.v - b.v}; }
inline Vf mul(Vf a, Vf b) { return {a.v * b.v}; }
inline Vf div(Vf a, Vf b) { return {a.v / b.v}; }
inline Vf fma(Vf a, Vf b, Vf c) { return {a.v * b.v + c.v}; }
inline Vf fnma(Vf a, Vf b, Vf c) { return {c.v - a.v * b.v}; }
inline Vf max(Vf a, Vf b) { return {a.v > b.v ? a.v : b.v}; }
inline Vf min(Vf a, Vf b) { return {a.v < b.v ? a.v : b.v}; }
inline Vf sqrt(Vf a) { return {__builtin_sqrtf(a.v)}; }
inline Vf abs(Vf a) { return {__builtin_fabsf(a.v)}; }
inline Vf copysign(Vf magnitude, Vf sign) { return {__builtin_copysignf(magnitude.v, sign.v)}; }
inline Vf clamp_magnitude(Vf x, Vf limit) { return max({-limit.v}, min(limit, x)); }
inline Vf round(Vf a) { return {__builtin_rintf(a.v)}; }
inline Vf floor(Vf a) { return {__builtin_floorf(a.v)}; }
inline Vf scale_by_power(Vf a, Vf n) { return {n.v == n.v ? __builtin_ldexpf(a.v, static_cast<int>(n.v)) : n.v}; }
inline Vf select_less(Vf a, Vf b, Vf yes, Vf no) { return a.v < b.v ? yes : no; }
inline Vf max_or_nan(Vf a, Vf b) { return {a.v > b.v || a.v != a.v ? a.v : b.v}; }
inline float reduce_add(Vf a) { return a.v; }
inline float reduce_max(Vf a) { return a.v; }

#endif

// Typed access: floats are loaded from and stored to f32, bf16 or f16 by the element's storage type.
struct Bf16 {
  std::uint16_t bits;
};
struct F16 {
  std::uint16_t bits;
};
inline const std::uint16_t* half_bits(const void* p) { return static_cast<const std::uint16_t*>(p); }
inline std::uint16_t* half_bits(void* p) { return static_cast<std::uint16_t*>(p); }
inline Vf load(const Bf16* p) { return load_bf16(half_bits(p)); }
inline Vf load(const F16* p) { return load_f16(half_bits(p)); }
inline Vf load_n(const Bf16* p, int n) { return load_bf16_n(half_bits(p), n); }
inline Vf load_n(const F16* p, int n) { return load_f16_n(half_bits(p), n); }
inline void store(Bf16* p, Vf a) { store_bf16(half_bits(p), a); }
inline void store(F16* p, Vf a) { store_f16(half_bits(p), a); }
inline void store_n(Bf16* p, Vf a, int n) { store_bf16_n(half_bits(p), a, n); }
inline void store_n(F16* p, Vf a, int n) { store_f16_n(half_bits(p), a, n); }

// e^x: x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial of degree 7 in r; within 2 ulp over [-87, 88]; 0 below, inf above.
inline Vf exp(Vf x) {
  x = max(set1(-104.0f), min(set1(88.8f), x));  // in this order NaN passes
  const Vf n = round(mul(x, set1(1.44269504088896341f)));
  Vf r = fnma(n, set1(0.693145751953125f), x);
  r = fnma(n, set1(1.42860682030941723212e-6f), r);
  Vf p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = fma(p, mul(r, r), add(r, set1(1.0f)));
  return scale_by_power(p, n);
}

}  // namespace vitrine::cpu::VITRINE_TARGET
