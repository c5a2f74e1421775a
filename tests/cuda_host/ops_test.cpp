// Every op of layers/ops.h on the device against the CPU's: all floating types, views, sizes around a warp and a vector.
#include <catch.h>

#include <cmath>
#include <functional>
#include <vector>

#include <vitrine/layers/conv.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/mix_rows.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

#include "cuda_host/support.h"

namespace vitrine {

namespace {

using test::check_same;
using test::kGpu;

const Shape kRows[] = {{1, 1}, {3, 5}, {2, 3, 31}, {2, 32}, {5, 33}, {2, 2, 3, 64}, {3, 197}, {2, 0}, {4, 256}};

}  // namespace

TEST_CASE("pointwise ops on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats)
    for (const Shape& shape : kRows) {
      const Tensor a = test::random(shape, dtype, 1), b = test::random(shape, dtype, 2);
      const Tensor row = test::random({shape.back()}, DType::f32, 3);
      check_same("add", dtype, {a, b}, [](auto t) { return add(t[0], t[1]); });
      check_same("multiply", dtype, {a, row}, [](auto t) { return multiply(t[0], t[1].contiguous()); });
      check_same("add_", dtype, {a, b}, [](auto t) {
        add_(t[0], t[1]);
        return t[0];
      });
      check_same("affine", dtype, {a}, [](auto t) { return affine(t[0], 0.5f, 2.0f); });
      for (int i = 0; i < 10; ++i)
        check_same("activate", dtype, {a}, [i](auto t) { return activate(t[0], static_cast<Activation>(i)); });
    }
  for (const DType dtype : test::kFloats) {
    const Tensor x = test::random({3, 5, 33}, dtype);
    check_same("exp", dtype, {x}, [](auto t) { return exp(t[0]); });
    check_same("clamp", dtype, {x}, [](auto t) { return clamp(t[0], -0.5f, 1.0f); });
    check_same("gated_activation", dtype, {test::random({3, 5, 38}, dtype)},
               [](auto t) { return gated_activation(t[0], Activation::silu); });
    for (const auto layout : {RotaryLayout::pairs, RotaryLayout::halves})
      check_same("rotary_", dtype, {test::random({2, 5, 3, 16}, dtype), test::random({5, 16}), test::random({5, 16})},
                 [layout](auto t) {
                   rotary_(t[0], t[1].contiguous(), t[2].contiguous(), layout);
                   return t[0];
                 });
    check_same("scalar broadcast", dtype, {test::random({2, 7, 6}, dtype), test::random({2, 1, 1}, dtype)},
               [](auto t) { return multiply(t[0], t[1]); });
  }
}

TEST_CASE("sinusoids on the device", "[cuda_host]") {
  cuda::emulation::install();
  const Tensor times = Tensor::from(std::vector<float>{0, 1, 999, 0.25f, -3}, {5});
  for (const std::int64_t dim : {1, 2, 7, 256})
    for (const bool cosines_first : {true, false})
      check_same("sinusoids", DType::f32, {times}, [&](auto t) { return sinusoids(t[0], dim, 128, cosines_first); });
  CHECK(sinusoids(Tensor::zeros({0}).to(kGpu), 8, 4).shape() == Shape{0, 8});
}

TEST_CASE("moving values on the device", "[cuda_host]") {
  cuda::emulation::install();
  constexpr DType kAll[] = {DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32, DType::i8, DType::u8, DType::boolean};
  const Tensor x = affine(test::random({3, 7, 5}), 100.0f, 3.0f);
  for (const DType from : kAll)
    for (const DType to : kAll) check_same("cast", to, {x.to(from)}, [to](auto t) { return cast(t[0], to); });
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::u8}) {
    const Tensor t = affine(x, 0.5f, 0.0f).to(dtype);
    check_same("permute", dtype, {t}, [](auto v) {
      const int axes[] = {2, 0, 1};
      return permute(v[0], axes);
    });
    check_same("concat", dtype, {t, t}, [](auto v) { return concat(v, 1); });
    check_same("gather_rows", dtype, {t}, [](auto v) {
      Tensor index = Tensor::empty({4}, DType::i64);
      const std::int64_t rows[] = {6, 0, 3, 3};
      std::copy(rows, rows + 4, index.data<std::int64_t>());
      return gather_rows(v[0].select(0, 1), index);
    });
  }
  const Tensor table = test::random({5, 9});
  Tensor columns = Tensor::empty({40}, DType::i32);
  for (std::int32_t i = 0; i < 40; ++i) columns.data<std::int32_t>()[i] = 7 * i % 9;
  check_same("gather_columns", DType::f32, {table, columns}, [](auto t) { return gather_columns(t[0], t[1].contiguous()); });
  Tensor rows = Tensor::zeros({3}, DType::i64);
  rows.data<std::int64_t>()[0] = 4;
  check_same("gather_rows by an index on the device", DType::f32, {table, rows}, [](auto t) { return gather_rows(t[0], t[1]); });
  rows.data<std::int64_t>()[1] = 5, rows.data<std::int64_t>()[2] = -1;  // nobody waits to check it
  const std::vector<float> missing = test::values(gather_rows(table.to(kGpu), rows.to(kGpu)).to(Device{}));
  CHECK(missing[0] == test::values(table)[4 * 9]);
  CHECK((std::isnan(missing[9]) && std::isnan(missing[26])));
  CHECK_THROWS_AS(gather_rows(table.to(kGpu), rows), Error);
  CHECK_THROWS_AS(gather_rows(table, rows.to(kGpu)), Error);
  const Tensor map = test::random({2, 6, 4, 3}, DType::bf16);
  check_same("patchify", DType::bf16, {map}, [](auto t) { return patchify(t[0], 3, 2); });
  check_same("pad_to", DType::bf16, {map}, [](auto t) { return pad_to(t[0], 7, 9); });
  Tensor ties = Tensor::from(std::vector<float>{1, 3, 3, 2, NAN, 3, -1, 5}, {2, 4});
  for (std::int64_t k : {0, 1, 3, 4}) {
    check_same("top_k values", DType::f32, {ties}, [k](auto t) { return top_k(t[0], k).first; });
    check_same("top_k index", DType::f32, {ties}, [k](auto t) { return top_k(t[0], k).second; });
  }
}

