#include <vitrine/pipelines/text/chars_map.h>

#include <cstring>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/text/parts.h>
#include <vitrine/pipelines/text/unicode.h>

namespace vitrine::detail {
namespace {

bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) != 0; }
std::uint32_t label_of(std::uint32_t unit) { return unit & (0x80000000u | 0xFF); }
std::uint32_t offset_of(std::uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); }
std::uint32_t value_of(std::uint32_t unit) { return unit & 0x7FFFFFFFu; }

}  // namespace

CharsMap::CharsMap(std::string_view bytes) {
  std::uint32_t size = 0;
  if (bytes.size() > sizeof(size)) std::memcpy(&size, bytes.data(), sizeof(size));
  if (size == 0 || size % 4 != 0 || size >= bytes.size() - sizeof(size))
    throw Error(fmt::format("precompiled_charsmap: a trie of {} bytes in {}", size, bytes.size()));
  units_.resize(size / 4);
  std::memcpy(units_.data(), bytes.data() + sizeof(size), size);
  replacements_ = bytes.substr(sizeof(size) + size);
  check();
}

void CharsMap::check() const {
  const auto refuse = [&](std::string_view what) { throw Error(fmt::format("precompiled_charsmap: {}", what)); };
  if (replacements_.back() != '\0') refuse("the last replacement has no end");
  check_utf8(replacements_, "precompiled_charsmap: replacements");
  std::vector<bool> seen(units_.size());
  std::vector<std::uint32_t> open{0};
  seen[0] = true;
  while (!open.empty()) {
    const std::uint32_t at = open.back(), unit = units_[at], base = at ^ offset_of(unit);
    open.pop_back();
    if (has_leaf(unit)) {
      if (base >= units_.size()) refuse("the trie leads out of itself");
      const std::uint32_t value = value_of(units_[base]);
      // A replacement begins with a character, and is not long: it stands for one.
      if (value >= replacements_.size() || (static_cast<unsigned char>(replacements_[value]) & 0xC0) == 0x80)
        refuse("the trie leads to no replacement");
      if (std::string_view(replacements_).substr(value, kLongestStepText + 1).find('\0') == std::string_view::npos)
        refuse(fmt::format("a replacement is longer than {} bytes", kLongestStepText));
    }
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t next = base ^ byte;
      if (next >= units_.size()) refuse("the trie leads out of itself");
      if (label_of(units_[next]) != byte || seen[next]) continue;
      seen[next] = true;
      open.push_back(next);
    }
  }
}

std::optional<std::string_view> CharsMap::replacement(std::string_view key) const {
  std::uint32_t at = offset_of(units_[0]);
  for (const char c : key) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) break;
    at ^= byte;
    const std::uint32_t unit = units_[at];
    if (label_of(unit) != byte) break;
    at ^= offset_of(unit);
    if (has_leaf(unit)) return std::string_view(replacements_.data() + value_of(units_[at]));
  }
  return std::nullopt;
}

std::string CharsMap::operator()(std::string_view text) const {
  constexpr std::size_t kLongestKey = 5;
  std::string result;
  for (const std::string_view grapheme : graphemes(text)) {
    if (grapheme.size() <= kLongestKey) {
      if (const auto found = replacement(grapheme)) {
        result += *found;
        continue;
      }
    }
    for (std::size_t at = 0; at < grapheme.size();) {
      const std::size_t begin = at;
      next_char(grapheme, at);
      const std::string_view character = grapheme.substr(begin, at - begin);
      result += replacement(character).value_or(character);
    }
  }
  return result;
}

}  // namespace vitrine::detail
