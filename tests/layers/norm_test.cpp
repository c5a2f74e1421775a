// Normalizations against their formulas in f64, and against values that PyTorch 2 gave.
#include "layers/support.h"

#include <vitrine/layers/modules.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;
using namespace vitrine::test;

namespace {

const std::vector<float> kValues = {-6, -2.5f, -1, -0.3f, 0, 0.7f, 1.9f, 4.2f};

std::vector<double> layer_norm_reference(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps,
                                         const Tensor& scale = {}, const Tensor& shift = {}) {
  const std::vector<float> v = values(x);
  const auto C = static_cast<std::size_t>(x.size(-1)), rows_per_image = v.size() / C / static_cast<std::size_t>(x.size(0));
  std::vector<double> y(v.size());
  for (std::size_t row = 0; row < v.size() / C; ++row) {
    double mean = 0, variance = 0;
    for (std::size_t c = 0; c < C; ++c) mean += v[row * C + c] / static_cast<double>(C);
    for (std::size_t c = 0; c < C; ++c) variance += (v[row * C + c] - mean) * (v[row * C + c] - mean) / static_cast<double>(C);
    for (std::size_t c = 0; c < C; ++c) {
      double n = (v[row * C + c] - mean) / std::sqrt(variance + eps);
      if (weight.defined()) n *= weight.data<float>()[c];
      if (bias.defined()) n += bias.data<float>()[c];
      const std::size_t image = row / rows_per_image * C + c;
      if (scale.defined()) n *= 1 + values(scale)[image];
      if (shift.defined()) n += values(shift)[image];
      y[row * C + c] = n;
    }
  }
  return y;
}

}  // namespace

TEST_CASE("norms give PyTorch's values") {
  Tensor w = Tensor::empty({8}), b = Tensor::empty({8});
  for (int i = 0; i < 8; ++i) {
    w.data<float>()[i] = kValues[static_cast<std::size_t>(i)] * 0.5f + 1;
    b.data<float>()[i] = kValues[static_cast<std::size_t>(i)] * 0.1f;
  }
  const Tensor x = Tensor::from(kValues, {1, 8});
  check_close(layer_norm(x, w, b, 1e-5),
              {3.378872f, -0.0621088f, -0.2105242f, -0.00745306f, 0.1326291f, 0.5832745f, 1.759002f, 5.436031f}, 2e-6);
  check_close(softmax(x),
              {3.195123e-05f, 0.00105808f, 0.004741984f, 0.009549181f, 0.01289005f, 0.02595737f, 0.08618151f, 0.8595899f}, 1e-7);
  Tensor map = Tensor::empty({1, 3, 4});
  for (int i = 0; i < 12; ++i) map.data<float>()[i] = static_cast<float>(i * i * 7 % 23 - 9);
  check_close(group_norm(map, 2, Tensor::from(std::vector<float>{1, 2, 3, 4}, {4}),
                         Tensor::from(std::vector<float>{0, 1, -1, 0.5f}, {4}), 1e-5),
              {-1.755274f, -0.3099062f, -6.198691f, 1.366449f, 1.388501f, 1.890736f, 2.086723f, 3.965794f, -0.02619809f,
               2.205114f, -3.761805f, 2.666121f},
              2e-6);
  check_close(activate(x, Activation::gelu), {-0, -0.01552418f, -0.1586553f, -0.1146266f, 0, 0.5306255f, 1.845438f, 4.199944f},
              1e-6);
  check_close(activate(x, Activation::gelu_tanh), {-0, -0.0150843f, -0.158808f, -0.1146291f, 0, 0.5305701f, 1.845451f, 4.199974f},
              1e-6);
  check_close(activate(x, Activation::silu),
              {-0.01483574f, -0.1896455f, -0.2689414f, -0.1276672f, 0, 0.4677314f, 1.652794f, 4.137949f}, 1e-6);
  check_close(activate(x, Activation::hardswish), {-0, -0.2083333f, -0.3333333f, -0.135f, 0, 0.4316666f, 1.551667f, 4.2f}, 1e-6);
}

