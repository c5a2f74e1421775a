// Integer sums are exact in any order, so every target gives Pillow's bytes. The vertical pass runs along the row; the
// horizontal one along the taps (grey) or over the channels of a pixel, four lanes wide: vpmulld bounds both, and decoding
// a JPEG of the same size takes several times longer.
#include <vitrine/layers/cpu/resample.h>

#if defined(VITRINE_TARGET_AVX2) || defined(VITRINE_TARGET_AVX512)
#include <immintrin.h>
#endif

namespace vitrine::cpu::VITRINE_TARGET {
namespace {

constexpr std::int32_t kHalf = 1 << (kResamplePrecisionBits - 1);

inline std::uint8_t clip(std::int32_t sum) {
  const std::int32_t value = sum >> kResamplePrecisionBits;
  return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

inline std::uint8_t sum_column(const std::uint8_t* rows, std::int64_t bytes, const std::int32_t* weights, std::int64_t count) {
  std::int32_t sum = kHalf;
  for (std::int64_t k = 0; k < count; ++k) sum += rows[k * bytes] * weights[k];
  return clip(sum);
}

#if defined(VITRINE_TARGET_AVX2) || defined(VITRINE_TARGET_AVX512)

// Written with intrinsics: GCC 12 takes __builtin_convertvector of bytes apart, one by one (5 times slower).
#ifdef VITRINE_TARGET_AVX512
constexpr int kLanes = 16;
using Ints = __m512i;
inline Ints set1(std::int32_t x) { return _mm512_set1_epi32(x); }
inline Ints widen(__m128i bytes) { return _mm512_cvtepu8_epi32(bytes); }
inline Ints load_bytes(const std::uint8_t* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline Ints load_ints(const std::int32_t* p) { return _mm512_loadu_si512(p); }
inline Ints add_product(Ints sum, Ints a, Ints b) { return _mm512_add_epi32(sum, _mm512_mullo_epi32(a, b)); }
inline __m128i fold(Ints sum) {  // the four quarters added
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}
// Weights w0..w3 as w0 w0 w0 w0 w1 w1 w1 w1 ...: one for each channel of four pixels.
inline Ints spread(const std::int32_t* weights) {
  const __m512i lanes = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  return _mm512_permutexvar_epi32(lanes, _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights))));
}
inline __m128i load_pixels(const std::uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
inline void store_clipped(std::uint8_t* p, Ints sum) {
  const __m512i value = _mm512_max_epi32(_mm512_srai_epi32(sum, kResamplePrecisionBits), _mm512_setzero_si512());
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(value));
}
#else
constexpr int kLanes = 8;
using Ints = __m256i;
inline Ints set1(std::int32_t x) { return _mm256_set1_epi32(x); }
inline Ints widen(__m128i bytes) { return _mm256_cvtepu8_epi32(bytes); }
inline Ints load_bytes(const std::uint8_t* p) { return widen(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
inline Ints load_ints(const std::int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline Ints add_product(Ints sum, Ints a, Ints b) { return _mm256_add_epi32(sum, _mm256_mullo_epi32(a, b)); }
inline __m128i fold(Ints sum) { return _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1)); }
inline Ints spread(const std::int32_t* weights) {
  const __m256i lanes = _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0);
  return _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(weights))), lanes);
}
inline __m128i load_pixels(const std::uint8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }
inline void store_clipped(std::uint8_t* p, Ints sum) {
  const __m256i value = _mm256_srai_epi32(sum, kResamplePrecisionBits);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(value), _mm256_extracti128_si256(value, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}
#endif

void horizontal_grey(const std::uint8_t* row, const ResampleTaps& taps, std::uint8_t* out) {
  for (std::int64_t x = 0; x < taps.size; ++x) {
    const std::uint8_t* pixels = row + taps.first[x];
    const std::int32_t* weights = taps.weights + x * taps.stride;
    Ints sums = set1(0);
    for (std::int64_t k = 0; k < taps.count[x]; k += kLanes) {
      sums = add_product(sums, load_bytes(pixels + k), load_ints(weights + k));
    }
    const __m128i quarter = fold(sums);
    const __m128i pair = _mm_add_epi32(quarter, _mm_unpackhi_epi64(quarter, quarter));
    out[x] = clip(kHalf + _mm_cvtsi128_si32(pair) + _mm_extract_epi32(pair, 1));
  }
}

// Four lanes a pixel, kLanes / 4 pixels at once. Weights after the last are zero, pixels there are padding.
template <int Channels>
void horizontal_color(const std::uint8_t* row, const ResampleTaps& taps, std::uint8_t* out) {
  constexpr char kNone = -1;
  const __m128i apart = Channels == 2
                            ? _mm_setr_epi8(0, 1, kNone, kNone, 2, 3, kNone, kNone, 4, 5, kNone, kNone, 6, 7, kNone, kNone)
                        : Channels == 3 ? _mm_setr_epi8(0, 1, 2, kNone, 3, 4, 5, kNone, 6, 7, 8, kNone, 9, 10, 11, kNone)
                                        : _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (std::int64_t x = 0; x < taps.size; ++x) {
    const std::uint8_t* pixels = row + static_cast<std::int64_t>(taps.first[x]) * Channels;
    const std::int32_t* weights = taps.weights + x * taps.stride;
    Ints sums = set1(0);
    for (std::int64_t k = 0; k < taps.count[x]; k += kLanes / 4) {
      sums = add_product(sums, widen(_mm_shuffle_epi8(load_pixels(pixels + k * Channels), apart)), spread(weights + k));
    }
    const __m128i value = _mm_srai_epi32(_mm_add_epi32(fold(sums), _mm_set1_epi32(kHalf)), kResamplePrecisionBits);
    const __m128i words = _mm_packs_epi32(value, value);
    const std::int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    __builtin_memcpy(out + x * Channels, &bytes, Channels);
  }
}

void horizontal(const std::uint8_t* row, std::int64_t channels, const ResampleTaps& taps, std::uint8_t* out) {
  if (channels == 1) return horizontal_grey(row, taps, out);
  if (channels == 2) return horizontal_color<2>(row, taps, out);
  if (channels == 3) return horizontal_color<3>(row, taps, out);
  horizontal_color<4>(row, taps, out);
}

void vertical(const std::uint8_t* rows, std::int64_t bytes, const std::int32_t* weights, std::int64_t count, std::uint8_t* out) {
  constexpr int kVectors = 4;
  std::int64_t i = 0;
  for (; i + kVectors * kLanes <= bytes; i += kVectors * kLanes) {
    Ints sums[kVectors];
    for (Ints& sum : sums) sum = set1(kHalf);
    for (std::int64_t k = 0; k < count; ++k) {
      const std::uint8_t* p = rows + k * bytes + i;
      const Ints weight = set1(weights[k]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[v] = add_product(sums[v], load_bytes(p + v * kLanes), weight);
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store_clipped(out + i + v * kLanes, sums[v]);
  }
  for (; i < bytes; ++i) out[i] = sum_column(rows + i, bytes, weights, count);
}

#else

void horizontal(const std::uint8_t* row, std::int64_t channels, const ResampleTaps& taps, std::uint8_t* out) {
  for (std::int64_t x = 0; x < taps.size; ++x) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const std::uint8_t* pixels = row + taps.first[x] * channels + c;
      out[x * channels + c] = sum_column(pixels, channels, taps.weights + x * taps.stride, taps.count[x]);
    }
  }
}

void vertical(const std::uint8_t* rows, std::int64_t bytes, const std::int32_t* weights, std::int64_t count, std::uint8_t* out) {
  for (std::int64_t i = 0; i < bytes; ++i) out[i] = sum_column(rows + i, bytes, weights, count);
}

#endif

}  // namespace

const ResampleKernels& resample_kernels() {
  static constexpr ResampleKernels kernels{horizontal, vertical};
  return kernels;
}

}  // namespace vitrine::cpu::VITRINE_TARGET
