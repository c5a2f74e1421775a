// Integer sums are exact in any order, so every target gives Pillow's bytes. The vertical pass runs along the row; the
// horizontal one along the taps (grey) or over the channels of a pixel, four lanes wide: vpmulld bounds both, and decoding
// a JPEG of the same size takes several times longer.
#include <vitrine/pipelines/cpu/resample.h>

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

#if defined(VITRINE_TARGET_AVX512)
constexpr int kLanes = 16;
#elif defined(VITRINE_TARGET_AVX2)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 1;
#endif

#if defined(VITRINE_TARGET_AVX2) || defined(VITRINE_TARGET_AVX512)

typedef std::int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef std::uint8_t Bytes __attribute__((vector_size(kLanes)));
typedef std::int32_t Pixel __attribute__((vector_size(16)));  // up to four channels
typedef std::uint8_t PixelBytes __attribute__((vector_size(4)));

template <typename Vector, typename T>
Vector load_as(const T* p) {
  Vector v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline Ints load_ints(const std::uint8_t* p) { return __builtin_convertvector(load_as<Bytes>(p), Ints); }
inline Pixel load_pixel(const std::uint8_t* p) { return __builtin_convertvector(load_as<PixelBytes>(p), Pixel); }

template <typename Vector>
Vector shift_and_clip(Vector sum) {
  sum >>= kResamplePrecisionBits;
  sum = sum < 0 ? Vector{} : sum;
  return sum > 255 ? Vector{} + 255 : sum;
}
inline Bytes clip(Ints sum) { return __builtin_convertvector(shift_and_clip(sum), Bytes); }
inline PixelBytes clip(Pixel sum) { return __builtin_convertvector(shift_and_clip(sum), PixelBytes); }

void horizontal_grey(const std::uint8_t* row, const ResampleTaps& taps, std::uint8_t* out) {
  for (std::int64_t x = 0; x < taps.size; ++x) {
    const std::uint8_t* pixels = row + taps.first[x];
    const std::int32_t* weights = taps.weights + x * taps.stride;
    Ints sums{};
    for (std::int64_t k = 0; k < taps.count[x]; k += kLanes) sums += load_ints(pixels + k) * load_as<Ints>(weights + k);
    std::int32_t sum = kHalf;
    for (int lane = 0; lane < kLanes; ++lane) sum += sums[lane];
    out[x] = clip(sum);
  }
}

template <int Channels>
void horizontal_color(const std::uint8_t* row, const ResampleTaps& taps, std::uint8_t* out) {
  for (std::int64_t x = 0; x < taps.size; ++x) {
    const std::uint8_t* pixels = row + static_cast<std::int64_t>(taps.first[x]) * Channels;
    const std::int32_t* weights = taps.weights + x * taps.stride;
    Pixel even = Pixel{} + kHalf, odd{};
    for (std::int64_t k = 0; k < taps.count[x]; k += 2) {  // the weight after the last is zero, the pixel is padding
      even += load_pixel(pixels + k * Channels) * weights[k];
      odd += load_pixel(pixels + (k + 1) * Channels) * weights[k + 1];
    }
    const PixelBytes bytes = clip(even + odd);
    for (int c = 0; c < Channels; ++c) out[x * Channels + c] = bytes[c];
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
    for (Ints& sum : sums) sum = Ints{} + kHalf;
    for (std::int64_t k = 0; k < count; ++k) {
      const std::uint8_t* p = rows + k * bytes + i;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[v] += load_ints(p + v * kLanes) * weights[k];
    }
    for (int v = 0; v < kVectors; ++v) {
      const Bytes clipped = clip(sums[v]);
      __builtin_memcpy(out + i + v * kLanes, &clipped, sizeof clipped);
    }
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