TEST_CASE("layer norm, with and without its parameters, on views") {
  for (std::int64_t C : {1, 3, 16, 48, 100, 768})
    for (DType dtype : kFloats) {
      const Tensor x = random({2, 3, 2, C}, dtype), w = random({C}, DType::f32, 2), b = random({C}, DType::f32, 3);
      const Tensor scale = random({2, C}, dtype, 4), shift = random({2, C}, dtype, 5);
      const double bound = 2e-5 + 2 * rounding(dtype);
      INFO("C " << C << " " << name_of(dtype));
      check_close(layer_norm(x, w, b, 1e-6), layer_norm_reference(x, w, b, 1e-6), bound);
      check_close(layer_norm(strided(x), w, {}, 1e-6), layer_norm_reference(x, w, {}, 1e-6), bound);
      check_close(layer_norm(x, {}, b, 1e-6), layer_norm_reference(x, {}, b, 1e-6), bound);
      check_close(layer_norm(x, {}, {}, 1e-6, scale, shift), layer_norm_reference(x, {}, {}, 1e-6, scale, shift), bound);
      check_close(layer_norm(strided(x), w, b, 1e-6, strided(scale), {}), layer_norm_reference(x, w, b, 1e-6, scale), bound);
      check_close(layer_norm(x, w, b, 1e-6, {}, shift), layer_norm_reference(x, w, b, 1e-6, {}, shift), bound);
      Tensor view = strided(x);
      layer_norm_(view, w, b, 1e-6);
      check_close(view, layer_norm_reference(x, w, b, 1e-6), bound);
    }
}

TEST_CASE("layer norm keeps its accuracy beside a large mean and an outlier channel") {
  Tensor x = affine(random({4, 384}), 1.0f, 500.0f);
  check_close(layer_norm(x, {}, {}, 1e-6), layer_norm_reference(x, {}, {}, 1e-6), 1e-4);
  for (int r = 0; r < 4; ++r) x.data<float>()[r * 384] = -30000.0f;
  check_close(layer_norm(x, {}, {}, 1e-6), layer_norm_reference(x, {}, {}, 1e-6), 1e-5);
}

TEST_CASE("rms norm, l2 normalization and softmax") {
  for (std::int64_t C : {1, 7, 64, 197})
    for (DType dtype : kFloats) {
      const Tensor x = random({3, 2, C}, dtype, 1, 3.0f), w = random({C}, DType::f32, 2);
      const std::vector<float> v = values(x);
      std::vector<double> rms(v.size()), plain(v.size()), l2(v.size()), soft(v.size());
      for (std::size_t row = 0; row < 6; ++row) {
        const auto n = static_cast<std::size_t>(C);
        double squares = 0, top = -HUGE_VAL, total = 0;
        for (std::size_t c = 0; c < n; ++c) {
          squares += static_cast<double>(v[row * n + c]) * v[row * n + c];
          top = std::max<double>(top, v[row * n + c]);
        }
        for (std::size_t c = 0; c < n; ++c) total += std::exp(v[row * n + c] - top);
        for (std::size_t c = 0; c < n; ++c) {
          plain[row * n + c] = v[row * n + c] / std::sqrt(squares / static_cast<double>(C) + 1e-6);
          rms[row * n + c] = plain[row * n + c] * w.data<float>()[c];
          l2[row * n + c] = v[row * n + c] / std::sqrt(squares);
          soft[row * n + c] = std::exp(v[row * n + c] - top) / total;
        }
      }
      const double bound = 1e-6 + rounding(dtype);
      check_close(rms_norm(strided(x), w, 1e-6), rms, bound);
      check_close(rms_norm(x, {}, 1e-6), plain, bound);
      check_close(l2_normalize(strided(x)), l2, bound);
      check_close(softmax(strided(x)), soft, bound);
      Tensor view = strided(x), other = strided(x);
      rms_norm_(view, w, 1e-6);
      check_close(view, rms, bound);
      l2_normalize_(other);
      check_close(other, l2, bound);
    }
  CHECK(values(l2_normalize(Tensor::zeros({2, 3}))) == std::vector<float>(6, 0.0f));
}

