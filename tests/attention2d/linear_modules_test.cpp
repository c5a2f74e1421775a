// The layers over linear attention: against their formulas, and what they refuse. Their stored cases are run by verify.
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include <attention2d/compare.h>
#include <attention2d/tokens.h>
#include <catch.h>
#include <fmt/format.h>
#include <layers/random.h>

#include <vitrine/attention2d/channel_attention.h>
#include <vitrine/attention2d/cpu/linear_attention.h>
#include <vitrine/attention2d/efficient_attention.h>
#include <vitrine/attention2d/flow_attention.h>
#include <vitrine/attention2d/focused_linear_attention.h>
#include <vitrine/attention2d/inline_attention.h>
#include <vitrine/attention2d/linear_attention.h>
#include <vitrine/attention2d/linfusion.h>
#include <vitrine/attention2d/rala.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

using test::contains;
using test::difference;
using test::Random;
using test::same_bits_on_threads;

using Parameters = std::vector<std::pair<std::string, Shape>>;

Weights weights_of(const Parameters& parameters, DType dtype = DType::f32) {
  return Weights(synthetic_weights(parameters), WeightsOptions{.dtype = dtype, .device = {}});
}

Parameters projections(std::int64_t dim) {
  return {{"qkv.weight", {3 * dim, dim}}, {"qkv.bias", {3 * dim}}, {"proj.weight", {dim, dim}}, {"proj.bias", {dim}}};
}

Parameters inline_parameters(std::int64_t dim, std::int64_t heads) {
  Parameters p = projections(dim);
  p.insert(p.end(), {{"residual.0.weight", {dim, dim / heads, 1}},
                     {"residual.0.bias", {dim}},
                     {"residual.2.weight", {9 * dim, dim / heads, 1}},
                     {"residual.2.bias", {9 * dim}}});
  return p;
}

Parameters focused_parameters(std::int64_t dim, std::int64_t heads, std::int64_t tokens, std::int64_t k) {
  Parameters p = projections(dim);
  p.insert(p.end(), {{"positional_encoding", {1, tokens, dim}},
                     {"scale", {1, 1, dim}},
                     {"dwc.weight", {dim / heads, 1, k, k}},
                     {"dwc.bias", {dim / heads}}});
  return p;
}

Parameters rala_parameters(std::int64_t dim) {
  return {{"qkvo.weight", {4 * dim, dim, 1, 1}}, {"qkvo.bias", {4 * dim}}, {"lepe.weight", {dim, 1, 5, 5}}, {"lepe.bias", {dim}},
          {"proj.weight", {dim, dim, 1, 1}},     {"proj.bias", {dim}}};
}

// Every layer gives the same with a residual as without and the residual added, on any number of threads.
template <typename Layer>
void check_residual_and_threads(const Layer& layer, const Tensor& x) {
  const Tensor residual = affine(x, 2.0f, 0.5f);
  CHECK(difference(layer(x, residual), add(layer(x, {}), residual), 1e-6) == "");
  CHECK(same_bits_on_threads([&] { return layer(x, {}); }));
}

TEST_CASE("linear layers take a residual and do not depend on the number of threads") {
  Random random(1);
  const Tensor tokens = random.tensor({2, 350, 48}), windows = random.tensor({3, 20, 48}), map = random.tensor({2, 19, 17, 48});
  const Weights w = weights_of(projections(48));
  const auto bind = [](auto layer) { return [layer](const Tensor& x, Tensor residual) { return layer(x, residual); }; };
  check_residual_and_threads(bind(LinearAttention(w, {.dim = 48, .num_heads = 3})), tokens);
  check_residual_and_threads(bind(FlowAttention(w, {.dim = 48, .num_heads = 3})), tokens);
  for (const int version : {1, 2})
    check_residual_and_threads(bind(ChannelAttention(w, {.dim = 48, .num_heads = 3, .version = version})), tokens);
  for (const bool linear : {true, false})
    check_residual_and_threads(
        bind(RalaAttention(weights_of(rala_parameters(48)), {.dim = 48, .num_heads = 3, .linear = linear})), map);
  check_residual_and_threads(
      bind(InlineAttention(weights_of(inline_parameters(48, 3)), {.dim = 48, .num_heads = 3, .window_size = {4, 5}})), windows);
  check_residual_and_threads(bind(FocusedLinearAttention(weights_of(focused_parameters(48, 3, 20, 3)),
                                                         {.dim = 48, .num_heads = 3, .window_size = {4, 5}, .kernel_size = 3})),
                             windows);
  const Weights fusion = weights_of({{"to_q.weight", {48, 48}},
                                     {"to_k.weight", {48, 48}},
                                     {"to_v.weight", {48, 48}},
                                     {"to_out.0.weight", {48, 48}},
                                     {"to_out.0.bias", {48}}});
  const LinFusionAttention layer(fusion, {.dim = 48, .num_heads = 3});
  check_residual_and_threads([&](const Tensor& x, Tensor residual) { return layer(x, {}, residual); }, tokens);
}

