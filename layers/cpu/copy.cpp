#include <vitrine/layers/cpu/copy.h>

#include <vitrine/layers/cpu/vectors.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

struct Bool {
  std::uint8_t value;
};

template <typename A, typename B>
inline constexpr bool same = false;
template <typename A>
inline constexpr bool same<A, A> = true;

template <typename T>
inline constexpr bool floating = same<T, float> || same<T, F16> || same<T, Bf16>;

inline float value(float x) { return x; }
inline float value(Bf16 x) { return bf16_to_float(x.bits); }
inline float value(F16 x) {
  float f[Vf::kLanes];
  store(f, load_n(&x, 1));
  return f[0];
}
inline std::int64_t value(std::int64_t x) { return x; }
inline std::int64_t value(std::int32_t x) { return x; }
inline std::int64_t value(std::int8_t x) { return x; }
inline std::int64_t value(std::uint8_t x) { return x; }
inline std::int64_t value(Bool x) { return x.value != 0; }

template <typename T>
inline constexpr T kLowest = static_cast<T>(i64{-1} << (8 * sizeof(T) - 1));
template <>
inline constexpr std::uint8_t kLowest<std::uint8_t> = 0;
template <typename T>
inline constexpr T kHighest = static_cast<T>(~kLowest<T>);

template <typename T>
void put(T* to, float x) {
  if constexpr (same<T, float>) {
    *to = x;
  } else if constexpr (floating<T>) {
    store_n(to, set1(x), 1);
  } else if constexpr (same<T, Bool>) {
    to->value = x != 0.0f;
  } else if (x >= static_cast<float>(kHighest<T>)) {
    *to = kHighest<T>;
  } else if (x > static_cast<float>(kLowest<T>)) {
    *to = static_cast<T>(x);
  } else {
    *to = x == x ? kLowest<T> : T{0};
  }
}

template <typename T>
void put(T* to, std::int64_t x) {
  if constexpr (floating<T>)
    put(to, static_cast<float>(x));
  else if constexpr (same<T, Bool>)
    to->value = x != 0;
  else
    *to = static_cast<T>(x);
}

template <typename From, typename To>
void convert(const void* from, void* to, i64 rows, i64 columns, i64 from_row, i64 to_row) {
  if (columns == 0) return;  // then the pointers may be null, which memcpy does not take
  for (i64 r = 0; r < rows; ++r) {
    const From* a = at<From>(from, r * from_row);
    To* b = at<To>(to, r * to_row);
    if constexpr (same<From, To>) {
      __builtin_memcpy(b, a, static_cast<std::size_t>(columns) * sizeof(To));
    } else if constexpr (floating<From> && floating<To>) {
      for_vectors(columns, [&](i64 c, int n) { store_lanes(b + c, load_lanes(a + c, n), n); });
    } else {
      for (i64 c = 0; c < columns; ++c) put(b + c, value(a[c]));
    }
  }
}

// Tiles of 16 x 16 elements, so that a cache line that was fetched is used up before it goes.
template <typename T>
void transpose(const void* from, void* to, i64 rows, i64 columns, i64 from_row, i64 to_row) {
  constexpr i64 kTile = 16;
  for (i64 r0 = 0; r0 < rows; r0 += kTile) {
    const i64 r1 = r0 + kTile < rows ? r0 + kTile : rows;
    for (i64 c0 = 0; c0 < columns; c0 += kTile) {
      const i64 c1 = c0 + kTile < columns ? c0 + kTile : columns;
      for (i64 c = c0; c < c1; ++c) {
        T* b = at<T>(to, c * to_row);
        for (i64 r = r0; r < r1; ++r) b[r] = *at<T>(from, r * from_row + c * static_cast<i64>(sizeof(T)));
      }
    }
  }
}

// The order of DType.
#define VITRINE_CONVERT_FROM(From)                                                                                           \
  {                                                                                                                          \
    convert<From, float>, convert<From, F16>, convert<From, Bf16>, convert<From, std::int64_t>, convert<From, std::int32_t>, \
        convert<From, std::int8_t>, convert<From, std::uint8_t>, convert<From, Bool>                                         \
  }

}  // namespace

const CopyKernels& copy_kernels() {
  static constexpr CopyKernels kTable = {
      kTargetName,
      {VITRINE_CONVERT_FROM(float), VITRINE_CONVERT_FROM(F16), VITRINE_CONVERT_FROM(Bf16), VITRINE_CONVERT_FROM(std::int64_t),
       VITRINE_CONVERT_FROM(std::int32_t), VITRINE_CONVERT_FROM(std::int8_t), VITRINE_CONVERT_FROM(std::uint8_t),
       VITRINE_CONVERT_FROM(Bool)},
      {transpose<std::uint8_t>, transpose<std::uint16_t>, transpose<std::uint32_t>, transpose<std::uint64_t>}};
  return kTable;
}

}  // namespace vitrine::cpu::VITRINE_TARGET
