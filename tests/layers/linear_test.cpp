#include <vitrine/layers/linear.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <catch.h>

#include <fmt/format.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/cpu/linear.h>
#include <vitrine/layers/memory.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

#include "random.h"

namespace vitrine {
namespace {

using test::contains;
using test::Random;

const std::vector<Activation> kActivations{
    Activation::none, Activation::relu,    Activation::gelu, Activation::gelu_tanh, Activation::quick_gelu,
    Activation::silu, Activation::sigmoid, Activation::tanh, Activation::hardswish, Activation::leaky_relu};

double exact(double x, Activation activation) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return std::max(x, 0.0);
    case Activation::gelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::sigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::tanh:
      return std::tanh(x);
    case Activation::hardswish:
      return x * std::min(std::max(x + 3, 0.0), 6.0) / 6;
    case Activation::leaky_relu:
      return x < 0 ? 0.01 * x : x;
  }
  return x;
}

// x W^T in double; x [rows, in] and weight f32 and contiguous.
std::vector<double> product(const Tensor& x, const Tensor& weight) {
  const std::int64_t rows = x.size(0), in = x.size(1), out = weight.size(0);
  std::vector<double> y;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t o = 0; o < out; ++o) {
      double sum = 0;
      for (std::int64_t i = 0; i < in; ++i)
        sum += static_cast<double>(x.data<float>()[r * in + i]) * weight.data<float>()[o * in + i];
      y.push_back(sum);
    }
  }
  return y;
}

// Row r of the product is row first_row + r of images of `rows` rows, which have a factor a channel.
struct Gate {
  Tensor factors{};  // [images, out]; undefined: none
  std::int64_t rows = 1, first_row = 0;
  double of(std::int64_t row, std::int64_t channel) const {
    return factors.defined() ? factors.slice(0, (first_row + row) / rows, factors.size(0)).data<float>()[channel] : 1.0;
  }
};

// gate act(y + b) + residual, or act(y + b + residual); bias and residual may be undefined.
std::vector<double> finished(std::vector<double> y, std::int64_t out, const Tensor& bias, Activation activation,
                             const Tensor& residual, bool activate_sum = false, const Gate& gate = {}) {
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double sum = y[i] + (bias.defined() ? bias.data<float>()[i % static_cast<std::size_t>(out)] : 0.0);
    const double added = residual.defined() ? residual.data<float>()[i] : 0.0;
    const auto index = static_cast<std::int64_t>(i);
    y[i] = activate_sum ? exact(sum + added, activation) : gate.of(index / out, index % out) * exact(sum, activation) + added;
  }
  return y;
}

std::vector<double> reference(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation activation,
                              const Tensor& residual) {
  return finished(product(x, weight), weight.size(0), bias, activation, residual);
}

// The largest |y - expected| / (absolute + relative |expected|): at most 1 is right.
double worst(const Tensor& y, const std::vector<double>& expected, double absolute, double relative) {
  const Tensor f = y.to(DType::f32).contiguous();
  REQUIRE(f.numel() == static_cast<std::int64_t>(expected.size()));
  double most = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(f.data<float>()[i] - expected[i]) / (absolute + relative * std::abs(expected[i]));
    most = error <= most ? most : error;  // NaN is worst
    if (std::isnan(error)) return error;
  }
  return most;
}

// Sums of `in` products of values up to 1, rounded to the result's type.
double worst(const Tensor& y, const std::vector<double>& expected, DType dtype, std::int64_t in = 1) {
  const double summing = 4e-6 + 1e-7 * static_cast<double>(in);
  if (dtype == DType::f32) return worst(y, expected, summing, 1e-6);
  if (dtype == DType::f16) return worst(y, expected, summing + 1e-4, 1.0 / 1024);
  return worst(y, expected, summing + 2e-3, 1.0 / 200);
}

struct Problem {
  Tensor x, weight, bias, residual;  // f32, values that `dtype` holds; bias f32
  DType dtype;
  std::vector<double> sums;

