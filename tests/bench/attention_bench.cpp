// Speed of one attention operator, given as a problem string:
//
//   sdpa_h3_n197_d64                softmax(q k^T / sqrt(d)) v; h heads, n tokens, head size d
//   na1d_3136_h2_d32_k7             neighborhood attention; sizes joined by x; optional _dil2 at the end, and _rpb
//   na2d_56x56_h2_d32_k7
//   na3d_16x28x28_h2_d32_k3
//   bra_56x56_c64_h2_p7_t1          bi-level routing layer: p x p regions, t routed ones, depth-wise 5x5 on v
//   agent_14x14_c192_h3_a7          agent attention layer: a x a agents, two biases, depth-wise 3x3 on v
//   hilo_14x14_c384_h12_w2_a9       HiLo layer: window w, a tenths of the heads in the low branch
//   swin_56x56_c96_h3_w7_s3         window attention layer with bias, shift s, both projections
//
// q, k and v are views into one fused projection, as in a model. Prints GFLOP/s (4 x keys of a query x head size, per query
// and head) and their share of a matrix product's that is measured in turns with it; --json prints one JSON line instead.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <optional>
#include <regex>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/attention2d/agent.h>
#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/bi_level_routing.h>
#include <vitrine/attention2d/hilo.h>
#include <vitrine/attention2d/neighborhood.h>
#include <vitrine/attention2d/window.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

