#include <vitrine/layers/conv.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <catch.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/depthwise.h>
#include <vitrine/layers/cpu/isa.h>
#include <vitrine/weights/sources.h>

#include "random.h"

namespace vitrine {
namespace {

using test::contains;
using test::Random;

// torch.nn.Conv2d and ConvTranspose2d as plain loops in double: every tap adds x[input] w to y[output].
std::vector<double> reference(bool transposed, const Tensor& x, const Tensor& weight, const Tensor& bias, std::int64_t out,
                              const Conv2dOptions& o, std::int64_t out_h, std::int64_t out_w) {
  const std::int64_t B = x.size(0), H = x.size(1), W = x.size(2), in = x.size(3), kh = weight.size(2), kw = weight.size(3);
  std::vector<double> y(static_cast<std::size_t>(B * out_h * out_w * out));
  for (std::size_t i = 0; i < y.size() && bias.defined(); ++i) y[i] = bias.data<float>()[i % static_cast<std::size_t>(out)];
  const std::int64_t group_in = in / o.groups, group_out = out / o.groups;
  // The large side is strided: the input of a convolution, the output of a transposed one.
  const std::int64_t small_h = transposed ? H : out_h, small_w = transposed ? W : out_w;
  const std::int64_t large_h = transposed ? out_h : H, large_w = transposed ? out_w : W;
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t i = 0; i < small_h; ++i)
      for (std::int64_t j = 0; j < small_w; ++j)
        for (std::int64_t u = 0; u < kh; ++u)
          for (std::int64_t v = 0; v < kw; ++v) {
            const std::int64_t row = i * o.stride_h - o.pad_h + u * o.dilation_h,
                               column = j * o.stride_w - o.pad_w + v * o.dilation_w;
            if (row < 0 || row >= large_h || column < 0 || column >= large_w) continue;
            const std::int64_t from = transposed ? (b * H + i) * W + j : (b * H + row) * W + column;
            const std::int64_t to = transposed ? (b * out_h + row) * out_w + column : (b * out_h + i) * out_w + j;
            for (std::int64_t c = 0; c < in; ++c)
              for (std::int64_t n = 0; n < group_out; ++n) {
                const std::int64_t g = c / group_in, oc = g * group_out + n;
                const std::int64_t w =
                    transposed ? ((c * group_out + n) * kh + u) * kw + v : ((oc * group_in + c % group_in) * kh + u) * kw + v;
                y[static_cast<std::size_t>(to * out + oc)] +=
                    static_cast<double>(x.data<float>()[from * in + c]) * weight.data<float>()[w];
              }
          }
  return y;
}

double worst(const Tensor& y, const std::vector<double>& expected, DType dtype) {
  const Tensor f = y.to(DType::f32).contiguous();
  REQUIRE(f.numel() == static_cast<std::int64_t>(expected.size()));
  double most = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double bound = dtype == DType::f32 ? 2e-5 + 2e-6 * std::abs(expected[i]) : 4e-3 + std::abs(expected[i]) / 200;
    const double error = std::abs(f.data<float>()[i] - expected[i]) / bound;
    if (std::isnan(error)) return error;
    most = std::max(most, error);
  }
  return most;
}

struct Problem {
  std::int64_t batch, height, width, in, out, kernel_h, kernel_w;
  Conv2dOptions options;
};

std::string describe(const Problem& p, bool transposed, DType dtype) {
  const Conv2dOptions& o = p.options;
  std::string text(transposed ? "transposed" : "");
  for (const std::int64_t n :
       {p.batch, p.height, p.width, p.in, p.out, p.kernel_h, p.kernel_w, o.stride_h, o.stride_w, o.pad_h, o.pad_w, o.pad_end_h,
        o.pad_end_w, o.dilation_h, o.dilation_w, o.groups, o.output_pad_h, o.output_pad_w})
    text += ' ' + std::to_string(n);
  return text.append(" ").append(name_of(dtype));
}

