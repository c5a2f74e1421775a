// Noise by counter: the published words, fixed values, independence of batches, and that it is normal.
#include <algorithm>
#include <cmath>
#include <vector>

#include <catch.h>
#include <pipelines/fixtures.h>

#include <vitrine/pipelines/noise.h>

using namespace vitrine;
using namespace vitrine::test;

namespace {

std::vector<float> values_of(std::size_t count, const NoiseKey& key) {
  std::vector<float> values(count);
  fill_normal(values, key);
  return values;
}

double correlation(const std::vector<float>& a, const std::vector<float>& b, std::size_t shift = 0) {
  double sum = 0;
  for (std::size_t i = 0; i + shift < a.size(); ++i) sum += static_cast<double>(a[i + shift]) * b[i];
  return sum / static_cast<double>(a.size() - shift);
}

}  // namespace

TEST_CASE("philox4x32 gives the words of Random123's known answers") {
  using Words = std::array<std::uint32_t, 4>;
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint32_t kOnes = 0xffffffff;
  CHECK(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("noise is made of those words as its header says") {
  // From the header's formulas in Python: places of both pairs, both words of the seed, a picture and a stream.
  const float expected[] = {0.247259408f, 1.97717357f, -0.470825702f, -0.912688732f, -0.615880668f, 0.627904654f};
  const auto values = values_of(6, {.seed = 0x123456789abcdef, .picture = 3, .stream = 7});
  for (std::size_t i = 0; i < values.size(); ++i) CHECK(values[i] == Approx(expected[i]).epsilon(2e-7));
}

TEST_CASE("noise does not depend on the batch that a picture is in, nor on the picture's size") {
  const NoiseKey key{.seed = 5, .picture = 0, .stream = step_noise(3)};
  const Tensor batch = normal_noise({4, 3, 5, 7}, key);
  for (std::uint32_t p = 0; p < 4; ++p) {
    const Tensor one = normal_noise({1, 3, 5, 7}, {.seed = 5, .picture = p, .stream = step_noise(3)});
    CHECK(std::equal(one.data<float>(), one.data<float>() + 105, batch.data<float>() + p * 105));
  }
  const auto longer = values_of(106, key);
  CHECK(std::equal(batch.data<float>(), batch.data<float>() + 105, longer.begin()));
  CHECK(step_noise(0) != kStartNoise);
  CHECK(normal_noise({0, 4}, key).numel() == 0);
  CHECK(normal_noise({4, 0}, key).numel() == 0);
  CHECK_THROWS_WITH(normal_noise(Shape(), key), contains("[pictures, ...]"));
}

TEST_CASE("noise is normal and what differs in its key is not correlated") {
  constexpr std::size_t kCount = 1 << 20;
  const double most = 4 / std::sqrt(static_cast<double>(kCount));  // four standard deviations of a mean
  const NoiseKey key{.seed = 42, .picture = 1, .stream = 2};
  const auto values = values_of(kCount, key);
  double powers[5] = {};
  for (const float x : values)
    for (int k = 1; k <= 4; ++k) powers[k] += std::pow(static_cast<double>(x), k) / kCount;
  CHECK(std::abs(powers[1]) < most);
  CHECK(std::abs(powers[2] - 1) < most * std::sqrt(2.0));
  CHECK(std::abs(powers[3]) < most * std::sqrt(15.0));
  CHECK(std::abs(powers[4] - 3) < most * std::sqrt(96.0));

  auto sorted = values;
  std::sort(sorted.begin(), sorted.end());
  double distance = 0;  // Kolmogorov and Smirnov's
  for (std::size_t i = 0; i < kCount; ++i)
    distance = std::max(distance, std::abs(std::erfc(-sorted[i] / std::sqrt(2.0)) / 2 - (static_cast<double>(i) + 0.5) / kCount));
  CHECK(distance < 1.95 / std::sqrt(static_cast<double>(kCount)));  // one in 1000 of true normal samples is further
  CHECK(sorted.back() < 6.77f);

  for (std::size_t shift = 1; shift <= 4; ++shift) CHECK(std::abs(correlation(values, values, shift)) < most);
  for (const NoiseKey& other :
       {NoiseKey{.seed = 43, .picture = 1, .stream = 2}, NoiseKey{.seed = 42, .picture = 2, .stream = 2},
        NoiseKey{.seed = 42, .picture = 1, .stream = 3}, NoiseKey{.seed = 42 + (1ull << 32), .picture = 1, .stream = 2}})
    CHECK(std::abs(correlation(values, values_of(kCount, other))) < most);
}
