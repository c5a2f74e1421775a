// BEiT's interpolation of relative position tables, as timm does it for windows of another size.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <vitrine/attention2d/partition.h>

namespace vitrine {
namespace {

// The stored offsets are taken to lie at distances that grow geometrically from the center, so that the
// outermost ones are as far apart as the outermost new ones. -> their places along one axis of 2 n - 1 offsets.
std::vector<float> geometric_places(std::int64_t stored, std::int64_t wanted) {
  const std::int64_t side = stored / 2;
  double left = 1.01, right = 1.5, q = left;
  while (right - left > 1e-6) {
    q = (left + right) / 2;
    const double reach = (1 - std::pow(q, static_cast<double>(side))) / (1 - q);
    (reach > static_cast<double>(wanted / 2) ? right : left) = q;
  }
  std::vector<float> places(static_cast<std::size_t>(stored), 0.0f);
  double distance = 1;
  for (std::int64_t i = 0; i < side; ++i) {
    places[static_cast<std::size_t>(side + 1 + i)] = static_cast<float>(distance);
    places[static_cast<std::size_t>(side - 1 - i)] = static_cast<float>(-distance);
    distance += std::pow(q, static_cast<double>(i + 1));
  }
  return places;
}

// Linear interpolation between uneven places; outside of them the nearest value.
struct Between {
  std::size_t left, right;
  float to_left, to_right;  // distances
};

Between locate(const std::vector<float>& places, float x) {
  Between b{};
  b.right = static_cast<std::size_t>(std::lower_bound(places.begin(), places.end(), x) - places.begin());
  b.right = std::min(b.right, places.size() - 1);
  b.left = b.right > 0 ? b.right - 1 : 0;
  b.to_left = std::max(x - places[b.left], 0.0f);
  b.to_right = std::max(places[b.right] - x, 0.0f);
  if (b.to_left == 0 && b.to_right == 0) b.to_left = b.to_right = 1;
  return b;
}

}  // namespace

Tensor resample_relative_positions(const Tensor& table, std::int64_t height, std::int64_t width) {
  const std::int64_t heads = table.size(2), stored_width = table.size(1);
  const auto ys = geometric_places(table.size(0), height), xs = geometric_places(stored_width, width);
  Tensor result = Tensor::empty({height, width, heads});
  const float* from = table.data<float>();
  float* to = result.data<float>();
  for (std::int64_t row = 0; row < height; ++row)
    for (std::int64_t column = 0; column < width; ++column) {
      const Between y = locate(ys, static_cast<float>(row - height / 2)), x = locate(xs, static_cast<float>(column - width / 2));
      const auto at = [&](std::size_t r, std::size_t c) {
        return from + (static_cast<std::int64_t>(r) * stored_width + static_cast<std::int64_t>(c)) * heads;
      };
      const float *ll = at(y.left, x.left), *lr = at(y.left, x.right), *rl = at(y.right, x.left), *rr = at(y.right, x.right);
      const float whole = (y.to_left + y.to_right) * (x.to_left + x.to_right);
      for (std::int64_t h = 0; h < heads; ++h)
        *to++ = (ll[h] * (y.to_right * x.to_right) + lr[h] * (y.to_right * x.to_left) + rl[h] * (y.to_left * x.to_right) +
                 rr[h] * (y.to_left * x.to_left)) /
                whole;
    }
  return result;
}

}  // namespace vitrine