  Problem(Random& random, std::int64_t rows, std::int64_t in, std::int64_t out, DType dtype)
      : x(random.tensor({rows, in}, dtype)),
        weight(random.tensor({out, in}, dtype)),
        bias(random.tensor({out})),
        residual(random.tensor({rows, out}, dtype)),
        dtype(dtype),
        sums(product(x, weight)) {}
};

// Runs one packed candidate on a problem, with rows of x and of y `gap` elements apart from each other.
void check(const cpu::PackedLinear& packed, const Problem& p, bool with_bias, bool with_residual, bool in_place,
           Activation activation, bool activate_sum, std::int64_t gap, int threads, const Gate& gate) {
  const DType computed = packed.dtype();
  const std::int64_t rows = p.x.size(0), in = p.x.size(1), out = p.weight.size(0);
  Tensor wide = Tensor::full({rows, in + gap}, std::nanf(""), computed);
  Tensor x = wide.slice(1, 0, in);
  const Tensor values = p.x.to(computed);
  for (std::int64_t r = 0; r < rows; ++r)
    std::copy_n(static_cast<const std::byte*>(values.raw()) + static_cast<std::size_t>(r * in) * size_of(computed),
                static_cast<std::size_t>(in) * size_of(computed),
                static_cast<std::byte*>(x.raw()) + static_cast<std::size_t>(r * (in + gap)) * size_of(computed));
  Tensor wide_residual = Tensor::full({rows, out + gap}, 3, computed), residual = wide_residual.slice(1, 0, out);
  copy_(residual, p.residual.to(computed));
  Tensor wide_y = in_place ? wide_residual.clone() : Tensor::full({rows, out + gap}, 3, computed), y = wide_y.slice(1, 0, out);
  packed.run({.x = x.raw(),
              .rows = rows,
              .x_stride = in + gap,
              .y = y.raw(),
              .residual = !with_residual ? nullptr
                          : in_place     ? y.raw()
                                         : residual.raw(),
              .y_stride = out + gap,
              .activation = activation,
              .activate_sum = activate_sum,
              .gate = gate.factors.defined() ? gate.factors.data<float>() : nullptr,
              .gate_rows = gate.rows,
              .gate_stride = gate.factors.defined() ? gate.factors.stride(0) : 0,
              .first_row = gate.first_row,
              .threads = threads});
  const auto expected =
      finished(p.sums, out, with_bias ? p.bias : Tensor(), activation, with_residual ? p.residual : Tensor(), activate_sum, gate);
  INFO(packed.name() << ' ' << name_of(p.dtype) << " rows " << rows << " in " << in << " out " << out << " bias " << with_bias
                     << " residual " << with_residual << " in place " << in_place << " activation "
                     << static_cast<int>(activation) << " of the sum " << activate_sum << " gap " << gap << " threads " << threads
                     << " gate " << gate.factors.defined() << " of " << gate.rows << " rows from " << gate.first_row);
  CHECK(worst(y.contiguous(), expected, p.dtype, in) <= 1);
  const Tensor between = wide_y.slice(1, out, out + gap).contiguous().to(DType::f32);
  CHECK(std::all_of(between.data<float>(), between.data<float>() + between.numel(), [](float v) { return v == 3; }));
}

void check_all(const cpu::PackedLinear& with_bias, const cpu::PackedLinear& without, const Problem& p, Random& random) {
  for (const Activation activation : kActivations) {
    const bool bias = random.integer(0, 1) == 1, residual = random.integer(0, 1) == 1,
               in_place = residual && random.integer(0, 1) == 1;
    bool of_the_sum = random.integer(0, 1) == 1;
    Gate gate;
    if (with_bias.takes_gate() && random.integer(0, 1) == 1) {
      of_the_sum = false;
      gate.rows = random.integer(1, 20);
      gate.first_row = random.integer(0, 30);
      const std::int64_t images = (gate.first_row + p.x.size(0) - 1) / gate.rows + 1, out = p.weight.size(0);
      gate.factors = random.tensor({images, out + 5}).slice(1, 2, 2 + out);
    }
    check(bias ? with_bias : without, p, bias, residual, in_place, activation, of_the_sum, random.integer(0, 3),
          static_cast<int>(random.integer(1, 3)), gate);
  }
}

