// The 16-bit formats: every pattern, and the rounding of floats, against plain arithmetic.
#include <bit>

#include "layers/support.h"

using namespace vitrine;
using test::contains;

namespace {

// The value of a half by its definition.
double half_value(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  if (exponent == 31) return fraction ? std::nan("") : sign * HUGE_VAL;
  return sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
}

// Nearest half to x >= 0, ties to the even pattern: halves in order of their patterns are halves in order of value.
std::uint16_t nearest_half(double x) {
  std::uint16_t low = 0, high = 0x7c00;  // infinity stands for 65536 when rounding
  const auto value = [](std::uint16_t bits) { return bits == 0x7c00 ? 65536.0 : half_value(bits); };
  while (high - low > 1) {
    const auto middle = static_cast<std::uint16_t>((low + high) / 2);
    (value(middle) <= x ? low : high) = middle;
  }
  if (x >= value(high)) return high;
  const double to_low = x - value(low), to_high = value(high) - x;
  return to_low < to_high || (to_low == to_high && low % 2 == 0) ? low : high;
}

}  // namespace

TEST_CASE("every half is what the format says, and comes back") {
  for (int i = 0; i < 65536; ++i) {
    const float16 h = std::bit_cast<float16>(static_cast<std::uint16_t>(i));
    const auto f = static_cast<float>(h);
    const double expected = half_value(h.bits);
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(f));
      REQUIRE(std::isnan(static_cast<float>(float16(f))));
    } else {
      REQUIRE(f == expected);
      REQUIRE(std::signbit(f) == (i >= 0x8000));
      REQUIRE(float16(f).bits == h.bits);
    }
  }
}

TEST_CASE("every bfloat16 comes back") {
  for (int i = 0; i < 65536; ++i) {
    const bfloat16 b = std::bit_cast<bfloat16>(static_cast<std::uint16_t>(i));
    const auto f = static_cast<float>(b);
    if (std::isnan(f))
      REQUIRE(std::isnan(static_cast<float>(bfloat16(f))));
    else
      REQUIRE(bfloat16(f).bits == b.bits);
  }
}

TEST_CASE("floats round to the nearest half, ties to even") {
  std::mt19937 engine(7);
  std::uniform_real_distribution<float> exponent(-30.0f, 18.0f);
  for (int i = 0; i < 50'000; ++i) {
    float x = std::exp2(exponent(engine));
    if (i % 4 == 0) x = static_cast<float>(half_value(static_cast<std::uint16_t>(engine() % 0x7bff)));
    if (i % 8 == 0) x = std::nextafter(x * (1 + 0x1p-11f), i % 16 == 0 ? 0.0f : HUGE_VALF);  // beside a tie
    REQUIRE(float16(x).bits == nearest_half(x));
    REQUIRE(float16(-x).bits == (nearest_half(x) | 0x8000));
  }
  CHECK(float16(65519.996f).bits == 0x7bff);
  CHECK(float16(65520.0f).bits == 0x7c00);
  CHECK(float16(0x1p-25f).bits == 0);    // a tie between 0 and the least subnormal
  CHECK(float16(0x1.8p-24f).bits == 2);  // a tie between 1 and 2
  CHECK(float16(HUGE_VALF).bits == 0x7c00);
}

TEST_CASE("floats round to the nearest bfloat16, ties to even") {
  CHECK(bfloat16(1.0f + 0x1p-8f).bits == 0x3f80);
  CHECK(bfloat16(1.0f + 0x1.8p-7f).bits == 0x3f82);
  CHECK(bfloat16(std::nextafter(1.0f + 0x1p-8f, 2.0f)).bits == 0x3f81);
  CHECK(bfloat16(std::numeric_limits<float>::max()).bits == 0x7f80);
  CHECK(bfloat16(-0.0f).bits == 0x8000);
  std::mt19937 engine(3);
  for (int i = 0; i < 50'000; ++i) {
    const auto x = std::bit_cast<float>(static_cast<std::uint32_t>(engine()));
    if (!std::isfinite(x)) continue;
    const auto down = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16);
    const auto up = static_cast<std::uint16_t>(down + 1);
    const auto value = [](std::uint16_t bits) { return static_cast<double>(static_cast<float>(std::bit_cast<bfloat16>(bits))); };
    if (!std::isfinite(value(up))) continue;
    const double a = std::fabs(x - value(down)), b = std::fabs(value(up) - x);
    REQUIRE(bfloat16(x).bits == (a < b || (a == b && down % 2 == 0) ? down : up));
  }
}

TEST_CASE("dtypes have names and sizes") {
  for (auto [name, dtype, size] : {std::tuple{"f32", DType::f32, 4},
                                   {"f16", DType::f16, 2},
                                   {"bf16", DType::bf16, 2},
                                   {"i64", DType::i64, 8},
                                   {"i32", DType::i32, 4},
                                   {"i8", DType::i8, 1},
                                   {"u8", DType::u8, 1},
                                   {"bool", DType::boolean, 1}}) {
    CHECK(parse_dtype(name) == dtype);
    CHECK(name_of(dtype) == name);
    CHECK(size_of(dtype) == static_cast<std::size_t>(size));
  }
  CHECK(parse_dtype("bfloat16") == DType::bf16);
  CHECK(parse_dtype("half") == DType::f16);
  CHECK_THROWS_WITH(parse_dtype("f64"), contains("unknown dtype 'f64'"));
  CHECK_THROWS_AS(parse_dtype(""), Error);
}
