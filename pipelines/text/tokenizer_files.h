// The files of a tokenizer's folder. Not installed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/text/parts.h>

namespace vitrine::detail {

// Throws Error: missing, a folder, or larger than any tokenizer's.
std::string read_tokenizer_text(const std::string& path);

// What `read` throws, with the file's name in front.
template <typename Read>
auto reading(const std::string& path, const Read& read) {
  try {
    return read();
  } catch (const nlohmann::json::exception& error) {
    const std::string_view what = error.what();  // "[json.exception....] message"
    throw Error(fmt::format("{}: {}", path, printable(what.substr(what.find("] ") + 2), 200)));
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", path, error.what()));
  }
}

// Functions from here on are called in `reading`.
nlohmann::json parse_tokenizer_json(std::string_view text);         // throws Error where it is nested deeper than any
std::pair<std::string, std::string> split_merge(std::string line);  // "a b"; throws Error
std::unordered_map<std::string, std::int64_t> read_vocab(const nlohmann::json& vocab);  // {token: id}

// tokenizer_config.json and special_tokens_map.json of a folder, where they are there.
struct TokenizerConfig {
  std::vector<AddedToken> added;                 // added_tokens_decoder
  std::optional<AddedToken> bos, eos, unk, pad;  // without ids
  std::int64_t model_max_length = 0;             // 0: no limit
};
TokenizerConfig read_tokenizer_config(const std::string& folder);  // not in `reading`: it names its files

TokenizerParts read_tokenizer_json(std::string_view text, const TokenizerConfig& config);

// `added`, then what `config` has beside it, with ids from `added` or the vocabulary; after that the id for padding: the
// configuration's, else `pad_id`.
void add_special_tokens(TokenizerParts& parts, std::vector<AddedToken> added, const TokenizerConfig& config, std::int64_t pad_id);

}  // namespace vitrine::detail
