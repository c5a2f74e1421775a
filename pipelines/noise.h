// Standard normal noise that depends on nothing but the seed, the picture, what it is for, and the place in the picture:
// the same for any batch size, any number of threads and any device.
//
// Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) is a function of a counter of four
// words and a key of two. The value at flat position i of a picture (channels-last, row by row) is made so:
//
//   key      seed, low word first
//   counter  {low word of i / 4, high word of i / 4, picture, stream}
//   words    w0, w1, w2, w3 = philox4x32(counter, key); place i takes the pair (w0, w1) where i % 4 < 2, else (w2, w3)
//   a pair   r = sqrt(-2 ln((w_even + 0.5) / 2^32)), a = 2 pi (w_odd + 0.5) / 2^32: Box and Muller's r cos(a) for the first
//            of the two places, r sin(a) for the second, in f64, rounded once to f32
//
// The largest possible value is 6.76. The words are exact everywhere; ln, cos and sin may differ by a last bit of f64 between
// mathematics libraries, which the rounding to f32 hides but for about one value in 10^8.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

VITRINE_API std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

struct NoiseKey {
  std::uint64_t seed = 0;
  std::uint32_t picture = 0;  // of a tensor's first; the others follow
  std::uint32_t stream = 0;   // what it is for: kStartNoise, step_noise(k)
};
inline constexpr std::uint32_t kStartNoise = 0;  // of the latents that a run starts from, or that pictures are noised with
constexpr std::uint32_t step_noise(int step) { return static_cast<std::uint32_t>(step) + 1; }  // that a sampler's step adds

VITRINE_API void fill_normal(std::span<float> values, const NoiseKey& key);  // one picture
VITRINE_API Tensor normal_noise(const Shape& shape, const NoiseKey& key);    // [B, ...], f32: B pictures

}  // namespace vitrine
