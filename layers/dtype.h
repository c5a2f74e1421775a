// Element types, and the 16-bit storage formats with their conversions.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <vitrine/layers/export.h>

namespace vitrine {

enum class DType : std::uint8_t { f32, f16, bf16, i64, i32, i8, u8, boolean };

VITRINE_API std::size_t size_of(DType dtype);          // bytes of one element
VITRINE_API std::string_view name_of(DType dtype);     // "f32", "bf16", ...
VITRINE_API DType parse_dtype(std::string_view name);  // also "float32", "bfloat16", "half", ...; throws Error
VITRINE_API bool is_floating_point(DType dtype);

// bfloat16: the upper half of a float32. Conversion rounds to nearest even; NaN stays NaN.
struct bfloat16 {
  std::uint16_t bits = 0;

  bfloat16() = default;
  explicit bfloat16(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    bits = (u & 0x7fffffffu) > 0x7f800000u ? static_cast<std::uint16_t>((u >> 16) | 0x40u)
                                           : static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

// IEEE 754 half precision. Conversion rounds to nearest even, with subnormals, infinities and NaN.
struct float16 {
  std::uint16_t bits = 0;

  float16() = default;
  VITRINE_API explicit float16(float value);
  VITRINE_API explicit operator float() const;
};

// The C++ type of a dtype's elements, for Tensor::data<T>() checks.
template <typename T>
constexpr bool holds(DType dtype) {
  if constexpr (std::is_same_v<T, float>) return dtype == DType::f32;
  if constexpr (std::is_same_v<T, float16>) return dtype == DType::f16;
  if constexpr (std::is_same_v<T, bfloat16>) return dtype == DType::bf16;
  if constexpr (std::is_same_v<T, std::int64_t>) return dtype == DType::i64;
  if constexpr (std::is_same_v<T, std::int32_t>) return dtype == DType::i32;
  if constexpr (std::is_same_v<T, std::int8_t>) return dtype == DType::i8;
  if constexpr (std::is_same_v<T, std::uint8_t>) return dtype == DType::u8 || dtype == DType::boolean;
  if constexpr (std::is_same_v<T, bool>) return dtype == DType::boolean;
  return false;
}

}  // namespace vitrine
