#include <vitrine/pipelines/plot.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include <fmt/format.h>

#include <vitrine/layers/error.h>

namespace vitrine {
namespace {

// Sizes in pixels.
constexpr double kWidth = 640, kHeight = 440, kLeft = 78, kTop = 62, kGap = 92, kLegend = 210, kLine = 19;

// Twelve hues that stay apart also for most colour-blind readers, then the same dashed.
constexpr std::string_view kColors[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf",
                                        "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#003f5c", "#a05195"};
constexpr std::string_view kDashes[] = {"", "6 3", "2 3"};

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else
      out += c;
  }
  return out;
}

std::string text(double x, double y, std::string_view what, std::string_view attributes) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, attributes, escape(what));
}

std::string line(double x1, double y1, double x2, double y2, std::string_view attributes) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1, x2, y2, attributes);
}

// A logarithmic axis from `least` to `most`, at pixels begin to end.
struct Axis {
  double least, most, begin, end;

  double at(double value) const { return begin + (end - begin) * std::log(value / least) / std::log(most / least); }
};

Axis axis_over(double least, double most, double begin, double end) {
  if (least == most) least /= 2, most *= 2;
  return {least, most, begin, end};
}

std::vector<std::string> series_names(const Plot& plot) {
  std::vector<std::string> names;
  for (const PlotPanel& panel : plot.panels)
    for (const PlotSeries& series : panel.series)
      if (std::find(names.begin(), names.end(), series.name) == names.end()) names.push_back(series.name);
  return names;
}

bool has_guesses(const Plot& plot) {
  return std::any_of(plot.panels.begin(), plot.panels.end(), [](const PlotPanel& panel) {
    return std::any_of(panel.series.begin(), panel.series.end(), [](const PlotSeries& series) { return series.guessed > 0; });
  });
}

std::string stroke_of(std::size_t index) {
  constexpr std::size_t kCount = std::size(kColors);
  const std::string_view dash = kDashes[index / kCount % std::size(kDashes)];
  return fmt::format("stroke=\"{}\" stroke-width=\"2\"{}", kColors[index % kCount],
                     dash.empty() ? "" : fmt::format(" stroke-dasharray=\"{}\"", dash));
}

