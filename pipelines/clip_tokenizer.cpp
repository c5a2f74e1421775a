#include <vitrine/pipelines/clip_tokenizer.h>

#include <filesystem>
#include <memory>
#include <sstream>
#include <utility>

#include <vitrine/pipelines/text/bpe.h>
#include <vitrine/pipelines/text/steps.h>
#include <vitrine/pipelines/text/tokenizer_files.h>

namespace vitrine {
namespace {

using detail::reading;

std::vector<std::pair<std::string, std::string>> read_merges(const std::string& text) {
  std::vector<std::pair<std::string, std::string>> merges;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(detail::split_merge(std::move(line)));
  }
  return merges;
}

}  // namespace

Tokenizer open_clip_tokenizer(const std::string& vocab, const std::string& merges) {
  detail::TokenizerConfig config = detail::read_tokenizer_config(std::filesystem::path(vocab).parent_path().string());
  if (!config.bos) config.bos = detail::AddedToken{.content = "<|startoftext|>"};
  if (!config.eos) config.eos = detail::AddedToken{.content = "<|endoftext|>"};
  detail::BpeConfig bpe;
  bpe.unk_token = config.unk ? config.unk->content : "<|endoftext|>";
  bpe.end_of_word_suffix = "</w>";
  const std::string vocab_text = detail::read_tokenizer_text(vocab), merges_text = detail::read_tokenizer_text(merges);
  reading(vocab, [&] { bpe.vocab = detail::read_vocab(detail::parse_tokenizer_json(vocab_text)); });
  detail::TokenizerParts parts;
  reading(merges, [&] {
    bpe.merges = read_merges(merges_text);
    if (bpe.merges.empty()) throw Error("has no merges (an unfinished download?)");
    parts.model = std::make_shared<detail::Bpe>(std::move(bpe));
  });
  parts.normalizers = detail::clip_normalizers();
  parts.pre_tokenizers = {detail::clip_words()};
  reading(vocab, [&] {
    detail::add_special_tokens(parts, {}, config, 0);
    parts.front = {*parts.added.find(config.bos->content)};
    parts.back = {*parts.added.find(config.eos->content)};
    if (!config.pad) parts.pad_id = parts.back[0];
  });
  return Tokenizer(std::move(parts));
}

}  // namespace vitrine
