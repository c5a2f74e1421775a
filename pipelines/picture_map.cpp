#include <vitrine/pipelines/picture_map.h>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/preprocess.h>

namespace vitrine {

namespace {

// Between which two values of the map each pixel of one axis lies, and how far.
struct Tap {
  std::int64_t low = 0, high = 0;
  float weight = 0.0f;  // of `high`
  bool inside = false;  // the model saw this pixel
};

// `placed` of the picture's pixels begin at `offset` of the input's `input` pixels, on which lie `cells` values.
std::vector<Tap> make_taps(std::int64_t pixels, std::int64_t placed, std::int64_t offset, std::int64_t input,
                           std::int64_t cells) {
  const double cell = static_cast<double>(input) / static_cast<double>(cells);
  // Values that lie on the picture: those beyond would mix the padding in.
  const auto first = static_cast<std::int64_t>(std::floor(static_cast<double>(std::max<std::int64_t>(offset, 0)) / cell));
  const auto last = static_cast<std::int64_t>(std::ceil(static_cast<double>(std::min(offset + placed, input)) / cell)) - 1;
  std::vector<Tap> taps(static_cast<std::size_t>(pixels));
  for (std::int64_t i = 0; i < pixels; ++i) {
    const double in =
        (static_cast<double>(i) + 0.5) * static_cast<double>(placed) / static_cast<double>(pixels) + static_cast<double>(offset);
    Tap& tap = taps[static_cast<std::size_t>(i)];
    tap.inside = in >= 0.0 && in <= static_cast<double>(input);
    const double at = std::clamp(in / cell - 0.5, static_cast<double>(first), static_cast<double>(std::max(first, last)));
    tap.low = static_cast<std::int64_t>(at);
    tap.high = std::min(tap.low + 1, std::max(first, last));
    tap.weight = static_cast<float>(at - static_cast<double>(tap.low));
  }
  return taps;
}

}  // namespace

std::vector<float> map_to_picture(const Tensor& map, const PreprocessConfig& config, std::int64_t width, std::int64_t height,
                                  float outside) {
  if (map.rank() != 2 || map.dtype() != DType::f32 || map.numel() == 0)
    throw Error(
        fmt::format("map_to_picture: the map is {} {}, expected [h, w] of f32", name_of(map.dtype()), map.shape().to_string()));
  const Placement placement = place_image(width, height, config);
  const std::vector<Tap> rows = make_taps(height, placement.height, placement.top, config.height, map.size(0));
  const std::vector<Tap> columns = make_taps(width, placement.width, placement.left, config.width, map.size(1));
  std::vector<float> values(static_cast<std::size_t>(width * height), outside);
  for (std::int64_t y = 0; y < height; ++y) {
    const Tap& row = rows[static_cast<std::size_t>(y)];
    if (!row.inside) continue;
    const float* upper = map.data<float>() + row.low * map.stride(0);
    const float* lower = map.data<float>() + row.high * map.stride(0);
    float* out = values.data() + y * width;
    for (std::int64_t x = 0; x < width; ++x) {
      const Tap& column = columns[static_cast<std::size_t>(x)];
      if (!column.inside) continue;
      const float top = std::lerp(upper[column.low], upper[column.high], column.weight);
      const float bottom = std::lerp(lower[column.low], lower[column.high], column.weight);
      out[x] = std::lerp(top, bottom, row.weight);
    }
  }
  return values;
}

}  // namespace vitrine
