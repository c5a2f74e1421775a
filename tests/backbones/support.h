// What the tests of families share: models with synthetic weights, images, a distance.
#pragma once

#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <catch.h>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/weights.h>
#include <vitrine/weights/sources.h>

namespace vitrine::test {

inline std::unique_ptr<Backbone> build(const std::string& name, DType dtype = DType::f32) {
  return create_model(name, Weights(synthetic_weights(), {.dtype = dtype, .device = {}}));
}

inline Tensor images(std::int64_t batch, std::int64_t height, std::int64_t width, std::int64_t channels = 3) {
  return synthetic_tensor("input", {batch, height, width, channels});
}

// |a - b| / |b|
inline double relative_l2(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const Tensor x = a.contiguous().to(DType::f32), y = b.contiguous().to(DType::f32);
  double difference = 0, reference = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const double d = x.data<float>()[i] - y.data<float>()[i];
    difference += d * d;
    reference += static_cast<double>(y.data<float>()[i]) * y.data<float>()[i];
  }
  return std::sqrt(difference / reference);
}

}  // namespace vitrine::test
