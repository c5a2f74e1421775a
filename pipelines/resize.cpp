// Pillow's resampling; Pillow 13's src/libImaging/Resample.c and Geometry.c define it. Where they compute in single
// precision, so does this: it decides bytes.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/cpu/resample.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/pictures.h>
#include <vitrine/pipelines/image.h>
#include <vitrine/pipelines/pixels.h>

namespace vitrine {
namespace {

constexpr std::array<std::pair<std::string_view, Filter>, 6> kFilters{{{"nearest", Filter::nearest},
                                                                       {"box", Filter::box},
                                                                       {"bilinear", Filter::bilinear},
                                                                       {"hamming", Filter::hamming},
                                                                       {"bicubic", Filter::bicubic},
                                                                       {"lanczos", Filter::lanczos}}};

struct FilterShape {
  double support;
  double (*value)(double x);
};

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

FilterShape shape_of(Filter filter) {
  switch (filter) {
    case Filter::box:
      return {0.5, [](double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }};
    case Filter::bilinear:
      return {1.0, [](double x) {
                x = std::abs(x);
                return x < 1.0 ? 1.0 - x : 0.0;
              }};
    case Filter::hamming:
      return {1.0, [](double x) {
                x = std::abs(x);
                if (x == 0.0) return 1.0;
                if (x >= 1.0) return 0.0;
                x *= std::numbers::pi;
                return std::sin(x) / x * (0.54f + 0.46f * std::cos(x));  // the constants are floats there
              }};
    case Filter::bicubic:
      return {2.0, [](double x) {
                constexpr double a = -0.5;
                x = std::abs(x);
                if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
                if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
                return 0.0;
              }};
    case Filter::lanczos:
      return {3.0, [](double x) { return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0; }};
    case Filter::nearest:
      break;
  }
  throw Error("resize: nearest has no filter shape");
}

// One axis: `size` outputs over [from, to) of `source` pixels, of which those from `begin` to `end` are wanted.
struct Axis {
  std::int64_t source, size;
  float from, to;
  std::int64_t begin, end;

