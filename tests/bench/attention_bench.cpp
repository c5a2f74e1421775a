// Speed of one attention operator or layer, given as pipelines/attention_cases.h names them: na2d_56x56_h2_d32_k7.
//
// Operators take views into one fused projection, as in a model. Prints GFLOP/s and their share of a matrix product's that is
// measured in turns with it; --json prints one JSON line instead.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/layers/context.h>
#include <vitrine/layers/linear.h>
#include <vitrine/pipelines/attention_cases.h>
#include <vitrine/weights/sources.h>

namespace {

using namespace vitrine;

struct Problem {
  std::function<Tensor(std::string_view impl)> run;
  double flops = 0;
};

// FLOPs are what one run counts: two a multiply-add.
Problem make_problem(const std::string& text, std::int64_t batch, DType dtype, const std::string& impl) {
  const AttentionProblem problem = make_attention_problem(text, batch, dtype);
  if (!problem.takes_impl && !impl.empty()) throw Error(fmt::format("{}: a layer takes no implementation", text));
  Context::current().reset_macs();
  problem.run(impl);
  return {problem.run, 2.0 * static_cast<double>(Context::current().macs())};
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
  app.add_option("problem", text, "a case of vitrine benchmark")->required();
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
    const Problem problem = make_problem(text, batch, dtype, impl), product = make_product(dtype);
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
    if (check) make_problem(text, batch, dtype, "reference");  // throws where there is none
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