TEST_CASE("group norm over positions and channels") {
  for (std::int64_t groups : {1, 2, 12})
    for (DType dtype : kFloats) {
      const std::int64_t B = 2, P = 30, C = 12, width = C / groups;
      const Tensor x = affine(random({B, 5, 6, C}, dtype), 1.0f, 3.0f), w = random({C}, DType::f32, 2),
                   b = random({C}, DType::f32, 3);
      const std::vector<float> v = values(x);
      std::vector<double> expected(v.size());
      for (std::int64_t i = 0; i < B; ++i)
        for (std::int64_t g = 0; g < groups; ++g) {
          double mean = 0, variance = 0;
          const auto each = [&](auto f) {
            for (std::int64_t p = 0; p < P; ++p)
              for (std::int64_t c = g * width; c < (g + 1) * width; ++c) f(static_cast<std::size_t>((i * P + p) * C + c), c);
          };
          each([&](std::size_t at, std::int64_t) { mean += v[at] / static_cast<double>(P * width); });
          each([&](std::size_t at, std::int64_t) {
            variance += (v[at] - mean) * (v[at] - mean) / static_cast<double>(P * width);
          });
          each([&](std::size_t at, std::int64_t c) {
            expected[at] = (v[at] - mean) / std::sqrt(variance + 1e-5) * w.data<float>()[c] + b.data<float>()[c];
          });
        }
      check_close(group_norm(strided(x), groups, w, b, 1e-5), expected, 1e-5 + rounding(dtype));
    }
}

TEST_CASE("group norm with what is added, modulation and activation is the same one after the other") {
  for (DType dtype : kFloats)
    for (const std::int64_t P : {1, 128, 300}) {
      const std::int64_t B = 2, C = 280;
      const Tensor x = random({B, P, C}, dtype), w = random({C}, DType::f32, 2), b = random({C}, DType::f32, 3),
                   added = random({B, C}, dtype, 4), scale = random({B, C}, dtype, 5), shift = random({B, C}, dtype, 6);
      Tensor expected = add(x.to(DType::f32), added.view({B, 1, C}).to(DType::f32));
      expected = group_norm(expected, 7, w, b, 1e-5);
      expected = multiply(expected, affine(scale.to(DType::f32), 1, 1).view({B, 1, C}));
      expected = activate(add(expected, shift.view({B, 1, C}).to(DType::f32)), Activation::silu);
      const std::vector<float> v = values(expected);
      const Tensor y =
          group_norm(x, 7, w, b, 1e-5, {.activation = Activation::silu, .add = added, .scale = scale, .shift = shift});
      CHECK(y.dtype() == dtype);
      check_close(y, {v.begin(), v.end()}, 1e-5 + rounding(dtype));
    }
}

TEST_CASE("group norm of values far from zero keeps their differences") {
  const std::int64_t P = 700, C = 6;
  const Tensor x = affine(random({1, P, C}), 1.0f, 3000.0f);
  const std::vector<float> v = values(x);
  double mean = 0, variance = 0;
  for (const float value : v) mean += value / static_cast<double>(P * C);
  for (const float value : v) variance += (value - mean) * (value - mean) / static_cast<double>(P * C);
  std::vector<double> expected;
  for (const float value : v) expected.push_back((value - mean) / std::sqrt(variance + 1e-6));
  // One rounding of 3000 gain + offset, where gain is about 1.
  check_close(group_norm(x, 1, {}, {}, 1e-6), expected, 3e-4);
}

TEST_CASE("norms refuse wrong shapes, and take empty ones") {
  const Tensor x = random({2, 3, 8});
  CHECK_THROWS_WITH(layer_norm(x, random({7}), {}, 1e-6), contains("weight is f32 [7], expected f32 [8]"));
  CHECK_THROWS_AS(layer_norm(x, {}, random({8}, DType::bf16), 1e-6), Error);
  CHECK_THROWS_AS(layer_norm(x, {}, {}, 1e-6, random({3, 8})), Error);
  CHECK_THROWS_AS(layer_norm(Tensor::zeros({2, 2}, DType::i32), {}, {}, 1e-6), Error);
  CHECK_THROWS_AS(group_norm(x, 3, {}, {}, 1e-5), Error);
  CHECK_THROWS_WITH(group_norm(x, 2, {}, {}, 1e-5, {.scale = random({2, 7})}),
                    contains("group_norm: scale is [2, 7], expected [2, 8]"));
  CHECK_THROWS_AS(softmax(Tensor::full({}, 1.0f)), Error);
  CHECK(layer_norm(Tensor::empty({0, 8}), {}, {}, 1e-6).shape() == Shape{0, 8});
  CHECK(softmax(Tensor::empty({3, 0})).shape() == Shape{3, 0});
  CHECK(layer_norm(Tensor::empty({2, 0, 8}), {}, {}, 1e-6, random({2, 8})).numel() == 0);
  CHECK(group_norm(Tensor::empty({0, 4, 8}), 2, {}, {}, 1e-5).numel() == 0);
}