void check(const Problem& p, bool transposed, DType dtype, Random& random) {
  const Conv2dOptions& o = p.options;
  const Shape stored =
      transposed ? Shape{p.in, p.out / o.groups, p.kernel_h, p.kernel_w} : Shape{p.out, p.in / o.groups, p.kernel_h, p.kernel_w};
  std::map<std::string, Tensor> tensors{{"weight", random.tensor(stored, dtype)}};
  if (o.bias) tensors["bias"] = random.tensor({p.out});
  const Weights w(memory_weights(tensors, "test"), {.dtype = dtype, .device = {}});
  const Tensor x = random.tensor({p.batch, p.height, p.width, p.in}, dtype);
  Tensor y;
  INFO(describe(p, transposed, dtype));
  Tensor residual;
  if (transposed) {
    y = ConvTranspose2d(w, p.in, p.out, p.kernel_h, p.kernel_w, o)(x.to(dtype));
  } else {
    const Conv2d conv(w, p.in, p.out, p.kernel_h, p.kernel_w, o);
    y = conv(x.to(dtype));
    residual = random.tensor(y.shape(), dtype);
  }
  w.check("test");
  std::vector<double> expected =
      reference(transposed, x, tensors["weight"], o.bias ? tensors["bias"] : Tensor(), p.out, o, y.size(1), y.size(2));
  CHECK(y.dtype() == dtype);
  CHECK(worst(y, expected, dtype) <= 1);
  if (transposed) {
    for (double& v : expected) v = std::max(v, 0.0);
    CHECK(worst(ConvTranspose2d(w, p.in, p.out, p.kernel_h, p.kernel_w, o)(x.to(dtype), Activation::relu), expected, dtype) <= 1);
    return;
  }
  // act(y) + residual, in the residual's memory and beside it
  const Conv2d conv(w, p.in, p.out, p.kernel_h, p.kernel_w, o);
  const std::vector<double> plain = expected;
  for (std::size_t i = 0; i < expected.size(); ++i)
    expected[i] = expected[i] / (1 + std::exp(-expected[i])) + residual.data<float>()[i];
  Tensor mine = residual.to(dtype).clone();
  const Tensor kept = mine.clone();
  CHECK(worst(conv(x.to(dtype), {.activation = Activation::silu, .residual = kept}), expected, dtype) <= 1);
  const void* memory = mine.raw();
  const Tensor in_place = conv(x.to(dtype), {.activation = Activation::silu, .residual = std::move(mine)});
  if (dtype != DType::f16) CHECK(in_place.raw() == memory);
  CHECK(worst(in_place, expected, dtype) <= 1);
  // relu(y + residual), likewise
  std::vector<double> sums = plain;
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = std::max(sums[i] + residual.data<float>()[i], 0.0);
  const Epilogue relu{.activation = Activation::relu, .residual = kept, .activate_sum = true};
  CHECK(worst(conv(x.to(dtype), relu), sums, dtype) <= 1);
  CHECK(worst(conv(x.to(dtype), {.activation = Activation::relu, .residual = kept.clone(), .activate_sum = true}), sums, dtype) <=
        1);
}

TEST_CASE("conv2d and conv_transpose2d equal the plain loops") {
  Random random(11);
  const auto pick = [&](std::int64_t a, std::int64_t b) { return random.integer(a, b); };
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (int round = 0; round < 40; ++round) {
      const bool transposed = round % 3 == 2;
      Problem p;
      p.options.groups = round % 4 == 1 ? pick(2, 4) : 1;
      p.batch = pick(1, 2);
      p.height = pick(7, 15);
      p.width = pick(7, 15);
      p.in = p.options.groups * pick(1, 20);
      p.out = p.options.groups * pick(1, 20);
      p.kernel_h = pick(1, 4);
      p.kernel_w = pick(1, 4);
      p.options.stride_h = pick(1, 3);
      p.options.stride_w = pick(1, 3);
      p.options.dilation_h = pick(1, 2);
      p.options.dilation_w = pick(1, 2);
      p.options.pad_h = pick(0, p.kernel_h - 1);
      p.options.pad_w = pick(0, p.kernel_w - 1);
      if (round % 5 == 0) {
        p.options.pad_end_h = pick(0, p.kernel_h - 1);
        p.options.pad_end_w = pick(0, p.kernel_w - 1);
      }
      p.options.bias = round % 2 == 0;
      if (transposed) {
        p.options.output_pad_h = pick(0, p.options.stride_h - 1);
        p.options.output_pad_w = pick(0, p.options.stride_w - 1);
      }
      check(p, transposed, dtype, random);
    }
  }
}