TEST_CASE("norms and softmax on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats) {
    for (const Shape& shape : kRows) {
      const Tensor x = affine(test::random(shape, dtype, 4), 2.0f, 1.0f), w = test::random({shape.back()}, DType::f32, 5),
                   b = test::random({shape.back()}, DType::f32, 6);
      const auto whole = [](const Tensor& t) { return t.defined() ? t.contiguous() : t; };
      check_same(
          "layer_norm", dtype, {x, w, b}, [&](auto t) { return layer_norm(t[0], whole(t[1]), whole(t[2]), 1e-5); },
          20 * test::rounding(dtype));
      check_same(
          "layer_norm_", dtype, {x},
          [&](auto t) {
            layer_norm_(t[0], {}, {}, 1e-5);
            return t[0];
          },
          20 * test::rounding(dtype));
      check_same(
          "rms_norm", dtype, {x, w}, [&](auto t) { return rms_norm(t[0], whole(t[1]), 1e-6); }, 20 * test::rounding(dtype));
      if (shape.back() > 1)
        check_same(
            "simple_norm", dtype, {x, w}, [&](auto t) { return simple_norm(t[0], whole(t[1]), 1e-6); },
            20 * test::rounding(dtype));
      check_same("l2_normalize", dtype, {x}, [&](auto t) { return l2_normalize(t[0]); });
      check_same("softmax", dtype, {x}, [&](auto t) { return softmax(t[0]); });
    }
    const Tensor x = affine(test::random({2, 9, 15, 12}, dtype, 7), 1.5f, 0.5f);
    const Tensor w = test::random({12}), b = test::random({12}, DType::f32, 2), s = test::random({2, 12}, dtype, 8),
                 shift = test::random({2, 12}, dtype, 9), add = test::random({2, 12}, dtype, 10);
    const auto whole = [](const Tensor& t) { return t.contiguous(); };
    check_same(
        "adaLN", dtype, {x, w, b, s, shift}, [&](auto t) { return layer_norm(t[0], whole(t[1]), whole(t[2]), 1e-6, t[3], t[4]); },
        20 * test::rounding(dtype));
    for (const std::int64_t groups : {1, 3, 12})
      check_same(
          "group_norm", dtype, {x, w, b, s, shift, add},
          [&](auto t) {
            return group_norm(t[0], groups, whole(t[1]), whole(t[2]), 1e-5,
                              {.activation = Activation::silu, .add = t[5], .scale = t[3], .shift = t[4]});
          },
          20 * test::rounding(dtype));
    check_same(
        "group_norm, plain", dtype, {x}, [&](auto t) { return group_norm(t[0], 4, {}, {}, 1e-5); }, 20 * test::rounding(dtype));
    check_same(
        "global_response_norm", dtype, {x, w, b}, [&](auto t) { return global_response_norm(t[0], whole(t[1]), whole(t[2])); },
        20 * test::rounding(dtype));
    check_same("mean", dtype, {x}, [&](auto t) { return mean(t[0], 1, 2); });
    check_same("mean of the second axis", dtype, {x}, [&](auto t) { return mean(t[0], 1, 1); });
  }
}

