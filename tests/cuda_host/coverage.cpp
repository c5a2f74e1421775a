#include "cuda_host/coverage.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <fmt/format.h>

#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/layers/cuda/ops.h>

#include "cuda_host/emulation.h"

namespace vitrine::cuda::emulation {

namespace {

#define VITRINE_CUDA_NAME(name, arguments) #name,
// Those of the tables, and what stands behind layers.
constexpr std::string_view kKernels[] = {VITRINE_CUDA_OPS(VITRINE_CUDA_NAME) VITRINE_CUDA_ATTENTION(VITRINE_CUDA_NAME) "linear",
                                         "linear_epilogue", "conv2d", "conv_transpose2d", "depthwise_conv2d"};
// Those that compute in f32 only, whatever their callers' type is.
constexpr std::string_view kOnlyF32[] = {"top_k",      "mix_rows",  "products",       "window_boxes",
                                         "head_gates", "sinusoids", "gather_columns", "flow_shares"};
// Those that do not take it.
constexpr std::string_view kNot32[] = {"local_attention_sm90"};
// Those that move indices.
constexpr std::string_view kOfIntegers[] = {"routed_tokens", "merge_pairs"};

template <std::size_t n>
bool is_in(const std::string_view (&names)[n], std::string_view kernel) {
  return std::find(std::begin(names), std::end(names), kernel) != std::end(names);
}

void report() {
  bool complete = true;
  fmt::print("{:24} {:>8} {:>8} {:>8}\n", "launches in the harness", "f32", "f16", "bf16");
  for (const std::string_view kernel : kKernels) {
    fmt::print("{:24}", kernel);
    if (is_in(kOfIntegers, kernel)) {
      const std::int64_t count = launches(kernel, "i32") + launches(kernel, "i64");
      complete = complete && count > 0;
      fmt::print(" {:>8} of integers\n", count);
      continue;
    }
    const bool only_f32 = is_in(kOnlyF32, kernel);
    for (const std::string_view dtype : {"f32", "f16", "bf16"}) {
      const std::int64_t count = launches(kernel, dtype);
      const bool wanted = dtype == "f32" ? !is_in(kNot32, kernel) : !only_f32;
      complete = complete && (!wanted || count > 0);
      fmt::print(" {:>8}", wanted || count > 0 ? fmt::format("{}", count) : "-");
    }
    fmt::print("\n");
  }
  if (complete) return;
  fmt::print("a kernel has not run in a type that it computes in\n");
  std::fflush(stdout);
  std::_Exit(1);
}

}  // namespace

void report_coverage_at_exit() {
  static const bool once = std::getenv("VITRINE_CUDA_COVERAGE") && std::atexit(report) == 0;
  static_cast<void>(once);
}

}  // namespace vitrine::cuda::emulation
