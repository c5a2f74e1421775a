// What the tests of families share: models with synthetic weights, images, a distance.
#pragma once

#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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

// Any parameter, and afterwards all that were asked for as a source of their own.
class Recorder final : public WeightSource {
 public:
  std::string describe() const override { return "recorded"; }
  std::vector<std::string> names() const override { return {}; }
  bool is_open() const override { return true; }
  std::optional<Entry> find(std::string_view) const override { return std::nullopt; }
  Tensor load(std::string_view name, const Shape& shape) const override {
    return tensors.emplace(std::string(name), synthetic_parameter(name, shape)).first->second;
  }

  mutable std::map<std::string, Tensor> tensors;
};

inline Weights weights_of(std::map<std::string, Tensor> tensors) { return Weights(memory_weights(std::move(tensors), "test")); }

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