TEST_CASE("linear: own kernels of every instruction set equal the plain loops") {
  Random random(1);
  for (const cpu::Isa isa : cpu::available_isas()) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      if (dtype == DType::bf16 && isa < cpu::Isa::avx512_bf16) continue;
      // Every tail of rows, columns and sums; then sizes that fill panels, slices of k and chunks of rows.
      std::vector<std::array<std::int64_t, 3>> sizes{
          {197, 192, 96}, {9, 1537, 50}, {421, 3, 33}, {1, 768, 1000}, {17, 2305, 144}};
      for (std::int64_t n = 1; n <= 40; ++n) sizes.push_back({random.integer(1, 40), random.integer(1, 40), n});
      for (std::int64_t n = 1; n <= 40; ++n) sizes.push_back({n, n, random.integer(1, 100)});
      for (const auto& [rows, in, out] : sizes) {
        const Problem p(random, rows, in, out, dtype);
        check_all(*cpu::pack_linear_tiled(p.weight, p.bias, dtype, isa), *cpu::pack_linear_tiled(p.weight, {}, dtype, isa), p,
                  random);
      }
    }
  }
}

TEST_CASE("linear: oneDNN equals the plain loops") {
  Random random(2);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    if (dtype == DType::bf16 && cpu::isa() < cpu::Isa::avx512_bf16) continue;
    for (int round = 0; round < 12; ++round) {
      const Problem p(random, random.integer(1, 40), random.integer(1, 40), random.integer(1, 100), dtype);
      check_all(*cpu::pack_linear(p.weight, p.bias, dtype, "onednn"), *cpu::pack_linear(p.weight, {}, dtype, "onednn"), p,
                random);
    }
  }
}

// What int8 weights with a scale a row are in f32: each value off by half a step at most.
Tensor rounded_to_int8(const Tensor& weight) {
  Tensor w = weight.clone();
  const std::int64_t in = w.size(1);
  for (std::int64_t o = 0; o < w.size(0); ++o) {
    float* row = w.data<float>() + o * in;
    float most = 0;
    for (std::int64_t i = 0; i < in; ++i) most = std::max(most, std::abs(row[i]));
    const float scale = most / 127;
    for (std::int64_t i = 0; i < in && most > 0; ++i) row[i] = std::round(row[i] / scale) * scale;
  }
  return w;
}

TEST_CASE("linear: int8 weights equal the plain loops with rounded weights, on every instruction set") {
  Random random(7);
  for (const cpu::Isa isa : cpu::available_isas()) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      if (dtype == DType::bf16 && isa < cpu::Isa::avx512_bf16) continue;
      std::vector<std::array<std::int64_t, 3>> sizes{
          {197, 192, 96}, {9, 1537, 50}, {421, 3, 33}, {1, 768, 1000}, {17, 2305, 144}};
      for (std::int64_t n = 1; n <= 40; ++n) sizes.push_back({n, random.integer(1, 40), random.integer(1, 100)});
      for (const auto& [rows, in, out] : sizes) {
        Problem p(random, rows, in, out, dtype);
        const Tensor exact_weight = p.weight;
        p.weight = rounded_to_int8(exact_weight);
        p.sums = product(p.x, p.weight);
        const auto with_bias = cpu::pack_linear_tiled(exact_weight, p.bias, dtype, isa, true);
        CHECK(with_bias->name() == fmt::format("tiled_{}_i8", cpu::name_of(isa)));
        check_all(*with_bias, *cpu::pack_linear_tiled(exact_weight, {}, dtype, isa, true), p, random);
        // And against the weights as they were: half a step of the row's largest, 1 at most, for each product.
        const Linear linear(exact_weight, p.bias, {.dtype = dtype, .device = {}, .int8_weights = true});
        const Tensor y = linear(p.x.to(dtype));
        const double steps = 0.5 / 127 * static_cast<double>(in);
        CHECK(worst(y, reference(p.x, exact_weight, p.bias, Activation::none, {}), steps + 5e-3, 1.0 / 200) <= 1);
      }
    }
  }
}

