#include <vitrine/pipelines/features.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/draw.h>
#include <vitrine/pipelines/picture_map.h>
#include <vitrine/pipelines/preprocess.h>

namespace vitrine {

namespace {

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// What is left of `v` beside `basis`, with length 1; gives its length before, relative to what it was.
double orthonormalize(std::vector<double>& v, std::span<const std::vector<double>> basis) {
  const double before = std::sqrt(dot(v, v));
  for (const auto& b : basis) {
    const double along = dot(v, b);
    for (std::size_t i = 0; i < v.size(); ++i) v[i] -= along * b[i];
  }
  const double length = std::sqrt(dot(v, v));
  if (length > 0.0)
    for (double& value : v) value /= length;
  return before > 0.0 ? length / before : 0.0;
}

// Rows with their mean taken out.
struct Centred {
  std::int64_t n, channels;
  std::vector<float> values;

  explicit Centred(const Tensor& rows) : n(rows.size(0)), channels(rows.size(1)), values(static_cast<std::size_t>(n * channels)) {
    std::vector<double> mean(static_cast<std::size_t>(channels), 0.0);
    for (std::int64_t r = 0; r < n; ++r)
      for (std::int64_t c = 0; c < channels; ++c) mean[static_cast<std::size_t>(c)] += row(rows, r)[c];
    for (double& m : mean) m /= static_cast<double>(n);
    for (std::int64_t r = 0; r < n; ++r)
      for (std::int64_t c = 0; c < channels; ++c)
        values[static_cast<std::size_t>(r * channels + c)] =
            static_cast<float>(row(rows, r)[c] - mean[static_cast<std::size_t>(c)]);
  }

  static const float* row(const Tensor& rows, std::int64_t r) { return rows.data<float>() + r * rows.stride(0); }

  std::vector<double> project(const std::vector<double>& v) const {  // X v
    std::vector<double> out(static_cast<std::size_t>(n), 0.0);
    for (std::int64_t r = 0; r < n; ++r)
      for (std::int64_t c = 0; c < channels; ++c)
        out[static_cast<std::size_t>(r)] += values[static_cast<std::size_t>(r * channels + c)] * v[static_cast<std::size_t>(c)];
    return out;
  }