TEST_CASE("focusing keeps a row's length and raises its features, on every target") {
  Random random(2);
  for (const cpu::Isa isa : cpu::available_isas()) {
    if (isa > cpu::isa()) continue;
    const auto focus = cpu::linear_attention_kernels(isa).focus;
    for (const float power : {1.0f, 2.0f, 2.5f, 3.0f, 20.0f})
      for (const std::int64_t channels : {1, 5, 16, 37, 96}) {
        INFO(fmt::format("{} power {} channels {}", cpu::name_of(isa), power, channels));
        Tensor x = random.tensor({channels});
        const Tensor added = random.tensor({channels}), inverse_scale = affine(random.tensor({channels}), 0.5f, 1.0f);
        std::vector<double> u(static_cast<std::size_t>(channels));
        double before = 0, after = 0;
        for (std::size_t i = 0; i < u.size(); ++i) {
          u[i] = (std::max(x.data<float>()[i] + added.data<float>()[i], 0.0f) + 1e-6) * inverse_scale.data<float>()[i];
          before += u[i] * u[i];
          u[i] = std::pow(u[i], power);
          after += u[i] * u[i];
        }
        Tensor expected = Tensor::empty({channels}), workspace = Tensor::empty({channels});
        for (std::size_t i = 0; i < u.size(); ++i)
          expected.data<float>()[i] = static_cast<float>(u[i] * std::sqrt(before / after));
        focus(x.raw(), cpu::FloatType::f32, channels, added.data<float>(), inverse_scale.data<float>(), power,
              workspace.data<float>());
        CHECK(difference(x, expected, 5e-6) == "");
      }
  }
  // nothing but what is added to every feature: 1e-24 ** 2 is no float
  Tensor low = Tensor::full({8}, -1.0f), room = Tensor::empty({8});
  cpu::linear_attention_kernels(cpu::isa())
      .focus(low.raw(), cpu::FloatType::f32, 8, nullptr, Tensor::full({8}, 1.0f).data<float>(), 4.0f, room.data<float>());
  CHECK(difference(low, Tensor::full({8}, 1e-6f), 1e-6) == "");
}

TEST_CASE("flow attention by its formula") {
  Random random(3);
  const std::int64_t N = 300, D = 12;
  const Tensor q = random.tensor({1, N, 1, D}), k = random.tensor({1, N, 1, D}), v = random.tensor({1, N, 1, D});
  const double e = 1e-6;
  using Rows = std::vector<std::vector<double>>;
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  const auto rows_of = [&](const Tensor& t) {
    Rows rows;
    for (std::int64_t n = 0; n < N; ++n)
      for (std::int64_t d = 0; d < D; ++d) {
        if (d == 0) rows.emplace_back();
        rows.back().push_back(sigmoid(t.data<float>()[n * D + d]));
      }
    return rows;
  };
  const Rows a = rows_of(q), b = rows_of(k);
  const auto flow = [&](const Rows& rows, const Rows& others, const std::vector<double>& weights) {
    std::vector<double> flows;
    for (const auto& row : rows) {
      double sum = e;
      for (std::int64_t d = 0; d < D; ++d) {
        double total = e;
        for (std::int64_t n = 0; n < N; ++n) total += weights[n] * others[n][d];
        sum += (row[d] + e) * total;
      }
      flows.push_back(sum);
    }
    return flows;
  };
  std::vector<double> in = flow(a, b, std::vector<double>(N, 1)), out = flow(b, a, std::vector<double>(N, 1));
  for (double& x : in) x = 1 / x;
  for (double& x : out) x = 1 / x;
  const std::vector<double> sink = flow(a, b, out), source = flow(b, a, in);
  double total = 0;
  for (double s : source) total += std::exp(std::clamp(s, -1.0, 1.0));
  Tensor expected = Tensor::zeros({1, N, 1, D});
  for (std::int64_t i = 0; i < N; ++i)
    for (std::int64_t j = 0; j < N; ++j) {
      double dot = 0;
      for (std::int64_t d = 0; d < D; ++d) dot += a[i][d] * b[j][d];
      const double weight = sigmoid(sink[i]) * in[i] * dot * N * std::exp(std::clamp(source[j], -1.0, 1.0)) / total;
      for (std::int64_t d = 0; d < D; ++d)
        expected.data<float>()[i * D + d] += static_cast<float>(weight * v.data<float>()[j * D + d]);
    }
  CHECK(difference(flow_attention(q, k, v), expected, 2e-5) == "");
}

TEST_CASE("InLine's kernels are those of each sample") {
  Random random(4);
  const Weights w = weights_of(inline_parameters(24, 2));
  const InlineAttention layer(w, {.dim = 24, .num_heads = 2, .window_size = {3, 6}, .class_token = true});
  w.check("inline");
  const Tensor x = random.tensor({3, 19, 24}), all = layer(x);
  for (std::int64_t b = 0; b < 3; ++b)
    CHECK(difference(layer(x.slice(0, b, b + 1)), all.slice(0, b, b + 1).contiguous(), 1e-6) == "");
}