TEST_CASE("linear: int8 weights that are whole multiples of a power of two are exact") {
  Random random(8);
  for (const cpu::Isa isa : cpu::available_isas()) {
    const std::int64_t rows = 21, in = 53, out = 70;
    Tensor x = Tensor::empty({rows, in}), weight = Tensor::empty({out, in}), bias = Tensor::empty({out});
    for (std::int64_t i = 0; i < x.numel(); ++i) x.data<float>()[i] = static_cast<float>(random.integer(-9, 9));
    for (std::int64_t o = 0; o < out; ++o) {
      const float unit = std::ldexp(1.0f, static_cast<int>(o % 30) - 20);
      for (std::int64_t i = 0; i < in; ++i)
        weight.data<float>()[o * in + i] = unit * static_cast<float>(i == o % in ? 127 : random.integer(-127, 127));
      bias.data<float>()[o] = unit * static_cast<float>(random.integer(-99, 99));
    }
    const auto packed = cpu::pack_linear_tiled(weight, bias, DType::f32, isa, true);
    Tensor y = Tensor::empty({rows, out});
    packed->run({.x = x.raw(), .rows = rows, .x_stride = in, .y = y.raw(), .y_stride = out, .threads = 2});
    CHECK(worst(y, reference(x, weight, bias, Activation::none, {}), 1e-30, 0) == 0);
  }
}

TEST_CASE("linear: int8 weights of zeros, of nothing but rounding, and such as are no numbers") {
  const float least = std::numeric_limits<float>::denorm_min(), nan = std::nanf("");
  const Tensor weight = Tensor::from(std::vector{0.0f, 0.0f, least, 1e-20f, 3.0f, nan, -INFINITY, 1.0f, 3e38f, -3e38f}, {5, 2});
  const Tensor bias = Tensor::from(std::vector{7.0f, 7.0f, 7.0f, 7.0f, 7.0f}, {5});
  for (const cpu::Isa isa : cpu::available_isas()) {
    const auto packed = cpu::pack_linear_tiled(weight, bias, DType::f32, isa, true);
    const Tensor x = Tensor::from(std::vector{1.0f, 0.5f}, {1, 2});
    Tensor y = Tensor::empty({1, 5});
    packed->run({.x = x.raw(), .rows = 1, .x_stride = 2, .y = y.raw(), .y_stride = 5});
    CHECK(y.data<float>()[0] == 7);
    CHECK(y.data<float>()[1] == Approx(7).epsilon(1e-6));
    CHECK(std::isnan(y.data<float>()[2]));
    CHECK(std::isnan(y.data<float>()[3]));
    CHECK(y.data<float>()[4] == Approx(1.5e38).epsilon(1e-5));
  }
}

TEST_CASE("linear: what cannot run says why") {
  const Tensor weight = Tensor::zeros({4, 4});
  if (cpu::isa() >= cpu::Isa::avx512_bf16)
    CHECK_THROWS_WITH(cpu::pack_linear(weight, {}, DType::bf16, "reference"), contains("reference: f32 only"));
  CHECK_THROWS_WITH(cpu::pack_linear(weight, {}, DType::f32, "blas"), contains("no candidate 'blas'"));
  CHECK(cpu::pack_linear(weight, {}, DType::f32, "reference")->name() == "tiled_scalar");
  CHECK_THROWS_WITH(cpu::pack_linear(weight, {}, DType::f32, "onednn", true),
                    contains("weights are of the type that it computes"));
  CHECK(cpu::pack_linear(weight, {}, DType::f16, {}, true)->dtype() == DType::f32);
}

