// How kernels walk a row in vectors. Included by kernel sources only, like simd.h.
#pragma once

#include <vitrine/layers/cpu/simd.h>

namespace vitrine::cpu::VITRINE_TARGET {

#define VITRINE_TEXT_OF(x) #x
#define VITRINE_TEXT(x) VITRINE_TEXT_OF(x)
inline constexpr char kTargetName[] = VITRINE_TEXT(VITRINE_TARGET);

// The element `bytes` past p.
template <typename T>
inline const T* at(const void* p, i64 bytes) {
  return reinterpret_cast<const T*>(static_cast<const char*>(p) + bytes);
}
template <typename T>
inline T* at(void* p, i64 bytes) {
  return reinterpret_cast<T*>(static_cast<char*>(p) + bytes);
}

// Calls body(column, lanes) for whole vectors and once for the rest. The rest goes through the same vector arithmetic, so
// that an element's value does not depend on where a row was cut.
template <typename Body>
inline void for_vectors(i64 columns, const Body& body) {
  i64 c = 0;
  for (; c + Vf::kLanes <= columns; c += Vf::kLanes) body(c, Vf::kLanes);
  if (c < columns) body(c, static_cast<int>(columns - c));
}
template <typename T>
inline Vf load_lanes(const T* p, int lanes) {
  return lanes == Vf::kLanes ? load(p) : load_n(p, lanes);
}
template <typename T>
inline void store_lanes(T* p, Vf v, int lanes) {
  lanes == Vf::kLanes ? store(p, v) : store_n(p, v, lanes);
}

}  // namespace vitrine::cpu::VITRINE_TARGET
