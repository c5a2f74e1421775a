#include <vitrine/pipelines/tokenizer.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/clip_tokenizer.h>
#include <vitrine/pipelines/t5_tokenizer.h>
#include <vitrine/pipelines/text/parts.h>
#include <vitrine/pipelines/text/tokenizer_files.h>
#include <vitrine/pipelines/text/unicode.h>

namespace fs = std::filesystem;

namespace vitrine {

using detail::Token;
using detail::TokenizerParts;
using detail::Word;

namespace detail {

std::string TokenizerParts::normalize(std::string_view text) const {
  std::string result(text);
  for (const Normalizer& step : normalizers) {
    result = step(result);
    if (result.size() > kLargestRewritten)
      throw Error(fmt::format("tokenizer: the text becomes larger than {} bytes when it is normalized", kLargestRewritten));
  }
  return result;
}

}  // namespace detail

namespace {

// A part between added tokens: cut into words, words into tokens.
void encode_words(const TokenizerParts& parts, std::string_view text, bool first, std::vector<Token>& tokens) {
  std::vector<Word> words{{std::string(text), first}};
  for (const auto& cut : parts.pre_tokenizers) {
    std::vector<Word> cut_words;
    for (const Word& word : words) cut(word, cut_words);
    words = std::move(cut_words);
  }
  for (const Word& word : words) parts.model->encode(word.text, tokens);
}

std::vector<Token> tokens_of(const TokenizerParts& parts, std::string_view text) {
  std::vector<Token> tokens;
  for (const auto& part : parts.added.split(text, false)) {
    if (part.id >= 0) {
      tokens.push_back({part.id, std::string(part.text)});
      continue;
    }
    const std::string rewritten = parts.normalize(part.text);
    for (const auto& inner : parts.added.split(rewritten, true)) {
      const bool first = part.text.data() == text.data() && inner.text.data() == rewritten.data();
      if (inner.id >= 0)
        tokens.push_back({inner.id, std::string(inner.text)});
      else
        encode_words(parts, inner.text, first, tokens);
    }
  }
  return tokens;
}

// The last token of what was dropped may be the half of a character.
std::string valid_utf8(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) detail::append_char(result, detail::next_char(text, at));
  return result;
}

}  // namespace

Tokenizer::Tokenizer(TokenizerParts parts) : parts_(std::make_shared<const TokenizerParts>(std::move(parts))) {}

TokenizedText Tokenizer::encode(std::string_view text, std::int64_t max_length) const {
  const TokenizerParts& parts = *parts_;
  const auto ends = static_cast<std::int64_t>(parts.front.size() + parts.back.size());
  if (max_length != 0 && max_length < ends)
    throw Error(fmt::format("tokenizer: max_length is {}, expected at least the {} at the ends of a text", max_length, ends));
  if (text.size() > kLongestText)
    throw Error(fmt::format("tokenizer: the text has {} bytes, expected up to {}", text.size(), kLongestText));
  detail::check_utf8(text, "tokenizer: the text");
  std::vector<Token> tokens = tokens_of(parts, text);
  TokenizedText result;
  if (max_length != 0) {
    const auto kept = std::min(static_cast<std::size_t>(max_length - ends), tokens.size());
    result.dropped = valid_utf8(parts.model->decode(std::span(tokens).subspan(kept)));
    tokens.resize(kept);
  }
  result.ids = parts.front;
  for (const Token& token : tokens) result.ids.push_back(token.id);
  result.ids.insert(result.ids.end(), parts.back.begin(), parts.back.end());
  result.attention_mask.assign(result.ids.size(), 1);
  if (max_length != 0) {
    result.ids.resize(static_cast<std::size_t>(max_length), parts.pad_id);
    result.attention_mask.resize(static_cast<std::size_t>(max_length), 0);
  }
  return result;
}

TokenBatch Tokenizer::encode_batch(std::span<const std::string> texts, std::int64_t max_length) const {
  constexpr std::int64_t kLongest = 1 << 20;
  if (max_length < 1 || max_length > kLongest)
    throw Error(fmt::format("tokenizer: max_length is {}, expected 1 to {}", max_length, kLongest));
  const auto count = static_cast<std::int64_t>(texts.size());
  TokenBatch batch{Tensor::empty({count, max_length}, DType::i64), Tensor::empty({count, max_length}, DType::i64), {}};
  for (std::int64_t i = 0; i < count; ++i) {
    TokenizedText one = encode(texts[static_cast<std::size_t>(i)], max_length);
    std::copy(one.ids.begin(), one.ids.end(), batch.ids.data<std::int64_t>() + i * max_length);
    std::copy(one.attention_mask.begin(), one.attention_mask.end(), batch.attention_mask.data<std::int64_t>() + i * max_length);
    batch.dropped.push_back(std::move(one.dropped));
  }
  return batch;
}

std::int64_t Tokenizer::model_max_length() const { return parts_->max_length; }

std::string Tokenizer::token(std::int64_t id) const {
  std::string token = parts_->model->token(id);
  return token.empty() ? parts_->added.token(id) : token;
}

Tokenizer open_tokenizer(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    if (path.ends_with(".model")) return open_t5_tokenizer(path);
    const std::string text = detail::read_tokenizer_text(path);
    const auto config = detail::read_tokenizer_config(fs::path(path).parent_path().string());
    return detail::reading(path, [&] { return Tokenizer(detail::read_tokenizer_json(text, config)); });
  }
  const auto in_folder = [&](const char* name) { return (fs::path(path) / name).string(); };
  if (fs::exists(in_folder("tokenizer.json"), error)) return open_tokenizer(in_folder("tokenizer.json"));
  if (fs::exists(in_folder("vocab.json"), error)) return open_clip_tokenizer(in_folder("vocab.json"), in_folder("merges.txt"));
  for (const char* name : {"spiece.model", "tokenizer.model"})
    if (fs::exists(in_folder(name), error)) return open_t5_tokenizer(in_folder(name));
  throw Error(fmt::format("{}: no tokenizer: expected tokenizer.json, vocab.json with merges.txt, or spiece.model", path));
}

}  // namespace vitrine
