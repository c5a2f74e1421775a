#include <vitrine/pipelines/noise.h>

#include <cmath>
#include <numbers>

#include <vitrine/layers/error.h>

namespace vitrine {
namespace {

constexpr int kRounds = 10;
constexpr std::uint32_t kMultipliers[] = {0xD2511F53, 0xCD9E8D57};
constexpr std::uint32_t kWeyl[] = {0x9E3779B9, 0xBB67AE85};  // golden ratio, sqrt(3) - 1: what a round adds to the key

double unit(std::uint32_t word) { return (word + 0.5) * 0x1p-32; }  // in (0, 1)

}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t a = std::uint64_t{kMultipliers[0]} * counter[0], b = std::uint64_t{kMultipliers[1]} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key = {key[0] + kWeyl[0], key[1] + kWeyl[1]};
  }
  return counter;
}

void fill_normal(std::span<float> values, const NoiseKey& key) {
  const std::array words{static_cast<std::uint32_t>(key.seed), static_cast<std::uint32_t>(key.seed >> 32)};
  for (std::size_t i = 0; i < values.size(); i += 4) {
    const std::uint64_t block = i / 4;
    const auto w =
        philox4x32({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), key.picture, key.stream}, words);
    for (std::size_t even = 0; even < 4 && i + even < values.size(); even += 2) {
      const double r = std::sqrt(-2 * std::log(unit(w[even]))), a = 2 * std::numbers::pi * unit(w[even + 1]);
      values[i + even] = static_cast<float>(r * std::cos(a));
      if (i + even + 1 < values.size()) values[i + even + 1] = static_cast<float>(r * std::sin(a));
    }
  }
}

Tensor normal_noise(const Shape& shape, const NoiseKey& key) {
  if (shape.rank() < 1) throw Error("normal_noise: the shape has no axes, expected [pictures, ...]");
  Tensor noise = Tensor::empty(shape);
  const std::int64_t size = shape[0] > 0 ? noise.numel() / shape[0] : 0;
  for (std::int64_t b = 0; b < shape[0]; ++b) {
    NoiseKey own = key;
    own.picture += static_cast<std::uint32_t>(b);
    fill_normal({noise.data<float>() + b * size, static_cast<std::size_t>(size)}, own);
  }
  return noise;
}

}  // namespace vitrine
