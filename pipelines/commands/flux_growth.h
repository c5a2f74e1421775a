// `vitrine benchmark --plot FILE.svg --of flux-attention` and `--of flux-block`: how time and memory of FLUX.1's attention, alone
// or in one of its joint blocks, grow with the picture's side, for full attention and what can take its place.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/pipelines/benchmark.h>
#include <vitrine/pipelines/commands/benchmark_report.h>
#include <vitrine/pipelines/commands/command.h>

namespace vitrine::command {

struct FluxGrowthOptions {
  std::string plot, of;
  std::vector<std::string> names;   // of mechanisms; empty: all
  std::vector<std::int64_t> sides;  // in pixels; empty: 512 to 8192
  double most_seconds = 300;        // a pass that would take longer, or not fit into memory, is extrapolated
};

bool is_flux_growth(std::string_view of);
void check_flux_growth(const FluxGrowthOptions& options);  // throws UsageError
// Measures, draws, prints points and ratios; the exit code.
int run_flux_growth(Console& console, const FluxGrowthOptions& options, BenchmarkOptions each, Report& report);

}  // namespace vitrine::command
