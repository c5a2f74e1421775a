#include <vitrine/pipelines/text/tokenizer_files.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>

#include <vitrine/pipelines/files.h>
#include <vitrine/pipelines/text/bpe.h>
#include <vitrine/pipelines/text/steps.h>
#include <vitrine/pipelines/text/unigram.h>

namespace fs = std::filesystem;

namespace vitrine::detail {
namespace {

using Json = nlohmann::json;

// Null, or not there.
bool is_absent(const Json& object, const char* name) { return !object.contains(name) || object[name].is_null(); }

std::int64_t id_of(const Json& number) {
  constexpr std::int64_t kLargest = 0x7FFFFFFF;
  const std::int64_t id = number.is_number_integer() ? number.get<std::int64_t>() : -1;
  if (id < 0 || id > kLargest)
    throw Error(fmt::format("a token has the id {}, expected 0 to {}", printable(number.dump()), kLargest));
  return id;
}

// A text, or an object with settings.
AddedToken read_added_token(const Json& token) {
  AddedToken added;
  if (token.is_string()) {
    added.content = token.get<std::string>();
    return added;
  }
  added.content = token.at("content").get<std::string>();
  added.lstrip = token.value("lstrip", false);
  added.rstrip = token.value("rstrip", false);
  added.normalized = token.value("normalized", false);
  if (token.value("single_word", false))
    throw Error(fmt::format("the token '{}' is for single words, which is not known here", printable(added.content)));
  return added;
}

// --- models

std::shared_ptr<const TokenModel> read_bpe(const Json& model) {
  const bool prefixed = !is_absent(model, "continuing_subword_prefix") && model["continuing_subword_prefix"] != "";
  const bool drops = !is_absent(model, "dropout") && model["dropout"] != 0;
  if (prefixed || drops || model.value("byte_fallback", false) || model.value("ignore_merges", false))
    throw Error("its BPE has a continuing_subword_prefix, dropout, byte_fallback or ignore_merges, which are not known here");
  BpeConfig config;
  config.vocab = read_vocab(model.at("vocab"));
  for (const Json& merge : model.at("merges")) {
    if (merge.is_array() && merge.size() == 2)
      config.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
    else
      config.merges.push_back(split_merge(merge.get<std::string>()));
  }
  if (!is_absent(model, "unk_token")) config.unk_token = model["unk_token"].get<std::string>();
  if (!is_absent(model, "end_of_word_suffix")) config.end_of_word_suffix = model["end_of_word_suffix"].get<std::string>();
  config.fuse_unk = model.value("fuse_unk", false);
  return std::make_shared<Bpe>(std::move(config));
}

std::shared_ptr<const TokenModel> read_unigram(const Json& model) {
  UnigramConfig config;
  const Json& vocab = model.at("vocab");
  config.pieces.reserve(vocab.size());
  for (const Json& piece : vocab) config.pieces.emplace_back(piece.at(0).get<std::string>(), piece.at(1).get<double>());
  if (!is_absent(model, "unk_id")) config.unk_id = id_of(model["unk_id"]);
  config.byte_fallback = model.value("byte_fallback", false);
  return std::make_shared<Unigram>(std::move(config));
}

// --- ids at both ends

void read_template(const Json& processor, TokenizerParts& parts) {
  bool behind = false;
  for (const Json& item : processor.at("single")) {
    if (item.contains("Sequence")) {
      behind = true;
      continue;
    }
    const auto name = item.at("SpecialToken").at("id").get<std::string>();
    for (const Json& id : processor.at("special_tokens").at(name).at("ids"))
      (behind ? parts.back : parts.front).push_back(id_of(id));
  }
  if (!behind) throw Error("its template has no place for the text");
}

void read_processor(const Json& processor, TokenizerParts& parts) {
  if (processor.is_null()) return;
  const auto type = processor.at("type").get<std::string>();
  if (type == "TemplateProcessing") {
    read_template(processor, parts);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    parts.front.push_back(id_of(processor.at("cls").at(1)));
    parts.back.push_back(id_of(processor.at("sep").at(1)));
  } else if (type == "Sequence") {
    for (const Json& one : processor.at("processors")) read_processor(one, parts);
  } else if (type != "ByteLevel") {  // which only moves offsets
    throw Error(fmt::format("makes use of the post-processor {}, which is not known here", printable(type)));
  }
}

void read_config_file(const Json& json, TokenizerConfig& config) {
  const std::pair<const char*, std::optional<AddedToken>*> tokens[] = {
      {"bos_token", &config.bos}, {"eos_token", &config.eos}, {"unk_token", &config.unk}, {"pad_token", &config.pad}};
  for (const auto& [key, token] : tokens)
    if (!is_absent(json, key)) *token = read_added_token(json[key]);
  if (!is_absent(json, "added_tokens_decoder")) {
    for (const auto& [key, token] : json["added_tokens_decoder"].items()) {
      config.added.push_back(read_added_token(token));
      config.added.back().id = id_of(Json::parse(key));
    }
  }
  // No limit is written as 1e30, an integer too long for any type.
  if (!is_absent(json, "model_max_length")) {
    const auto length = json["model_max_length"].get<double>();
    config.model_max_length = length >= 1 && length < 1e9 ? static_cast<std::int64_t>(length) : 0;
  }
}

}  // namespace

std::string read_tokenizer_text(const std::string& path) {
  constexpr std::size_t kLargest = std::size_t{1} << 26;  // twice the largest that are published
  const std::vector<std::uint8_t> bytes = read_file(path, "a tokenizer's file");
  if (bytes.size() > kLargest)
    throw Error(fmt::format("{}: {} bytes, expected a tokenizer's file of up to {}", path, bytes.size(), kLargest));
  return {bytes.begin(), bytes.end()};
}

Json parse_tokenizer_json(std::string_view text) {
  static constexpr int kDeepest = 16;
  return Json::parse(text, [](int depth, Json::parse_event_t, Json&) {
    if (depth > kDeepest) throw Error(fmt::format("nested deeper than {} levels", kDeepest));
    return true;
  });
}

std::pair<std::string, std::string> split_merge(std::string line) {
  const std::size_t space = line.find(' ');
  if (space == 0 || space == std::string::npos || space + 1 == line.size() || line.find(' ', space + 1) != std::string::npos)
    throw Error(fmt::format("the merge '{}' is not two tokens with a space between", printable(line)));
  std::string right = line.substr(space + 1);
  line.resize(space);
  return {std::move(line), std::move(right)};
}

std::unordered_map<std::string, std::int64_t> read_vocab(const Json& vocab) {
  if (!vocab.is_object()) throw Error("its vocabulary is not an object of tokens and ids");
  std::unordered_map<std::string, std::int64_t> ids;
  for (const auto& [token, id] : vocab.items()) ids.emplace(token, id_of(id));
  return ids;
}

TokenizerConfig read_tokenizer_config(const std::string& folder) {
  TokenizerConfig config;
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const std::string path = (fs::path(folder) / name).string();
    std::error_code error;
    if (!fs::exists(path, error)) continue;
    const std::string text = read_tokenizer_text(path);
    reading(path, [&] { read_config_file(parse_tokenizer_json(text), config); });
  }
  return config;
}

