// Deformable token merging against its definition in double precision.
#include <cmath>
#include <vector>

#include <catch.h>

#include <vitrine/attention2d/deformable_merging.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;
using vitrine::test::contains;

namespace {

double value_at(const Tensor& x, std::int64_t b, std::int64_t h, std::int64_t w, std::int64_t c) {
  if (h < 0 || w < 0 || h >= x.size(1) || w >= x.size(2)) return 0;
  return x.data<float>()[((b * x.size(1) + h) * x.size(2) + w) * x.size(3) + c];
}

}  // namespace

TEST_CASE("sample_taps: bilinear between positions, zeros around the map, offsets of any size") {
  constexpr std::int64_t B = 2, H = 6, W = 4, C = 21;
  const Tensor x = synthetic_tensor("x", {B, H, W, C});
  Tensor offsets = affine(synthetic_tensor("offsets", {B, H / 2, W / 2, 8}), 3.0f, 0.0f);
  offsets.data<float>()[0] = 1e30f;
  offsets.data<float>()[3] = -1e30f;
  offsets.data<float>()[5] = std::nanf("");
  offsets.data<float>()[8] = 0;
  offsets.data<float>()[9] = 0;
  const Tensor y = sample_taps(x, offsets), narrow = sample_taps(x.to(DType::bf16), offsets).to(DType::f32);
  REQUIRE(y.shape() == Shape{B, H / 2, W / 2, 4, C});
  double worst = 0, worst_narrow = 0;
  for (std::int64_t i = 0; i < B * H / 2 * W / 2; ++i)
    for (std::int64_t tap = 0; tap < 4; ++tap)
      for (std::int64_t c = 0; c < C; ++c) {
        const std::int64_t b = i / (H / 2 * W / 2), r = i / (W / 2) % (H / 2), q = i % (W / 2);
        const float* o = offsets.data<float>() + i * 8 + 2 * tap;
        const double row = static_cast<double>(2 * r + tap / 2) + o[0], column = static_cast<double>(2 * q + tap % 2) + o[1];
        double expected = 0;
        if (row > -1 && row < H && column > -1 && column < W) {
          const auto t = static_cast<std::int64_t>(std::floor(row)), l = static_cast<std::int64_t>(std::floor(column));
          const double d = row - std::floor(row), e = column - std::floor(column);
          expected = (1 - d) * ((1 - e) * value_at(x, b, t, l, c) + e * value_at(x, b, t, l + 1, c)) +
                     d * ((1 - e) * value_at(x, b, t + 1, l, c) + e * value_at(x, b, t + 1, l + 1, c));
        }
        const std::int64_t at = (i * 4 + tap) * C + c;
        worst = std::max(worst, std::abs(expected - y.data<float>()[at]));
        worst_narrow = std::max(worst_narrow, std::abs(expected - narrow.data<float>()[at]));
      }
  CHECK(worst < 1e-5);
  CHECK(worst_narrow < 0.05);
  CHECK_THROWS_WITH(sample_taps(Tensor::zeros({1, 5, 4, 2}), Tensor::zeros({1, 2, 2, 8})), contains("even H and W"));
}

TEST_CASE("deformable merging without offsets is a convolution, batch norm and gelu") {
  constexpr std::int64_t dim = 6, out = 10;
  const auto tensor = [](const char* name, const Shape& shape) { return synthetic_tensor(name, shape); };
  std::map<std::string, Tensor> tensors{{"dconv.weight", tensor("w", {out, dim, 2, 2})},
                                        {"dconv.bias", tensor("b", {out})},
                                        {"dconv.conv_offset.weight", Tensor::zeros({8, dim, 2, 2})},
                                        {"dconv.conv_offset.bias", Tensor::zeros({8})},
                                        {"norm_layer.weight", tensor("g", {out})},
                                        {"norm_layer.bias", tensor("h", {out})},
                                        {"norm_layer.running_mean", tensor("m", {out})},
                                        {"norm_layer.running_var", affine(tensor("v", {out}), 0.1f, 1.0f)}};
  const Weights w(memory_weights(tensors, "test"));
  const Tensor x = synthetic_tensor("x", {2, 6, 8, dim});
  const Weights norm = w / "norm_layer";
  const Conv2d conv(w / "dconv", dim, out, 2, 2, {.stride_h = 2, .stride_w = 2, .bn_eps = 1e-5}, &norm);
  const Tensor expected = conv(x, {.activation = Activation::gelu}), got = DeformableMerging(w, dim, out)(x);
  REQUIRE(got.shape() == expected.shape());
  for (std::int64_t i = 0; i < got.numel(); ++i) CHECK(std::abs(got.data<float>()[i] - expected.data<float>()[i]) < 1e-5);
  w.check("test");
}
