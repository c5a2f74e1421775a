#include <vitrine/pipelines/text/bpe.h>

#include <array>
#include <queue>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/text/unicode.h>

namespace vitrine::detail {
namespace {

constexpr std::array<char32_t, 256> kCharacterOf = [] {
  std::array<char32_t, 256> characters{};
  char32_t next = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    characters[byte] = printable ? byte : next++;
  }
  return characters;
}();

std::uint64_t key_of(std::int64_t left, std::int64_t right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint64_t>(right);
}

}  // namespace

std::string bytes_to_characters(std::string_view bytes) {
  std::string characters;
  for (const char byte : bytes) append_char(characters, kCharacterOf[static_cast<unsigned char>(byte)]);
  return characters;
}

std::string characters_to_bytes(std::string_view characters) {
  std::string bytes;
  for (std::size_t at = 0; at < characters.size();) {
    const char32_t c = next_char(characters, at);
    for (std::size_t byte = 0; byte < 256; ++byte)
      if (kCharacterOf[byte] == c) bytes += static_cast<char>(byte);
  }
  return bytes;
}

Bpe::Bpe(BpeConfig config)
    : ids_(std::move(config.vocab)), suffix_(std::move(config.end_of_word_suffix)), fuse_unk_(config.fuse_unk) {
  constexpr std::int64_t kLargestId = 0x7FFFFFFF;
  for (const auto& [token, id] : ids_) {
    if (id < 0 || id > kLargestId)
      throw Error(fmt::format("token '{}' has the id {}, expected 0 to {}", printable(token), id, kLargestId));
    tokens_.emplace(id, token);
  }
  const auto id_of = [&](const std::string& token, const std::pair<std::string, std::string>& merge) {
    const auto found = ids_.find(token);
    if (found == ids_.end())
      throw Error(fmt::format("the merge '{} {}' needs '{}', which is not in the vocabulary", printable(merge.first),
                              printable(merge.second), printable(token)));
    return found->second;
  };
  merges_.reserve(config.merges.size());
  for (std::size_t i = 0; i < config.merges.size(); ++i) {
    const auto& merge = config.merges[i];
    const Merge becomes{static_cast<std::int64_t>(i), id_of(merge.first + merge.second, merge)};
    merges_.insert_or_assign(key_of(id_of(merge.first, merge), id_of(merge.second, merge)), becomes);
  }
  if (config.unk_token.empty()) return;
  const auto unknown = ids_.find(config.unk_token);
  if (unknown == ids_.end())
    throw Error(fmt::format("the token for unknown characters, '{}', is not in the vocabulary", printable(config.unk_token)));
  unk_id_ = unknown->second;
}

const Bpe::Merge* Bpe::merge_of(std::int64_t left, std::int64_t right) const {
  const auto found = merges_.find(key_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

// A list of symbols, and a queue of the pairs that may be joined. A pair whose symbols have changed since is passed over when its
// turn comes, so that a word of n characters takes n log n steps.
void Bpe::merge(std::vector<std::int64_t>& ids) const {
  constexpr std::size_t kNone = ~std::size_t{0};
  struct Symbol {
    std::size_t before, after;
    bool joined;  // to the one before it: gone
  };
  struct Candidate {
    std::int64_t rank, id;
    std::size_t at;                                                                                  // its left symbol
    bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }  // the queue's top is largest
  };
  std::vector<Symbol> symbols;
  for (std::size_t i = 0; i < ids.size(); ++i)
    symbols.push_back({i == 0 ? kNone : i - 1, i + 1 < ids.size() ? i + 1 : kNone, false});
  std::priority_queue<Candidate> queue;
  const auto consider = [&](std::size_t left, std::size_t right) {
    if (left == kNone || right == kNone) return;
    if (const Merge* merge = merge_of(ids[left], ids[right])) queue.push({merge->rank, merge->id, left});
  };
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) consider(i, i + 1);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.at];
    if (left.joined || left.after == kNone) continue;
    const std::size_t right = left.after;
    const Merge* merge = merge_of(ids[best.at], ids[right]);
    if (merge == nullptr || merge->id != best.id) continue;
    ids[best.at] = best.id;
    symbols[right].joined = true;
    left.after = symbols[right].after;
    if (left.after != kNone) symbols[left.after].before = best.at;
    consider(left.before, best.at);
    consider(best.at, left.after);
  }
  std::size_t kept = 0;
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (!symbols[i].joined) ids[kept++] = ids[i];
  ids.resize(kept);
}

void Bpe::encode(std::string_view word, std::vector<Token>& to) const {
  std::vector<std::int64_t> ids;
  bool last_unknown = false;
  for (std::size_t at = 0; at < word.size();) {
    const std::size_t begin = at;
    next_char(word, at);
    std::string character(word.substr(begin, at - begin));
    if (at == word.size()) character += suffix_;
    const auto found = ids_.find(character);
    const bool unknown = found == ids_.end();
    if (!unknown)
      ids.push_back(found->second);
    else if (unk_id_ >= 0 && !(last_unknown && fuse_unk_))
      ids.push_back(unk_id_);
    last_unknown = unknown;
  }
  merge(ids);
  for (const std::int64_t id : ids) to.push_back({id, token(id)});
}

std::optional<std::int64_t> Bpe::find(std::string_view token) const {
  const auto found = ids_.find(std::string(token));
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

std::string Bpe::token(std::int64_t id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? std::string() : found->second;
}

std::string Bpe::decode(std::span<const Token> tokens) const {
  std::string text;
  for (const Token& token : tokens) {
    std::string_view characters = token.text;
    const bool ends = !suffix_.empty() && characters.ends_with(suffix_);
    if (ends) characters.remove_suffix(suffix_.size());
    text += characters_to_bytes(characters);
    if (ends) text += ' ';
  }
  if (text.ends_with(' ')) text.pop_back();
  return text;
}

}  // namespace vitrine::detail
