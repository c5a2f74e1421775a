#include <vitrine/pipelines/commands/benchmark_report.h>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <vitrine/layers/context.h>
#include <vitrine/layers/devices.h>

namespace vitrine::command {

double megabytes(std::int64_t bytes) { return 1e-6 * static_cast<double>(bytes); }

namespace {

nlohmann::ordered_json as_json(const BenchmarkRow& row, double peak) {
  nlohmann::ordered_json json{{"case", row.name}, {"dtype", row.dtype}, {"batch", row.batch_size}};
  if (row.tokens.empty())
    json[row.of_latents ? "latent_size" : "img_size"] = {row.height, row.width};
  else
    json["tokens"] = row.tokens;
  json.update({{"device", row.device},
               {"threads", row.threads},
               {"version", VITRINE_VERSION},
               {"median_ms", row.median_ms},
               {"min_ms", row.min_ms},
               {"p90_ms", row.p90_ms},
               {"runs", row.runs},
               {"cuda_graph", row.replayed}});
  if (row.tokens.empty()) json["images_per_second"] = row.images_per_second;
  json.update({{"gflops", row.gflops},
               {"gmacs", row.gmacs},
               {"gemm_gflops", peak},
               {"gemm_share", row.gflops / peak},
               {"weights_dtype", row.int8_weights ? "i8" : row.dtype},
               {"parameters", row.parameters},
               {"parameter_bytes", row.parameter_bytes},
               {"weight_bytes", row.weight_bytes},
               {"peak_activation_bytes", row.peak_activation_bytes},
               {"peak_bytes", row.peak_bytes},
               {"resident_bytes", row.resident_bytes}});
  return json;
}

}  // namespace

Report::Report(Console& console, DType dtype)
    : console_(console),
      peak_(measure_gemm_gflops(dtype)),
      table_{{"name", "size", "batch", "median ms", "min", "p90", "images/s", "GFLOP/s", "of GEMM", "parameters MB",
              "activations MB"}} {
  const Device device = Context::current().device();
  if (!console.options().json)
    console.print(fmt::format("{}{} threads, {}, matrix product {:.0f} GFLOP/s",
                              device == Device{} ? "" : describe_device(device) + ", ", Context::current().threads(),
                              name_of(dtype), peak_));
}

void Report::add(const BenchmarkRow& row) {
  if (console_.options().json) {
    console_.print_json(as_json(row, peak_), -1);
    console_.flush();
  }
  const std::string size =
      row.tokens.empty() ? fmt::format("{}x{}", row.height, row.width) : fmt::format("{}", fmt::join(row.tokens, "x"));
  table_.push_back({row.name, size, std::to_string(row.batch_size), fmt::format("{:.3f}", row.median_ms),
                    fmt::format("{:.3f}", row.min_ms), fmt::format("{:.3f}", row.p90_ms),
                    fmt::format("{:.1f}", row.images_per_second), fmt::format("{:.1f}", row.gflops),
                    fmt::format("{:.0f}%", 100 * row.gflops / peak_), fmt::format("{:.1f}", megabytes(row.parameter_bytes)),
                    fmt::format("{:.1f}", megabytes(row.peak_activation_bytes))});
}

void Report::fail(const std::string& name, const Error& error) {
  ++failed_;
  if (console_.options().json)
    console_.print_json({{"case", name}, {"error", error.what()}}, -1);
  else
    console_.warn(error.what());
}

int Report::finish() {
  if (!console_.options().json && table_.size() > 1) {
    const int right[] = {2, 3, 4, 5, 6, 7, 8, 9, 10};
    console_.print(format_table(table_, right));
  }
  if (interrupted()) return kInterrupted;
  return failed_ > 0 ? kFailure : kSuccess;
}

}  // namespace vitrine::command
