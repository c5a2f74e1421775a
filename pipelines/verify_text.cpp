// Reference cases of text: encoders and tokenizers.
#include <map>
#include <string>

#include <vitrine/backbones/clip_text.h>
#include <vitrine/backbones/t5.h>
#include <vitrine/pipelines/detail/verify_generation.h>

namespace vitrine::detail {
namespace {

Arguments model_arguments(const Json& entry) {
  Arguments arguments;
  for (const auto& [name, value] : entry.at("config").at("model").items()) arguments[name] = value.dump();
  return arguments;
}

// An input of ids, or nothing.
Tensor ids_of(const Json& entry, const char* name) {
  const Json& inputs = entry.at("inputs");
  return inputs.contains(name) ? case_input(inputs[name]) : Tensor();
}

void run_clip_text(const Json& entry, const CaseContext& context, VerifyRow& row) {
  check_members(entry.at("config"), {"model", "projection"}, "config");
  ClipTextConfig config = parse_clip_text_config(model_arguments(entry));
  config.projection = entry["config"].value("projection", false);
  const ClipTextModel model(case_weights(entry.at("parameters"), context), config);
  const ClipTextModel::States states = model.forward(ids_of(entry, "input_ids"), ids_of(entry, "attention_mask"));
  judge_outputs(
      entry, context,
      {{"last_hidden_state", states.last_hidden_state}, {"penultimate", states.hidden_state}, {"pooled", states.pooled}},
      {.exact = 6e-6}, row);
}

// T5's logits are large: PyTorch in bf16 is at 0.058 of t5_encoder, and rounding the embeddings alone makes 0.018.
constexpr double kT5Loose = 0.06;

void run_t5_encoder(const Json& entry, const CaseContext& context, VerifyRow& row) {
  check_members(entry.at("config"), {"model"}, "config");
  const T5Encoder model(case_weights(entry.at("parameters"), context), parse_t5_config(model_arguments(entry)));
  const Tensor states = model.forward(ids_of(entry, "input_ids"), ids_of(entry, "attention_mask"));
  judge_outputs(entry, context, {{"last_hidden_state", states}}, {.exact = 4e-5, .loose = kT5Loose}, row);
}

}  // namespace

std::span<const GenerationKind> text_kinds() {
  static constexpr GenerationKind kKinds[] = {
      {"clip_text", run_clip_text},
      {"t5_encoder", run_t5_encoder},
  };
  return kKinds;
}

}  // namespace vitrine::detail