std::string draw(const PlotPanel& panel, double top, const std::vector<std::string>& names) {
  double x_least = HUGE_VAL, x_most = 0, y_least = HUGE_VAL, y_most = 0;
  for (const PlotSeries& series : panel.series)
    for (const auto& [x, y] : series.points) {
      if (!(x > 0 && y > 0) || !std::isfinite(x) || !std::isfinite(y))
        throw Error(fmt::format("plot '{}': {} has a point ({}, {}), expected numbers above 0", panel.title, series.name, x, y));
      x_least = std::min(x_least, x), x_most = std::max(x_most, x);
      y_least = std::min(y_least, y), y_most = std::max(y_most, y);
    }
  if (x_most == 0) throw Error(fmt::format("plot '{}': there are no points", panel.title));
  for (const double tick : panel.x_ticks) x_least = std::min(x_least, tick), x_most = std::max(x_most, tick);
  const Axis across = axis_over(x_least, x_most, kLeft + 14, kLeft + kWidth - 14);
  const Axis up = axis_over(std::pow(10.0, std::floor(std::log10(y_least))), std::pow(10.0, std::ceil(std::log10(y_most))),
                            top + kHeight, top);

  std::string svg = text(kLeft + kWidth / 2, top - 12, panel.title, "text-anchor=\"middle\" font-weight=\"bold\"");
  for (double decade = up.least; decade < up.most * 1.5; decade *= 10) {
    svg += line(kLeft, up.at(decade), kLeft + kWidth, up.at(decade), "stroke=\"#bbb\"");
    svg += text(kLeft - 8, up.at(decade) + 4, fmt::format("{:g}", decade), "text-anchor=\"end\"");
    for (int i = 2; i < 10 && decade * i < up.most; ++i)
      svg += line(kLeft, up.at(decade * i), kLeft + kWidth, up.at(decade * i), "stroke=\"#eee\"");
  }
  for (const double tick : panel.x_ticks) {
    svg += line(across.at(tick), top, across.at(tick), top + kHeight, "stroke=\"#ddd\"");
    svg += text(across.at(tick), top + kHeight + 18, fmt::format("{:g}", tick), "text-anchor=\"middle\"");
  }
  svg += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#444\"/>\n", kLeft, top, kWidth,
                     kHeight);
  svg += text(kLeft + kWidth / 2, top + kHeight + 40, panel.x_label, "text-anchor=\"middle\"");
  svg += text(0, 0, panel.y_label,
              fmt::format("text-anchor=\"middle\" transform=\"translate(20 {:.1f}) rotate(-90)\"", top + kHeight / 2));
  for (const PlotSeries& series : panel.series) {
    const std::size_t index = static_cast<std::size_t>(std::find(names.begin(), names.end(), series.name) - names.begin());
    const std::size_t measured = series.points.size() - std::min(series.guessed, series.points.size());
    const std::string_view color = kColors[index % std::size(kColors)];
    std::string known, guessed, dots;
    for (std::size_t i = 0; i < series.points.size(); ++i) {
      const auto& [x, y] = series.points[i];
      const std::string at = fmt::format(" {:.1f},{:.1f}", across.at(x), up.at(y));
      if (i < measured) known += at;
      if (i + 1 >= measured) guessed += at;
      dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\" {}><title>{}: {:g}, {:.4g}{}</title></circle>\n",
                          across.at(x), up.at(y), i < measured ? 3 : 4,
                          i < measured ? fmt::format("fill=\"{}\"", color) : fmt::format("fill=\"white\" stroke=\"{}\"", color),
                          escape(series.name), x, y, i < measured ? "" : ", extrapolated");
    }
    if (!known.empty()) svg += fmt::format("<polyline points=\"{}\" fill=\"none\" {}/>\n", known.substr(1), stroke_of(index));
    if (measured < series.points.size())
      svg += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" stroke-dasharray=\"1 4\"/>\n",
                         guessed.substr(1), color);
    svg += dots;
  }
  return svg;
}

}  // namespace

std::string to_svg(const Plot& plot) {
  const std::vector<std::string> names = series_names(plot);
  std::vector<std::string> notes;
  for (std::size_t begin = 0; begin < plot.note.size();) {
    const std::size_t end = std::min(plot.note.find('\n', begin), plot.note.size());
    notes.push_back(plot.note.substr(begin, end - begin));
    begin = end + 1;
  }
  std::string body = text(kLeft + kWidth / 2, 26, plot.title, "text-anchor=\"middle\" font-size=\"17\"");
  double top = kTop;
  for (const PlotPanel& panel : plot.panels) {
    body += draw(panel, top, names);
    top += kHeight + kGap;
  }
  const double legend = kLeft + kWidth + 18;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const double y = kTop + 8 + kLine * static_cast<double>(i);
    body += line(legend, y, legend + 30, y, stroke_of(i));
    body += text(legend + 38, y + 4, names[i], "");
  }
  if (has_guesses(plot)) {
    const double y = kTop + 8 + kLine * static_cast<double>(names.size());
    body += line(legend, y, legend + 30, y, "stroke=\"#444\" stroke-width=\"2\" stroke-dasharray=\"1 4\"");
    body += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"white\" stroke=\"#444\"/>\n", legend + 15, y);
    body += text(legend + 38, y + 4, "extrapolated", "");
  }
  for (std::size_t i = 0; i < notes.size(); ++i)
    body += text(kLeft, top - 18 + kLine * static_cast<double>(i), notes[i], "font-size=\"12\" fill=\"#444\"");
  const double height = std::max(top - 18 + kLine * static_cast<double>(notes.size()) + 8,
                                 kTop + kLine * static_cast<double>(names.size() + 1) + 20);
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
      "font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{2}</svg>\n",
      kLeft + kWidth + kLegend, height, body);
}

}  // namespace vitrine