TEST_CASE("conv2d: the shapes that models have") {
  Random random(12);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check({1, 14, 14, 3, 32, 3, 3, {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1}}, false, dtype, random);  // stem
    check({2, 14, 14, 32, 32, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = 32}}, false, dtype, random);                 // depth-wise
    check({1, 9, 9, 48, 48, 7, 7, {.pad_h = 3, .pad_w = 3, .groups = 48}}, false, dtype, random);
    check({1, 9, 8, 20, 24, 1, 1, {}}, false, dtype, random);  // one matrix product
    check({1, 9, 8, 20, 24, 1, 1, {.stride_h = 2, .stride_w = 2}}, false, dtype, random);
    check({1, 5, 5, 64, 48, 4, 4, {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1}}, true, dtype, random);  // decoder
    check({1, 5, 5, 16, 8, 2, 2, {.stride_h = 2, .stride_w = 2}}, true, dtype, random);
    check({1, 6, 16, 256, 64, 4, 4, {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1}}, true, dtype, random);
    check({1,
           6,
           6,
           12,
           12,
           3,
           3,
           {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1, .groups = 12, .output_pad_h = 1, .output_pad_w = 1}},
          true, dtype, random);
  }
}

TEST_CASE("depth-wise conv2d equals the plain loops: kernels, strides, tiles and channels around a vector") {
  Random random(15);
  const auto pick = [&](std::int64_t a, std::int64_t b) { return random.integer(a, b); };
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (int round = 0; round < 60; ++round) {
      Problem p;
      const bool dense = round % 3 != 0;  // stride and dilation 1, the sizes that have a kernel of their own
      p.batch = pick(1, 2);
      p.height = pick(1, 9);
      p.width = pick(1, 30);
      p.in = p.out = p.options.groups = pick(2, 40);
      p.kernel_h = dense ? 2 * pick(0, 3) + 1 : pick(1, 5);
      p.kernel_w = dense ? 2 * pick(0, 4) + 1 : pick(1, 5);
      if (!dense) {
        p.options.stride_h = pick(1, 3);
        p.options.stride_w = pick(1, 3);
        p.options.dilation_h = pick(1, 2);
        p.options.dilation_w = pick(1, 2);
      }
      p.options.pad_h = p.options.dilation_h * (p.kernel_h - 1) / 2 + (p.kernel_h % 2 == 0 ? 1 : 0);
      p.options.pad_w = p.options.dilation_w * (p.kernel_w - 1) / 2 + (p.kernel_w % 2 == 0 ? 1 : 0);
      p.options.bias = round % 2 == 0;
      check(p, false, dtype, random);
    }
}

