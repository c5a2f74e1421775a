// Pillow's resampling (Pillow 13, src/libImaging/Resample.c and Geometry.c define it) and OpenCV's area averaging
// (OpenCV 4, modules/imgproc/src/resize.cpp). Where they compute in single precision, so does this: it decides bytes.
#include <algorithm>
#include <cfloat>
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

// The taps of one axis: `size` outputs over [from, to) of `source` pixels.
struct Taps {
  Taps(std::int64_t source, float from, float to, std::int64_t size, const FilterShape& filter) {
    const double scale = static_cast<double>(to - from) / static_cast<double>(size), widened = std::max(scale, 1.0);
    const double support = filter.support * widened, inverse = 1.0 / widened;
    const auto most = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
    view.size = size;
    view.stride = (most + 15) / 16 * 16;
    if (size > (std::int64_t{1} << 31) / view.stride) {
      throw Error(fmt::format("resize: {} pixels from {} need too many coefficients", size, source));
    }
    first.resize(static_cast<std::size_t>(size));
    count.resize(static_cast<std::size_t>(size));
    weights.assign(static_cast<std::size_t>(size * view.stride), 0);
    std::vector<double> exact(static_cast<std::size_t>(most));
    for (std::int64_t x = 0; x < size; ++x) {
      const double center = from + (static_cast<double>(x) + 0.5) * scale;
      const auto begin = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
      const auto end = std::min(static_cast<std::int64_t>(center + support + 0.5), source);
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
Image resize_nearest(const Image& image, std::int64_t width, std::int64_t height, const std::array<float, 4>& box) {
  const auto positions = [](float from, float to, std::int64_t size, std::int64_t source) {
    std::vector<std::int64_t> table(static_cast<std::size_t>(size));
    const double step = static_cast<double>(to - from) / static_cast<double>(size);
    double at = from + step * 0.5;
    for (std::int64_t& i : table) {
      i = at < 0.0 || at >= static_cast<double>(source) ? -1 : static_cast<std::int64_t>(at);
      at += step;
    }
    return table;
  };
  const std::int64_t channels = image.channels;
  const auto columns = positions(box[0], box[2], width, image.width), rows = positions(box[1], box[3], height, image.height);
  Image result = make_image(width, height, channels);
  for (std::int64_t y = 0; y < height; ++y) {
    if (rows[y] < 0) continue;
    const std::uint8_t* from = image.row(rows[y]);
    std::uint8_t* to = result.row(y);
    for (std::int64_t x = 0; x < width; ++x) {
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

void check_resize(const Image& image, std::int64_t width, std::int64_t height) {
  check_image(image, "resize");
  if (width < 1 || height < 1 || width > kMaxPixels / height) {
    throw Error(fmt::format("resize: to {}x{}, expected at least 1x1 and at most 2^28 pixels", width, height));
  }
}

// One share of a source pixel in an output of OpenCV's area averaging.
struct AreaShare {
  std::int64_t to, from;
  float weight;
};

std::vector<AreaShare> area_shares(std::int64_t source, std::int64_t size, double scale) {
  std::vector<AreaShare> shares;
  for (std::int64_t i = 0; i < size; ++i) {
    const double begin = static_cast<double>(i) * scale, end = begin + scale;
    const double cell = std::min(scale, static_cast<double>(source) - begin);
    const auto last = std::min(static_cast<std::int64_t>(std::floor(end)), source - 1);
    const auto first = std::min(static_cast<std::int64_t>(std::ceil(begin)), last);
    constexpr double kNegligible = 1e-3;
    if (static_cast<double>(first) - begin > kNegligible) {
      shares.push_back({i, first - 1, static_cast<float>((static_cast<double>(first) - begin) / cell)});
    }
    for (std::int64_t j = first; j < last; ++j) shares.push_back({i, j, static_cast<float>(1.0 / cell)});
    const double rest = end - static_cast<double>(last);
    if (rest > kNegligible) shares.push_back({i, last, static_cast<float>(std::min(std::min(rest, 1.0), cell) / cell)});
  }
  return shares;
}

std::uint8_t round_to_byte(float value) { return static_cast<std::uint8_t>(std::clamp(std::nearbyintf(value), 0.0f, 255.0f)); }

// Whole factors: sums of integers. OpenCV halves by rounding up at a tie, others by rounding to even.
Image average_blocks(const Image& image, std::int64_t factor_x, std::int64_t factor_y) {
  Image result = make_image(image.width / factor_x, image.height / factor_y, image.channels);
  const std::int64_t channels = image.channels;
  const float share = 1.0f / static_cast<float>(factor_x * factor_y);
  std::vector<std::int64_t> sums(static_cast<std::size_t>(result.width * channels));
  for (std::int64_t y = 0; y < result.height; ++y) {
    std::fill(sums.begin(), sums.end(), 0);
    for (std::int64_t i = 0; i < factor_y; ++i) {
      const std::uint8_t* from = image.row(y * factor_y + i);
      for (std::int64_t x = 0; x < result.width; ++x) {
        for (std::int64_t j = 0; j < factor_x; ++j) {
          for (std::int64_t c = 0; c < channels; ++c) sums[x * channels + c] += *from++;
        }
      }
    }
    std::uint8_t* to = result.row(y);
    for (std::size_t i = 0; i < sums.size(); ++i) {
      to[i] = factor_x == 2 && factor_y == 2 ? static_cast<std::uint8_t>((sums[i] + 2) >> 2)
                                             : round_to_byte(static_cast<float>(sums[i]) * share);
    }
  }
  return result;
}

Image average_areas(const Image& image, std::int64_t width, std::int64_t height, double scale_x, double scale_y) {
  Image result = make_image(width, height, image.channels);
  const std::int64_t channels = image.channels;
  const auto columns = area_shares(image.width, width, scale_x), rows = area_shares(image.height, height, scale_y);
  std::vector<float> line(static_cast<std::size_t>(width * channels)), sums(line.size(), 0.0f);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const std::uint8_t* from = image.row(rows[r].from);
    std::fill(line.begin(), line.end(), 0.0f);
    for (const AreaShare& share : columns) {
      for (std::int64_t c = 0; c < channels; ++c) {
        line[share.to * channels + c] += static_cast<float>(from[share.from * channels + c]) * share.weight;
      }
    }
    const bool begins = r == 0 || rows[r - 1].to != rows[r].to;
    for (std::size_t i = 0; i < sums.size(); ++i) {
      sums[i] = begins ? rows[r].weight * line[i] : sums[i] + rows[r].weight * line[i];
    }
    if (r + 1 == rows.size() || rows[r + 1].to != rows[r].to) {
      std::transform(sums.begin(), sums.end(), result.row(rows[r].to), round_to_byte);
    }
  }
  return result;
}

// Where a side grows there is no area to average: OpenCV then interpolates linearly, the weight being the part of the
// output pixel that lies over the second source pixel, in 11-bit fixed point.
struct LinearTap {
  std::int64_t first, second;
  std::int32_t weights[2];
};

std::vector<LinearTap> linear_taps(std::int64_t source, std::int64_t size, double scale) {
  const double inverse = static_cast<double>(size) / static_cast<double>(source);
  std::vector<LinearTap> taps;
  for (std::int64_t i = 0; i < size; ++i) {
    auto at = static_cast<std::int64_t>(std::floor(static_cast<double>(i) * scale));
    auto part = static_cast<float>(static_cast<double>(i + 1) - static_cast<double>(at + 1) * inverse);
    part = part <= 0 ? 0.0f : part - std::floor(part);
    if (at >= source - 1) {
      at = source - 1;
      part = 0.0f;
    }
    const auto fixed = [](float weight) { return static_cast<std::int32_t>(std::nearbyintf(weight * 2048.0f)); };
    taps.push_back({at, std::min(at + 1, source - 1), {fixed(1.0f - part), fixed(part)}});
  }
  return taps;
}

Image interpolate_linearly(const Image& image, std::int64_t width, std::int64_t height, double scale_x, double scale_y) {
  Image result = make_image(width, height, image.channels);
  const std::int64_t channels = image.channels;
  const auto columns = linear_taps(image.width, width, scale_x), rows = linear_taps(image.height, height, scale_y);
  const auto widen = [&](std::int64_t y, std::vector<std::int32_t>& line) {
    const std::uint8_t* from = image.row(y);
    for (std::int64_t x = 0; x < width; ++x) {
      const LinearTap& tap = columns[x];
      for (std::int64_t c = 0; c < channels; ++c) {
        line[x * channels + c] =
            from[tap.first * channels + c] * tap.weights[0] + from[tap.second * channels + c] * tap.weights[1];
      }
    }
  };
  std::vector<std::int32_t> upper(static_cast<std::size_t>(width * channels)), lower(upper.size());
  for (std::int64_t y = 0; y < height; ++y) {
    widen(rows[y].first, upper);
    widen(rows[y].second, lower);
    std::uint8_t* to = result.row(y);
    for (std::size_t i = 0; i < upper.size(); ++i) {
      const std::int32_t sum = ((rows[y].weights[0] * (upper[i] >> 4)) >> 16) + ((rows[y].weights[1] * (lower[i] >> 4)) >> 16);
      to[i] = static_cast<std::uint8_t>((sum + 2) >> 2);
    }
  }
  return result;
}

}  // namespace

Filter parse_filter(std::string_view name) {
  for (const auto& [known, filter] : kFilters) {
    if (known == name) return filter;
  }
  throw Error(fmt::format("interpolation {}: unknown; expected nearest, box, bilinear, hamming, bicubic or lanczos", name));
}

Image resize_image(const Image& image, std::int64_t width, std::int64_t height, Filter filter,
                   std::optional<std::array<double, 4>> box) {
  check_resize(image, width, height);
  const auto source_width = static_cast<float>(image.width), source_height = static_cast<float>(image.height);
  std::array<float, 4> part{0.0f, 0.0f, source_width, source_height};
  if (box) std::transform(box->begin(), box->end(), part.begin(), [](double edge) { return static_cast<float>(edge); });
  // Written so that NaN is refused, too.
  if (!(part[0] >= 0 && part[1] >= 0 && part[0] < part[2] && part[1] < part[3] && part[2] <= source_width &&
        part[3] <= source_height)) {
    throw Error(fmt::format("resize: box [{}, {}, {}, {}] is empty or reaches out of the {}x{} picture", part[0], part[1],
                            part[2], part[3], image.width, image.height));
  }
  const bool same_width = width == image.width && part[0] == 0.0f && part[2] == source_width;
  const bool same_height = height == image.height && part[1] == 0.0f && part[3] == source_height;
  if (same_width && same_height) return image;
  if (filter == Filter::nearest) return resize_nearest(image, width, height, part);
  const FilterShape shape = shape_of(filter);
  if (same_height) return resample_rows(image, 0, image.height, Taps(image.width, part[0], part[2], width, shape));
  const Taps vertical(image.height, part[1], part[3], height, shape);
  if (same_width) return resample_columns(image, 0, vertical);
  const Taps horizontal(image.width, part[0], part[2], width, shape);
  // Pillow 13's order, which matters where the first pass rounds: whole sizes count, a box does not.
  if (height < image.height && image.height - height > 2 * (image.width - width)) {
    return resample_rows(resample_columns(image, 0, vertical), 0, height, horizontal);
  }
  const std::int64_t first = vertical.first.front(), end = vertical.first.back() + vertical.count.back();
  return resample_columns(resample_rows(image, first, end - first, horizontal), first, vertical);
}

Image resize_area(const Image& image, std::int64_t width, std::int64_t height) {
  check_resize(image, width, height);
  if (width == image.width && height == image.height) return image;
  const double scale_x = 1.0 / (static_cast<double>(width) / static_cast<double>(image.width));
  const double scale_y = 1.0 / (static_cast<double>(height) / static_cast<double>(image.height));
  if (scale_x < 1.0 || scale_y < 1.0) return interpolate_linearly(image, width, height, scale_x, scale_y);
  const auto factor_x = std::lround(scale_x), factor_y = std::lround(scale_y);
  if (std::abs(scale_x - static_cast<double>(factor_x)) < DBL_EPSILON &&
      std::abs(scale_y - static_cast<double>(factor_y)) < DBL_EPSILON) {
    return average_blocks(image, factor_x, factor_y);
  }
  return average_areas(image, width, height, scale_x, scale_y);
}

}  // namespace vitrine
