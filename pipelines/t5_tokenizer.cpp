#include <vitrine/pipelines/t5_tokenizer.h>

#include <filesystem>
#include <span>
#include <utility>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/sentencepiece/sentencepiece.h>
#include <vitrine/pipelines/text/chars_map.h>
#include <vitrine/pipelines/text/tokenizer_files.h>
#include <vitrine/weights/protobuf.h>

namespace vitrine {
namespace {

using detail::ProtobufFields;

std::string_view text_of(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// SentencePiece follows the trie of its table of replacements wherever it leads, also out of itself: it is checked before.
// ModelProto has normalizer_spec (3) and denormalizer_spec (5), these precompiled_charsmap (2).
void check_model(std::string_view bytes) {
  constexpr std::string_view kWhat = "not a SentencePiece model";
  for (ProtobufFields model(std::as_bytes(std::span(bytes)), kWhat); model.next();) {
    if (model.is_varint || (model.number != 3 && model.number != 5)) continue;
    for (ProtobufFields spec(model.bytes, kWhat); spec.next();)
      if (spec.number == 2 && !spec.is_varint && !spec.bytes.empty()) detail::CharsMap(text_of(spec.bytes));
  }
}

}  // namespace

Tokenizer open_t5_tokenizer(const std::string& model) {
  const std::string bytes = detail::read_tokenizer_text(model);
  const auto config = detail::read_tokenizer_config(std::filesystem::path(model).parent_path().string());
  return detail::reading(model, [&] {
    check_model(bytes);
    detail::TokenizerParts parts;
    SentencePieceInfo info{};
    std::vector<detail::AddedToken> controls;
    parts.model = open_sentencepiece(bytes, info, controls);
    if (info.end_id < 0) throw Error("a SentencePiece model without </s>, which ends a text");
    parts.back = {info.end_id};
    detail::add_special_tokens(parts, std::move(controls), config, info.pad_id < 0 ? info.end_id : info.pad_id);
    return Tokenizer(std::move(parts));
  });
}

}  // namespace vitrine
