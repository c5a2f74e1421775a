// The steps that a tokenizer.json names: what rewrites a text, and what cuts it into words. Not installed.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <vitrine/pipelines/text/parts.h>

namespace vitrine::detail {

// "normalizer" and "pre_tokenizer" of a tokenizer.json (null: nothing to do), sequences taken apart. Throws Error for a type or
// an option that is not known.
void read_steps(const nlohmann::json& normalizer, const nlohmann::json& pre_tokenizer, TokenizerParts& parts);

// CLIP's: NFC, one space for white space, lower case; then words by kClipPattern, their bytes as characters (bpe.h).
inline constexpr std::string_view kClipPattern =
    R"(<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
std::vector<Normalizer> clip_normalizers();
PreTokenizer clip_words();

}  // namespace vitrine::detail