TEST_CASE("efficient attention of one token is its value") {
  Random random(5);
  const Weights w = weights_of({{"queries.weight", {8, 12, 1, 1}},
                                {"queries.bias", {8}},
                                {"keys.weight", {8, 12, 1, 1}},
                                {"keys.bias", {8}},
                                {"values.weight", {16, 12, 1, 1}},
                                {"values.bias", {16}},
                                {"reprojection.weight", {12, 16, 1, 1}},
                                {"reprojection.bias", {12}}});
  const EfficientAttention layer(w, {.dim = 12, .key_dim = 8, .value_dim = 16, .num_heads = 2});
  const Tensor x = random.tensor({2, 1, 12});
  CHECK(difference(layer(x), layer.reprojection(layer.values(x), {.residual = x}), 1e-5) == "");
}

TEST_CASE("what the layers over linear attention refuse") {
  const Weights w = weights_of(projections(12));
  CHECK_THROWS_WITH(LinearAttention(w, {.dim = 12, .num_heads = 5}), contains("dim 12 is not a multiple of 5 heads"));
  CHECK_THROWS_WITH(FlowAttention(w, {.dim = 12, .num_heads = 0}), contains("dim 12 is not a multiple of 0 heads"));
  CHECK_THROWS_WITH(ChannelAttention(w, {.dim = 0, .num_heads = 1}), contains("dim is 0, expected 1 to"));
  CHECK_THROWS_WITH(ChannelAttention(w, {.dim = 12, .version = 3}), contains("version 3, expected 1 or 2"));
  CHECK_THROWS_WITH(LinearAttention(w, {.dim = 12, .num_heads = 2})(Tensor::zeros({1, 4, 13})),
                    contains("linear_attention: x is [1, 4, 13], expected [B, N, 12]"));
  CHECK_THROWS_WITH(FlowAttention(w, {.dim = 12, .num_heads = 2})(Tensor()),
                    contains("flow_attention: x is undefined, expected [B, N, 12]"));

  CHECK_THROWS_WITH(EfficientAttention(w, {.dim = 0, .key_dim = 8, .value_dim = 8}), contains("dim is 0, expected 1 to"));
  CHECK_THROWS_WITH(EfficientAttention(w, {.dim = 12, .key_dim = 8, .value_dim = 6, .num_heads = 4}),
                    contains("dim 6 is not a multiple of 4 heads"));

  const Weights rala = weights_of(rala_parameters(12));
  CHECK_THROWS_WITH(RalaAttention(rala, {.dim = 12, .num_heads = 2}), contains("heads of 6 channels, expected a multiple of 4"));
  CHECK_THROWS_WITH(RalaAttention(rala, {.dim = 12})(Tensor::zeros({1, 4, 12})),
                    contains("x is [1, 4, 12], expected [B, H, W, 12]"));

  const Weights in = weights_of(inline_parameters(12, 2));
  CHECK_THROWS_WITH(InlineAttention(in, {.dim = 12, .num_heads = 2, .window_size = {0, 3}}),
                    contains("window_size is 0, expected 1 to"));
  CHECK_THROWS_WITH(InlineAttention(in, {.dim = 12, .num_heads = 2, .window_size = {2, 3}})(Tensor::zeros({1, 7, 12})),
                    contains("x is [1, 7, 12], expected 6 tokens of a window of 2x3"));

  const Weights focused = weights_of(focused_parameters(12, 2, 6, 3));
  const auto config = [](std::array<std::int64_t, 2> window, double factor, std::int64_t kernel) {
    return FocusedLinearAttentionConfig{
        .dim = 12, .num_heads = 2, .window_size = window, .focusing_factor = factor, .kernel_size = kernel};
  };
  CHECK_THROWS_WITH(FocusedLinearAttention(focused, config({2, 0}, 3, 3)), contains("window_size is 0, expected 1 to"));
  CHECK_THROWS_WITH(FocusedLinearAttention(focused, config({2, 3}, 0, 3)),
                    contains("focusing_factor 0, expected a positive one"));
  CHECK_THROWS_WITH(FocusedLinearAttention(focused, config({2, 3}, 3, 4)), contains("kernel_size 4, expected an odd one"));
  CHECK_THROWS_WITH(FocusedLinearAttention(focused, config({2, 3}, 3, 3))(Tensor::zeros({1, 5, 12})),
                    contains("expected 6 tokens of a window of 2x3"));

  CHECK_THROWS_WITH(LinFusionAttention(w, {.dim = 12, .query_hidden = -1}), contains("hidden width is -1, expected 0 to"));
  const Weights fusion = weights_of({{"to_q.weight", {12, 12}},
                                     {"to_k.weight", {12, 12}},
                                     {"to_v.weight", {12, 12}},
                                     {"to_out.0.weight", {12, 12}},
                                     {"to_out.0.bias", {12}}});
  CHECK_THROWS_WITH(LinFusionAttention(fusion, {.dim = 12})(Tensor::zeros({1, 4, 12}), Tensor::zeros({1, 4, 6})),
                    contains("linfusion_attention: context is [1, 4, 6], expected [B, N, 12]"));
}

}  // namespace
}  // namespace vitrine