TEST_CASE("linear: views, leading axes, dtypes") {
  Random random(3);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const std::int64_t B = 3, N = 7, C = 24, out = 20;
    const Tensor weight = random.tensor({out, C}, dtype), bias = random.tensor({out});
    const Linear linear(weight, bias, dtype);
    CHECK(linear.in_features() == C);
    CHECK(linear.out_features() == out);
    const Tensor wide = random.tensor({B, N, 3 * C}, dtype);
    const Tensor stored = wide.to(dtype);
    const Tensor views[] = {stored.slice(2, C, 2 * C), stored.slice(2, 0, C).select(1, 0), stored.slice(2, 0, C).slice(1, 2, 5),
                            stored.slice(2, 0, C).transpose(0, 1)};
    for (const Tensor& x : views) {
      const Tensor y = linear(x, {.activation = Activation::gelu, .residual = {}});
      CHECK(y.dtype() == dtype);
      CHECK(y.is_contiguous());
      const auto expected = reference(x.to(DType::f32).contiguous().view({-1, C}), weight, bias, Activation::gelu, {});
      INFO(name_of(dtype) << ' ' << x.shape().to_string());
      CHECK(worst(y, expected, dtype) <= 1);
    }
  }
}

TEST_CASE("linear: the residual's memory is used only where nobody else sees it") {
  Random random(4);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor weight = random.tensor({48, 32}, dtype), x = random.tensor({5, 32}, dtype),
                 added = random.tensor({5, 48}, dtype);
    const Linear linear(weight, {}, dtype);
    const auto expected = reference(x, weight, {}, Activation::silu, added);
    const Tensor kept = added.to(dtype);

    Tensor mine = kept.clone();
    const void* memory = mine.raw();
    const Tensor in_place = linear(x.to(dtype), {.activation = Activation::silu, .residual = std::move(mine)});
    CHECK(in_place.raw() == memory);
    CHECK(worst(in_place, expected, dtype) <= 1);

    Tensor shared = kept.clone();
    const Tensor apart = linear(x.to(dtype), {.activation = Activation::silu, .residual = shared});
    CHECK(apart.raw() != shared.raw());
    CHECK(worst(apart, expected, dtype) <= 1);
    CHECK(worst(shared, reference(Tensor::zeros({5, 1}), Tensor::zeros({48, 1}), {}, Activation::none, added), 1e-9, 1e-9) <= 1);
  }
}

TEST_CASE("linear: one thread and many give the same bits") {
  Random random(5);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = random.tensor({77, 100}).to(dtype);
    const Linear linear(random.tensor({300, 100}), random.tensor({300}), dtype);
    Context one({.threads = 1, .device = {}});
    Tensor expected;
    {
      ContextScope scope(one);
      expected = linear(x, {.activation = Activation::gelu, .residual = {}}).to(DType::f32);
      CHECK(one.macs() == 77 * 100 * 300);
    }
    for (const int threads : {2, 3, 5}) {
      Context many({.threads = threads, .device = {}});
      ContextScope scope(many);
      const Tensor y = linear(x, {.activation = Activation::gelu, .residual = {}}).to(DType::f32);
      CHECK(std::equal(y.data<float>(), y.data<float>() + y.numel(), expected.data<float>()));
    }
  }
}

