#include <vitrine/pipelines/text/unigram.h>

#include <algorithm>
#include <limits>
#include <span>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/text/unicode.h>

namespace vitrine::detail {

Unigram::Unigram(UnigramConfig config) : config_(std::move(config)) {
  const auto& pieces = config_.pieces;
  if (config_.unk_id >= static_cast<std::int64_t>(pieces.size()))
    throw Error(fmt::format("unk_id is {}, expected 0 to {}", config_.unk_id, static_cast<std::int64_t>(pieces.size()) - 1));
  std::vector<PrefixTable::Entry> entries;
  entries.reserve(pieces.size());
  double worst = std::numeric_limits<double>::infinity();
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    const auto& [text, score] = pieces[id];
    if (text.size() > kLongestPiece)
      throw Error(fmt::format("piece {} has {} bytes, expected up to {}", id, text.size(), kLongestPiece));
    entries.emplace_back(text, id);
    worst = std::min(worst, score);
  }
  table_ = PrefixTable(std::move(entries));
  unk_score_ = worst - 10.0;
}

void Unigram::encode(std::string_view word, std::vector<Token>& to) const {
  constexpr std::size_t kNone = ~std::size_t{0};
  struct Node {  // the best way to a position: its last piece begins at `begin`
    std::size_t begin = kNone;
    std::int64_t id = 0;
    double score = 0;
  };
  std::vector<Node> nodes(word.size() + 1);
  const auto reach = [&](std::size_t end, std::size_t begin, std::int64_t id, double score) {
    if (nodes[end].begin == kNone || score > nodes[end].score) nodes[end] = {begin, id, score};
  };
  for (std::size_t begin = 0; begin < word.size();) {
    std::size_t end = begin;
    next_char(word, end);
    bool is_piece = false;  // its first character
    const double here = nodes[begin].score;
    table_.for_each_prefix(word.substr(begin), [&](std::size_t bytes, std::int64_t id) {
      reach(begin + bytes, begin, id, config_.pieces[static_cast<std::size_t>(id)].second + here);
      is_piece = is_piece || begin + bytes == end;
    });
    if (!is_piece) {
      if (config_.unk_id < 0)
        throw Error(fmt::format("tokenizer: '{}' is in no piece, and there is none for what is unknown", printable(word)));
      reach(end, begin, config_.unk_id, unk_score_ + here);
    }
    begin = end;
  }
  std::vector<std::string_view> parts;  // last first
  bool last_unknown = false;
  for (std::size_t end = word.size(); end > 0; end = nodes[end].begin) {
    const std::size_t begin = nodes[end].begin;
    const bool unknown = nodes[end].id == config_.unk_id;
    if (unknown && last_unknown)  // a run of them is one
      parts.back() = word.substr(begin, end - begin + parts.back().size());
    else
      parts.push_back(word.substr(begin, end - begin));
    last_unknown = unknown;
  }
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) append(std::string(*part), to);
}

void Unigram::append(std::string text, std::vector<Token>& to) const {
  if (const auto id = find(text)) return to.push_back({*id, std::move(text)});
  if (config_.byte_fallback) {
    std::vector<Token> bytes;
    for (const char byte : text) {
      const std::string piece = fmt::format("<0x{:02X}>", static_cast<unsigned char>(byte));
      const auto id = find(piece);
      if (!id) break;
      bytes.push_back({*id, std::string(1, byte)});
    }
    if (bytes.size() == text.size()) {
      to.insert(to.end(), bytes.begin(), bytes.end());
      return;
    }
  }
  to.push_back({config_.unk_id, std::move(text)});
}

std::string Unigram::token(std::int64_t id) const {
  return id >= 0 && id < static_cast<std::int64_t>(config_.pieces.size()) ? config_.pieces[static_cast<std::size_t>(id)].first
                                                                          : std::string();
}

std::string Unigram::decode(std::span<const Token> tokens) const {
  std::string text;
  for (const Token& token : tokens) text += token.text;
  return without_metaspace(text);
}

std::string without_metaspace(std::string_view text) {
  constexpr std::string_view kSpace = "\u2581";
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    if (text.substr(at).starts_with(kSpace)) {
      if (!result.empty()) result += ' ';
      at += kSpace.size();
    } else {
      result += text[at++];
    }
  }
  return result;
}

}  // namespace vitrine::detail
