// vitrine benchmark: how fast models run on this machine.
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/layers/context.h>
#include <vitrine/pipelines/benchmark.h>
#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/commands/model_options.h>

namespace vitrine::command {

namespace {

struct Options {
  std::vector<std::string> models;
  std::int64_t batch_size = 1;
  std::int64_t height = 0, width = 0;
  double seconds = 5.0;
};

double megabytes(std::int64_t bytes) { return 1e-6 * static_cast<double>(bytes); }

nlohmann::ordered_json as_json(const BenchmarkRow& row, double peak) {
  return {{"case", row.name},
          {"dtype", row.dtype},
          {"batch", row.batch_size},
          {"img_size", {row.height, row.width}},
          {"threads", row.threads},
          {"version", VITRINE_VERSION},
          {"median_ms", row.median_ms},
          {"min_ms", row.min_ms},
          {"p90_ms", row.p90_ms},
          {"runs", row.runs},
          {"images_per_second", row.images_per_second},
          {"gflops", row.gflops},
          {"gmacs", row.gmacs},
          {"gemm_gflops", peak},
          {"gemm_share", row.gflops / peak},
          {"parameters", row.parameters},
          {"parameter_bytes", row.parameter_bytes},
          {"weight_bytes", row.weight_bytes},
          {"peak_activation_bytes", row.peak_activation_bytes},
          {"peak_bytes", row.peak_bytes},
          {"resident_bytes", row.resident_bytes}};
}

int run_benchmark(Console& console, const Options& options) {
  BenchmarkOptions each;
  each.batch_size = options.batch_size;
  each.dtype = console.options().dtype;
  each.seconds = options.seconds;
  each.cancelled = interrupted;
  each.height = options.height;
  each.width = options.width;

  const double peak = measure_gemm_gflops(each.dtype);
  if (!console.options().json)
    console.print(
        fmt::format("{} threads, {}, matrix product {:.0f} GFLOP/s", Context::current().threads(), name_of(each.dtype), peak));
  std::vector<std::vector<std::string>> table{
      {"model", "size", "batch", "median ms", "min", "p90", "images/s", "GFLOP/s", "of GEMM", "parameters MB", "activations MB"}};
  int failed = 0;
  for (const std::string& name : options.models) {
    if (interrupted()) break;
    try {
      const BenchmarkRow row = benchmark_model(name, each);
      if (console.options().json) {
        console.print_json(as_json(row, peak), -1);
        console.flush();
      }
      table.push_back({row.name, fmt::format("{}x{}", row.height, row.width), std::to_string(row.batch_size),
                       fmt::format("{:.3f}", row.median_ms), fmt::format("{:.3f}", row.min_ms), fmt::format("{:.3f}", row.p90_ms),
                       fmt::format("{:.1f}", row.images_per_second), fmt::format("{:.1f}", row.gflops),
                       fmt::format("{:.0f}%", 100 * row.gflops / peak), fmt::format("{:.1f}", megabytes(row.parameter_bytes)),
                       fmt::format("{:.1f}", megabytes(row.peak_activation_bytes))});
    } catch (const Error& error) {  // the other models are still run
      ++failed;
      if (console.options().json)
        console.print_json({{"case", name}, {"error", error.what()}}, -1);
      else
        console.warn(error.what());
    }
  }
  if (!console.options().json && table.size() > 1) {
    const int right[] = {2, 3, 4, 5, 6, 7, 8, 9, 10};
    console.print(format_table(table, right));
  }
  if (interrupted()) return kInterrupted;
  return failed > 0 ? kFailure : kSuccess;
}

}  // namespace

const Command kBenchmarkCommand{
    .name = "benchmark",
    .summary = "Time models with synthetic weights: latency, rate, share of the machine's peak, memory",
    .examples =
        "  vitrine benchmark vit_small_patch16_224 nat_mini\n"
        "  vitrine benchmark vit_small_patch14_dinov2@224 --dtype bf16 --batch-size 8\n"
        "  vitrine benchmark nat_fashion --batch-size 64 --threads 1 --seconds 2 --json",
    .declare = [](CLI::App& app) -> std::function<int(Console&)> {
      const auto options = std::make_shared<Options>();
      app.add_option("MODEL", options->models, "Names as `vitrine models` lists them, with [arguments] or @SIZE")->required();
      app.add_option("-b,--batch-size", options->batch_size, "Images at a time (default 1)")
          ->option_text("N")
          ->check(CLI::Range(1, 1 << 16));
      app.add_option_function<std::string>(
             "--img-size", [options](const std::string& text) { std::tie(options->height, options->width) = parse_size(text); },
             "Input size, SIZE or HEIGHTxWIDTH; default: the model's")
          ->option_text("SIZE");
      app.add_option("--seconds", options->seconds, "How long to time each model (default 5)")
          ->option_text("S")
          ->check(CLI::Range(0.0, 86400.0));
      return [options](Console& console) { return run_benchmark(console, *options); };
    },
};

}  // namespace vitrine::command
