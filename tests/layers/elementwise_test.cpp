// Arithmetic, activations and rotary positions against plain formulas in f64.
#include "layers/support.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

double reference(Activation activation, double x) {
  const auto logistic = [](double v) { return 1.0 / (1.0 + std::exp(-v)); };
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return std::max(x, 0.0);
    case Activation::gelu:
      return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::quick_gelu:
      return x * logistic(1.702 * x);
    case Activation::silu:
      return x * logistic(x);
    case Activation::sigmoid:
      return logistic(x);
    case Activation::tanh:
      return std::tanh(x);
    case Activation::hardswish:
      return x * std::min(std::max(x + 3.0, 0.0), 6.0) / 6.0;
    case Activation::leaky_relu:
      return x < 0 ? 0.01 * x : x;
  }
  return 0;
}

constexpr Activation kAll[] = {Activation::none,       Activation::relu,      Activation::gelu,    Activation::gelu_tanh,
                               Activation::quick_gelu, Activation::silu,      Activation::sigmoid, Activation::tanh,
                               Activation::hardswish,  Activation::leaky_relu};

}  // namespace

TEST_CASE("activations agree with their formulas") {
  Tensor x = Tensor::empty({4001});
  for (int i = 0; i <= 4000; ++i) x.data<float>()[i] = static_cast<float>(i - 2000) * 0.01f;
  for (Activation activation : kAll) {
    INFO(static_cast<int>(activation));
    for (DType dtype : kFloats) {
      const Tensor in = x.to(dtype);
      std::vector<double> expected;
      for (float v : values(in)) expected.push_back(reference(activation, v));
      check_close(activate(in, activation), expected, 1e-6 + (dtype == DType::f32 ? 0 : rounding(dtype)));
    }
  }
}

TEST_CASE("gelu keeps its tail, tanh and sigmoid their small values") {
  for (float x : {-5.0f, -4.0f, -3.0f, -1.0f, -0.1f, 1e-6f, 0.5f, 6.0f}) {
    const Tensor t = Tensor::full({1}, x);
    const double gelu = reference(Activation::gelu, x), tanh = reference(Activation::tanh, x * 0.1f);
    CHECK(std::fabs(activate(t, Activation::gelu).item() - gelu) <= 1e-5 * std::fabs(gelu));
    CHECK(std::fabs(activate(affine(t, 0.1f, 0), Activation::tanh).item() - tanh) <= 1e-6 * std::fabs(tanh));
    CHECK(std::fabs(activate(affine(t, 10.0f, 0), Activation::sigmoid).item() - reference(Activation::sigmoid, 10.0 * x)) <=
          2e-6 * reference(Activation::sigmoid, 10.0 * x));
  }
}

TEST_CASE("activation names") {
  CHECK(parse_activation("gelu") == Activation::gelu);
  CHECK(parse_activation("quick_gelu") == Activation::quick_gelu);
  CHECK(parse_activation("swish") == Activation::silu);
  CHECK(parse_activation("hard_swish") == Activation::hardswish);
  CHECK_THROWS_WITH(parse_activation("glue"), contains("unknown activation 'glue'"));
}

