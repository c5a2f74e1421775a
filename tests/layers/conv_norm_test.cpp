// Convolution with a norm, squeeze-and-excitation, efficient channel attention, blurred and unevenly padded pooling: against
// the ops that they are made of, and PyTorch's values on a small map.
#include <vitrine/layers/conv_norm.h>
#include <vitrine/layers/efficient_channel.h>
#include <vitrine/layers/squeeze_excite.h>
#include <vitrine/weights/sources.h>

#include "layers/random.h"
#include "layers/support.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

std::vector<double> exact(const Tensor& x) {
  const Tensor f = x.to(DType::f32).contiguous();
  return {f.data<float>(), f.data<float>() + f.numel()};
}

Tensor ramp(const Shape& shape) {
  Tensor x = Tensor::empty(shape);
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data<float>()[i] = static_cast<float>(i * i * 7 % 23 - 9);
  return x;
}

}  // namespace

TEST_CASE("batch norm is folded, group norm follows, and both take the whole epilogue") {
  const Weights w(synthetic_weights());
  const Tensor x = synthetic_tensor("x", {2, 6, 5, 8}), residual = synthetic_tensor("residual", {2, 6, 5, 16});
  const Conv2dOptions options{.pad_h = 1, .pad_w = 1, .bias = false};
  for (const std::int64_t groups : {0, 4}) {
    const ConvNorm layer(w / "conv", w / "norm", 8, 16, 3, options, {.eps = 1e-3, .groups = groups});
    Tensor y = Conv2d(w / "conv", 8, 16, 3, 3, options)(x);
    const Weights norm = w / "norm";
    const Tensor gamma = norm.get("weight", {16}), beta = norm.get("bias", {16});
    if (groups > 0) {
      y = group_norm(y, groups, gamma, beta, 1e-3);
    } else {
      const Tensor mean = norm.get("running_mean", {16}), var = norm.get("running_var", {16});
      for (std::int64_t i = 0; i < y.numel(); ++i) {
        const std::int64_t c = i % 16;
        float& v = y.data<float>()[i];
        v = (v - mean.data<float>()[c]) / std::sqrt(var.data<float>()[c] + 1e-3f) * gamma.data<float>()[c] +
            beta.data<float>()[c];
      }
    }
    check_close(layer(x), exact(y), 1e-5);
    const Tensor before = add(activate(y, Activation::silu), residual), after = activate(add(y, residual), Activation::silu);
    check_close(layer(x, {.activation = Activation::silu, .residual = residual}), exact(before), 1e-5);
    check_close(layer(x, {.activation = Activation::silu, .residual = residual, .activate_sum = true}), exact(after), 1e-5);
  }
}

TEST_CASE("squeeze-and-excitation and efficient channel attention scale channels") {
  const Weights w(synthetic_weights());
  const Tensor x = synthetic_tensor("x", {2, 3, 5, 40});
  const SqueezeExcite squeeze(w / "se", 40, 8, Activation::silu);
  const Tensor hidden = activate(Linear(w / "se" / "fc1", 40, 8)(mean(x, 1, 2)), Activation::silu);
  const Tensor gate = activate(Linear(w / "se" / "fc2", 8, 40)(hidden), Activation::sigmoid).view({2, 1, 1, 40});
  check_close(squeeze(x), exact(multiply(x, gate)), 1e-6);

  const EfficientChannelAttention efficient(w / "eca", 40);
  REQUIRE(efficient.kernel.numel() == 3);
  const Tensor means = mean(x, 1, 2), gates = efficient.gates(x);
  REQUIRE(gates.shape() == Shape{2, 1, 1, 40});
  for (const std::int64_t c : {0, 1, 38, 39}) {
    double sum = 0;
    for (std::int64_t k = 0; k < 3; ++k)
      if (c + k >= 1 && c + k <= 40)
        sum += static_cast<double>(efficient.kernel.data<float>()[k]) * means.data<float>()[40 + c + k - 1];
    CHECK(std::abs(gates.data<float>()[40 + c] - 1 / (1 + std::exp(-sum))) < 1e-6);
  }
  CHECK(EfficientChannelAttention(w / "eca64", 64).kernel.numel() == 3);
  CHECK(EfficientChannelAttention(w / "eca256", 256).kernel.numel() == 5);
  CHECK(EfficientChannelAttention(w / "eca2048", 2048).kernel.numel() == 7);
}

TEST_CASE("make_divisible rounds as timm does") {
  CHECK(make_divisible(16.0) == 16);
  CHECK(make_divisible(3.0) == 8);
  CHECK(make_divisible(20.0) == 24);
  CHECK(make_divisible(11.9) == 16);  // 8 would be less than 90%
  CHECK(make_divisible(11.9, 8, 0) == 8);
}

TEST_CASE("blur pooling and windows padded at one end") {
  // timm's BlurPool2d on [1, 3, 4, 1] with values 7 i i mod 23 - 9.
  const Tensor x = ramp({1, 3, 4, 1});
  const double weights[] = {0.25, 0.5, 0.25};
  for (const std::int64_t stride : {1, 2}) {
    std::vector<double> expected;
    for (std::int64_t r = 0; r < 3; r += stride)
      for (std::int64_t c = 0; c < 4; c += stride) {
        double sum = 0;
        for (int i = -1; i <= 1; ++i)
          for (int j = -1; j <= 1; ++j) {
            const auto mirror = [](std::int64_t at, std::int64_t size) {
              return at < 0 ? -at : at >= size ? 2 * size - 2 - at : at;
            };
            sum += weights[i + 1] * weights[j + 1] * x.data<float>()[mirror(r + i, 3) * 4 + mirror(c + j, 4)];
          }
        expected.push_back(sum);
      }
    check_close(blur_pool2d(x, stride), expected, 1e-5);
  }
  CHECK_THROWS_WITH(blur_pool2d(Tensor::zeros({1, 1, 4, 2}), 2), contains("sides from 2 on"));

  // Stride 1 that keeps the size: the last window is cut off.
  Pool2d same{.stride_h = 1, .stride_w = 1, .count_include_pad = false, .pad_end_h = 1, .pad_end_w = 1};
  const Tensor y = avg_pool2d(x, same);
  REQUIRE(y.shape() == x.shape());
  const float* v = x.data<float>();
  CHECK(y.data<float>()[0] == (v[0] + v[1] + v[4] + v[5]) / 4);
  CHECK(y.data<float>()[3] == (v[3] + v[7]) / 2);
  CHECK(y.data<float>()[11] == v[11]);
  same.count_include_pad = true;
  CHECK(avg_pool2d(x, same).data<float>()[11] == v[11] / 4);
}
