// Pillow's resampling; Pillow 13's src/libImaging/Resample.c and Geometry.c define it. Where they compute in single
// precision, so does this: it decides bytes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/error.h>
#include <vitrine/pipelines/cpu/resample.h>
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

const cpu::ResampleKernels& kernels() {
  static const cpu::ResampleKernels& chosen = []() -> const cpu::ResampleKernels& {
#ifdef VITRINE_X86
    if (cpu::isa() >= cpu::Isa::avx512) return cpu::avx512::resample_kernels();
    if (cpu::isa() >= cpu::Isa::avx2) return cpu::avx2::resample_kernels();
#endif
    return cpu::scalar::resample_kernels();
  }();
  return chosen;
}

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

struct Taps {
  Taps(const Axis& axis, const FilterShape& filter) {
    const double scale = axis.step(), widened = std::max(scale, 1.0);
    const double support = filter.support * widened, inverse = 1.0 / widened;
    const auto most = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
    view.size = axis.end - axis.begin;
    view.stride = (most + 15) / 16 * 16;
    if (view.size > (std::int64_t{1} << 31) / view.stride) {
      throw Error(fmt::format("resize: {} pixels from {} need too many coefficients", axis.size, axis.source));
    }
    first.resize(static_cast<std::size_t>(view.size));
    count.resize(static_cast<std::size_t>(view.size));
    weights.assign(static_cast<std::size_t>(view.size * view.stride), 0);
    std::vector<double> exact(static_cast<std::size_t>(most));
    for (std::int64_t x = 0; x < view.size; ++x) {
      const double center = axis.from + (static_cast<double>(axis.begin + x) + 0.5) * scale;
      const auto begin = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
      const auto end = std::min(static_cast<std::int64_t>(center + support + 0.5), axis.source);
      double sum = 0.0;
      for (std::int64_t i = begin; i < end; ++i) {
        exact[i - begin] = filter.value((static_cast<double>(i) - center + 0.5) * inverse);
        sum += exact[i - begin];
      }
      first[x] = static_cast<std::int32_t>(begin);
      count[x] = static_cast<std::int32_t>(std::max<std::int64_t>(end - begin, 0));
      std::int32_t* row = weights.data() + x * view.stride;
      for (std::int32_t k = 0; k < count[x]; ++k) {
        const double fixed = (sum != 0.0 ? exact[k] / sum : exact[k]) * (1 << cpu::kResamplePrecisionBits);
        row[k] = static_cast<std::int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
      }
    }
    view.first = first.data();
    view.count = count.data();
    view.weights = weights.data();
  }
  Taps(const Taps&) = delete;
  Taps& operator=(const Taps&) = delete;

  std::vector<std::int32_t> first, count, weights;
  cpu::ResampleTaps view{};
};

// Pillow's affine transform at pixel centres. It adds the step up from the left instead of multiplying, which decides
// between neighbours where the centre falls on an edge.
Image resize_nearest(const Image& image, const Axis& horizontal, const Axis& vertical) {
  const auto positions = [](const Axis& axis) {
    std::vector<std::int64_t> table;
    double at = axis.from + axis.step() * 0.5;
    for (std::int64_t i = 0; i < axis.end; ++i, at += axis.step()) {
      const bool inside = at >= 0.0 && at < static_cast<double>(axis.source);
      if (i >= axis.begin) table.push_back(inside ? static_cast<std::int64_t>(at) : -1);
    }
    return table;
  };
  const std::int64_t channels = image.channels;
  const auto columns = positions(horizontal), rows = positions(vertical);
  Image result = make_image(horizontal.end - horizontal.begin, vertical.end - vertical.begin, channels);
  for (std::int64_t y = 0; y < result.height; ++y) {
    if (rows[y] < 0) continue;
    const std::uint8_t* from = image.row(rows[y]);
    std::uint8_t* to = result.row(y);
    for (std::int64_t x = 0; x < result.width; ++x) {
      if (columns[x] >= 0) std::copy_n(from + columns[x] * channels, channels, to + x * channels);
    }
  }
  return result;
}

// Rows [first, first + count) of the picture, made `taps.size` wide.
Image resample_rows(const Image& image, std::int64_t first, std::int64_t count, const Taps& taps) {
  Image result = make_image(taps.view.size, count, image.channels);
  const auto bytes = static_cast<std::size_t>(image.width * image.channels);
  std::vector<std::uint8_t> padded(bytes + cpu::kResampleRowPadding);
  for (std::int64_t y = 0; y < count; ++y) {
    std::memcpy(padded.data(), image.row(first + y), bytes);
    kernels().horizontal(padded.data(), image.channels, taps.view, result.row(y));
  }
  return result;
}

// `image` holds the source's rows from `offset` on.
Image resample_columns(const Image& image, std::int64_t offset, const Taps& taps) {
  Image result = make_image(image.width, taps.view.size, image.channels);
  for (std::int64_t y = 0; y < taps.view.size; ++y) {
    kernels().vertical(image.row(taps.first[y] - offset), image.width * image.channels,
                       taps.weights.data() + y * taps.view.stride, taps.count[y], result.row(y));
  }
  return result;
}

// Pillow's resize of the whole picture to horizontal.size x vertical.size, of which the wanted part is computed.
Image resize_part(const Image& image, const Axis& horizontal, const Axis& vertical, Filter filter) {
  const std::int64_t width = horizontal.end - horizontal.begin, height = vertical.end - vertical.begin;
  if (horizontal.is_copy() && vertical.is_copy()) return crop_image(image, horizontal.begin, vertical.begin, width, height);
  if (filter == Filter::nearest) return resize_nearest(image, horizontal, vertical);
  const FilterShape shape = shape_of(filter);
  if (vertical.is_copy()) return resample_rows(image, vertical.begin, height, Taps(horizontal, shape));
  const Taps rows(vertical, shape);
  if (horizontal.is_copy()) {
    return resample_columns(width == image.width ? image : crop_image(image, horizontal.begin, 0, width, image.height), 0, rows);
  }
  const Taps columns(horizontal, shape);
  // Pillow 13's order, which matters where the first pass rounds: whole sizes count, a box does not.
  if (vertical.size < image.height && image.height - vertical.size > 2 * (image.width - horizontal.size)) {
    return resample_rows(resample_columns(image, 0, rows), 0, height, columns);
  }
  const std::int64_t first = rows.first.front(), end = rows.first.back() + rows.count.back();
  return resample_columns(resample_rows(image, first, end - first, columns), first, rows);
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
  return resize_part(image, {image.width, width, part[0], part[2], 0, width}, {image.height, height, part[1], part[3], 0, height},
                     filter);
}

Image resize_window(const Image& image, std::int64_t width, std::int64_t height, Filter filter, const Window& window) {
  check_image(image, "resize");
  return resize_part(image, {image.width, width, 0.0f, static_cast<float>(image.width), window.left, window.left + window.width},
                     {image.height, height, 0.0f, static_cast<float>(image.height), window.top, window.top + window.height},
                     filter);
}

}  // namespace vitrine