TEST_CASE("depth-wise conv2d of every target is that of the scalar one") {
  Random random(16);
  for (const auto& [kernel, stride] : {std::pair(3, 1), std::pair(5, 1), std::pair(7, 1), std::pair(4, 1), std::pair(3, 2)})
    for (const std::int64_t outputs : {1, 6, 7, 8, 14, 15, 17})
      for (const std::int64_t channels : {1, 8, 15, 16, 17, 33}) {
        const std::int64_t width = (outputs - 1) * stride + 1;
        const Tensor x = random.tensor({4, width, channels}), residual = random.tensor({outputs, channels}),
                     weight = random.tensor({kernel, kernel, channels}), bias = random.tensor({channels});
        Tensor expected;
        for (const cpu::Isa isa : cpu::available_isas()) {
          Tensor y = Tensor::empty({outputs, channels});
          cpu::depthwise_kernels(isa).row[0]({.x = x.raw(),
                                              .x_row = width * channels * 4,
                                              .x_column = channels * 4,
                                              .height = 4,
                                              .width = width,
                                              .channels = channels,
                                              .y = y.raw(),
                                              .residual = residual.raw(),
                                              .y_column = channels * 4,
                                              .residual_column = channels * 4,
                                              .outputs = outputs,
                                              .weight = weight.data<float>(),
                                              .bias = bias.data<float>(),
                                              .kernel_h = kernel,
                                              .kernel_w = kernel,
                                              .stride_w = stride,
                                              .dilation_h = 1,
                                              .dilation_w = 1,
                                              .first_row = -1,
                                              .first_column = -(kernel / 2),
                                              .activation = Activation::gelu,
                                              .activate_sum = outputs % 2 == 0});
          if (!expected.defined()) expected = y;
          CHECK(worst(y, std::vector<double>(expected.data<float>(), expected.data<float>() + expected.numel()), DType::f32) <=
                1);
        }
      }
}

TEST_CASE("conv2d adds to a view, in place") {
  Random random(17);
  const std::int64_t C = 6;
  for (const std::int64_t groups : {C, std::int64_t{2}}) {
    const Weights w(memory_weights({{"weight", random.tensor({C, C / groups, 3, 3})}, {"bias", random.tensor({C})}}, "test"));
    const Conv2d conv(w, C, C, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = groups});
    const Tensor wide = random.tensor({2, 5, 9, 3 * C}), x = wide.slice(3, C, 2 * C), y = random.tensor({2, 5, 10, C});
    const Tensor convolved = conv(x.contiguous());
    Tensor sum = y.clone(), inside = sum.slice(2, 1, 10);
    conv.add_to(inside, x);
    std::vector<double> expected;
    for (std::int64_t i = 0; i < y.numel(); ++i) {
      const std::int64_t column = i / C % 10;
      expected.push_back(y.data<float>()[i] +
                         (column == 0 ? 0.0f : convolved.data<float>()[(i / C / 10 * 9 + column - 1) * C + i % C]));
    }
    CHECK(worst(sum, expected, DType::f32) <= 1);
    Tensor other = Tensor::zeros({2, 5, 8, C});
    CHECK_THROWS_WITH(conv.add_to(other, x), contains("y is f32 [2, 5, 8, 6], expected f32 [2, 5, 9, 6]"));
  }
}

TEST_CASE("depth-wise conv2d does not depend on the number of threads") {
  Random random(18);
  const Weights w(memory_weights({{"weight", random.tensor({24, 1, 5, 5})}, {"bias", random.tensor({24})}}, "test"));
  const Conv2d conv(w, 24, 24, 5, 5, {.pad_h = 2, .pad_w = 2, .groups = 24});
  const Tensor x = random.tensor({2, 31, 29, 24});
  const auto under = [&](int threads) {
    Context context({.threads = threads, .device = {}});
    const ContextScope scope(context);
    return conv(x);
  };
  const Tensor one = under(1), many = under(5);
  CHECK(std::equal(one.data<float>(), one.data<float>() + one.numel(), many.data<float>()));
}

