// What a tokenizer is made of, as the tokenizers library has it: tokens that are found in the text as it is, steps that rewrite
// what lies between them, steps that cut it into words, a model that turns a word into ids, and ids at both ends. Not installed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/pipelines/text/prefix_table.h>

namespace vitrine::detail {

struct Token {
  std::int64_t id = 0;
  std::string text;  // the part of the word, in the model's alphabet
};

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  virtual void encode(std::string_view word, std::vector<Token>& to) const = 0;
  virtual std::optional<std::int64_t> find(std::string_view token) const = 0;
  virtual std::string token(std::int64_t id) const = 0;                 // empty: there is none
  virtual std::string decode(std::span<const Token> tokens) const = 0;  // as a user would write it
};

struct AddedToken {
  std::string content;
  std::int64_t id = 0;
  bool lstrip = false, rstrip = false;  // takes the white space before it, after it
  bool normalized = false;              // found in the rewritten text, not in the original
};

// A part of a text: one token, or what lies between.
struct TextPart {
  std::string_view text;
  std::int64_t id = -1;  // below 0: not a token
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // `rewrite` is what the text goes through before `normalized` tokens are looked for.
  AddedTokens(std::vector<AddedToken> tokens, const std::function<std::string(std::string_view)>& rewrite);

  // The leftmost and there the longest token, again and again.
  std::vector<TextPart> split(std::string_view text, bool normalized) const;
  std::optional<std::int64_t> find(std::string_view content) const;
  std::string token(std::int64_t id) const;  // empty: there is none

 private:
  std::vector<AddedToken> tokens_;
  PrefixTable original_, normalized_;  // numbers are indices of tokens_
};

struct Word {
  std::string text;
  bool first = false;  // at the beginning of the whole text
};

using Normalizer = std::function<std::string(std::string_view)>;
using PreTokenizer = std::function<void(const Word&, std::vector<Word>&)>;

// What a step may put in the place of a character, and how large a text may become: files that ask for more mean harm.
inline constexpr std::size_t kLongestStepText = 64, kLargestRewritten = std::size_t{1} << 21;

struct TokenizerParts {
  AddedTokens added;
  std::vector<Normalizer> normalizers;
  std::vector<PreTokenizer> pre_tokenizers;
  std::shared_ptr<const TokenModel> model;
  std::vector<std::int64_t> front, back;  // ids around every text
  std::int64_t pad_id = 0;
  std::int64_t max_length = 0;  // 0: not known

  std::string normalize(std::string_view text) const;  // throws Error above kLargestRewritten
};

}  // namespace vitrine::detail