TEST_CASE("pooling and resizing on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats) {
    const Tensor x = test::random({2, 7, 10, 5}, dtype, 3);
    for (const Pool2d& pool :
         {Pool2d{}, Pool2d{.kernel_h = 3, .kernel_w = 3, .pad_h = 1, .pad_w = 1},
          Pool2d{.kernel_h = 3, .kernel_w = 2, .stride_h = 1, .pad_h = 1, .count_include_pad = false, .ceil_mode = true}}) {
      check_same("avg_pool2d", dtype, {x}, [&](auto t) { return avg_pool2d(t[0], pool); });
      check_same("max_pool2d", dtype, {x}, [&](auto t) { return max_pool2d(t[0], pool); });
    }
    check_same("adaptive_avg_pool2d", dtype, {x}, [](auto t) { return adaptive_avg_pool2d(t[0], 3, 4); });
    check_same("blur_pool2d", dtype, {x}, [](auto t) { return blur_pool2d(t[0], 2); });
    for (const ResizeMode mode : {ResizeMode::nearest, ResizeMode::bilinear, ResizeMode::bicubic})
      for (const bool antialias : {false, true})
        for (const bool align : {false, true}) {
          if (mode == ResizeMode::nearest && (antialias || align)) continue;
          const Resize options{mode, antialias, align};
          check_same("resize up", dtype, {x}, [&](auto t) { return resize(t[0], 11, 13, options); });
          check_same("resize down", dtype, {x}, [&](auto t) { return resize(t[0], 3, 4, options); });
        }
  }
  check_same("mix_rows", DType::f32, {test::random({2, 3, 5, 7}), test::random({4, 5}), test::random({2, 3, 4, 7})}, [](auto t) {
    mix_rows(t[2], t[1].contiguous(), t[0], true);
    return t[2];
  });
}

namespace {

// A layer built on both devices from the same parameters.
template <typename Make>
void check_layer(const char* what, DType dtype, const std::vector<std::pair<std::string, Tensor>>& parameters, const Tensor& x,
                 const Make& make) {
  const auto build = [&](Device device) {
    std::map<std::string, Tensor> named(parameters.begin(), parameters.end());
    return make(Weights(memory_weights(named, "test"), {.dtype = dtype, .device = device}));
  };
  const auto here = build(Device{});
  const auto there = build(kGpu);
  const double bound = dtype == DType::f32 ? 1e-5 : 8 * test::rounding(dtype);
  check_same(
      what, dtype, {x}, [&](auto t) { return t[0].device() == kGpu ? there(t[0]) : here(t[0]); }, bound);
}

struct ConvCase {
  const char* what;
  std::int64_t in, out, kernel_h, kernel_w;
  Conv2dOptions options;
  bool transposed = false;
};
constexpr ConvCase kConvolutions[] = {
    {"3x3", 16, 24, 3, 3, {.pad_h = 1, .pad_w = 1}},
    {"strided", 3, 8, 4, 3, {.stride_h = 2, .stride_w = 3, .pad_h = 2, .pad_w = 0, .pad_end_h = 1}},
    {"dilated groups", 12, 6, 3, 2, {.pad_h = 2, .pad_w = 2, .dilation_h = 2, .dilation_w = 3, .groups = 3}},
    {"groups of 8", 16, 32, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = 2}},
    {"patches, no bias", 8, 16, 3, 2, {.stride_h = 3, .stride_w = 2, .bias = false}},
    {"depth-wise", 7, 7, 5, 3, {.stride_h = 2, .pad_h = 2, .pad_w = 1, .groups = 7}},
    {"depth-wise, twice the channels", 5, 10, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = 5}},
    {"pointwise, strided", 8, 9, 1, 1, {.stride_h = 2, .stride_w = 2}},
    {"transposed", 8, 16, 4, 4, {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1}, true},
    {"transposed groups", 6, 4, 3, 2, {.stride_h = 3, .stride_w = 2, .pad_h = 1, .groups = 2, .output_pad_h = 1}, true}};

enum class Added { nothing, kept, given };  // the sum is made in the memory of a residual that was given away

