// Reference cases of text: encoders and tokenizers.
#include <map>
#include <string>

#include <fmt/format.h>

#include <vitrine/backbones/clip_text.h>
#include <vitrine/backbones/t5.h>
#include <vitrine/pipelines/clip_tokenizer.h>
#include <vitrine/pipelines/detail/verify_generation.h>
#include <vitrine/pipelines/text/tokenizer_files.h>

namespace vitrine::detail {
namespace {

void run_clip_text(const Json& entry, const CaseContext& context, VerifyRow& row) {
  check_members(entry.at("config"), {"model", "projection"}, "config");
  ClipTextConfig config = parse_clip_text_config(case_arguments(entry));
  config.projection = entry["config"].value("projection", false);
  const ClipTextModel model(case_weights(entry.at("parameters"), context), config);
  const ClipTextModel::States states = model.forward(optional_input(entry, "input_ids"), optional_input(entry, "attention_mask"));
  judge_outputs(
      entry, context,
      {{"last_hidden_state", states.last_hidden_state}, {"penultimate", states.hidden_state}, {"pooled", states.pooled}},
      {.exact = 6e-6}, row);
}

// T5's logits are large: PyTorch in bf16 is at 0.058 of t5_encoder, and rounding the embeddings alone makes 0.018.
constexpr double kT5Loose = 0.06;

void run_t5_encoder(const Json& entry, const CaseContext& context, VerifyRow& row) {
  check_members(entry.at("config"), {"model"}, "config");
  const T5Encoder model(case_weights(entry.at("parameters"), context), parse_t5_config(case_arguments(entry)));
  const Tensor states = model.forward(optional_input(entry, "input_ids"), optional_input(entry, "attention_mask"));
  judge_outputs(entry, context, {{"last_hidden_state", states}}, {.exact = 4e-5, .loose = kT5Loose}, row);
}

// Ids must be equal, and so must the mask and the tokens' names where the answer has them.
void judge_answers(const Json& entry, const Tokenizer& tokenizer, std::int64_t max_length, VerifyRow& row) {
  const Json& answers = entry.at("answers");
  row.output = "ids";
  row.dtype = name_of(DType::i64);
  const auto check = [&](const Json& answer, const char* member, const Json& got) {
    if (!row.message.empty() || !answer.contains(member) || answer[member] == got) return;
    row.max_abs = 1;
    row.message = fmt::format("{} of {}: {}, expected {}", member, answer.at("text").dump(), got.dump(), answer[member].dump());
  };
  for (const Json& answer : answers) {
    const auto text = answer.at("text").get<std::string>();
    const TokenizedText result = tokenizer.encode(text, max_length);
    check(answer, "ids", result.ids);
    check(answer, "attention_mask", result.attention_mask);
  }
  if (answers.empty()) throw Error("the case has no answers");
}

void run_clip_bpe(const Json& entry, const CaseContext& context, VerifyRow& row) {
  check_members(entry.at("config"), {"merges", "max_length", "texts"}, "config");
  const std::string name = path_in(context, entry.at("name"));
  const Tokenizer tokenizer = open_clip_tokenizer(name + ".vocab.json", name + ".merges.txt");
  judge_answers(entry, tokenizer, entry["config"].at("max_length").get<std::int64_t>(), row);
  for (const Json& answer : entry["answers"]) {
    Json tokens = Json::array();
    for (const std::int64_t id : tokenizer.encode(answer.at("text").get<std::string>()).ids)
      tokens.push_back(tokenizer.token(id));
    if (row.message.empty() && answer.contains("tokens") && answer["tokens"] != tokens)
      row.message = fmt::format("tokens of {}: {}, expected {}", answer["text"].dump(), tokens.dump(), answer["tokens"].dump());
  }
}

// The case as the tokenizer.json that it comes from.
void run_unigram(const Json& entry, const CaseContext&, VerifyRow& row) {
  const Json& config = entry.at("config");
  check_members(config, {"pieces", "unk_id", "eos_id", "texts"}, "config");
  const Json tokenizer{{"model", {{"type", "Unigram"}, {"vocab", config.at("pieces")}, {"unk_id", config.at("unk_id")}}},
                       {"pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "always"}}},
                       {"post_processor",
                        {{"type", "TemplateProcessing"},
                         {"single", {{{"Sequence", {{"id", "A"}}}}, {{"SpecialToken", {{"id", "end"}}}}}},
                         {"special_tokens", {{"end", {{"ids", {config.at("eos_id")}}}}}}}}};
  judge_answers(entry, Tokenizer(read_tokenizer_json(tokenizer.dump(), {})), 0, row);
}

}  // namespace

std::span<const GenerationKind> text_kinds() {
  static constexpr GenerationKind kKinds[] = {
      {"clip_text", run_clip_text},
      {"t5_encoder", run_t5_encoder},
      {"clip_bpe", run_clip_bpe},
      {"unigram", run_unigram},
  };
  return kKinds;
}

}  // namespace vitrine::detail
