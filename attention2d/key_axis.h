// Where the keys of a varied-size window lie on one axis (varied_window.h): the same formula for every backend.
#pragma once

#include <cstdint>

#include <vitrine/layers/portable.h>

namespace vitrine::detail {

struct KeyAxis {
  float first, step;  // the first key, and their distance
};
// Of window number `window` of `size` positions on an axis of `length`. Offsets are in halves of the map over its whole windows.
VITRINE_PORTABLE KeyAxis keys_on_axis(std::int64_t window, std::int64_t size, std::int64_t length, float scale, float offset) {
  const float half = 0.5f * static_cast<float>(size - 1), centre = static_cast<float>(window * size) + half;
  const float padded = static_cast<float>((length + size - 1) / size * size), step = 1 + scale;
  return {centre - half * step + offset / static_cast<float>(length / size) * (padded - 1) / 2, step};
}

}  // namespace vitrine::detail