TEST_CASE("conv2d and conv_transpose2d: a batch norm that follows is folded") {
  Random random(13);
  for (const bool transposed : {false, true}) {
    const std::int64_t in = 12, out = 6, groups = 2;
    const Conv2dOptions options{.pad_h = 1, .pad_w = 1, .groups = groups, .bias = false, .bn_eps = 1e-3};
    std::map<std::string, Tensor> t{
        {"c.weight", random.tensor(transposed ? Shape{in, out / groups, 3, 3} : Shape{out, in / groups, 3, 3})},
        {"n.weight", random.tensor({out})},
        {"n.bias", random.tensor({out})},
        {"n.running_mean", random.tensor({out})},
        {"n.running_var", random.tensor({out})},
        {"n.num_batches_tracked", Tensor::zeros({1}, DType::i64)}};
    for (std::int64_t i = 0; i < out; ++i) t["n.running_var"].data<float>()[i] += 1.5f;
    const Weights w(memory_weights(t, "test"));
    const Tensor x = random.tensor({1, 7, 7, in});
    const Weights bn = w / "n";
    const Tensor y =
        transposed ? ConvTranspose2d(w / "c", in, out, 3, 3, options, &bn)(x) : Conv2d(w / "c", in, out, 3, 3, options, &bn)(x);
    w.check("test");
    auto expected = reference(transposed, x, t["c.weight"], {}, out, options, 7, 7);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const std::size_t o = i % static_cast<std::size_t>(out);
      expected[i] = (expected[i] - t["n.running_mean"].data<float>()[o]) / std::sqrt(t["n.running_var"].data<float>()[o] + 1e-3) *
                        t["n.weight"].data<float>()[o] +
                    t["n.bias"].data<float>()[o];
    }
    CHECK(worst(y, expected, DType::f32) <= 1);
  }
}

TEST_CASE("conv2d: views, many sizes, threads") {
  Random random(14);
  const Weights w(memory_weights({{"weight", random.tensor({8, 4, 3, 3})}, {"bias", random.tensor({8})}}, "test"));
  const Conv2d conv(w, 4, 8, 3, 3, {.pad_h = 1, .pad_w = 1});
  const Tensor wide = random.tensor({2, 9, 9, 12});
  const Tensor x = wide.slice(3, 4, 8);
  const Tensor expected = conv(x.contiguous());
  CHECK(worst(conv(x), std::vector<double>(expected.data<float>(), expected.data<float>() + expected.numel()), DType::f32) <= 1);
  for (std::int64_t size = 1; size <= 24; ++size)
    CHECK(conv(Tensor::zeros({1, size, size, 4})).shape() == Shape{1, size, size, 8});
  CHECK(conv(Tensor::empty({0, 5, 5, 4})).shape() == Shape{0, 5, 5, 8});
  for (const int threads : {1, 2, 4}) {
    Context context({.threads = threads, .device = {}});
    ContextScope scope(context);
    CHECK(worst(conv(x), std::vector<double>(expected.data<float>(), expected.data<float>() + expected.numel()), DType::f32) <=
          1);
    CHECK(context.macs() == 2 * 9 * 9 * 8 * 4 * 9);
  }
}

TEST_CASE("conv2d: wrong shapes and options say what is wrong") {
  const Weights w(synthetic_weights());
  CHECK_THROWS_WITH(Conv2d(w / "stem", 4, 6, 3, 3, {.groups = 4}), contains("stem: 4 groups do not divide 4 to 6 channels"));
  CHECK_THROWS_WITH(Conv2d(w / "stem", 4, 6, 3, 3, {.stride_h = 0}), contains("strides and dilations"));
  CHECK_THROWS_WITH(Conv2d(w / "stem", 4, 6, 3, 3, {.output_pad_h = 1}), contains("output_pad"));
  const Conv2d conv(w / "stem", 4, 6, 3, 3);
  CHECK_THROWS_WITH(conv(Tensor::zeros({1, 8, 8, 3})), contains("x is f32 [1, 8, 8, 3]") && contains("stem"));
  CHECK_THROWS_WITH(conv(Tensor::zeros({1, 2, 8, 4})), contains("a side of 2 is too small"));
  CHECK_THROWS_WITH(conv(Tensor::zeros({1, 8, 8, 4}), {.activation = Activation::none, .residual = Tensor::zeros({1, 8, 8, 6})}),
                    contains("residual is [1, 8, 8, 6], expected [1, 6, 6, 6]"));
  CHECK_THROWS_WITH(Conv2d()(Tensor::zeros({1, 8, 8, 4})), contains("empty"));
}

}  // namespace
}  // namespace vitrine
