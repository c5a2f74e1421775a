#include <vitrine/pipelines/attention_cases.h>

#include <array>
#include <string>

#include <catch.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/error.h>
#include <vitrine/pipelines/benchmark.h>
#include <vitrine/pipelines/plot.h>

using namespace vitrine;
using namespace vitrine::test;

namespace {

BenchmarkRow at_once(const std::string& text, std::int64_t batch = 1) {
  BenchmarkOptions options;
  options.batch_size = batch;
  options.seconds = 0;
  return benchmark_attention(text, options);
}

}  // namespace

TEST_CASE("every kind of case runs at its square size") {
  for (const AttentionForm& form : attention_forms()) {
    INFO(form.example);
    CHECK(is_attention_case(form.example));
    if (form.square.empty()) continue;
    const std::string text = square_case(form, 16);
    CHECK(is_attention_case(text));
    const BenchmarkRow row = at_once(text);
    CHECK(row.name == text);
    CHECK(row.gmacs > 0);
    std::int64_t tokens = 1;
    for (const std::int64_t size : row.tokens) tokens *= size;
    CHECK(tokens == 256);
    // At least the output.
    CHECK(row.peak_activation_bytes >= 256 * 64 * 4);
  }
}

TEST_CASE("multiply-adds of cases are those of their definition") {
  CHECK(at_once("sdpa_h3_n197_d64", 2).gmacs == Approx(1e-9 * 2 * 3 * 197 * 197 * 64));
  CHECK(at_once("na2d_20x18_h2_d32_k7").gmacs == Approx(1e-9 * 2 * 2 * 20 * 18 * 49 * 32));
  CHECK(at_once("na1d_60_h2_d8_k3_dil2").gmacs == Approx(1e-9 * 2 * 2 * 60 * 3 * 8));
  CHECK(at_once("na3d_4x6x5_h1_d8_k3").gmacs == Approx(1e-9 * 2 * 120 * 27 * 8));
  const double map = 14 * 14, c = 48;
  CHECK(at_once("swin_14x14_c48_h3_w7_s3").gmacs == Approx(1e-9 * map * (4 * c * c + 2 * 49 * c)));
  CHECK(at_once("gnconv_14x14_c48_o2").gmacs == Approx(1e-9 * map * (2 * c * c + c * c + c / 2 * c + 49 * 1.5 * c)));
  CHECK(at_once("focal_14x14_c48_l2_w3").gmacs == Approx(1e-9 * map * (4 * c * c + 3 * c + (9 + 25) * c)));
}

TEST_CASE("names of models are no cases") {
  for (const char* name : {"swin_tiny_patch4_window7_224", "swin_s3_tiny_224", "linear", "sdpa", "vit_small_patch16_224", ""}) {
    INFO(name);
    CHECK(!is_attention_case(name));
  }
}

TEST_CASE("cases that are none say what is expected") {
  const auto make = [](const std::string& text) { return make_attention_problem(text, 1, DType::f32); };
  CHECK_THROWS_WITH(make("na2d_56x56_h2_d32"), contains("no kNUMBER; expected the form of na2d_56x56_h2_d32_k7"));
  CHECK_THROWS_WITH(make("na2d_56x56_h2_d32_k"), contains("no kNUMBER"));
  CHECK_THROWS_WITH(make("na2d_56_h2_d32_k7"), contains("1 sizes, expected 2"));
  CHECK_THROWS_WITH(make("na2d_56x_h2_d32_k7"), contains("'56x' are no sizes"));
  CHECK_THROWS_WITH(make("na2d_0x8_h2_d32_k7"), contains("a size of 0"));
  CHECK_THROWS_WITH(make("na2d_56x56_h2_h3_d32_k7"), contains("'h' twice"));
  CHECK_THROWS_WITH(make("na2d_56x56_h2_d32_k7_z3"), contains("unknown 'z3'"));
  CHECK_THROWS_WITH(make("sdpa_h3_n197_d64_99999999999999999999"), contains("is no LETTER and NUMBER"));
  CHECK_THROWS_WITH(make("sdpa_h3_n197_d64x"), contains("is no LETTER and NUMBER"));
  CHECK_THROWS_WITH(make("na2d_8x8_h2_d32_k7_t5_rpb"), contains("t and rpb exclude each other"));
  CHECK_THROWS_WITH(make("nope_8x8"), contains("expected one like sdpa_h3_n197_d64"));
  CHECK_THROWS_WITH(make("ditblock_n256_c384_h6"), contains("no DiT blocks"));
  CHECK_THROWS_WITH(make("gnconv_8x8_c30_o5"), contains("dim 30 with order 5"));
}

TEST_CASE("a chart has a curve, points and a legend for each series") {
  const Plot plot{"A & B", "below", {{"time", "x", "y", {1, 2, 4}, {{"one", {{1, 0.5}, {2, 30}}}, {"two<", {{4, 7}}}}}}};
  const std::string svg = to_svg(plot);
  const auto count = [&](const std::string& part) {
    int n = 0;
    for (std::size_t at = svg.find(part); at != std::string::npos; at = svg.find(part, at + 1)) ++n;
    return n;
  };
  CHECK(svg.starts_with("<svg "));
  CHECK(svg.ends_with("</svg>\n"));
  CHECK(count("<polyline") == 2);
  CHECK(count("<circle") == 3);
  CHECK(count(">two&lt;</text>") == 1);
  CHECK(count("A &amp; B") == 1);
  CHECK(count(">100</text>") == 1);  // decades from 0.1 to 100
  CHECK(count(">0.1</text>") == 1);
  CHECK(count("extrapolated") == 0);
  CHECK_THROWS_WITH(to_svg({"t", "", {{"time", "x", "y", {}, {}}}}), contains("there are no points"));
  CHECK_THROWS_WITH(to_svg({"t", "", {{"time", "x", "y", {}, {{"one", {{1, 0}}}}}}}), contains("expected numbers above 0"));
}

TEST_CASE("extrapolated points are hollow, the line to them is dotted") {
  const auto drawn = [](std::size_t guessed) {
    const std::string svg = to_svg({"t", "", {{"time", "x", "y", {}, {{"one", {{1, 1}, {2, 4}, {4, 16}}, guessed}}}}});
    const auto count = [&](const std::string& part) {
      int n = 0;
      for (std::size_t at = svg.find(part); at != std::string::npos; at = svg.find(part, at + 1)) ++n;
      return n;
    };
    return std::array{count(", extrapolated</title>"), count("<polyline"), count(">extrapolated</text>")};
  };
  CHECK(drawn(0) == std::array{0, 1, 0});
  CHECK(drawn(1) == std::array{1, 2, 1});
  CHECK(drawn(3) == std::array{3, 1, 1});
  CHECK(drawn(9) == std::array{3, 1, 1});
}