TEST_CASE("add and multiply broadcast, on views and across dtypes") {
  const Shape shape{2, 3, 5, 7};
  for (DType a_type : kFloats)
    for (DType b_type : kFloats)
      for (const Shape& b_shape : {Shape{2, 3, 5, 7}, Shape{7}, Shape{1}, Shape{}, Shape{5, 1}, Shape{3, 1, 7}, Shape{2, 1, 1, 7},
                                   Shape{2, 1, 5, 1}, Shape{1, 3, 1, 1}})
        for (bool views : {false, true}) {
          Tensor a = random(shape, a_type, 1), b = random(b_shape, b_type, 2);
          const std::vector<float> av = values(a), bv = values(b);
          if (views) {
            a = strided(a);
            b = strided(b);
          }
          std::vector<double> sum, product;
          for (std::int64_t i = 0; i < shape.numel(); ++i) {
            std::int64_t rest = i, at = 0, step = 1;
            for (int axis = 3; axis >= 0; --axis) {
              const int b_axis = axis - 4 + b_shape.rank();
              if (b_axis >= 0) {
                if (b_shape[b_axis] != 1) at += rest % shape[axis] * step;
                step *= b_shape[b_axis];
              }
              rest /= shape[axis];
            }
            sum.push_back(static_cast<double>(av[static_cast<std::size_t>(i)]) + bv[static_cast<std::size_t>(at)]);
            product.push_back(static_cast<double>(av[static_cast<std::size_t>(i)]) * bv[static_cast<std::size_t>(at)]);
          }
          INFO(b_shape.to_string() << " " << views);
          check_close(add(a, b), sum, rounding(a_type));
          check_close(multiply(a, b), product, rounding(a_type));
          Tensor c = a.clone();
          add_(c, b);
          check_close(c, sum, rounding(a_type));
          multiply_(a, b);
          check_close(a, product, rounding(a_type));
        }
  CHECK_THROWS_WITH(add(random({2, 3}), random({2})), contains("add: [2] does not broadcast to [2, 3]"));
  CHECK_THROWS_AS(add(random({3}), random({2, 3})), Error);
  CHECK_THROWS_AS(add(random({3}), Tensor()), Error);
  CHECK_THROWS_WITH(add(Tensor::zeros({3}, DType::i64), random({3})), contains("expected f32"));
}

TEST_CASE("in place on a view leaves the rest alone") {
  Tensor room = Tensor::full({4, 6}, 1.0f);
  Tensor view = room.slice(1, 1, 3).slice(0, 1, 3);
  add_(view, Tensor::full({2}, 2.0f));
  CHECK(values(room) == std::vector<float>{1, 1, 1, 1, 1, 1, 1, 3, 3, 1, 1, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1});
  activate_(view, Activation::sigmoid);
  CHECK(room.slice(0, 0, 1).slice(1, 0, 1).item() == 1);
}

TEST_CASE("exp and clamp") {
  for (const DType dtype : kFloats) {
    const Tensor x = strided(random({3, 50}, dtype, 4));
    std::vector<double> powers, bounded;
    for (const float v : values(x)) {
      powers.push_back(std::exp(static_cast<double>(v)));
      bounded.push_back(std::clamp(v, -0.5f, 1.25f));
    }
    check_close(exp(x), powers, 2 * rounding(dtype));
    check_close(clamp(x, -0.5f, 1.25f), bounded, 0);
  }
  CHECK(std::isnan(values(clamp(Tensor::full({1}, NAN), 0, 1))[0]));
  CHECK_THROWS_AS(clamp(Tensor::zeros({1}), 1, 0), Error);
  CHECK_THROWS_AS(exp(Tensor::zeros({1}, DType::i32)), Error);
}

TEST_CASE("sinusoids are cosines and sines of falling frequencies") {
  const Tensor t = Tensor::from(std::vector<float>{0, 3, 250}, {3});
  const std::vector<float> y = values(sinusoids(t, 7, 2)), swapped = values(sinusoids(t, 7, 2, false));
  for (std::size_t b = 0; b < 3; ++b) {
    for (std::size_t k = 0; k < 3; ++k) {
      const double angle = t.data<float>()[b] * std::exp(-std::log(10000.0) * static_cast<double>(k) / 2);
      CHECK(std::abs(y[7 * b + k] - std::cos(angle)) < 1e-4);
      CHECK(std::abs(y[7 * b + 3 + k] - std::sin(angle)) < 1e-4);
      CHECK((swapped[7 * b + k] == y[7 * b + 3 + k] && swapped[7 * b + 3 + k] == y[7 * b + k]));
    }
    CHECK(y[7 * b + 6] == 0);
  }
  CHECK_THROWS_AS(sinusoids(Tensor::zeros({2, 2}), 4, 2), Error);
}

