#include <vitrine/layers/squeeze_excite.h>

#include <algorithm>

#include <fmt/format.h>

#include <vitrine/layers/error.h>

namespace vitrine {

std::int64_t make_divisible(double value, std::int64_t divisor, double limit) {
  const auto half = static_cast<double>(divisor) / 2;
  const std::int64_t nearest = std::max(divisor, static_cast<std::int64_t>(value + half) / divisor * divisor);
  return static_cast<double>(nearest) < limit * value ? nearest + divisor : nearest;
}

SqueezeExcite::SqueezeExcite(const Weights& w, std::int64_t channels, std::int64_t reduced, Activation activation,
                             std::string_view first, std::string_view second)
    : fc1(w / first, channels, reduced), fc2(w / second, reduced, channels), activation(activation) {}

Tensor SqueezeExcite::gates(const Tensor& x) const {
  if (x.rank() != 4) throw Error(fmt::format("squeeze_excite: x is {}, expected [B, H, W, C]", x.shape().to_string()));
  const Tensor hidden = fc1(mean(x, 1, 2), {.activation = activation});
  return fc2(hidden, {.activation = Activation::sigmoid}).view({x.size(0), 1, 1, fc2.out_features()});
}

}  // namespace vitrine
