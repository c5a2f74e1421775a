#include <vitrine/backbones/rotary.h>

#include <cmath>
#include <numbers>
#include <vector>

namespace vitrine::detail {
namespace {

// Position i of `size` along one axis. f32 throughout, as the angles are large and their last bits show.
float coordinate(std::int64_t i, std::int64_t size, std::int64_t reference, const RotaryConfig& c) {
  const auto offset = static_cast<float>(c.grid_offset);
  switch (c.type) {
    case RotaryType::cat: {
      const float x = static_cast<float>(i) + offset;
      return reference > 0 ? x / static_cast<float>(size) * static_cast<float>(reference) : x;
    }
    case RotaryType::dinov3:
      return 2.0f * ((static_cast<float>(i) + 0.5f + offset) / static_cast<float>(size)) - 1.0f;
    case RotaryType::mixed:
    case RotaryType::mrope:
      break;
  }
  return static_cast<float>(i);
}

// The D / 2 angles of a patch to sin and cos [D]: each one twice, side by side or in both halves.
void write_row(const float* angles, std::int64_t half, bool rotate_half, float* sin, float* cos) {
  for (std::int64_t k = 0; k < half; ++k) {
    const float s = std::sin(angles[k]), c = std::cos(angles[k]);
    const std::int64_t first = rotate_half ? k : 2 * k, second = rotate_half ? k + half : 2 * k + 1;
    sin[first] = sin[second] = s;
    cos[first] = cos[second] = c;
  }
}

}  // namespace

RotaryPositions::RotaryPositions(const Weights& w, const RotaryConfig& config) : config_(config), device_(w.device()) {
  if (config_.type == RotaryType::mrope) config_.rotate_half = true;
  if (config_.type == RotaryType::mixed)
    freqs_ = w.get("freqs", {2, config_.depth, config_.num_heads, config_.dim / config_.num_heads / 2}).clone();
}

RotaryPositions::Tables RotaryPositions::operator()(std::int64_t height, std::int64_t width) const {
  return tables_.get(height, width, [&] {
    const Tables made = make(height, width);
    return Tables{made.sin.to(device_), made.cos.to(device_)};
  });
}

RotaryPositions::Tables RotaryPositions::make(std::int64_t height, std::int64_t width) const {
  const RotaryConfig& c = config_;
  const std::int64_t D = c.dim / c.num_heads, half = D / 2, bands = D / 4;
  const bool mixed = c.type == RotaryType::mixed;
  const std::int64_t tables = mixed ? c.depth * c.num_heads : 1, N = height * width;
  const Shape shape = mixed ? Shape{c.depth, c.num_heads, N, D} : Shape{N, D};
  Tables result{Tensor::empty(shape), Tensor::empty(shape)};
  float *sin = result.sin.data<float>(), *cos = result.cos.data<float>();

  // freqs[k]: the factor of a coordinate in angle k (mrope: of D / 2 angles, else of the D / 4 of each axis)
  std::vector<float> freqs(static_cast<std::size_t>(half));
  for (std::int64_t k = 0; k < half; ++k) {
    const float exponent = static_cast<float>(k) / static_cast<float>(c.type == RotaryType::mrope ? half : bands);
    const float power = std::pow(static_cast<float>(c.temperature), exponent);
    freqs[static_cast<std::size_t>(k)] = c.type == RotaryType::dinov3 ? power : 1.0f / power;
  }

  std::vector<float> angles(static_cast<std::size_t>(half));
  for (std::int64_t row = 0; row < height; ++row)
    for (std::int64_t column = 0; column < width; ++column) {
      const auto& ref = c.ref_feat_shape;
      const float y = coordinate(row, height, ref ? (*ref)[0] : 0, c), x = coordinate(column, width, ref ? (*ref)[1] : 0, c);
      const float first = c.xy ? x : y, second = c.xy ? y : x;
      const std::int64_t n = row * width + column;
      for (std::int64_t t = 0; t < tables; ++t) {
        for (std::int64_t k = 0; k < half; ++k) {
          const auto i = static_cast<std::size_t>(k);
          switch (c.type) {
            case RotaryType::cat:
              angles[i] = (k < bands ? first : second) * freqs[i % static_cast<std::size_t>(bands)];
              break;
            case RotaryType::dinov3:
              angles[i] =
                  2.0f * std::numbers::pi_v<float> * (k < bands ? first : second) / freqs[i % static_cast<std::size_t>(bands)];
              break;
            case RotaryType::mixed: {
              const float* f = freqs_.data<float>() + t * half + k;
              angles[i] = first * f[0] + second * f[tables * half];
              break;
            }
            case RotaryType::mrope: {
              const bool is_y = k % 3 == 1 && k < 3 * c.mrope_section[1], is_x = k % 3 == 2 && k < 3 * c.mrope_section[2];
              angles[i] = (is_y ? y : is_x ? x : 0.0f) * freqs[i];
              break;
            }
          }
        }
        write_row(angles.data(), half, c.rotate_half, sin + (t * N + n) * D, cos + (t * N + n) * D);
      }
    }
  return result;
}

}  // namespace vitrine::detail