TEST_CASE("elementwise ops on nothing") {
  const Tensor x = Tensor::empty({2, 0, 3});
  CHECK(add(x, Tensor::zeros({3})).shape() == x.shape());
  CHECK(activate(x, Activation::gelu).numel() == 0);
  CHECK(affine(x, 1, 1).numel() == 0);
  CHECK(gated_activation(Tensor::empty({2, 0}), Activation::silu).shape() == Shape{2, 0});
  CHECK(activate(Tensor::full({}, 2.0f), Activation::relu).item() == 2);
}

TEST_CASE("gated activation is act(gate) x") {
  for (DType dtype : kFloats) {
    const Tensor x = strided(random({3, 4, 38}, dtype));
    const std::vector<float> v = values(x);
    std::vector<double> expected;
    for (std::size_t row = 0; row < 12; ++row)
      for (std::size_t c = 0; c < 19; ++c)
        expected.push_back(reference(Activation::silu, v[row * 38 + c]) * v[row * 38 + 19 + c]);
    check_close(gated_activation(x, Activation::silu), expected, 1e-6 + rounding(dtype));
  }
  CHECK_THROWS_AS(gated_activation(random({2, 5}), Activation::silu), Error);
}

TEST_CASE("rotary positions turn pairs or halves") {
  const std::int64_t B = 2, N = 5, H = 3;
  for (std::int64_t D : {2, 6, 16, 24, 64})
    for (DType dtype : kFloats)
      for (RotaryLayout layout : {RotaryLayout::pairs, RotaryLayout::halves}) {
        const Tensor qkv = random({B, N, 3, H, D}, dtype), sin = random({N, D}, DType::f32, 2),
                     cos = random({N, D}, DType::f32, 3);
        const Tensor fused = qkv.clone();
        Tensor q = fused.select(2, 1);
        const std::vector<float> v = values(q), s = values(sin), c = values(cos);
        std::vector<double> expected;
        for (std::int64_t i = 0; i < B * N * H * D; ++i) {
          const std::int64_t d = i % D, base = i - d, n = i / D / H % N;
          const bool first = layout == RotaryLayout::pairs ? d % 2 == 0 : d < D / 2;
          const std::int64_t step = layout == RotaryLayout::pairs ? 1 : D / 2, partner = base + (first ? d + step : d - step);
          const auto at = static_cast<std::size_t>(n * D + d);
          expected.push_back(static_cast<double>(v[static_cast<std::size_t>(i)]) * c[at] +
                             (first ? -1.0 : 1.0) * v[static_cast<std::size_t>(partner)] * s[at]);
        }
        rotary_(q, sin, cos, layout);
        INFO("D " << D);
        check_close(q, expected, 1e-6 + 2 * rounding(dtype));
        CHECK(values(fused.select(2, 0)) == values(qkv.select(2, 0)));
        CHECK(values(fused.select(2, 2)) == values(qkv.select(2, 2)));
      }
  Tensor odd = random({1, 2, 1, 3}), x = random({1, 2, 1, 4});
  CHECK_THROWS_AS(rotary_(odd, random({2, 3}), random({2, 3}), RotaryLayout::pairs), Error);
  CHECK_THROWS_AS(rotary_(x, random({3, 4}), random({2, 4}), RotaryLayout::pairs), Error);
}

TEST_CASE("elementwise ops: one thread is as many") {
  for (DType dtype : kFloats) {
    const Tensor a = random({3, 401, 131}, dtype), row = random({131}), column = random({401, 1}, dtype);
    check_threads([&] { return add(multiply(a, column), row); });
    check_threads([&] { return activate(a.view({-1}), Activation::gelu); });
    check_threads([&] { return affine(strided(a), 3, -1); });
    const Tensor wide = random({300, 512}, dtype), table = random({300, 64}, DType::f32, 5);
    check_threads([&] { return gated_activation(wide, Activation::gelu); });
    check_threads([&] {
      Tensor q = wide.clone().view({1, 300, 8, 64});
      rotary_(q, table, table, RotaryLayout::halves);
      return q;
    });
  }
}
