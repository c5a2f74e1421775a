#include <vitrine/layers/names.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace vitrine::detail {
namespace {

constexpr std::size_t kLongestCompared = 256;  // nobody mistypes more, and the cost is quadratic

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

std::string printable(std::string_view name, std::size_t longest) {
  std::string out;
  for (char c : name.substr(0, longest)) {
    const auto u = static_cast<unsigned char>(c);
    out += u < 0x20 || u == 0x7f ? '?' : c;
  }
  if (name.size() <= longest) return out;
  while (!out.empty() && (name[out.size()] & 0xc0) == 0x80) out.pop_back();  // not in the middle of a UTF-8 sequence
  return out + "...";
}

std::string list_names(std::span<const std::string> names, std::size_t most, std::size_t longest) {
  std::string out;
  for (std::size_t i = 0; i < std::min(names.size(), most); ++i) out += (i ? ", " : "") + printable(names[i], longest);
  return names.size() <= most ? out : fmt::format("{} and {} more", out, names.size() - most);
}

std::vector<std::string> nearest_names(std::string_view name, std::span<const std::string> candidates, std::size_t count) {
  std::vector<std::pair<std::size_t, const std::string*>> found;
  if (name.size() > kLongestCompared) return {};
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kLongestCompared) continue;
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

bool matches_pattern(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++, resume = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p, ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1, t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace vitrine::detail