  double step() const { return static_cast<double>(to - from) / static_cast<double>(size); }
  bool is_copy() const { return size == source && from == 0.0f && to == static_cast<float>(source); }
};

ResampleAxis filtered(const Axis& axis, const FilterShape& filter) {
  const double scale = axis.step(), widened = std::max(scale, 1.0);
  const double support = filter.support * widened, inverse = 1.0 / widened;
  const auto most = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
  ResampleAxis taps{.size = axis.end - axis.begin, .stride = (most + 15) / 16 * 16};
  if (taps.size > (std::int64_t{1} << 31) / taps.stride) {
    throw Error(fmt::format("resize: {} pixels from {} need too many coefficients", axis.size, axis.source));
  }
  taps.first.resize(static_cast<std::size_t>(taps.size));
  taps.count.resize(static_cast<std::size_t>(taps.size));
  taps.weights.assign(static_cast<std::size_t>(taps.size * taps.stride), 0);
  std::vector<double> exact(static_cast<std::size_t>(most));
  for (std::int64_t x = 0; x < taps.size; ++x) {
    const double center = axis.from + (static_cast<double>(axis.begin + x) + 0.5) * scale;
    const auto begin = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
    const auto end = std::min(static_cast<std::int64_t>(center + support + 0.5), axis.source);
    double sum = 0.0;
    for (std::int64_t i = begin; i < end; ++i) {
      exact[i - begin] = filter.value((static_cast<double>(i) - center + 0.5) * inverse);
      sum += exact[i - begin];
    }
    taps.first[x] = static_cast<std::int32_t>(begin);
    taps.count[x] = static_cast<std::int32_t>(std::max<std::int64_t>(end - begin, 0));
    std::int32_t* row = taps.weights.data() + x * taps.stride;
    for (std::int32_t k = 0; k < taps.count[x]; ++k) {
      const double fixed = (sum != 0.0 ? exact[k] / sum : exact[k]) * (1 << cpu::kResamplePrecisionBits);
      row[k] = static_cast<std::int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    }
  }
  return taps;
}

// Pillow's affine transform at pixel centres. It adds the step up from the left instead of multiplying, which decides
// between neighbours where the centre falls on an edge.
ResampleAxis nearest(const Axis& axis) {
  ResampleAxis taps{.size = axis.end - axis.begin, .stride = 1};
  double at = axis.from + axis.step() * 0.5;
  for (std::int64_t i = 0; i < axis.end; ++i, at += axis.step()) {
    if (i < axis.begin) continue;
    const bool inside = at >= 0.0 && at < static_cast<double>(axis.source);
    taps.first.push_back(inside ? static_cast<std::int32_t>(at) : 0);
    taps.count.push_back(inside ? 1 : 0);
    taps.weights.push_back(1 << cpu::kResamplePrecisionBits);
  }
  return taps;
}

// Pillow's resize of the whole picture to horizontal.size x vertical.size, of which the wanted part is computed.
ResamplePlan plan_part(const Axis& horizontal, const Axis& vertical, Filter filter) {
  const auto taps = [&](const Axis& axis) {
    if (axis.is_copy()) return ResampleAxis{.size = axis.end - axis.begin, .begin = axis.begin};
    return filtered(axis, shape_of(filter));
  };
  // Pillow 13's order, which matters where the first pass rounds: whole sizes count, a box does not.
  const bool rows_first =
      vertical.size < vertical.source && vertical.source - vertical.size > 2 * (horizontal.source - horizontal.size);
  if (filter == Filter::nearest && !(horizontal.is_copy() && vertical.is_copy()))
    return {nearest(horizontal), nearest(vertical), rows_first, true};
  return {taps(horizontal), taps(vertical), rows_first, false};
}

Image resampled(const Image& image, const ResamplePlan& plan) {
  return {plan.columns.size, plan.rows.size, image.channels, resample(pixels_of(image), plan)};
}

Axis whole_axis(std::int64_t source, std::int64_t size, std::int64_t begin, std::int64_t wanted) {
  return {source, size, 0.0f, static_cast<float>(source), begin, begin + wanted};
}

}  // namespace

Filter parse_filter(std::string_view name) {
  for (const auto& [known, filter] : kFilters) {
    if (known == name) return filter;
  }
  if (name == "area") return Filter::box;  // OpenCV's and PyTorch's name for averaging
  throw Error(fmt::format("interpolation {}: unknown; expected nearest, box, bilinear, hamming, bicubic or lanczos", name));
}

Image resize_image(const Image& image, std::int64_t width, std::int64_t height, Filter filter,
                   std::optional<std::array<double, 4>> box) {
  check_image(image, "resize");
  if (width < 1 || height < 1 || width > kMaxPixels / height) {
    throw Error(fmt::format("resize: to {}x{}, expected at least 1x1 and at most 2^28 pixels", width, height));
  }
  const auto source_width = static_cast<float>(image.width), source_height = static_cast<float>(image.height);
  std::array<float, 4> part{0.0f, 0.0f, source_width, source_height};
  if (box) std::transform(box->begin(), box->end(), part.begin(), [](double edge) { return static_cast<float>(edge); });
  // Written so that NaN is refused, too.
  if (!(part[0] >= 0 && part[1] >= 0 && part[0] < part[2] && part[1] < part[3] && part[2] <= source_width &&
        part[3] <= source_height)) {
    throw Error(fmt::format("resize: box [{}, {}, {}, {}] is empty or reaches out of the {}x{} picture", part[0], part[1],
                            part[2], part[3], image.width, image.height));
  }
  return resampled(image, plan_part({image.width, width, part[0], part[2], 0, width},
                                    {image.height, height, part[1], part[3], 0, height}, filter));
}

ResamplePlan plan_window(const Image& image, std::int64_t width, std::int64_t height, Filter filter, const Window& window) {
  check_image(image, "resize");
  return plan_part(whole_axis(image.width, width, window.left, window.width),
                   whole_axis(image.height, height, window.top, window.height), filter);
}

Image resize_window(const Image& image, std::int64_t width, std::int64_t height, Filter filter, const Window& window) {
  return resampled(image, plan_window(image, width, height, filter, window));
}

}  // namespace vitrine
