// What the tests of attention share: the kernels' targets, and comparison with a tolerance relative to the largest output.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::test {

// "flash_scalar", "flash_avx2", ...: those of `wanted` that this processor has and VITRINE_ISA allows.
inline std::vector<std::string> implementations(std::string_view family, std::initializer_list<cpu::Isa> wanted) {
  std::vector<std::string> names;
  for (const cpu::Isa isa : wanted)
    if (isa <= cpu::isa()) names.push_back(fmt::format("{}_{}", family, cpu::name_of(isa)));
  return names;
}

// The first coordinates (flat) where `got` is further from `expected` than `tolerance` of the largest expected value, with
// both values; empty where there is none.
inline std::string difference(const Tensor& got, const Tensor& expected, double tolerance) {
  if (got.shape() != expected.shape())
    return fmt::format("shape {}, expected {}", got.shape().to_string(), expected.shape().to_string());
  const Tensor a = got.to(DType::f32).contiguous(), b = expected.to(DType::f32).contiguous();
  double largest = 0;
  for (std::int64_t i = 0; i < b.numel(); ++i) largest = std::max(largest, std::abs(static_cast<double>(b.data<float>()[i])));
  for (std::int64_t i = 0; i < b.numel(); ++i) {
    const double x = a.data<float>()[i], y = b.data<float>()[i];
    if (!(std::abs(x - y) <= tolerance * largest)) return fmt::format("element {}: {} expected {}, largest {}", i, x, y, largest);
  }
  return {};
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::equal(static_cast<const char*>(a.raw()), static_cast<const char*>(a.raw()) + a.bytes(),
                    static_cast<const char*>(b.raw()));
}

// f32 sums in another order; bf16 and f16: the weights and the result are rounded.
inline double tolerance_of(DType dtype) { return dtype == DType::f32 ? 1e-5 : dtype == DType::bf16 ? 1.6e-2 : 2e-3; }

}  // namespace vitrine::test