  std::vector<double> back(const std::vector<double>& u) const {  // X^T u
    std::vector<double> out(static_cast<std::size_t>(channels), 0.0);
    for (std::int64_t r = 0; r < n; ++r)
      for (std::int64_t c = 0; c < channels; ++c)
        out[static_cast<std::size_t>(c)] += values[static_cast<std::size_t>(r * channels + c)] * u[static_cast<std::size_t>(r)];
    return out;
  }
};

// One component by power iteration on X^T X, kept orthogonal to those before. Empty: no variance is left.
std::vector<double> next_component(const Centred& x, std::span<const std::vector<double>> before) {
  constexpr int kSteps = 200;
  constexpr double kConverged = 1e-12, kNothing = 1e-9;
  // A start that no component is orthogonal to by its symmetry, the same in each run.
  std::vector<double> v(static_cast<std::size_t>(x.channels));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = 1.0 + std::sin(static_cast<double>(3 * i + 1));
  orthonormalize(v, before);
  for (int step = 0; step < kSteps; ++step) {
    std::vector<double> next = x.back(x.project(v));
    if (orthonormalize(next, before) < kNothing) return {};
    const double along = dot(next, v);
    v = std::move(next);
    if (1.0 - along < kConverged) break;
  }
  const double largest = *std::max_element(v.begin(), v.end(), [](double a, double b) { return std::abs(a) < std::abs(b); });
  if (largest < 0.0)
    for (double& value : v) value = -value;
  return v;
}

}  // namespace

Tokens parse_tokens(std::string_view name) {
  if (name == "cls") return Tokens::cls;
  if (name == "pooled") return Tokens::pooled;
  if (name == "patch") return Tokens::patch;
  throw Error(fmt::format("tokens '{}': expected cls, pooled or patch", name));
}

FeatureExtractor::FeatureExtractor(const ModelOptions& options) : model_(load_model(options)) {}

PreparedImage FeatureExtractor::prepare(Image image) const {
  return prepare_image(std::move(image), model_.preprocess, model_.backbone->device());
}

Tensor FeatureExtractor::features(std::span<const PreparedImage> prepared, Tokens tokens) const {
  const Backbone& backbone = *model_.backbone;
  const Tensor images = batch_images(prepared, model_.preprocess, backbone.dtype(), backbone.device());
  if (tokens == Tokens::pooled) return backbone.forward_head(backbone.forward_features(images), true).to(DType::f32).to(Device{});
  const IntermediateMap last = backbone.forward_intermediates(images, {.indices = {-1}, .norm = true}).at(0);
  if (tokens == Tokens::patch) return last.map.to(DType::f32).to(Device{}).contiguous();
  if (!last.prefix_tokens.defined() || last.prefix_tokens.size(1) < 1)
    throw Error(fmt::format("{}: has no class token; use --tokens pooled or patch", model_.name));
  return last.prefix_tokens.select(1, 0).to(DType::f32).to(Device{}).contiguous();
}

Tensor principal_components(const Tensor& rows, std::int64_t k) {
  if (rows.rank() != 2 || rows.dtype() != DType::f32)
    throw Error(fmt::format("principal_components: rows are {} {}, expected [N, C] of f32", name_of(rows.dtype()),
                            rows.shape().to_string()));
  const Centred x(rows);
  Tensor coordinates = Tensor::zeros({x.n, k});
  std::vector<std::vector<double>> components;
  for (std::int64_t i = 0; i < std::min({k, x.n, x.channels}); ++i) {
    std::vector<double> component = next_component(x, components);
    if (component.empty()) break;
    const std::vector<double> along = x.project(component);
    for (std::int64_t r = 0; r < x.n; ++r)
      coordinates.data<float>()[r * k + i] = static_cast<float>(along[static_cast<std::size_t>(r)]);
    components.push_back(std::move(component));
  }
  return coordinates;
}

Image components_picture(const Tensor& tokens, const PreprocessConfig& config, const Image& photograph) {
  if (tokens.rank() != 3)
    throw Error(fmt::format("components_picture: tokens are {}, expected [H, W, C]", tokens.shape().to_string()));
  constexpr std::int64_t kColors = 3;
  const std::int64_t h = tokens.size(0), w = tokens.size(1), n = h * w;
  const Tensor coordinates = principal_components(tokens.contiguous().view({n, tokens.size(2)}), kColors);
  Image colors{photograph.width, photograph.height, kColors,
               std::vector<std::uint8_t>(static_cast<std::size_t>(photograph.width * photograph.height * kColors))};
  for (std::int64_t c = 0; c < kColors; ++c) {
    Tensor plane = Tensor::empty({h, w});
    float* values = plane.data<float>();
    for (std::int64_t i = 0; i < n; ++i) values[i] = coordinates.data<float>()[i * kColors + c];
    // From the 2nd to the 98th of a hundred: a single odd token would take all contrast.
    std::vector<float> sorted(values, values + n);
    std::sort(sorted.begin(), sorted.end());
    const float low = sorted[static_cast<std::size_t>(n * 2 / 100)], high = sorted[static_cast<std::size_t>(n - 1 - n * 2 / 100)];
    for (std::int64_t i = 0; i < n; ++i) values[i] = high > low ? std::clamp((values[i] - low) / (high - low), 0.0f, 1.0f) : 0.5f;
    const std::vector<float> spread = map_to_picture(plane, config, photograph.width, photograph.height);
    for (std::size_t i = 0; i < spread.size(); ++i)
      colors.pixels[i * kColors + static_cast<std::size_t>(c)] = static_cast<std::uint8_t>(std::lround(spread[i] * 255.0f));
  }
  const std::array<Image, 2> both{convert_channels(photograph, 3), std::move(colors)};
  return side_by_side(both);
}

}  // namespace vitrine
