#include <array>
#include <cstdint>
#include <vector>

#include <layers/support.h>

#include <vitrine/layers/upsample_conv.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;
using namespace vitrine::test;

TEST_CASE("doubling with its convolution is a convolution of the resized map") {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const auto& [in, out] : {std::array<std::int64_t, 2>{8, 8}, {3, 20}, {272, 16}})
      for (const bool bias : {true, false}) {
        INFO(name_of(dtype) << ", " << in << " to " << out << " channels, bias " << bias);
        const Weights w(synthetic_weights(), {.dtype = dtype, .device = {}});
        const UpsampleConv2d both(w / "conv", in, out, {.bias = bias, .any_size = true});
        const Conv2d conv(w / "conv", in, out, 3, 3, {.pad_h = 1, .pad_w = 1, .bias = bias});
        const Tensor x = random({2, 5, 7, in}, dtype);
        for (const auto& [height, width] : {std::array<std::int64_t, 2>{10, 14}, {9, 13}, {10, 13}, {11, 7}}) {
          const Tensor y = both(x, height, width);
          REQUIRE(y.shape() == Shape{2, height, width, out});
          const std::vector<float> expected = values(conv(resize(x, height, width, {.mode = ResizeMode::nearest})));
          check_close(y, {expected.begin(), expected.end()}, dtype == DType::f32 ? 1e-5 : 2e-2);
        }
        CHECK(same_bytes(both(x), both(x, 10, 14)));
        const std::vector<float> relu = values(activate(both(x), Activation::relu));
        check_close(both(x, Activation::relu), {relu.begin(), relu.end()}, 1e-6);
      }
}

TEST_CASE("a layer for doubling refuses other sizes") {
  const UpsampleConv2d layer(Weights(synthetic_weights()) / "up", 4, 4);
  CHECK_THROWS_WITH(layer(random({1, 3, 3, 4}), 5, 6), contains("5x6 from [1, 3, 3, 4]; the layer was built for doubling only"));
  CHECK_THROWS_WITH(layer(random({1, 3, 3, 5})), contains("up: x is f32 [1, 3, 3, 5]"));
}
