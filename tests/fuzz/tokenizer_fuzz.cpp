// Any bytes as a tokenizer.json, as a table of replacements, or as vocab.json and merges.txt; then texts go through what was
// read.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/text/bpe.h>
#include <vitrine/pipelines/text/chars_map.h>
#include <vitrine/pipelines/text/tokenizer_files.h>
#include <vitrine/pipelines/tokenizer.h>

namespace {

constexpr std::string_view kText = "The caf\u00e9  cat's <unk></s> 12 \uff36\u00bd e\u0301 \U0001F600\u200d \u2581x ";

void encode(const vitrine::Tokenizer& tokenizer) {
  for (const std::string_view text : {kText, std::string_view("a"), std::string_view()}) {
    tokenizer.encode(text);
    tokenizer.encode(text, 1 << 10);
  }
}

void read_bpe(std::string_view bytes) {
  const std::size_t cut = std::min(bytes.find('\0'), bytes.size());
  vitrine::detail::BpeConfig config;
  config.vocab = vitrine::detail::read_vocab(vitrine::detail::parse_tokenizer_json(bytes.substr(0, cut)));
  config.end_of_word_suffix = "</w>";
  for (std::size_t at = cut + 1; at < bytes.size();) {
    const std::size_t end = std::min(bytes.find('\n', at), bytes.size());
    config.merges.push_back(vitrine::detail::split_merge(std::string(bytes.substr(at, end - at))));
    at = end + 1;
  }
  vitrine::detail::TokenizerParts parts;
  parts.model = std::make_shared<vitrine::detail::Bpe>(std::move(config));
  encode(vitrine::Tokenizer(std::move(parts)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    vitrine::detail::reading("input", [&] {
      if (data[0] == 'c') vitrine::detail::CharsMap{bytes}(kText);
      if (data[0] == 'b') read_bpe(bytes);
      if (data[0] == 'j') encode(vitrine::Tokenizer(vitrine::detail::read_tokenizer_json(bytes, {})));
    });
  } catch (const vitrine::Error& e) {
    if (std::string(e.what()).find('\n') != std::string::npos) std::abort();
  }
  return 0;
}
