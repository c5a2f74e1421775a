#include <algorithm>

#include <vitrine/pipelines/text/parts.h>
#include <vitrine/pipelines/text/unicode.h>

namespace vitrine::detail {
namespace {

// Where the white space before `end` begins.
std::size_t space_before(std::string_view text, std::size_t end) {
  std::size_t begin = end;
  while (begin > 0) {
    std::size_t at = begin - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    std::size_t after = at;
    if (!is_space(next_char(text, after))) break;
    begin = at;
  }
  return begin;
}

std::size_t space_after(std::string_view text, std::size_t begin) {
  while (begin < text.size()) {
    std::size_t after = begin;
    if (!is_space(next_char(text, after))) break;
    begin = after;
  }
  return begin;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const std::function<std::string(std::string_view)>& rewrite)
    : tokens_(std::move(tokens)) {
  std::vector<PrefixTable::Entry> original, normalized;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    if (token.normalized)
      normalized.emplace_back(rewrite(token.content), i);
    else
      original.emplace_back(token.content, i);
  }
  original_ = PrefixTable(std::move(original));
  normalized_ = PrefixTable(std::move(normalized));
}

std::vector<TextPart> AddedTokens::split(std::string_view text, bool normalized) const {
  const PrefixTable& table = normalized ? normalized_ : original_;
  std::vector<TextPart> parts;
  std::size_t done = 0;  // bytes that are in `parts`
  for (std::size_t at = 0; at < text.size() && !table.empty();) {
    std::size_t bytes = 0;
    std::int64_t found = -1;
    table.for_each_prefix(text.substr(at), [&](std::size_t length, std::int64_t index) { bytes = length, found = index; });
    if (found < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(found)];
    const std::size_t begin = std::max(done, token.lstrip ? space_before(text, at) : at);
    at += bytes;
    const std::size_t end = token.rstrip ? space_after(text, at) : at;
    if (begin > done) parts.push_back({text.substr(done, begin - done)});
    parts.push_back({text.substr(begin, end - begin), token.id});
    done = end;
    at = std::max(at, done);
  }
  if (done < text.size()) parts.push_back({text.substr(done)});
  return parts;
}

std::string AddedTokens::token(std::int64_t id) const {
  for (const AddedToken& token : tokens_)
    if (token.id == id) return token.content;
  return {};
}

std::optional<std::int64_t> AddedTokens::find(std::string_view content) const {
  for (const AddedToken& token : tokens_)
    if (token.content == content) return token.id;
  return std::nullopt;
}

}  // namespace vitrine::detail
