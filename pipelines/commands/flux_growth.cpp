#include <vitrine/pipelines/commands/flux_growth.h>

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <vitrine/layers/context.h>
#include <vitrine/layers/file.h>
#include <vitrine/layers/memory.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/plot.h>

namespace vitrine::command {

namespace {

constexpr std::int64_t kSides[] = {512, 1024, 2048, 4096, 8192}, kMostSide = 8192;
constexpr std::int64_t kPixels = 16;   // of a token's side
constexpr double kAloneSeconds = 10;   // a pass that takes longer is timed once
constexpr double kMemoryShare = 0.85;  // of what can be had

// Cases by a picture's side in tokens; {all} is with the text. Windows are no larger than the map.
struct MechanismCases {
  std::string_view name, label, attention, attention_of_image, block;
  bool is_quadratic;
};
constexpr MechanismCases kMechanisms[] = {
    {"full", "full attention", "sdpa_h24_n{all}_d128", "sdpa_h24_n{tokens}_d128", "flux_global_n{tokens}_t{text}", true},
    {"clear", "CLEAR, radius 8", "clear_{side}x{side}_h24_d128_r8_t{text}", "clear_{side}x{side}_h24_d128_r8",
     "flux_clear_n{tokens}_t{text}", false},
    {"neighborhood", "neighborhood, 15x15", "na2d_{side}x{side}_h24_d128_k{window}_t{text}",
     "na2d_{side}x{side}_h24_d128_k{window}", "flux_neighborhood_n{tokens}_t{text}", false},
    {"linfusion", "LinFusion", "elu_h24_n{all}_d128", "elu_h24_n{tokens}_d128", "flux_linfusion_n{tokens}_t{text}", false},
};

// A part of what is drawn: all mechanisms on one kind of case.
struct Part {
  std::string_view of, what;
  std::string_view MechanismCases::*cases;
  std::int64_t text;
  bool is_block;
};
constexpr Part kParts[] = {
    {"flux-attention", "attention alone, 512 text tokens", &MechanismCases::attention, 512, false},
    {"flux-attention", "attention alone, no text", &MechanismCases::attention_of_image, 0, false},
    {"flux-block", "a whole joint block, 512 text tokens", &MechanismCases::block, 512, true},
};

struct Point {
  std::int64_t side = 0;  // in pixels
  double tokens = 0;      // with the text
  double milliseconds = 0;
  double bytes = 0;  // activations of a pass at their peak
  double held = 0;   // bytes of weights and, of attention alone, of its input
  bool is_guessed = false;
};

// Full attention's time is a n + b n^2 through the last two points (a is 0 where there is one); all the rest is as the tokens.
Point extrapolated(const std::vector<Point>& measured, std::int64_t side, double tokens, bool is_quadratic, bool is_block) {
  const Point& last = measured.back();
  const double growth = tokens / last.tokens;
  Point next{side, tokens, last.milliseconds * growth, last.bytes * growth, is_block ? last.held : last.held * growth, true};
  if (!is_quadratic) return next;
  double a = 0, b = last.milliseconds / (last.tokens * last.tokens);
  if (measured.size() > 1) {
    const Point& before = measured[measured.size() - 2];
    const double rate = last.milliseconds / last.tokens, rate_before = before.milliseconds / before.tokens;
    const double slope = (rate - rate_before) / (last.tokens - before.tokens);
    if (slope > 0 && slope < b) {
      b = slope;
      a = rate - b * last.tokens;
    }
  }
  next.milliseconds = a * tokens + b * tokens * tokens;
  return next;
}

struct Curve {
  const MechanismCases* mechanism = nullptr;
  std::vector<Point> points;
};

std::vector<std::int64_t> sides_of(const FluxGrowthOptions& options) {
  if (options.sides.empty()) return {std::begin(kSides), std::end(kSides)};
  const std::set<std::int64_t> sides(options.sides.begin(), options.sides.end());
  return {sides.begin(), sides.end()};
}

// Why a point is not measured; empty: it is.
std::string out_of_reach(const Point& point, double most_seconds) {
  const double seconds = 1e-3 * point.milliseconds, bytes = point.bytes + point.held;
  const auto available = static_cast<double>(available_bytes());
  if (seconds > most_seconds) return fmt::format("a pass would take about {:.2g} s", seconds);
  if (available > 0 && bytes > kMemoryShare * available)
    return fmt::format("about {:.1f} GB would not fit into {:.1f}", 1e-9 * bytes, 1e-9 * available);
  return "";
}

Curve measure(const MechanismCases& mechanism, const Part& part, const FluxGrowthOptions& options, const BenchmarkOptions& each,
              Console& console, Report& report) {
  Curve curve{&mechanism, {}};
  std::vector<Point> measured;
  for (const std::int64_t pixels : sides_of(options)) {
    if (interrupted()) break;
    const std::int64_t side = pixels / kPixels, tokens = side * side;
    const std::string name = fmt::format(fmt::runtime(mechanism.*part.cases), fmt::arg("side", side), fmt::arg("tokens", tokens),
                                         fmt::arg("text", part.text), fmt::arg("all", tokens + part.text),
                                         fmt::arg("window", std::min<std::int64_t>(side, 15)));
    const auto all = static_cast<double>(tokens + part.text);
    if (!measured.empty()) {
      const Point next = extrapolated(measured, pixels, all, mechanism.is_quadratic, part.is_block);
      const bool was_guessed = curve.points.back().is_guessed;
      const std::string why = was_guessed ? "as the point before" : out_of_reach(next, options.most_seconds);
      if (!why.empty()) {
        console.note(fmt::format("{}: extrapolated, {}", name, why));
        curve.points.push_back(next);
        continue;
      }
      console.note(
          fmt::format("{}, {} of {}: about {:.2g} s a pass", name, mechanism.label, part.what, 1e-3 * next.milliseconds));
    } else {
      console.note(fmt::format("{}, {} of {}", name, mechanism.label, part.what));
    }
    try {
      const BenchmarkRow row = part.is_block ? benchmark_generation(name, each) : benchmark_attention(name, each);
      if (interrupted() && row.runs == 0) break;
      report.add(row);
      measured.push_back({pixels, all, row.median_ms, static_cast<double>(std::max<std::int64_t>(row.peak_activation_bytes, 1)),
                          static_cast<double>(row.weight_bytes), false});
      curve.points.push_back(measured.back());
    } catch (const Error& error) {
      report.fail(name, error);
    }
  }
  return curve;
}

// By side: how many times as long as each curve's the first curve's pass takes; none without full attention.
struct Ratio {
  std::string_view name;
  double value = 0;
  bool is_guessed = false;
};
std::vector<Ratio> ratios_at(const std::vector<Curve>& curves, std::int64_t side) {
  const auto at = [side](const Curve& curve) {
    return std::find_if(curve.points.begin(), curve.points.end(), [side](const Point& p) { return p.side == side; });
  };
  std::vector<Ratio> ratios;
  if (curves.empty() || !curves[0].mechanism->is_quadratic) return ratios;
  const auto full = at(curves[0]);
  if (full == curves[0].points.end()) return ratios;
  for (std::size_t i = 1; i < curves.size(); ++i)
    if (const auto other = at(curves[i]); other != curves[i].points.end())
      ratios.push_back(
          {curves[i].mechanism->name, full->milliseconds / other->milliseconds, full->is_guessed || other->is_guessed});
  return ratios;
}

void print_points(Console& console, const Part& part, const std::vector<Curve>& curves, const FluxGrowthOptions& options,
                  DType dtype) {
  if (console.options().json) {
    for (const std::int64_t side : sides_of(options)) {
      nlohmann::ordered_json json{{"part", part.what}, {"dtype", name_of(dtype)}, {"image_size", side}};
      for (const Curve& curve : curves)
        for (const Point& p : curve.points)
          if (p.side == side)
            json[std::string(curve.mechanism->name)] = {{"ms", p.milliseconds},
                                                        {"peak_activation_bytes", static_cast<std::int64_t>(p.bytes)},
                                                        {"extrapolated", p.is_guessed}};
      for (const Ratio& ratio : ratios_at(curves, side)) json["full_over"][std::string(ratio.name)] = ratio.value;
      console.print_json(json, -1);
    }
    return;
  }
  std::vector<std::vector<std::string>> table{{"pixels", "mechanism", "ms", "full / it", "activations MB", ""}};
  for (const std::int64_t side : sides_of(options)) {
    const std::vector<Ratio> ratios = ratios_at(curves, side);
    for (const Curve& curve : curves)
      for (const Point& p : curve.points) {
        if (p.side != side) continue;
        const auto ratio =
            std::find_if(ratios.begin(), ratios.end(), [&](const Ratio& r) { return r.name == curve.mechanism->name; });
        table.push_back({std::to_string(side), std::string(curve.mechanism->name), fmt::format("{:.1f}", p.milliseconds),
                         ratio == ratios.end() ? "" : fmt::format("{:.1f}", ratio->value), fmt::format("{:.1f}", 1e-6 * p.bytes),
                         p.is_guessed ? "extrapolated" : ""});
      }
  }
  const int right[] = {0, 2, 3, 4};
  console.print(fmt::format("\n{}, {}", part.what, name_of(dtype)));
  console.print(format_table(table, right));
}

PlotSeries series_of(const Curve& curve, double Point::*value, double factor) {
  PlotSeries series{std::string(curve.mechanism->label), {}, 0};
  for (const Point& p : curve.points) {
    series.points.emplace_back(static_cast<double>(p.side), factor * p.*value);
    series.guessed += p.is_guessed ? 1 : 0;
  }
  return series;
}

std::string ratio_note(const Part& part, const std::vector<Curve>& curves, std::int64_t side) {
  std::vector<std::string> notes;
  bool is_guessed = false;
  for (const Ratio& ratio : ratios_at(curves, side)) {
    notes.push_back(fmt::format("{} {:.1f}", ratio.name, ratio.value));
    is_guessed = is_guessed || ratio.is_guessed;
  }
  if (notes.empty()) return "";
  return fmt::format("\n{} pixels{}, {}: {}", side, is_guessed ? " (extrapolated)" : "", part.what, fmt::join(notes, ", "));
}

}  // namespace

bool is_flux_growth(std::string_view of) { return of.starts_with("flux-"); }

void check_flux_growth(const FluxGrowthOptions& options) {
  std::vector<std::string> known;
  for (const MechanismCases& m : kMechanisms) known.emplace_back(m.name);
  for (const std::string& name : options.names)
    if (std::find(known.begin(), known.end(), name) == known.end())
      throw UsageError(fmt::format("'{}' is nothing to plot{}; of {} there are {}", name, detail::suggest_names(name, known, 1),
                                   options.of, fmt::join(known, ", ")));
  for (const std::int64_t side : options.sides)
    if (side < kPixels || side > kMostSide || side % kPixels != 0)
      throw UsageError(fmt::format("--sides: {} pixels, expected multiples of {} up to {}", side, kPixels, kMostSide));
}

int run_flux_growth(Console& console, const FluxGrowthOptions& options, BenchmarkOptions each, Report& report) {
  each.alone_seconds = kAloneSeconds;
  std::vector<double> ticks;
  for (const std::int64_t side : sides_of(options)) ticks.push_back(static_cast<double>(side));
  std::vector<std::pair<const Part*, std::vector<Curve>>> measured;
  for (const Part& part : kParts) {
    if (part.of != options.of) continue;
    std::vector<Curve> curves;
    for (const MechanismCases& mechanism : kMechanisms) {
      const auto& names = options.names;
      if (!names.empty() && std::find(names.begin(), names.end(), mechanism.name) == names.end()) continue;
      if (Curve curve = measure(mechanism, part, options, each, console, report); !curve.points.empty())
        curves.push_back(std::move(curve));
    }
    if (!curves.empty()) measured.emplace_back(&part, std::move(curves));
  }
  if (measured.empty()) return report.finish();
  const int code = report.finish();

  Plot plot;
  plot.title = fmt::format("FLUX.1 (24 heads of 128) by the picture's side: batch {}, {}, {} threads", each.batch_size,
                           name_of(each.dtype), Context::current().threads());
  const auto add = [&](const Part& part, const std::vector<Curve>& curves, bool is_time) {
    PlotPanel panel{fmt::format("{}: {}", part.what, is_time ? "time of a pass" : "activations at their peak, beside the input"),
                    "pixels a side",
                    is_time ? "milliseconds" : "megabytes",
                    ticks,
                    {}};
    for (const Curve& curve : curves)
      panel.series.push_back(is_time ? series_of(curve, &Point::milliseconds, 1) : series_of(curve, &Point::bytes, 1e-6));
    plot.panels.push_back(std::move(panel));
  };
  for (const auto& [part, curves] : measured) add(*part, curves, true);
  add(*measured.front().first, measured.front().second, false);
  plot.note = fmt::format(
      "extrapolated where a pass would take more than {:g} s or not fit into memory:\nfull attention's time by tokens and pairs "
      "of tokens, the rest by tokens",
      options.most_seconds);
  std::string ratios;
  for (const auto& [part, curves] : measured) {
    print_points(console, *part, curves, options, each.dtype);
    for (const std::int64_t side : sides_of(options))
      if (side >= 4096) ratios += ratio_note(*part, curves, side);
  }
  if (!ratios.empty()) plot.note += "\ntimes as fast as full attention:" + ratios;
  detail::write_file(options.plot, to_svg(plot));
  return code;
}

}  // namespace vitrine::command