void check_convolution(const ConvCase& c, DType dtype, Activation activation, Added added = Added::nothing,
                       bool activate_sum = false) {
  INFO("activation " << static_cast<int>(activation) << " added " << static_cast<int>(added) << " before it " << activate_sum);
  const std::int64_t groups = c.options.groups;
  const Shape shape =
      c.transposed ? Shape{c.in, c.out / groups, c.kernel_h, c.kernel_w} : Shape{c.out, c.in / groups, c.kernel_h, c.kernel_w};
  const auto scale = 1.0f / std::sqrt(static_cast<float>(c.in / groups * c.kernel_h * c.kernel_w));
  std::vector<std::pair<std::string, Tensor>> parameters{{"weight", test::random(shape, DType::f32, 1, scale)}};
  if (c.options.bias) parameters.emplace_back("bias", test::random({c.out}, DType::f32, 2));
  check_layer(c.what, dtype, parameters, test::random({2, 9, 11, c.in}, dtype, 3), [&](const Weights& w) {
    return [&, layer = c.transposed ? Conv2d() : Conv2d(w, c.in, c.out, c.kernel_h, c.kernel_w, c.options),
            turned = c.transposed ? ConvTranspose2d(w, c.in, c.out, c.kernel_h, c.kernel_w, c.options)
                                  : ConvTranspose2d()](const Tensor& t) {
      if (turned.defined()) return turned(t, activation);
      if (added == Added::nothing) return layer(t, {.activation = activation});
      Tensor residual = test::random(layer(t).shape(), dtype, 4).to(t.device());
      const Tensor kept = added == Added::kept ? residual : Tensor();
      return layer(t, {.activation = activation, .residual = std::move(residual), .activate_sum = activate_sum});
    };
  });
}

}  // namespace

TEST_CASE("linear layers on the device", "[cuda_host]") {
  cuda::emulation::install();
  struct Case {
    std::int64_t rows, in, out;
  };
  for (const DType dtype : test::kFloats)
    for (const Case& c : {Case{1, 1, 1}, {3, 8, 5}, {130, 33, 70}, {129, 72, 130}, {17, 256, 64}}) {
      const auto scale = 1.0f / std::sqrt(static_cast<float>(c.in));
      const Tensor weight = test::random({c.out, c.in}, DType::f32, 1, scale), bias = test::random({c.out}, DType::f32, 2);
      const Tensor x = test::random({1, c.rows, c.in}, dtype, 3), residual = test::random({1, c.rows, c.out}, dtype, 4);
      const Tensor gate = test::random({1, c.out}, DType::f32, 5);
      check_layer("linear", dtype, {{"weight", weight}, {"bias", bias}}, x, [&](const Weights& w) {
        return [&, layer = Linear(w, c.in, c.out)](const Tensor& t) { return layer(t, {.activation = Activation::gelu}); };
      });
      check_layer("linear with residual", dtype, {{"weight", weight}, {"bias", bias}}, x, [&](const Weights& w) {
        return [&, layer = Linear(w, c.in, c.out)](const Tensor& t) { return layer(t, {.residual = residual.to(t.device())}); };
      });
      check_layer("linear, the sum activated", dtype, {{"weight", weight}}, x, [&](const Weights& w) {
        return [&, layer = Linear(w, c.in, c.out, {.bias = false})](const Tensor& t) {
          return layer(t, {.activation = Activation::relu, .residual = residual.to(t.device()), .activate_sum = true});
        };
      });
      check_layer("gated linear", dtype, {{"weight", weight}, {"bias", bias}}, x, [&](const Weights& w) {
        return [&, layer = Linear(w, c.in, c.out)](const Tensor& t) {
          Tensor y = residual.to(t.device()).clone();
          layer.add_to(y, t, gate.to(t.device()));
          return y;
        };
      });
    }
}

TEST_CASE("convolutions on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats)
    for (const ConvCase& c : kConvolutions) check_convolution(c, dtype, Activation::silu);
  const Tensor x = test::random({2, 6, 5, 4}, DType::bf16, 3), y = test::random({2, 6, 5, 4}, DType::bf16, 4);
  check_layer("depth-wise, added to a view", DType::bf16, {{"weight", test::random({4, 1, 3, 3})}, {"bias", test::random({4})}},
              x, [&](const Weights& w) {
                return [&, layer = Conv2d(w, 4, 4, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = 4})](const Tensor& t) {
                  Tensor sum = test::strided(y.to(t.device()));
                  layer.add_to(sum, t);
                  return sum;
                };
              });
}

TEST_CASE("convolutions with cuDNN and what follows them on the device", "[cuda_host]") {
  cuda::emulation::install();
  cuda::emulation::set_cudnn(true);
  const std::int64_t before = cuda::emulation::cudnn_runs();
  for (const DType dtype : test::kFloats)
    for (const ConvCase& c : kConvolutions)
      for (const Activation activation : {Activation::none, Activation::relu, Activation::gelu}) {
        check_convolution(c, dtype, activation);
        if (c.transposed) continue;
        for (const Added added : {Added::kept, Added::given})
          for (const bool activate_sum : {false, true}) check_convolution(c, dtype, activation, added, activate_sum);
      }
  CHECK(cuda::emulation::cudnn_runs() > before);
  cuda::emulation::set_cudnn(false);
}

}  // namespace vitrine
