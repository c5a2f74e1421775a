#include <vitrine/layers/names.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace vitrine::detail {
namespace {

char lower(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

// Levenshtein distance, in halves: 2 an insertion, deletion or substitution, 1 a change of case.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = 2 * j;
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], 2 * (i + 1));
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t cost = a[i] == b[j] ? 0 : lower(a[i]) == lower(b[j]) ? 1 : 2;
      diagonal = std::exchange(row[j + 1], std::min({row[j + 1] + 2, row[j] + 2, diagonal + cost}));
    }
  }
  return row.back();
}

}  // namespace

std::vector<std::string> nearest_names(std::string_view name, std::span<const std::string> candidates, std::size_t count) {
  std::vector<std::pair<std::size_t, const std::string*>> found;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(name, candidate);
    // Half of the longer name may differ, or all but a common beginning of a name that was cut short.
    const bool begins = name.size() >= 3 && candidate.starts_with(name);
    if (begins || distance <= std::max(name.size(), candidate.size())) found.emplace_back(distance, &candidate);
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  if (found.size() > count) found.resize(count);
  std::vector<std::string> names;
  for (const auto& entry : found) names.push_back(*entry.second);
  return names;
}

std::string suggest_names(std::string_view name, std::span<const std::string> candidates, std::size_t count) {
  const auto names = nearest_names(name, candidates, count);
  return names.empty() ? "" : fmt::format("; nearest: {}", fmt::join(names, ", "));
}

}  // namespace vitrine::detail
