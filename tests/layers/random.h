// Reproducible values for the tests of layers.
#pragma once

#include <cstdint>
#include <random>

#include <vitrine/layers/tensor.h>

namespace vitrine::test {

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}

  std::int64_t integer(std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(engine_);
  }
  // Uniform in [-1, 1), rounded to what `dtype` holds, stored in f32.
  Tensor tensor(const Shape& shape, DType dtype = DType::f32) {
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    Tensor t = Tensor::empty(shape);
    for (std::int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = uniform(engine_);
    return t.to(dtype).to(DType::f32);
  }

 private:
  std::mt19937 engine_;
};

}  // namespace vitrine::test
