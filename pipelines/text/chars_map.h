// SentencePiece's compiled table of replacements (precompiled_charsmap; T5's is a form of NFKC), as tokenizer.json files have it.
// Not installed.
//
//   bytes: u32 size | a trie of `size` bytes, u32 units | replacements, each ended by a zero
//
// The trie is a double array (S. Yata's darts-clone). From a unit the one of a byte is at its offset xor the byte; it is there if
// its label is that byte. A unit with a leaf has, at its offset, the position of a replacement.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vitrine::detail {

class CharsMap {
 public:
  explicit CharsMap(std::string_view bytes);  // everything that a text could lead to is checked; throws Error

  // As tokenizers 0.23 does it (not quite as SentencePiece, which takes the longest key at every position): each grapheme of up
  // to five bytes becomes the replacement of the shortest key that it begins with, else each of its characters does.
  std::string operator()(std::string_view text) const;

 private:
  std::optional<std::string_view> replacement(std::string_view key) const;
  void check() const;

  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

}  // namespace vitrine::detail