TEST_CASE("linear: gelu by erf and by tanh is exact to 1e-6") {
  const Activation gelu = GENERATE(Activation::gelu, Activation::gelu_tanh);
  const std::int64_t n = 4001;
  Tensor x = Tensor::empty({n, 1});
  std::vector<double> expected;
  for (std::int64_t i = 0; i < n; ++i) {
    x.data<float>()[i] = static_cast<float>(i - n / 2) * 0.005f;
    expected.push_back(exact(x.data<float>()[i], gelu));
  }
  const Linear identity(Tensor::full({1, 1}, 1.0f), {}, DType::f32);
  CHECK(worst(identity(x, {.activation = gelu, .residual = {}}), expected, 1.1e-6, 0) <= 1);
  const Linear rounded(Tensor::full({1, 1}, 1.0f), {}, DType::bf16);
  expected.clear();
  const Tensor x16 = x.to(DType::bf16), back = x16.to(DType::f32);
  for (std::int64_t i = 0; i < n; ++i) expected.push_back(exact(back.data<float>()[i], gelu));
  CHECK(worst(rounded(x16, {.activation = gelu, .residual = {}}), expected, 2e-4, 1.0 / 220) <= 1);
}

TEST_CASE("linear: not a number and infinity come through") {
  const Linear identity(Tensor::full({1, 1}, 1.0f), {}, DType::f32);
  const std::vector<float> values{std::nanf(""), INFINITY};
  for (const Activation activation : {Activation::none, Activation::relu, Activation::gelu, Activation::silu}) {
    if (activation == Activation::relu && cpu::isa() == cpu::Isa::scalar) continue;  // oneDNN's SSE4.1 relu makes NaN 0
    const Tensor y = identity(Tensor::from(values, {2, 1}), {.activation = activation, .residual = {}});
    CHECK(std::isnan(y.data<float>()[0]));
    CHECK(y.data<float>()[1] == INFINITY);
  }
}

TEST_CASE("linear: no rows, wrong shapes") {
  const Linear linear(Tensor::zeros({8, 4}), {}, DType::f32);
  CHECK(linear(Tensor::empty({0, 4})).shape() == Shape{0, 8});
  CHECK(linear(Tensor::empty({2, 0, 4})).shape() == Shape{2, 0, 8});
  CHECK(linear(Tensor::zeros({4})).shape() == Shape{8});
  CHECK_THROWS_WITH(linear(Tensor::zeros({2, 5})), contains("[2, 5]") && contains("4"));
  CHECK_THROWS_WITH(linear(Tensor::zeros({2, 4}), {.activation = Activation::none, .residual = Tensor::zeros({2, 4})}),
                    contains("residual is [2, 4], expected [2, 8]"));
  CHECK_THROWS_WITH(linear(Tensor::zeros({2, 4}, DType::i64)), contains("i64"));
  CHECK_THROWS_WITH(Linear()(Tensor::zeros({2, 4})), contains("empty"));
  CHECK_THROWS_WITH(Linear(Tensor::zeros({8, 4}), Tensor::zeros({4}), DType::f32), contains("bias is f32 [4], expected f32 [8]"));
}

TEST_CASE("linear: packed weights are in the allocator's count, once") {
  const std::int64_t in = 512, out = 1024, weights = in * out * 4;
  const Tensor weight = Tensor::zeros({out, in}), x = Tensor::zeros({3, in});
  const std::int64_t before = memory_stats().in_use;
  const Linear linear(weight, {}, DType::f32);
  linear(x);
  linear(Tensor::zeros({100, in}));
  const std::int64_t held = memory_stats().in_use - before;
  CHECK(held >= weights);
  CHECK(held < weights + weights / 4);
}

TEST_CASE("linear: int8 weights take a quarter of f32 and half of bf16") {
  const std::int64_t in = 512, out = 1024;
  const Tensor weight = Tensor::zeros({out, in});
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const std::int64_t before = memory_stats().in_use;
    const Linear linear(weight, {}, {.dtype = dtype, .device = {}, .int8_weights = true});
    linear(Tensor::zeros({100, in}, dtype));
    const std::int64_t held = memory_stats().in_use - before;
    CHECK(held >= in * out);
    CHECK(held < in * out + in * out / 20);
  }
}

