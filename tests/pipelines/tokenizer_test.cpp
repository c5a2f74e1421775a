// Tokenizers: what tokenizers, SentencePiece and transformers answer (tests/data/tokenizers), what is cut and filled up, and
// files and texts that are refused.
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <catch.h>
#include <fmt/format.h>
#include <pipelines/fixtures.h>
#include <nlohmann/json.hpp>

#include <vitrine/pipelines/clip_tokenizer.h>
#include <vitrine/pipelines/t5_tokenizer.h>
#include <vitrine/pipelines/tokenizer.h>

namespace vitrine {
namespace {

using Json = nlohmann::json;
using test::contains;
using test::error_of;
using test::TemporaryFolder;

const std::string kData = VITRINE_SOURCE_DIR "/tests/data/tokenizers/";
const std::string kGoldens = VITRINE_SOURCE_DIR "/tests/data/goldens/text/";

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

Tokenizer clip() { return open_clip_tokenizer(kGoldens + "bpe_order.vocab.json", kGoldens + "bpe_order.merges.txt"); }

// The message of opening a file that has `text`; it is one line and begins with the file's name.
std::string refusal(const std::string& name, const std::string& text) {
  const TemporaryFolder folder;
  const std::string path = write(folder / name, text), message = error_of([&] { open_tokenizer(path); });
  CHECK(message.find('\n') == std::string::npos);
  CHECK((message.empty() || message.starts_with(path + ": ")));
  return message;
}

TEST_CASE("tokenizers give the ids that their originals give") {
  const Json files = Json::parse(read(kData + "answers.json"));
  for (const auto& [file, answers] : files.items()) {
#ifndef VITRINE_SENTENCEPIECE
    if (file.ends_with(".model")) continue;
#endif
    const Tokenizer tokenizer = open_tokenizer(kData + file);
    for (const Json& answer : answers) {
      INFO(file << ": " << answer["text"].dump());
      CHECK(tokenizer.encode(answer["text"].get<std::string>()).ids == answer["ids"].get<std::vector<std::int64_t>>());
    }
  }
}

TEST_CASE("texts are cut and filled up, and what was cut is said") {
  const Tokenizer tokenizer = clip();
  const Json vocab = Json::parse(read(kGoldens + "bpe_order.vocab.json"));
  const auto start = vocab["<|startoftext|>"].get<std::int64_t>(), end = vocab["<|endoftext|>"].get<std::int64_t>();
  const TokenizedText exact = tokenizer.encode("a b", 4), longer = tokenizer.encode("A b", 6),
                      cut = tokenizer.encode("a b  Caf\u00e9 x", 5);
  CHECK(exact.ids.front() == start);
  CHECK(exact.ids.back() == end);
  CHECK(exact.attention_mask == std::vector<std::int64_t>{1, 1, 1, 1});
  CHECK(exact.dropped.empty());
  CHECK(longer.ids == std::vector<std::int64_t>{start, exact.ids[1], exact.ids[2], end, end, end});
  CHECK(longer.attention_mask == std::vector<std::int64_t>{1, 1, 1, 1, 0, 0});
  CHECK(cut.ids.size() == 5);
  CHECK(tokenizer.token(cut.ids[3]) == "c");
  CHECK(cut.dropped == "af\u00e9 x");
  CHECK(tokenizer.encode("a b caf\u00e9", 8).dropped == "\uFFFD");  // of two bytes, the first fitted
  CHECK(tokenizer.encode("a b", 2).dropped == "a b");
  CHECK_THROWS_WITH(tokenizer.encode("a b", 1), contains("max_length is 1, expected at least the 2"));
  const std::vector<std::string> texts{"a", "a b a b a b"};
  const TokenBatch batch = tokenizer.encode_batch(texts, 5);
  CHECK(batch.ids.shape() == Shape{2, 5});
  CHECK(batch.attention_mask.data<std::int64_t>()[4] == 0);
  CHECK(batch.attention_mask.data<std::int64_t>()[9] == 1);
  CHECK(batch.dropped == std::vector<std::string>{"", "b a b"});
  CHECK_THROWS_WITH(tokenizer.encode_batch(texts, 0), contains("max_length is 0"));
  CHECK(open_tokenizer(kData + "t5.json").encode("the cat on two old songs", 4).dropped == "two old songs");
}

TEST_CASE("texts that are no texts are refused in one line") {
  const Tokenizer tokenizer = clip();
  for (const std::string text : {"\xff", "ab\xc3", "\xed\xa0\x80", "a\xc0\x80"})
    CHECK_THROWS_WITH(tokenizer.encode(text), contains("is not UTF-8"));
  CHECK_THROWS_WITH(tokenizer.encode("ab\xc3\x28"), contains("tokenizer: the text: byte 2 is not UTF-8"));
  CHECK_THROWS_WITH(tokenizer.encode(std::string(65537, 'a')), contains("65537 bytes, expected up to 65536"));
}

TEST_CASE("the longest text takes no longer than it must") {
  // One word, which merges again and again; pieces that begin at every character; marks in the wrong order.
  CHECK(clip().encode(std::string(65536, 'a'), 77).ids.size() == 77);
  CHECK(open_tokenizer(kData + "t5.json").encode(std::string(65536, 'e'), 77).ids.size() == 77);
  std::string marks;
  while (marks.size() < 65532) marks += marks.size() % 8 < 4 ? "\u0315" : "\u0327";
  CHECK(clip().encode(marks, 77).ids.size() == 77);
}

TEST_CASE("a folder's configuration says what pads and how long texts are") {
  const TemporaryFolder folder;
  write(folder / "vocab.json", read(kGoldens + "bpe_order.vocab.json"));
  write(folder / "merges.txt", read(kGoldens + "bpe_order.merges.txt"));
  CHECK(open_tokenizer(folder / "").model_max_length() == 0);
  write(folder / "tokenizer_config.json",
        R"({"pad_token": "!", "model_max_length": 77, "bos_token": {"content": "<|startoftext|>"}})");
  const Tokenizer tokenizer = open_tokenizer(folder / "");
  CHECK(tokenizer.model_max_length() == 77);
  const TokenizedText text = tokenizer.encode("a!", 6);  // a token that pads stands for itself in texts, too
  CHECK(std::vector<std::int64_t>(text.ids.begin() + 2, text.ids.end()) == std::vector<std::int64_t>{0, text.ids[3], 0, 0});
  CHECK(tokenizer.token(text.ids[3]) == "<|endoftext|>");
  write(folder / "special_tokens_map.json", R"({"pad_token": {"content": "?", "lstrip": true, "rstrip": true}})");
  CHECK(open_tokenizer(folder / "").encode("a  ?  b", 0).ids.size() == 5);
  write(folder / "special_tokens_map.json", R"({"pad_token": "nowhere"})");
  CHECK_THROWS_WITH(open_tokenizer(folder / ""), contains("vocab.json: the special token 'nowhere' is not in the vocabulary"));
  write(folder / "tokenizer_config.json", R"({"pad_token": 7})");
  CHECK_THROWS_WITH(open_tokenizer(folder / ""), contains("tokenizer_config.json: "));
  std::filesystem::remove(folder / "tokenizer_config.json");
  write(folder / "special_tokens_map.json", R"({"model_max_length": 1000000000000000019884624838656})");
  CHECK(open_tokenizer(folder / "").model_max_length() == 0);
  write(folder / "tokenizer.json", read(kData + "t5.json"));  // goes first
  CHECK(open_tokenizer(folder / "").token(1) == "</s>");
  const TemporaryFolder empty;
  CHECK_THROWS_WITH(open_tokenizer(empty / ""), contains("no tokenizer: expected tokenizer.json"));
  CHECK_THROWS_WITH(open_tokenizer(empty / "t.json"), contains("t.json: no such file"));
}

TEST_CASE("a tokenizer.json and the files that it was made from are the same tokenizer") {
  // clip.json is from the reference's clip_bpe, whose files are those of bpe_order but for the merges.
  const Json json = Json::parse(read(kData + "clip.json"));
  const TemporaryFolder folder;
  std::string merges = "#version: 0.2\r\n";
  for (const Json& merge : json["model"]["merges"])
    merges += fmt::format("{} {}\r\n", merge[0].get<std::string>(), merge[1].get<std::string>());
  write(folder / "vocab.json", json["model"]["vocab"].dump());
  write(folder / "merges.txt", merges);
  write(folder / "special_tokens_map.json", R"({"pad_token": "!"})");
  const Tokenizer from_files = open_tokenizer(folder / ""), from_json = open_tokenizer(kData + "clip.json");
  const Json answers = Json::parse(read(kData + "answers.json"));
  for (const Json& answer : answers["clip.json"]) {
    const auto text = answer["text"].get<std::string>();
    CHECK(from_files.encode(text).ids == from_json.encode(text).ids);
  }
}

TEST_CASE("damaged and hostile vocabularies and merges are refused in one line") {
  const std::string vocab = read(kGoldens + "bpe_order.vocab.json");
  const auto opened = [&](const std::string& vocab_text, const std::string& merges) {
    const TemporaryFolder folder;
    write(folder / "vocab.json", vocab_text);
    write(folder / "merges.txt", merges);
    const std::string message = error_of([&] { open_tokenizer(folder / ""); });
    CHECK(message.find('\n') == std::string::npos);
    return message;
  };
  CHECK(opened(vocab, "#version: 0.2\na b\n").empty());
  CHECK_THAT(opened("", ""), contains("vocab.json: parse error"));
  CHECK_THAT(opened(vocab.substr(0, 700), ""), contains("vocab.json: parse error"));
  CHECK_THAT(opened("[1, 2]", ""), contains("not an object of tokens and ids"));
  CHECK_THAT(opened(R"({"a": "b"})", ""), contains("a token has the id \"b\", expected 0 to 2147483647"));
  CHECK_THAT(opened(R"({"a": -1})", ""), contains("a token has the id -1, expected 0 to 2147483647"));
  CHECK_THAT(opened(R"({"a": 18446744073709551615})", ""), contains("a token has the id 18446744073709551615"));
  CHECK_THAT(opened(R"({"a": 1.5})", ""), contains("a token has the id 1.5,"));
  CHECK_THAT(opened(R"({"a": 1, "aa": 2})", "a a"),
             contains("merges.txt: the token for unknown characters, '<|endoftext|>', is not in the vocabulary"));
  CHECK_THAT(opened("{\"\xff\": 1}", ""), contains("vocab.json: parse error"));
  CHECK_THAT(opened(std::string(100000, '['), ""), contains("nested deeper than 16"));
  CHECK_THAT(opened(vocab, "a b c\n"), contains("merges.txt: the merge 'a b c' is not two tokens"));
  CHECK_THAT(opened(vocab, "ab\n"), contains("is not two tokens"));
  CHECK_THAT(opened(vocab, "a \n"), contains("is not two tokens"));
  CHECK_THAT(opened(vocab, "a \xff\n"), contains("is not in the vocabulary"));
  CHECK_THAT(opened(vocab, "a q\n"), contains("the merge 'a q' needs 'aq', which is not in the vocabulary"));
  // Merges that make their own parts: each takes a symbol away, so that there is an end.
  const TemporaryFolder folder;
  write(folder / "vocab.json",
        R"({"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "ab": 4, "aba": 5, "<|startoftext|>": 6, "<|endoftext|>": 7})");
  write(folder / "merges.txt", "ab a\na b\na b\nab a\n");
  CHECK(open_tokenizer(folder / "").encode("abab").ids == std::vector<std::int64_t>{6, 5, 3, 7});
}

TEST_CASE("damaged and hostile tokenizer.json files are refused in one line") {
  const Json right = Json::parse(read(kData + "t5.json"));
  const auto changed = [&](const char* at, const Json& value) {
    Json json = right;
    json[Json::json_pointer(at)] = value;
    return refusal("tokenizer.json", json.dump());
  };
  CHECK(refusal("tokenizer.json", right.dump()).empty());
  const Json metaspace{{"type", "Metaspace"}, {"replacement", "_"}};
  const struct {
    const char* at;
    Json value;
    const char* message;
  } cases[] = {
      {"/model/type", "WordPiece", "its model is 'WordPiece', expected BPE or Unigram"},
      {"/model", nullptr, "cannot use value() with null"},
      {"/model/vocab", 7, "cannot use at() with number"},
      {"/model/vocab/3", {"a"}, "out of range"},
      {"/model/vocab/3", {"a", "b"}, "type must be number"},
      {"/model/vocab/3", {std::string(1025, 'a'), 0}, "piece 3 has 1025 bytes, expected up to 1024"},
      {"/model/unk_id", 1000, "unk_id is 1000, expected 0 to"},
      {"/model/unk_id", -1, "a token has the id -1"},
      {"/added_tokens/0/id", -5, "a token has the id -5"},
      {"/added_tokens/0/single_word", true, "the token '<pad>' is for single words"},
      {"/added_tokens", 1, "cannot use at() with number"},
      {"/normalizer/normalizers/1/type", "BertNormalizer",
       R"(makes use of {"strip_left":false,"strip_right":true,"type":"BertNormalizer"})"},
      {"/normalizer/normalizers/2/pattern/Regex", "(a+)+$", "makes use of"},
      {"/normalizer/normalizers/2/pattern", {{"String", ""}}, "makes use of"},
      {"/normalizer/normalizers/2/content", std::string(65, 'x'), "makes use of"},
      {"/normalizer/normalizers/0/precompiled_charsmap", "AAQ*", "precompiled_charsmap is not base64"},
      {"/normalizer/normalizers/0/precompiled_charsmap", "", "precompiled_charsmap: a trie of 0 bytes in 0"},
      {"/normalizer/normalizers/0/precompiled_charsmap", "AAQAAAAA", "precompiled_charsmap: a trie of 1024 bytes in 6"},
      {"/pre_tokenizer/type", "Punctuation", "makes use of"},
      {"/pre_tokenizer/prepend_scheme", "sometimes", "makes use of"},
      {"/pre_tokenizer/replacement", "", "makes use of"},
      {"/post_processor/type", "Other", "makes use of the post-processor Other"},
      {"/post_processor/single", Json::array(), "its template has no place for the text"},
      {"/post_processor/special_tokens", Json::object(), "key '</s>' not found"},
  };
  for (const auto& c : cases) {
    INFO(c.at);
    CHECK_THAT(changed(c.at, c.value), contains(c.message));
  }
  CHECK_THAT(refusal("tokenizer.json", "[]"), contains("not a tokenizer"));
  CHECK_THAT(refusal("tokenizer.json", "{"), contains("parse error"));
  CHECK_THAT(refusal("tokenizer.json", std::string(1000, '[')), contains("nested deeper"));
  // A step that finds its place in the original text, after one that loses it.
  Json first = right;
  first["normalizer"] = {{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}};
  CHECK(refusal("tokenizer.json", first.dump()).empty());
  first["pre_tokenizer"]["prepend_scheme"] = "first";
  CHECK_THAT(refusal("tokenizer.json", first.dump()), contains("makes use of"));
  // Steps that make a text a million times as large.
  Json growing = right;
  const Json step{{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(64, 'a')}};
  growing["normalizer"] = {{"type", "Sequence"}, {"normalizers", {step, step, step}}};
  const TemporaryFolder folder;
  const Tokenizer tokenizer = open_tokenizer(write(folder / "tokenizer.json", growing.dump()));
  CHECK(tokenizer.encode("a").ids.size() > 1);
  CHECK_THROWS_WITH(tokenizer.encode(std::string(100, 'a')), contains("becomes larger than 2097152 bytes"));
  std::ofstream(folder / "large.json").close();
  std::filesystem::resize_file(folder / "large.json", (std::uintmax_t{1} << 26) + 1);
  CHECK_THROWS_WITH(open_tokenizer(folder / "large.json"),
                    contains("67108865 bytes, expected a tokenizer's file of up to 67108864"));
}

TEST_CASE("a damaged table of replacements never leads out of itself") {
  const Json right = Json::parse(read(kData + "t5.json"));
  const auto text = right["normalizer"]["normalizers"][0]["precompiled_charsmap"].get<std::string>();
  std::size_t refused = 0;
  const TemporaryFolder folder;
  for (std::size_t at = 0; at + 1 < text.size(); at += 7) {
    Json json = right;
    std::string damaged = text;
    damaged[at] = damaged[at] == '/' ? 'A' : '/';
    json["normalizer"]["normalizers"][0]["precompiled_charsmap"] = damaged;
    const std::string path = write(folder / "tokenizer.json", json.dump());
    const std::string message =
        error_of([&] { open_tokenizer(path).encode("the caf\u00e9 \uff36\u00bd\u3000\u2460 \ufb01 \u33d2"); });
    CHECK(message.find('\n') == std::string::npos);
    refused += !message.empty();
  }
  CHECK(refused > 20);
}

#ifdef VITRINE_SENTENCEPIECE
TEST_CASE("damaged SentencePiece models are refused in one line") {
  const std::string right = read(kData + "spiece.model");
  CHECK(refusal("t.model", right).empty());
  CHECK_FALSE(refusal("t.model", "").empty());
  CHECK_FALSE(refusal("t.model", "This is a text and nothing else.").empty());
  for (std::size_t size = 1; size < right.size(); size += 13) refusal("t.model", right.substr(0, size));
  std::size_t refused = 0;
  for (std::size_t at = 0; at < right.size(); at += 5) {
    std::string damaged = right;
    damaged[at] = static_cast<char>(damaged[at] ^ 0xFF);
    const TemporaryFolder folder;
    const std::string path = write(folder / "t.model", damaged);
    const std::string message =
        error_of([&] { open_tokenizer(path).encode("the caf\u00e9 \uff36\u00bd\u3000\u2460 \ufb01 \u33d2", 20); });
    CHECK(message.find('\n') == std::string::npos);
    refused += !message.empty();
  }
  CHECK(refused > 50);
}
#else
TEST_CASE("without SentencePiece a model is refused with a way out") {
  CHECK_THROWS_WITH(open_tokenizer(kData + "spiece.model"), contains("use a tokenizer.json instead"));
}
#endif

}  // namespace
}  // namespace vitrine
