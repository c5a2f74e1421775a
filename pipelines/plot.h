// Line charts on logarithmic axes, as SVG.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <vitrine/layers/export.h>

namespace vitrine {

struct PlotSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  // both above 0, in the order of drawing
  std::size_t guessed = 0;                        // so many of the last are extrapolated: drawn hollow, the line to them dotted
};

// Charts stand one below the other and share the series' colours and one legend; a series is known by its name.
struct PlotPanel {
  std::string title, x_label, y_label;
  std::vector<double> x_ticks;
  std::vector<PlotSeries> series;
};

struct Plot {
  std::string title, note;  // the note stands below, a line each
  std::vector<PlotPanel> panels;
};

// Throws Error where no panel has a point, or a value is not above 0.
VITRINE_API std::string to_svg(const Plot& plot);

}  // namespace vitrine
