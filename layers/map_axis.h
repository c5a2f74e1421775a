// Which inputs an output position of a pooling or of a resize reads, along one axis: the same formulas for every backend.
#pragma once

#include <cmath>
#include <cstdint>

#include <vitrine/layers/portable.h>

namespace vitrine::detail {

// The windows of a pooling: output i reads [begin, end); `count` positions count for an average.
struct PoolAxis {
  std::int64_t size = 0, outputs = 0;
  bool is_adaptive = false;
  std::int64_t kernel = 1, stride = 1, pad = 0, pad_end = 0;  // not adaptive only
  bool count_include_pad = true;
};
struct PoolWindow {
  std::int64_t begin, end, count;
};
VITRINE_PORTABLE PoolWindow window_at(const PoolAxis& axis, std::int64_t i) {
  if (axis.is_adaptive) {
    const std::int64_t begin = i * axis.size / axis.outputs, end = ((i + 1) * axis.size + axis.outputs - 1) / axis.outputs;
    return {begin, end, end - begin};
  }
  const std::int64_t first = i * axis.stride - axis.pad, padded = axis.size + axis.pad_end;
  const std::int64_t last = first + axis.kernel < padded ? first + axis.kernel : padded;
  const std::int64_t begin = first > 0 ? first : 0, end = last < axis.size ? last : axis.size;
  return {begin, end, axis.count_include_pad ? last - first : end - begin};
}

// F.interpolate along one axis: output i is the sum over k < taps of weight(i, k) x[index(i, k)], computed in f32 as PyTorch
// does, so that borders and roundings fall alike.
enum class TapKind : std::uint8_t { linear, cubic, antialias_linear, antialias_cubic };
struct ResizeAxis {
  std::int64_t in = 0, out = 0;
  TapKind kind = TapKind::linear;
  bool align_corners = false;
};

VITRINE_PORTABLE float resize_scale(const ResizeAxis& a) {
  if (a.align_corners) return a.out > 1 ? static_cast<float>(a.in - 1) / static_cast<float>(a.out - 1) : 0.0f;
  return static_cast<float>(a.in) / static_cast<float>(a.out);
}
VITRINE_PORTABLE bool is_antialiased(const ResizeAxis& a) { return a.kind >= TapKind::antialias_linear; }
VITRINE_PORTABLE bool is_cubic(const ResizeAxis& a) { return a.kind == TapKind::cubic || a.kind == TapKind::antialias_cubic; }

VITRINE_PORTABLE float cubic_weight(float x, float a) {  // Keys' kernel
  x = x < 0.0f ? -x : x;
  if (x < 1.0f) return ((a + 2.0f) * x - (a + 3.0f)) * x * x + 1.0f;
  if (x < 2.0f) return (((x - 5.0f) * x + 8.0f) * x - 4.0f) * a;
  return 0.0f;
}
VITRINE_PORTABLE float triangle_weight(float x) {
  const float y = 1.0f - (x < 0.0f ? -x : x);
  return y > 0.0f ? y : 0.0f;
}

VITRINE_PORTABLE std::int64_t taps_of(const ResizeAxis& a) {
  if (!is_antialiased(a)) return is_cubic(a) ? 4 : 2;
  const float scale = resize_scale(a), support = (is_cubic(a) ? 2.0f : 1.0f) * (scale > 1.0f ? scale : 1.0f);
  return static_cast<std::int64_t>(ceilf(support)) * 2 + 1;
}

// One output's taps: index(k) and weight(k) for k < taps_of(axis).
struct ResizeTaps {
  ResizeAxis axis;
  std::int64_t first = 0, count = 0;  // antialiased: the inputs [first, first + count)
  float center = 0, stretch = 1;      // antialiased
  float fraction = 0, total = 1;

  VITRINE_PORTABLE std::int64_t index(std::int64_t k) const {
    if (is_antialiased(axis)) k = k < count ? k : count - 1;
    const std::int64_t at = first + (axis.kind == TapKind::cubic ? k - 1 : k);
    return at < 0 ? 0 : at < axis.in ? at : axis.in - 1;
  }
  VITRINE_PORTABLE float raw_weight(std::int64_t k) const {
    if (is_antialiased(axis)) {
      const float x = (static_cast<float>(k + first) - center + 0.5f) / stretch;
      return k < count ? (is_cubic(axis) ? cubic_weight(x, -0.5f) : triangle_weight(x)) : 0.0f;
    }
    const float distance = fraction - static_cast<float>(is_cubic(axis) ? k - 1 : k);
    return is_cubic(axis) ? cubic_weight(distance, -0.75f) : triangle_weight(distance);
  }
  VITRINE_PORTABLE float weight(std::int64_t k) const { return is_antialiased(axis) ? raw_weight(k) / total : raw_weight(k); }
};

VITRINE_PORTABLE ResizeTaps taps_at(const ResizeAxis& a, std::int64_t i) {
  ResizeTaps t;
  t.axis = a;
  const float scale = resize_scale(a);
  if (!is_antialiased(a)) {
    float at = a.align_corners ? scale * static_cast<float>(i) : scale * (static_cast<float>(i) + 0.5f) - 0.5f;
    if (!is_cubic(a)) at = at > 0.0f ? at : 0.0f;
    const auto left = static_cast<std::int64_t>(floorf(at));
    t.first = left < a.in - 1 ? left : a.in - 1;
    const float fraction = at - static_cast<float>(t.first);
    t.fraction = fraction < 0.0f ? 0.0f : fraction > 1.0f ? 1.0f : fraction;
    return t;
  }
  // The kernel is stretched over the reduction, as Pillow does.
  t.stretch = scale > 1.0f ? scale : 1.0f;
  const float support = (is_cubic(a) ? 2.0f : 1.0f) * t.stretch;
  t.center = scale * (static_cast<float>(i) + 0.5f);
  const auto first = static_cast<std::int64_t>(t.center - support + 0.5f),
             last = static_cast<std::int64_t>(t.center + support + 0.5f);
  t.first = first > 0 ? first : 0;
  t.count = (last < a.in ? last : a.in) - t.first;
  const std::int64_t taps = taps_of(a);
  t.count = t.count < 0 ? 0 : t.count > taps ? taps : t.count;
  float total = 0.0f;
  for (std::int64_t k = 0; k < taps; ++k) total += t.raw_weight(k);
  t.total = total != 0.0f ? total : 1.0f;
  return t;
}

// The input that a nearest-neighbour resize takes.
VITRINE_PORTABLE std::int64_t nearest_at(std::int64_t in, std::int64_t out, std::int64_t i) {
  const auto at = static_cast<std::int64_t>(floorf(static_cast<float>(i) * (static_cast<float>(in) / static_cast<float>(out))));
  return at < in - 1 ? at : in - 1;
}

}  // namespace vitrine::detail