TEST_CASE("linear: from a cursor, with a scale folded and a 1x1 convolution's weight taken") {
  Random random(6);
  const Tensor weight = random.tensor({6, 5, 1, 1}), bias = random.tensor({6}), scale = random.tensor({6}),
               x = random.tensor({4, 5});
  const Weights w(memory_weights({{"proj.weight", weight}, {"proj.bias", bias}}, "test"));
  const Linear linear(w / "proj", 5, 6, {.bias = true, .scale = scale});
  w.check("test");
  std::vector<double> expected = reference(x, weight.view({6, 5}), bias, Activation::none, {});
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] *= scale.data<float>()[i % 6];
  CHECK(worst(linear(x), expected, DType::f32) <= 1);
  CHECK_THROWS_WITH(Linear(w / "proj", 5, 6, {.bias = true, .scale = random.tensor({5})}),
                    contains("scale is f32 [5], expected f32 [6]"));
}

TEST_CASE("linear writes and adds to a slice of channels") {
  Random random(30);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const Linear linear(random.tensor({6, 10}), random.tensor({6}), dtype);
    const Tensor x = random.tensor({2, 5, 10}).to(dtype), y = random.tensor({2, 5, 20}, dtype).to(dtype), product = linear(x);
    for (const bool adds : {false, true}) {
      Tensor whole = y.clone(), part = whole.slice(2, 7, 13), expected = y.clone(), expected_part = expected.slice(2, 7, 13);
      if (adds) {
        linear.add_to(part, x);
        add_(expected_part, product);
      } else {
        linear.write_to(part, x);
        copy_(expected_part, product);
      }
      const Tensor a = whole.to(DType::f32), b = expected.to(DType::f32);
      const float bound = dtype == DType::f32 ? 1e-5f : 0.05f;
      for (std::int64_t i = 0; i < a.numel(); ++i) CHECK(std::abs(a.data<float>()[i] - b.data<float>()[i]) <= bound);
    }
    Tensor wrong = Tensor::zeros({2, 5, 7}, dtype);
    CHECK_THROWS_WITH(linear.write_to(wrong, x), contains("[2, 5, 7], expected"));
  }
}

TEST_CASE("linear reads and writes each image's part of a joint sequence, gated by image") {
  Random random(31);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const Linear linear(random.tensor({40, 24}), random.tensor({40}), dtype);
    for (const std::int64_t tokens : {5, 60}) {  // copied, and a product an image
      const Tensor x = random.tensor({3, tokens + 4, 24}, dtype).to(dtype),
                   y = random.tensor({3, tokens + 9, 40}, dtype).to(dtype), gates = random.tensor({3, 3, 40}),
                   gate = gates.select(1, 1);
      const Tensor source = x.slice(1, 4, tokens + 4);
      Tensor whole = y.clone(), part = whole.slice(1, 2, tokens + 2), expected = y.clone(),
             expected_part = expected.slice(1, 2, tokens + 2);
      linear.add_to(part, source, gate);
      Tensor product = linear(source.contiguous().to(DType::f32));
      multiply_(product, gate.contiguous().view({3, 1, 40}));
      add_(expected_part, product);
      const Tensor a = whole.to(DType::f32), b = expected.to(DType::f32);
      const float bound = dtype == DType::f32 ? 1e-5f : 0.05f;
      INFO(name_of(dtype) << ' ' << tokens);
      for (std::int64_t i = 0; i < a.numel(); ++i) CHECK(std::abs(a.data<float>()[i] - b.data<float>()[i]) <= bound);
    }
    Tensor y = Tensor::zeros({2, 3, 40}, dtype);
    const Tensor x = Tensor::zeros({2, 3, 24}, dtype);
    CHECK_THROWS_WITH(linear.add_to(y, x, Tensor::zeros({3, 40})), contains("the gate is f32 [3, 40], expected f32 [2, 40]"));
    CHECK_THROWS_WITH(linear.add_to(y, x, Tensor::zeros({2, 40}, DType::i64)), contains("the gate is i64"));
  }
}

}  // namespace
}  // namespace vitrine
