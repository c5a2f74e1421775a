// A set of texts with a number each: which of them a text begins with. Not installed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vitrine::detail {

class PrefixTable {
 public:
  using Entry = std::pair<std::string, std::int64_t>;

  PrefixTable() = default;
  // Of equal texts the last counts. Empty ones are never found.
  explicit PrefixTable(std::vector<Entry> entries) : entries_(std::move(entries)) {
    std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.first < b.first; });
    const auto last =
        std::unique(entries_.rbegin(), entries_.rend(), [](const Entry& a, const Entry& b) { return a.first == b.first; });
    entries_.erase(entries_.begin(), last.base());
  }

  // visit(bytes, number) of all that `text` begins with, the shortest first.
  template <typename Visit>
  void for_each_prefix(std::string_view text, const Visit& visit) const {
    std::span<const Entry> range(entries_);
    for (std::size_t depth = 0; depth < text.size() && !range.empty(); ++depth) {
      // Those of the range that go on as the text does; shorter ones come first in it and have been visited.
      const auto byte = static_cast<unsigned char>(text[depth]);
      const auto at = [depth](const Entry& e) {
        return e.first.size() > depth ? static_cast<unsigned char>(e.first[depth]) : -1;
      };
      const auto begin = std::partition_point(range.begin(), range.end(), [&](const Entry& e) { return at(e) < byte; });
      const auto end = std::partition_point(begin, range.end(), [&](const Entry& e) { return at(e) == byte; });
      range = std::span(begin, end);
      if (!range.empty() && range.front().first.size() == depth + 1) visit(depth + 1, range.front().second);
    }
  }

  std::optional<std::int64_t> find(std::string_view text) const {
    const auto found =
        std::lower_bound(entries_.begin(), entries_.end(), text, [](const Entry& e, std::string_view t) { return e.first < t; });
    return found != entries_.end() && found->first == text ? std::optional(found->second) : std::nullopt;
  }

  bool empty() const { return entries_.empty(); }

 private:
  std::vector<Entry> entries_;  // sorted
};

}  // namespace vitrine::detail
