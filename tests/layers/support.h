// What the tests of the ops share: random tensors, comparisons, the same work under several thread counts.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <catch.h>
#include <fmt/format.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/ops.h>

namespace vitrine::test {

inline constexpr DType kFloats[] = {DType::f32, DType::f16, DType::bf16};

// Half a unit in the last place, relative.
inline double rounding(DType dtype) { return dtype == DType::bf16 ? 0x1p-8 : dtype == DType::f16 ? 0x1p-11 : 0x1p-24; }

inline Tensor random(const Shape& shape, DType dtype = DType::f32, unsigned seed = 1, float scale = 1.0f) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  Tensor t = Tensor::empty(shape);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = normal(engine);
  return t.to(dtype);
}

inline std::vector<float> values(const Tensor& t) {
  const Tensor c = t.contiguous().to(DType::f32);
  return {c.data<float>(), c.data<float>() + c.numel()};
}

// A view with the values of t whose rows and outer axes are apart, as q, k, v are in a fused projection.
inline Tensor strided(const Tensor& t) {
  Shape wide = t.shape();
  for (int i = 0; i < wide.rank(); ++i) wide[i] += 3;
  Tensor room = Tensor::full(wide, 77.0f, t.dtype()).to(t.device());
  for (int i = 0; i < wide.rank(); ++i) room = room.slice(i, 1, 1 + t.size(i));
  copy_(room, t);
  return room;
}

// Within `bound`, relative to the larger of 1 and the expected value; NaN equals NaN.
inline void check_close(const std::vector<float>& got, const std::vector<double>& expected, double bound) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i]) && std::isnan(expected[i])) continue;
    if (got[i] == expected[i]) continue;  // infinities
    const double error = std::fabs(got[i] - expected[i]) / std::max(1.0, std::fabs(expected[i]));
    if (!(error <= bound)) FAIL(fmt::format("at {}: {} instead of {}, bound {}", i, got[i], expected[i], bound));
  }
}
inline void check_close(const Tensor& got, const std::vector<double>& expected, double bound) {
  check_close(values(got), expected, bound);
}

inline bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

// What `make` gives must not depend on the number of threads, to the last bit.
template <typename Make>
void check_threads(const Make& make) {
  Context one({.threads = 1, .device = {}}), three({.threads = 3, .device = {}});
  Tensor a, b;
  {
    ContextScope scope(one);
    a = make().contiguous();
  }
  {
    ContextScope scope(three);
    b = make().contiguous();
  }
  CHECK(same_bytes(a, b));
}

}  // namespace vitrine::test
