// Texts to the ids that a text encoder reads.
//
// Source: transformers 5.23 and tokenizers 0.23, whose ids these are: CLIP's byte-pair encoding (vocab.json and merges.txt, see
// clip_tokenizer.h), T5's unigrams (a SentencePiece model, see t5_tokenizer.h), or a tokenizer.json with either.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

namespace detail {
struct TokenizerParts;
}

struct TokenizedText {
  std::vector<std::int64_t> ids;             // with what the model wants at the beginning and at the end
  std::vector<std::int64_t> attention_mask;  // 1 for these, 0 for padding
  std::string dropped;  // the end of the text that did not fit, as the tokenizer reads it (CLIP's: in lower case); usually empty
};

struct TokenBatch {
  Tensor ids, attention_mask;  // i64 [B, max_length]
  std::vector<std::string> dropped;
};

// Immutable; safe to use from several threads.
class VITRINE_API Tokenizer {
 public:
  // The longest text, in bytes; no model reads as much.
  static constexpr std::size_t kLongestText = std::size_t{1} << 16;

  explicit Tokenizer(detail::TokenizerParts parts);

  // Of UTF-8 text, cut or padded to max_length ids; 0: as many as there are. Throws Error: not UTF-8, too long, a max_length
  // that has no room for the ends.
  TokenizedText encode(std::string_view text, std::int64_t max_length = 0) const;
  TokenBatch encode_batch(std::span<const std::string> texts, std::int64_t max_length) const;

  std::int64_t model_max_length() const;     // as tokenizer_config.json has it; 0: it does not say
  std::string token(std::int64_t id) const;  // "cat</w>", "▁cat"; empty: there is none

 private:
  std::shared_ptr<const detail::TokenizerParts> parts_;
};

// A tokenizer.json, a SentencePiece .model, or a folder that has one of these or vocab.json with merges.txt (in the order
// tokenizer.json, vocab.json, .model) and beside them maybe tokenizer_config.json. Throws Error of one line for what is damaged,
// or makes use of something that is not known here.
VITRINE_API Tokenizer open_tokenizer(const std::string& path);

}  // namespace vitrine