void add_special_tokens(TokenizerParts& parts, std::vector<AddedToken> added, const TokenizerConfig& config,
                        std::int64_t pad_id) {
  const auto is_added = [&](const std::string& content) {
    return std::any_of(added.begin(), added.end(), [&](const AddedToken& token) { return token.content == content; });
  };
  for (const AddedToken& token : config.added)
    if (!is_added(token.content)) added.push_back(token);
  for (const auto* special : {&config.bos, &config.eos, &config.unk, &config.pad}) {
    if (!*special || is_added((*special)->content)) continue;
    const auto id = parts.model->find((*special)->content);
    if (!id) throw Error(fmt::format("the special token '{}' is not in the vocabulary", printable((*special)->content)));
    added.push_back(**special);
    added.back().id = *id;
  }
  parts.added = AddedTokens(std::move(added), [&](std::string_view text) { return parts.normalize(text); });
  parts.pad_id = config.pad ? parts.added.find(config.pad->content).value_or(pad_id) : pad_id;
  parts.max_length = config.model_max_length;
}

TokenizerParts read_tokenizer_json(std::string_view text, const TokenizerConfig& config) {
  const Json json = parse_tokenizer_json(text);
  if (!json.is_object()) throw Error("not a tokenizer: expected an object");
  TokenizerParts parts;
  const Json& model = json.at("model");
  const auto type = model.value("type", "");
  if (type != "BPE" && type != "Unigram") throw Error(fmt::format("its model is '{}', expected BPE or Unigram", printable(type)));
  parts.model = type == "BPE" ? read_bpe(model) : read_unigram(model);
  read_steps(json.value("normalizer", Json()), json.value("pre_tokenizer", Json()), parts);
  read_processor(json.value("post_processor", Json()), parts);
  std::vector<AddedToken> added;
  for (const Json& token : json.value("added_tokens", Json::array())) {
    added.push_back(read_added_token(token));
    added.back().id = id_of(token.at("id"));
  }
  // Without a word about it, padding is <pad> where there is one (T5), else what ends a text (CLIP).
  const std::int64_t end = parts.back.empty() ? 0 : parts.back.back();
  add_special_tokens(parts, std::move(added), config, parts.model->find("<pad>").value_or(end));
  return parts;
}

}  // namespace vitrine::detail
