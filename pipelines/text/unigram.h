// Unigrams: of all ways to cut a word into pieces, the one with the largest sum of scores. Not installed.
//
// Source: arXiv:1804.10959; the search is that of tokenizers 0.23, models/unigram (and of SentencePiece): one pass over the word,
// the best way to every position kept; a character that is no piece itself costs 10 more than the worst piece.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <vitrine/pipelines/text/parts.h>

namespace vitrine::detail {

struct UnigramConfig {
  std::vector<std::pair<std::string, double>> pieces;  // and their scores; the index is the id
  std::int64_t unk_id = -1;                            // below 0: none, and what no piece covers is an Error
  bool byte_fallback = false;                          // unknown characters become pieces <0x00> ... <0xFF>, where there are all
};

// Words have U+2581 for a space.
class Unigram final : public TokenModel {
 public:
  static constexpr std::size_t kLongestPiece = 1024;  // bytes; bounds the time that a text takes

  explicit Unigram(UnigramConfig config);

  void encode(std::string_view word, std::vector<Token>& to) const override;
  std::optional<std::int64_t> find(std::string_view token) const override { return table_.find(token); }
  std::string token(std::int64_t id) const override;
  std::string decode(std::span<const Token> tokens) const override;

 private:
  void append(std::string text, std::vector<Token>& to) const;

  UnigramConfig config_;
  PrefixTable table_;
  double unk_score_ = 0;
};

// U+2581 in a text back to spaces, none in front.
std::string without_metaspace(std::string_view text);

}  // namespace vitrine::detail