TEST_CASE("norms: one thread is as many") {
  for (DType dtype : kFloats) {
    const Tensor x = random({3, 211, 200}, dtype), w = random({200}, DType::f32, 2), s = random({3, 200}, DType::f32, 3);
    check_threads([&] { return layer_norm(x, w, w, 1e-6); });
    check_threads([&] { return layer_norm(strided(x), w, w, 1e-6, s, s); });
    check_threads([&] { return rms_norm(x, w, 1e-6); });
    check_threads([&] { return l2_normalize(x); });
    check_threads([&] { return softmax(x); });
    check_threads([&] { return group_norm(x, 10, w, w, 1e-6); });
  }
}

TEST_CASE("simple norm and global response norm") {
  for (const DType dtype : kFloats) {
    const std::int64_t B = 2, P = 30, C = 37;
    const Tensor x = affine(random({B, 5, 6, C}, dtype), 1.0f, 2.0f), w = random({C}, DType::f32, 2),
                 b = random({C}, DType::f32, 3);
    const std::vector<float> v = values(x);
    std::vector<double> simple(v.size()), response(v.size());
    for (std::int64_t r = 0; r < B * P; ++r) {
      double mean = 0, squares = 0;
      for (std::int64_t c = 0; c < C; ++c) mean += v[static_cast<std::size_t>(r * C + c)] / static_cast<double>(C);
      for (std::int64_t c = 0; c < C; ++c) squares += std::pow(v[static_cast<std::size_t>(r * C + c)] - mean, 2.0);
      for (std::int64_t c = 0; c < C; ++c) {
        const auto i = static_cast<std::size_t>(r * C + c);
        simple[i] = v[i] / std::sqrt(squares / static_cast<double>(C - 1) + 1e-6) * w.data<float>()[c];
      }
    }
    for (std::int64_t image = 0; image < B; ++image) {
      std::vector<double> norms(static_cast<std::size_t>(C));
      double average = 0;
      for (std::int64_t c = 0; c < C; ++c) {
        for (std::int64_t p = 0; p < P; ++p)
          norms[static_cast<std::size_t>(c)] += std::pow(v[static_cast<std::size_t>((image * P + p) * C + c)], 2.0);
        norms[static_cast<std::size_t>(c)] = std::sqrt(norms[static_cast<std::size_t>(c)]);
        average += norms[static_cast<std::size_t>(c)] / static_cast<double>(C);
      }
      for (std::int64_t p = 0; p < P; ++p)
        for (std::int64_t c = 0; c < C; ++c) {
          const auto i = static_cast<std::size_t>((image * P + p) * C + c);
          response[i] =
              v[i] + b.data<float>()[c] + w.data<float>()[c] * v[i] * norms[static_cast<std::size_t>(c)] / (average + 1e-6);
        }
    }
    const double bound = 3e-6 + rounding(dtype);
    check_close(simple_norm(strided(x), w, 1e-6), simple, bound);
    check_close(global_response_norm(strided(x), w, b), response, bound);
    check_threads([&] { return simple_norm(x, w, 1e-6); });
    check_threads([&] { return global_response_norm(x, w, b); });
  }
  CHECK_THROWS_AS(global_response_norm(Tensor::zeros({2, 3, 4}), Tensor(), Tensor::zeros({4})), Error);
}

TEST_CASE("batch norm with the statistics of training") {
  Tensor variance = Tensor::from(std::vector<float>{0.5f, 1, 2, 0.01f, 4}, {5});
  const Tensor weight = random({5}, DType::f32, 2), bias = random({5}, DType::f32, 3), mean = random({5}, DType::f32, 4);
  const Weights w(memory_weights({{"bn.weight", weight},
                                  {"bn.bias", bias},
                                  {"bn.running_mean", mean},
                                  {"bn.running_var", variance},
                                  {"bn.num_batches_tracked", Tensor::zeros({1}, DType::i64)}},
                                 "test"));
  const BatchNorm norm(w / "bn", 5, 1e-3);
  w.check("test");
  const Tensor x = random({2, 3, 5});
  std::vector<double> expected;
  for (std::size_t i = 0; i < values(x).size(); ++i) {
    const std::size_t c = i % 5;
    expected.push_back((values(x)[i] - values(mean)[c]) / std::sqrt(values(variance)[c] + 1e-3) * values(weight)[c] +
                       values(bias)[c]);
  }
  check_close(norm(x), expected, 2e-5);
}
