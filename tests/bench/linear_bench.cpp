// Speed of y = act(x W^T + b) + residual, given as a problem string:
//
//   197x768x3072_gelu      rows x in x out; then any of _gelu, _silu, ... and _residual
//
// or "vit_base": the four layers of a block at 197 rows (vit_tiny, vit_small, vit_large likewise). Weights are cold, as in a
// model: so many copies are used in turns that they do not stay in the caches. Every candidate is timed in turns with the
// others. The rate is that of the shortest calls, averaged over the copies.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/linear.h>
#include <vitrine/weights/sources.h>

namespace {

using namespace vitrine;

struct Problem {
  std::int64_t rows = 0, in = 0, out = 0;
  Activation activation = Activation::none;
  bool residual = false;
};

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator)
      parts.emplace_back();
    else
      parts.back().push_back(c);
  }
  return parts;
}

Problem parse_problem(const std::string& text) {
  const std::vector<std::string> parts = split(text, '_'), sizes = split(parts[0], 'x');
  if (sizes.size() != 3) throw Error(fmt::format("problem '{}': expected ROWSxINxOUT[_ACTIVATION][_residual]", text));
  Problem p{.rows = std::stoll(sizes[0]), .in = std::stoll(sizes[1]), .out = std::stoll(sizes[2])};
  for (std::size_t i = 1; i < parts.size(); ++i) {
    if (parts[i] == "residual")
      p.residual = true;
    else
      p.activation = parse_activation(parts[i]);
  }
  return p;
}

std::vector<std::string> expanded(const std::string& text, std::int64_t batch) {
  std::int64_t dim = 0;
  for (const auto& [name, d] : {std::pair{"vit_tiny", 192}, {"vit_small", 384}, {"vit_base", 768}, {"vit_large", 1024}})
    if (text == name) dim = d;
  if (dim == 0) return {text};
  const std::int64_t rows = 197 * batch;
  return {fmt::format("{}x{}x{}", rows, dim, 3 * dim), fmt::format("{}x{}x{}_residual", rows, dim, dim),
          fmt::format("{}x{}x{}_gelu", rows, dim, 4 * dim), fmt::format("{}x{}x{}_residual", rows, 4 * dim, dim)};
}

double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void time_problem(const std::string& text, DType dtype, double seconds) {
  constexpr std::int64_t kColdBytes = 64 << 20;
  const Problem p = parse_problem(text);
  const Tensor weight = synthetic_parameter("bench.weight", {p.out, p.in}), bias = synthetic_parameter("bench.bias", {p.out});
  const std::int64_t bytes = p.in * p.out * static_cast<std::int64_t>(size_of(dtype));
  const std::int64_t copies = std::clamp<std::int64_t>(kColdBytes / bytes, 1, 400);
  const std::vector<std::string> names{"tiled", "onednn"};
  std::vector<std::vector<std::unique_ptr<const cpu::PackedLinear>>> packed(names.size());
  for (std::size_t c = 0; c < names.size(); ++c)
    for (std::int64_t i = 0; i < copies; ++i) packed[c].push_back(cpu::pack_linear(weight, bias, dtype, names[c]));
  const DType computed = packed[0][0]->dtype();
  const Tensor x = synthetic_tensor("bench.x", {p.rows, p.in}).to(computed);
  Tensor y = Tensor::zeros({p.rows, p.out}, computed);
  std::vector<std::vector<double>> best(names.size(), std::vector<double>(static_cast<std::size_t>(copies), 1e9));
  const double end = seconds_now() + seconds;
  do {
    for (std::size_t c = 0; c < names.size(); ++c) {
      for (std::size_t i = 0; i < best[c].size(); ++i) {
        const double start = seconds_now();
        packed[c][i]->run({.x = x.raw(),
                           .rows = p.rows,
                           .x_stride = p.in,
                           .y = y.raw(),
                           .residual = p.residual ? y.raw() : nullptr,
                           .y_stride = p.out,
                           .activation = p.activation,
                           .threads = Context::current().threads()});
        best[c][i] = std::min(best[c][i], seconds_now() - start);
      }
    }
  } while (seconds_now() < end);
  fmt::print("{:28} {:5}", text, name_of(dtype));
  for (std::size_t c = 0; c < names.size(); ++c) {
    double sum = 0;
    for (const double b : best[c]) sum += b;
    const double mean = sum / static_cast<double>(copies);
    fmt::print("  {} {:8.1f} us {:7.1f} GFLOP/s", packed[c][0]->name(), 1e6 * mean,
               2e-9 * static_cast<double>(p.rows * p.in * p.out) / mean);
  }
  fmt::print("\n");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Times linear layers with cold weights, e.g. 197x768x3072_gelu or vit_base");
  std::vector<std::string> problems{"vit_tiny", "vit_small", "vit_base"};
  std::vector<std::string> dtypes{"f32", "bf16"};
  std::int64_t batch = 1;
  int threads = 0;
  double seconds = 1;
  app.add_option("problem", problems, "ROWSxINxOUT[_ACTIVATION][_residual], or vit_tiny, vit_small, vit_base, vit_large");
  app.add_option("--dtype", dtypes)->delimiter(',')->capture_default_str();
  app.add_option("--batch-size", batch, "images of a vit_*")->capture_default_str();
  app.add_option("--threads", threads, "0: all cores");
  app.add_option("--seconds", seconds, "for a problem")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    Context context({.threads = threads, .device = {}});
    const ContextScope scope(context);
    for (const std::string& dtype : dtypes)
      for (const std::string& name : problems)
        for (const std::string& text : expanded(name, batch)) time_problem(text, parse_dtype(dtype), seconds);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "vitrine_bench_linear: %s\n", error.what());
    return 1;
  }
}
