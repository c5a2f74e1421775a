// How fast a model, a network of generation or an attention layer runs here: one pass timed again and again, with synthetic
// weights and input.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <vitrine/layers/dtype.h>
#include <vitrine/layers/export.h>

namespace vitrine {

struct BenchmarkOptions {
  std::int64_t batch_size = 1;
  std::int64_t height = 0, width = 0;  // 0: NAME@SIZE's, or the model's own
  DType dtype = DType::f32;
  bool int8_weights = false;        // as in WeightsOptions
  std::string impl{};               // a candidate of an attention operator instead of the best
  double seconds = 5.0;             // of timed passes; untimed ones come before
  double alone_seconds = HUGE_VAL;  // a first pass that takes longer is all that is timed
  std::function<bool()> cancelled;  // asked between passes; what was timed until then is the result
};

// On a GPU the timed passes are replays of a CUDA graph where the pass can be recorded (layers/repeated_pass.h); what is counted
// (multiply-adds, memory) is of a plain pass.
//
// Times are of one pass with inputs and outputs in place; loading, packing and first allocations are left out.
struct BenchmarkRow {
  std::string name;
  std::string dtype;
  bool int8_weights = false;
  std::int64_t batch_size = 0, height = 0, width = 0;
  bool of_latents = false;             // height and width are of the latents
  std::vector<std::int64_t> tokens{};  // of an attention case: the sizes of its axes
  std::string device;                  // "cpu", "cuda:0 NVIDIA H100"
  int threads = 0;
  double median_ms = 0, min_ms = 0, p90_ms = 0;
  int runs = 0;
  bool replayed = false;         // each pass was the replay of a CUDA graph
  double images_per_second = 0;  // by the median
  double gflops = 0;             // by the median; two a multiply-add of matrix products, convolutions and attention
  double gmacs = 0;              // of one image
  std::int64_t parameters = 0, parameter_bytes = 0;  // with int8 weights as many as are held
  // On the device:
  std::int64_t weight_bytes = 0;           // held by the built model: packed weights and tables
  std::int64_t peak_activation_bytes = 0;  // the most that a pass held beside weights and input
  std::int64_t peak_bytes = 0;             // the most that was held at once since before building
  std::int64_t resident_bytes = 0;         // the process's largest resident size so far; 0 where it is not known
};

// `name` as create_model takes it, or a shipped model's, optionally followed by @SIZE. Runs under the current Context.
// Throws Error for what cannot be built.
VITRINE_API BenchmarkRow benchmark_model(const std::string& name, const BenchmarkOptions& options);

// `text` as make_attention_problem takes it. Height and width are not used, and 0 in the row.
VITRINE_API BenchmarkRow benchmark_attention(const std::string& text, const BenchmarkOptions& options);

// What an attention case could run with, without running it: for every choice that its pass makes, all implementations in order
// of preference.
struct ImplementationRow {
  std::string op, problem;             // "neighborhood_attention", its sizes
  std::string implementation, reason;  // why not; empty: it can run
  bool is_chosen = false;
};
VITRINE_API std::vector<ImplementationRow> list_implementations(const std::string& text, const BenchmarkOptions& options);

// `text` as make_generation_problem takes it, whose size it holds; or a denoiser as create_denoiser takes it, optionally followed
// by @SIZE, the side of its latents.
VITRINE_API BenchmarkRow benchmark_generation(const std::string& text, const BenchmarkOptions& options);

// The rate of the context's device in matrix products in `dtype`, for shares of the peak: the best of short runs of two square
// Linear layers.
VITRINE_API double measure_gemm_gflops(DType dtype);

}  // namespace vitrine
