#include <vitrine/layers/dtype.h>

#include <array>
#include <string>

#include <fmt/format.h>

#include <vitrine/layers/error.h>

namespace vitrine {

namespace {

struct Row {
  DType dtype;
  std::string_view name;
  std::size_t size;
  std::array<std::string_view, 4> aliases;
};

constexpr Row kRows[] = {
    {DType::f32, "f32", 4, {"float32", "fp32", "float", ""}},
    {DType::f16, "f16", 2, {"float16", "fp16", "half", ""}},
    {DType::bf16, "bf16", 2, {"bfloat16", "", "", ""}},
    {DType::i64, "i64", 8, {"int64", "", "", ""}},
    {DType::i32, "i32", 4, {"int32", "", "", ""}},
    {DType::i8, "i8", 1, {"int8", "", "", ""}},
    {DType::u8, "u8", 1, {"uint8", "", "", ""}},
    {DType::boolean, "bool", 1, {"boolean", "", "", ""}},
};

const Row& row(DType dtype) { return kRows[static_cast<int>(dtype)]; }

}  // namespace

Error::~Error() = default;

std::size_t size_of(DType dtype) { return row(dtype).size; }
std::string_view name_of(DType dtype) { return row(dtype).name; }
bool is_floating_point(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

DType parse_dtype(std::string_view name) {
  for (const Row& r : kRows) {
    if (name == r.name) return r.dtype;
    for (std::string_view alias : r.aliases)
      if (!alias.empty() && name == alias) return r.dtype;
  }
  throw Error(fmt::format("unknown dtype '{}': expected f32, bf16, f16, i64, i32, i8, u8 or bool", name));
}

float16::float16(float value) {
  const auto u = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {  // NaN
    bits = static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  } else if (magnitude >= 0x477ff000u) {  // rounds past the largest half
    bits = static_cast<std::uint16_t>(sign | 0x7c00u);
  } else if (magnitude < 0x38800000u) {  // subnormal or zero: adding 0.5 aligns the mantissa and rounds to even
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    bits = static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
  } else {
    const std::uint32_t odd = (magnitude >> 13) & 1u;
    bits = static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
  }
}

float16::operator float() const {
  const std::uint32_t sign = (bits & 0x8000u) << 16, rest = bits & 0x7fffu;
  std::uint32_t u;
  if (rest >= 0x7c00u) {
    u = 0x7f800000u | ((rest & 0x3ffu) << 13);
  } else if (rest >= 0x400u) {
    u = (rest << 13) + 0x38000000u;
  } else {  // subnormal: rest * 2^-24
    u = std::bit_cast<std::uint32_t>(static_cast<float>(rest) * 0x1p-24f);
  }
  return std::bit_cast<float>(u | sign);
}

}  // namespace vitrine