namespace {

using namespace vitrine;

struct Problem {
  std::function<Tensor(std::string_view impl)> run;
  double flops = 0;
};

std::int64_t number(const std::string& text, const std::string& key, std::int64_t otherwise = -1) {
  std::smatch match;
  if (std::regex_search(text, match, std::regex("_" + key + "(\\d+)(?=_|$)"))) return std::stoll(match[1]);
  if (otherwise >= 0) return otherwise;
  throw Error(fmt::format("problem '{}': no {}NUMBER in it", text, key));
}

std::vector<std::int64_t> spatial_sizes(const std::string& text) {
  std::vector<std::int64_t> sizes;
  std::smatch match;
  if (!std::regex_search(text, match, std::regex("^na[123]d_(\\d+(?:x\\d+)*)_"))) return sizes;
  const std::string list = match[1];
  const std::regex digits("\\d+");
  for (std::sregex_iterator it(list.begin(), list.end(), digits), end; it != end; ++it) sizes.push_back(std::stoll(it->str()));
  return sizes;
}

// A view of the fused projection [B, tokens..., 3, heads, dim].
Tensor part_of(const Tensor& qkv, int which) { return qkv.select(-3, which); }

// A layer on a map HxW of c channels; its work is what its operations count.
template <typename Layer>
Problem layer_problem(Layer layer, const Tensor& x) {
  Context& context = Context::current();
  context.reset_macs();
  layer(x);
  return {[layer = std::move(layer), x](std::string_view) { return layer(x); }, 2.0 * static_cast<double>(context.macs())};
}

std::optional<Problem> make_layer(const std::string& text, std::int64_t batch, DType dtype) {
  std::smatch match;
  if (!std::regex_search(text, match, std::regex("^(bra|agent|hilo|swin)_(\\d+)x(\\d+)_"))) return std::nullopt;
  const std::string kind = match[1];
  const std::int64_t height = std::stoll(match[2]), width = std::stoll(match[3]), c = number(text, "c"), h = number(text, "h");
  const Weights w(synthetic_weights(), {.dtype = dtype, .device = {}});
  const Tensor x = synthetic_tensor("bench.x", {batch, height, width, c}).to(dtype);
  if (kind == "bra")
    return layer_problem(
        BiLevelRoutingAttention(w, {.dim = c, .num_heads = h, .n_win = number(text, "p"), .topk = number(text, "t")}), x);
  if (kind == "hilo")
    return layer_problem(HiLoAttention(w, {.dim = c,
                                           .num_heads = h,
                                           .window_size = number(text, "w"),
                                           .alpha = static_cast<double>(number(text, "a", 10)) / 10 + 1e-9,
                                           .qkv_bias = true}),
                         x);
  if (kind == "swin") {
    const std::int64_t size = number(text, "w"), shift = number(text, "s", 0);
    return layer_problem(
        WindowAttention(w, {.dim = c, .num_heads = h, .window_size = {size, size}, .shift_size = {shift, shift}}), x);
  }
  const std::int64_t side = number(text, "a");
  return layer_problem(AgentAttention(w, {.dim = c, .num_heads = h, .agent_num = side * side, .height = height, .width = width}),
                       x.flatten(1, 2));
}

Problem make_problem(const std::string& text, std::int64_t batch, DType dtype) {
  if (std::optional<Problem> layer = make_layer(text, batch, dtype)) return *std::move(layer);
  const std::int64_t h = number(text, "h"), d = number(text, "d");
  if (text.starts_with("sdpa_")) {
    const std::int64_t n = number(text, "n");
    const Tensor qkv = synthetic_tensor("bench.qkv", {batch, n, 3, h, d}).to(dtype);
    return {[=](std::string_view impl) { return attention(part_of(qkv, 0), part_of(qkv, 1), part_of(qkv, 2), {.impl = impl}); },
            4.0 * batch * h * n * n * d};
  }
  const std::vector<std::int64_t> sizes = spatial_sizes(text);
  if (sizes.empty() || sizes.size() != static_cast<std::size_t>(text[2] - '0'))
    throw Error(fmt::format("problem '{}': expected sdpa_hH_nN_dD or na1d_, na2d_, na3d_SIZES_hH_dD_kK[_dilN][_rpb]", text));
  const std::int64_t k = number(text, "k"), dilation = number(text, "dil", 1);
  Shape shape{batch};
  double pairs = 1;
  for (std::int64_t size : sizes) {
    shape.push_back(size);
    pairs *= static_cast<double>(size * k);
  }
  for (std::int64_t size : {std::int64_t{3}, h, d}) shape.push_back(size);
  const Tensor qkv = synthetic_tensor("bench.qkv", shape).to(dtype);
  const Tensor rpb = text.ends_with("_rpb") ? synthetic_parameter("bench.rpb", {h, 2 * k - 1, 2 * k - 1}) : Tensor();
  return {[=](std::string_view impl) {
            return neighborhood_attention(
                part_of(qkv, 0), part_of(qkv, 1), part_of(qkv, 2),
                {.kernel_size = {k, k, k}, .dilation = {dilation, dilation, dilation}, .rpb = rpb, .impl = impl});
          },
          4.0 * batch * h * pairs * d};
}

// A product of the size at which libraries come near a machine's peak.
Problem make_product(DType dtype) {
  constexpr std::int64_t kSide = 2048;
  const Linear linear(synthetic_parameter("bench.weight", {kSide, kSide}), {}, dtype);
  const Tensor x = synthetic_tensor("bench.x", {kSide, kSide}).to(dtype);
  return {[=](std::string_view) { return linear(x); }, 2.0 * kSide * kSide * kSide};
}

void time_calls(const Problem& problem, const std::string& impl, double seconds, std::vector<double>& samples_ms) {
  using Clock = std::chrono::steady_clock;
  for (int i = 0; i < 3; ++i) problem.run(impl);
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  do {
    const auto start = Clock::now();
    problem.run(impl);
    samples_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  } while (Clock::now() < end);
}

double quantile(std::vector<double> samples, double q) {
  std::sort(samples.begin(), samples.end());
  return samples[static_cast<std::size_t>(q * static_cast<double>(samples.size() - 1))];
}

double max_relative_error(const Problem& problem, const std::string& impl) {
  const Tensor got = problem.run(impl).to(DType::f32), expected = problem.run("reference").to(DType::f32);
  double error = 0, largest = 0;
  for (std::int64_t i = 0; i < got.numel(); ++i) {
    error = std::max(error, std::abs(static_cast<double>(got.data<float>()[i]) - expected.data<float>()[i]));
    largest = std::max(largest, std::abs(static_cast<double>(expected.data<float>()[i])));
  }
  return error / largest;
}

int run(int argc, char** argv) {
  CLI::App app("Times one attention operator, e.g. sdpa_h3_n197_d64 or na2d_56x56_h2_d32_k7");
  std::string text, dtype_name = "f32", impl;
  std::int64_t batch = 1;
  int threads = 0;
  double seconds = 2;
  bool json = false, check = false;
  app.add_option("problem", text, "sdpa_hH_nN_dD or na2d_HxW_hH_dD_kK[_dilN][_rpb]")->required();
  app.add_option("--dtype", dtype_name, "f32, bf16 or f16")->capture_default_str();
  app.add_option("--batch-size", batch)->capture_default_str();
  app.add_option("--threads", threads, "0: all cores");
  app.add_option("--seconds", seconds)->capture_default_str();
  app.add_option("--impl", impl, "a candidate's name instead of the best");
  app.add_flag("--check", check, "compare with the plain reference, too");
  app.add_flag("--json", json, "one JSON line");
  CLI11_PARSE(app, argc, argv);
  try {
    Context context({.threads = threads, .device = {}});
    const ContextScope scope(context);
    const DType dtype = parse_dtype(dtype_name);
    const Problem problem = make_problem(text, batch, dtype), product = make_product(dtype);
    std::vector<double> samples, product_samples;
    constexpr int kRounds = 4;
    for (int round = 0; round < kRounds; ++round) {
      time_calls(problem, impl, seconds / kRounds, samples);
      time_calls(product, impl, 0.3 * seconds / kRounds, product_samples);
    }
    const double median = quantile(samples, 0.5), least = quantile(samples, 0);
    const double gflops = problem.flops / median / 1e6, peak = product.flops / quantile(product_samples, 0) / 1e6;
    nlohmann::json row = {{"median_ms", median},
                          {"min_ms", least},
                          {"p90_ms", quantile(samples, 0.9)},
                          {"runs", samples.size()},
                          {"threads", context.threads()},
                          {"gflops", gflops},
                          {"best_gflops", problem.flops / least / 1e6},
                          {"gemm_gflops", peak},
                          {"share_of_gemm", gflops / peak}};
    if (check) row["max_rel_err"] = max_relative_error(problem, impl);
    if (json) {
      std::puts(row.dump().c_str());
    } else {
      fmt::print(
          "{} {} batch {} threads {}: median {:.4f} ms, min {:.4f}, p90 {:.4f}; {:.1f} GFLOP/s, {:.0f}% of the {:.0f} of a "
          "product "
          "(at best {:.0f}%)\n",
          text, dtype_name, batch, context.threads(), median, least, quantile(samples, 0.9), gflops, 100 * gflops / peak, peak,
          100 * problem.flops / least / 1e6 / peak);
      if (check) fmt::print("max_rel_err {:.2e}\n", row["max_rel_err"].get<double>());
    }
    return 0;
  } catch (const std::exception& error) {
    if (json)
      std::puts(nlohmann::json{{"error", error.what()}}.dump().c_str());
    else
      std::fprintf(stderr, "vitrine_bench_attention: %s\n", error.what());
    return json ? 0 : 1;
  }
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv); }
