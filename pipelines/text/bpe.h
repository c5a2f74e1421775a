// Byte-pair encoding: a word's characters, joined pair by pair, the pair that was learnt first before all others. Not installed.
//
// Source: arXiv:1508.07909; the order of merges is that of tokenizers 0.23, models/bpe: of equal pairs the leftmost first, and a
// pair that comes about may go before those that waited.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <vitrine/pipelines/text/parts.h>

namespace vitrine::detail {

// Bytes as printable characters: those that are printable stand for themselves, the others are U+0100, U+0101, ...
std::string bytes_to_characters(std::string_view bytes);
std::string characters_to_bytes(std::string_view characters);  // others are left out

struct BpeConfig {
  std::unordered_map<std::string, std::int64_t> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // best first
  std::string unk_token;           // for a character that is not in the vocabulary; empty: it is left out
  std::string end_of_word_suffix;  // of a word's last character
  bool fuse_unk = false;           // neighbors become one
};

// Words are of the characters of bytes_to_characters.
class Bpe final : public TokenModel {
 public:
  explicit Bpe(BpeConfig config);  // throws Error: a merge of what is not in the vocabulary

  void encode(std::string_view word, std::vector<Token>& to) const override;
  std::optional<std::int64_t> find(std::string_view token) const override;
  std::string token(std::int64_t id) const override;
  std::string decode(std::span<const Token> tokens) const override;

 private:
  struct Merge {
    std::int64_t rank, id;  // of the token that the two become
  };

  const Merge* merge_of(std::int64_t left, std::int64_t right) const;
  void merge(std::vector<std::int64_t>& ids) const;

  std::unordered_map<std::string, std::int64_t> ids_;
  std::unordered_map<std::int64_t, std::string> tokens_;
  std::unordered_map<std::uint64_t, Merge> merges_;  // by both ids
  std::int64_t unk_id_ = -1;
  std::string suffix_;
  bool fuse_unk_ = false;
};

}  // namespace vitrine::detail
