// Connected regions of a map: a union-find over the runs of each row. (OpenCV's connectedComponents would bring libGL, X11,
// TBB and LAPACK into the process.)
#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/draw.h>

namespace vitrine {
namespace {

// Points [begin, end) of row y that are at or above the threshold.
struct Run {
  std::int64_t y, begin, end;
};

std::size_t find_root(std::vector<std::size_t>& parents, std::size_t i) {
  while (parents[i] != i) {
    parents[i] = parents[parents[i]];
    i = parents[i];
  }
  return i;
}

}  // namespace

std::vector<Region> find_regions(std::span<const float> values, std::int64_t width, std::int64_t height, float threshold,
                                 std::int64_t min_area) {
  if (width < 1 || height < 1 || values.size() / static_cast<std::size_t>(width) != static_cast<std::size_t>(height) ||
      values.size() % static_cast<std::size_t>(width) != 0) {
    throw Error(fmt::format("regions: a map of {} values for {}x{} points", values.size(), width, height));
  }
  std::vector<Run> runs;
  std::vector<std::size_t> parents;
  std::size_t above = 0;  // first run of the row above that may touch the next one
  for (std::int64_t y = 0; y < height; ++y) {
    const float* row = values.data() + y * width;
    const std::size_t row_start = runs.size();
    for (std::int64_t x = 0; x < width; ++x) {
      if (!(row[x] >= threshold)) continue;
      const std::int64_t begin = x;
      while (x < width && row[x] >= threshold) ++x;
      const std::size_t run = runs.size();
      runs.push_back({y, begin, x});
      parents.push_back(run);
      while (above < row_start && runs[above].end < begin) ++above;
      // Diagonal neighbours count: columns [begin - 1, x] of the row above.
      for (std::size_t i = above; i < row_start && runs[i].begin <= x; ++i) {
        parents[find_root(parents, i)] = find_root(parents, run);
      }
    }
    above = row_start;
  }

  struct Sum {
    std::int64_t left, top, right, bottom, area = 0;
    double score = 0.0;
  };
  std::vector<Sum> sums(runs.size());
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const auto& [y, begin, end] = runs[i];
    Sum& sum = sums[find_root(parents, i)];
    if (sum.area == 0) sum = {begin, y, end, y + 1};
    sum.left = std::min(sum.left, begin);
    sum.right = std::max(sum.right, end);
    sum.bottom = std::max(sum.bottom, y + 1);
    sum.area += end - begin;
    const float* row = values.data() + y * width;
    sum.score = std::accumulate(row + begin, row + end, sum.score);
  }
  std::vector<Region> regions;
  for (const Sum& sum : sums) {
    if (sum.area < std::max<std::int64_t>(min_area, 1)) continue;
    regions.push_back({sum.left, sum.top, sum.right - sum.left, sum.bottom - sum.top, sum.area,
                       static_cast<float>(sum.score / static_cast<double>(sum.area))});
  }
  std::stable_sort(regions.begin(), regions.end(), [](const Region& a, const Region& b) { return a.area > b.area; });
  return regions;
}

}  // namespace vitrine
