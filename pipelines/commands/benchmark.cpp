// vitrine benchmark: how fast models and attention layers run on this machine.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <vitrine/backbones/denoiser.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/devices.h>
#include <vitrine/layers/file.h>
#include <vitrine/layers/memory.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/attention_cases.h>
#include <vitrine/pipelines/benchmark.h>
#include <vitrine/pipelines/commands/benchmark_report.h>
#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/commands/files.h>
#include <vitrine/pipelines/commands/flux_growth.h>
#include <vitrine/pipelines/commands/model_options.h>
#include <vitrine/pipelines/generation_cases.h>
#include <vitrine/pipelines/plot.h>

namespace vitrine::command {

namespace {

struct Options {
  bool int8_weights = false, dry_run = false;
  std::vector<std::string> names;
  std::string plot, impl, of;
  std::vector<std::int64_t> sides;
  double most_seconds = 300;
  std::int64_t batch_size = 1;
  std::int64_t height = 0, width = 0;
  double seconds = 5.0;
};

BenchmarkOptions options_of(const Console& console, const Options& options) {
  BenchmarkOptions each;
  each.batch_size = options.batch_size;
  each.dtype = console.options().dtype;
  each.int8_weights = options.int8_weights;
  each.impl = options.impl;
  each.seconds = options.seconds;
  each.cancelled = interrupted;
  each.height = options.height;
  each.width = options.width;
  return each;
}

bool is_denoiser_at_size(const std::string& name) { return is_denoiser(name.substr(0, name.find_first_of("[@"))); }

// No model has the name of a kind of case: "na2d", "na2d_56".
Error with_example(const std::string& name, const Error& error) {
  for (const AttentionForm& form : attention_forms())
    if (name.substr(0, name.find('_')) == form.prefix)
      return Error(fmt::format("{}; attention cases are like {}", error.what(), form.example));
  return error;
}

int run_benchmark(Console& console, const Options& options) {
  const BenchmarkOptions each = options_of(console, options);
  Report report(console, each.dtype);
  for (const std::string& name : options.names) {
    if (interrupted()) break;
    try {
      report.add(is_attention_case(name)                                 ? benchmark_attention(name, each)
                 : is_generation_case(name) || is_denoiser_at_size(name) ? benchmark_generation(name, each)
                                                                         : benchmark_model(name, each));
    } catch (const Error& error) {  // the others are still run
      report.fail(name, is_attention_case(name) ? error : with_example(name, error));
    }
  }
  return report.finish();
}

// --- what could run ----------------------------------------------------------------------------------------------

int run_dry(Console& console, const Options& options) {
  int failed = 0;
  for (const std::string& name : options.names) {
    if (!is_attention_case(name)) throw UsageError(fmt::format("--dry-run is for attention cases, not '{}'", name));
    try {
      const std::vector<ImplementationRow> rows = list_implementations(name, options_of(console, options));
      if (rows.empty()) throw Error(fmt::format("attention case '{}': it has one implementation only", name));
      std::vector<std::vector<std::string>> table;
      for (std::size_t i = 0; i < rows.size(); ++i) {
        const ImplementationRow& row = rows[i];
        if (console.options().json) {
          console.print_json({{"case", name},
                              {"op", row.op},
                              {"problem", row.problem},
                              {"implementation", row.implementation},
                              {"chosen", row.is_chosen},
                              {"can_run", row.reason.empty()},
                              {"reason", row.reason}},
                             -1);
          continue;
        }
        table.push_back({"", row.implementation, row.is_chosen ? "chosen" : row.reason.empty() ? "can run" : row.reason});
        if (i + 1 < rows.size() && rows[i + 1].op == row.op && rows[i + 1].problem == row.problem) continue;
        console.print(fmt::format("{}: {} {}\n{}", name, row.op, row.problem, format_table(table)));
        table.clear();
      }
    } catch (const Error& error) {  // the others are still listed
      ++failed;
      console.warn(error.what());
    }
  }
  return failed > 0 ? kFailure : kSuccess;
}

// --- the chart ---------------------------------------------------------------------------------------------------

constexpr std::int64_t kSides[] = {16, 32, 64, 128, 256, 512};
constexpr double kMostSeconds = 10;  // of one pass; beyond it a size is out of reach

// What the next size would take, from the last two: the growth between them goes on, from 4 (as the tokens) to 16 (as pairs
// of tokens) times.
double next_of(const std::vector<double>& values) {
  const std::size_t n = values.size();
  return values[n - 1] * (n < 2 ? 16.0 : std::clamp(values[n - 1] / values[n - 2], 4.0, 16.0));
}

struct Wanted {
  std::string label;
  AttentionForm form;
};

struct Curve {
  PlotSeries milliseconds, megabytes;
  std::string skipped;  // "sdpa at 512 (40 s a pass)"
};

Curve measure_curve(const Wanted& wanted, const BenchmarkOptions& each, Console& console, Report& report) {
  Curve curve{{wanted.label, {}}, {wanted.label, {}}, {}};
  std::vector<double> times, bytes;
  for (const std::int64_t side : kSides) {
    if (interrupted()) break;
    if (!times.empty()) {
      const double seconds = 1e-3 * next_of(times), memory = next_of(bytes), available = static_cast<double>(available_bytes());
      const bool is_long = seconds > kMostSeconds;
      if (is_long || (available > 0 && memory > 0.7 * available)) {
        curve.skipped = is_long ? fmt::format("{} from {} on (about {:.0f} s a pass)", wanted.label, side, seconds)
                                : fmt::format("{} from {} on (about {:.1f} GB)", wanted.label, side, 1e-9 * memory);
        break;
      }
    }
    const std::string name = square_case(wanted.form, side);
    console.note(name);
    try {
      const BenchmarkRow row = benchmark_attention(name, each);
      report.add(row);
      times.push_back(row.min_ms);
      bytes.push_back(static_cast<double>(row.peak_bytes));
      curve.milliseconds.points.emplace_back(side, row.median_ms);
      curve.megabytes.points.emplace_back(side, megabytes(std::max<std::int64_t>(row.peak_activation_bytes, 1)));
    } catch (const Error& error) {
      report.fail(name, error);
    }
  }
  return curve;
}

// A kind of case, or a case with {side}, {tokens} or {eighth} in the place of its size: hilo_{side}x{side}_c64_h2_w2_a0, which is
// called hilo_c64_h2_w2_a0. The result points into `names`.
std::vector<Wanted> wanted_forms(const std::vector<std::string>& names) {
  std::vector<Wanted> all;
  std::vector<std::string> known;
  for (const AttentionForm& form : attention_forms()) {
    if (form.square.empty()) continue;
    known.emplace_back(form.prefix);
    all.push_back({known.back(), form});
  }
  if (names.empty()) return all;
  std::vector<Wanted> wanted;
  for (const std::string& name : names) {
    if (const auto size = name.find('{'); size != std::string::npos) {
      try {
        const AttentionForm form{name, name, "", name};
        if (is_attention_case(square_case(form, kSides[0]))) {
          const auto rest = name.find('_', name.find_last_of('}'));
          wanted.push_back({name.substr(0, size) + (rest == std::string::npos ? "" : name.substr(rest + 1)), form});
          continue;
        }
      } catch (const fmt::format_error&) {  // refused below, as any other name
      }
    }
    const auto found = std::find(known.begin(), known.end(), name);
    if (found == known.end())
      throw UsageError(
          fmt::format("'{}' is nothing to plot{}; there are {}, and cases with {{side}} or {{tokens}} for their size", name,
                      detail::suggest_names(name, known, 1), fmt::join(known, ", ")));
    wanted.push_back(all[static_cast<std::size_t>(found - known.begin())]);
  }
  return wanted;
}

int run_plot(Console& console, const Options& options) {
  constexpr std::string_view kExtensions[] = {".svg"};
  check_output("--plot", options.plot, kExtensions);
  if (options.int8_weights) throw UsageError("--plot is of attention, --weights-dtype of models and denoisers");
  if (options.height > 0) throw UsageError("--plot has its own sizes; --img-size does not apply");
  if (is_flux_growth(options.of)) {
    if (!options.impl.empty()) throw UsageError(fmt::format("--impl does not apply to --of {}", options.of));
    const FluxGrowthOptions growth{options.plot, options.of, options.names, options.sides, options.most_seconds};
    check_flux_growth(growth);
    Report report(console, console.options().dtype);
    return run_flux_growth(console, growth, options_of(console, options), report);
  }
  if (!options.sides.empty()) throw UsageError("--sides is for --of flux-attention and flux-block");
  const std::vector<Wanted> all = wanted_forms(options.names);
  const BenchmarkOptions each = options_of(console, options);
  Report report(console, each.dtype);
  const std::vector<double> sides(std::begin(kSides), std::end(kSides));
  PlotPanel time{"Time of one pass", "tokens a side", "milliseconds", sides, {}};
  PlotPanel memory{"Activations of one pass at their peak, beside the input", "tokens a side", "megabytes", sides, {}};
  std::string skipped;
  for (const Wanted& wanted : all) {
    Curve curve = measure_curve(wanted, each, console, report);
    if (!curve.skipped.empty()) {
      console.note(fmt::format("out of reach: {}", curve.skipped));
      skipped += fmt::format("\nout of reach: {}", curve.skipped);
    }
    if (curve.milliseconds.points.empty()) continue;
    time.series.push_back(std::move(curve.milliseconds));
    memory.series.push_back(std::move(curve.megabytes));
  }
  if (!time.series.empty()) {
    // The legend has the order in which the curves end.
    const auto extrapolated = [](const PlotSeries& s) {
      const auto& [side, milliseconds] = s.points.back();
      return milliseconds * std::pow(kSides[std::size(kSides) - 1] / side, 4);  // of those that end early: by pairs of tokens
    };
    std::stable_sort(time.series.begin(), time.series.end(),
                     [&](const PlotSeries& a, const PlotSeries& b) { return extrapolated(a) > extrapolated(b); });
    const std::string title = fmt::format("Attention by map size: batch {}, 2 heads of 32, {}, {} threads", each.batch_size,
                                          name_of(each.dtype), Context::current().threads());
    const std::string note =
        "sdpa, na2d, clear and fast: the operator on given q, k, v; the others: whole layers with their projections" + skipped;
    detail::write_file(options.plot, to_svg({title, note, {time, memory}}));
  }
  return report.finish();
}

}  // namespace

const Command kBenchmarkCommand{
    .name = "benchmark",
    .summary =
        "Time models, networks of generation and attention layers with synthetic weights: latency, rate, share of the machine's "
        "peak, memory",
    .examples =
        "  vitrine benchmark vit_small_patch16_224 nat_mini\n"
        "  vitrine benchmark vit_small_patch14_dinov2@224 --dtype bf16 --batch-size 8\n"
        "  vitrine benchmark nat_fashion --batch-size 64 --threads 1 --seconds 2 --json\n"
        "  vitrine benchmark na2d_56x56_h2_d32_k7 sdpa_h3_n197_d64\n"
        "  vitrine benchmark na2d_56x56_h2_d32_k7 --dry-run\n"
        "  vitrine benchmark dit_xl_2 vae_decode_32 'stable-diffusion-v1-5[attention=linfusion]@32' --dtype bf16\n"
        "  vitrine benchmark dit_xl_2 --dtype bf16 --weights-dtype i8\n"
        "  vitrine benchmark --plot attention.svg --seconds 0.5\n"
        "  vitrine benchmark --plot flux.svg --of flux-attention --dtype bf16 --seconds 1",
    .declare = [](CLI::App& app) -> std::function<int(Console&)> {
      const auto options = std::make_shared<Options>();
      std::string cases;
      for (const AttentionForm& form : attention_forms()) cases += fmt::format("\n{}: {}", form.example, form.what);
      for (const GenerationForm& form : generation_forms()) cases += fmt::format("\n{}: {}", form.example, form.what);
      app.add_option("NAME", options->names,
                     "Models as `vitrine models` lists them, with [arguments] or @SIZE, denoisers by their published names "
                     "(@SIZE: of their latents), and cases of attention and generation, whose names hold their sizes:" +
                         cases);
      app.add_option("-b,--batch-size", options->batch_size, "Images at a time (default 1)")
          ->option_text("N")
          ->check(CLI::Range(1, 1 << 16));
      app.add_option_function<std::string>(
             "--img-size",
             [options](const std::string& text) { std::tie(options->height, options->width) = parse_size("--img-size", text); },
             "Input size of models (of denoisers: their latents), SIZE or HEIGHTxWIDTH; default: the model's")
          ->option_text("SIZE");
      app.add_option(
             "--impl", options->impl,
             "Implementation of attention operators instead of the best that can run: reference, flash_scalar, flash, ...")
          ->option_text("NAME");
      app.add_flag(
          "--dry-run", options->dry_run,
          "Run nothing: list all implementations of attention cases, the chosen one, and what speaks against the others");
      add_weights_dtype_option(app, [options] { options->int8_weights = true; });
      app.add_option("--seconds", options->seconds, "How long to time each (default 5)")
          ->option_text("S")
          ->check(CLI::Range(0.0, 86400.0));
      app.add_option("--plot", options->plot,
                     "Draw time and memory of attention against the map's side (16 to 512 tokens), all kinds or those that are "
                     "named: na2d focal")
          ->option_text("FILE.svg");
      app.add_option(
             "--of", options->of,
             "What --plot draws: attention (default); flux-attention or flux-block, FLUX.1's attention alone or one of its "
             "blocks against the picture's side, by these NAMEs: full clear neighborhood linfusion (default: all)")
          ->option_text("WHAT")
          ->check(CLI::IsMember({"attention", "flux-attention", "flux-block"}));
      app.add_option("--sides", options->sides,
                     "Sides of the pictures of --of flux-..., in pixels (default 512,1024,2048,4096,8192)")
          ->option_text("N,...")
          ->delimiter(',');
      app.add_option("--most-seconds", options->most_seconds,
                     "Points of --of flux-... whose pass would take longer are extrapolated (default 300)")
          ->option_text("S")
          ->check(CLI::Range(0.0, 86400.0));
      return [options](Console& console) {
        if (options->dry_run && !options->plot.empty()) throw UsageError("--dry-run and --plot exclude each other");
        if (!options->plot.empty()) return run_plot(console, *options);
        if (!options->of.empty() || !options->sides.empty()) throw UsageError("--of and --sides need --plot FILE.svg");
        if (options->names.empty()) throw UsageError("NAME is required, a model or an attention case; or --plot FILE.svg");
        return options->dry_run ? run_dry(console, *options) : run_benchmark(console, *options);
      };
    },
};

}  // namespace vitrine::command
