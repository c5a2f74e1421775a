#include <array>
#include <cmath>
#include <cstdint>

#include <catch.h>

#include <vitrine/layers/same_conv.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;
using vitrine::test::contains;

TEST_CASE("same padding gives ceil(n / stride) outputs, the odd zero at the end") {
  CHECK(same_padding(8, 3, 2).begin == 0);
  CHECK(same_padding(8, 3, 2).end == 1);
  CHECK(same_padding(7, 3, 2).begin == 1);
  CHECK(same_padding(7, 3, 2).end == 1);
  CHECK(same_padding(7, 2, 2).end == 1);
  CHECK(same_padding(8, 1, 2).end == 0);  // no padding where the kernel is smaller than the stride
}

TEST_CASE("a same convolution is a bare one on the padded map") {
  const Weights w(synthetic_weights());
  for (const auto& [kernel, stride] : {std::array<std::int64_t, 2>{3, 2}, {3, 1}, {5, 2}, {2, 2}, {1, 2}})
    for (const auto& [height, width] : {std::array<std::int64_t, 2>{8, 6}, {7, 6}, {8, 5}, {7, 5}}) {
      INFO("kernel " << kernel << ", stride " << stride << ", map " << height << "x" << width);
      const Conv2dOptions options{.stride_h = stride, .stride_w = stride, .groups = 4};
      const SameConv2d same(w / "conv", 4, 4, kernel, options);
      const Conv2d bare(w / "conv", 4, 4, kernel, kernel, options);
      const Tensor x = synthetic_tensor("x", {2, height, width, 4});
      const Tensor y = same(x, {.activation = Activation::relu});
      const Tensor expected = bare(pad_around(x, same_padding(height, kernel, stride), same_padding(width, kernel, stride)),
                                   {.activation = Activation::relu});
      REQUIRE(y.shape() == Shape{2, (height + stride - 1) / stride, (width + stride - 1) / stride, 4});
      REQUIRE(expected.shape() == y.shape());
      for (std::int64_t i = 0; i < y.numel(); ++i) CHECK(std::abs(y.data<float>()[i] - expected.data<float>()[i]) < 1e-6f);
    }
  CHECK_THROWS_WITH(SameConv2d(w / "conv", 4, 4, 3, {.stride_h = 2}), contains("one stride"));
}
