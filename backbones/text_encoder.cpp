#include <vitrine/backbones/text_encoder.h>

#include <iterator>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>

namespace vitrine::detail {
namespace {

bool is_ids(const Tensor& t) { return t.defined() && t.rank() == 2 && (t.dtype() == DType::i64 || t.dtype() == DType::i32); }

[[noreturn]] void refuse(std::string_view model, std::string_view what, const Tensor& t, std::string_view expected) {
  throw Error(fmt::format("{}: {} is {}, expected {}", model, what,
                          t.defined() ? fmt::format("{} {}", name_of(t.dtype()), t.shape().to_string()) : "undefined", expected));
}

}  // namespace

void ignore_transformers_keys(ArgumentReader& reader) {
  reader
      .ignore({"_name_or_path", "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "name_or_path"})
      // of training
      .ignore({"attention_dropout", "dropout", "dropout_rate", "classifier_dropout", "initializer_factor", "initializer_range",
               "gradient_checkpointing", "finetuning_task", "problem_type", "id2label", "label2id"})
      // of decoders and generation
      .ignore({"bos_token_id",
               "pad_token_id",
               "sep_token_id",
               "decoder_start_token_id",
               "forced_bos_token_id",
               "forced_eos_token_id",
               "is_encoder_decoder",
               "is_decoder",
               "add_cross_attention",
               "cross_attention_hidden_size",
               "tie_encoder_decoder",
               "tie_word_embeddings",
               "use_cache",
               "output_past",
               "task_specific_params",
               "prefix",
               "do_sample",
               "early_stopping",
               "num_beams",
               "num_beam_groups",
               "diversity_penalty",
               "temperature",
               "top_k",
               "top_p",
               "typical_p",
               "repetition_penalty",
               "length_penalty",
               "no_repeat_ngram_size",
               "encoder_no_repeat_ngram_size",
               "bad_words_ids",
               "begin_suppress_tokens",
               "suppress_tokens",
               "exponential_decay_length_penalty",
               "num_return_sequences",
               "max_length",
               "min_length",
               "remove_invalid_values"})
      // of what is returned, and how it is run
      .ignore({"output_attentions", "output_hidden_states", "output_scores", "return_dict", "return_dict_in_generate",
               "torchscript", "use_bfloat16", "chunk_size_feed_forward", "pruned_heads", "tokenizer_class", "tf_legacy_loss",
               "attn_implementation", "_attn_implementation", "_attn_implementation_autoset"});
}

Activation parse_hidden_act(std::string_view model, std::string_view argument, std::string_view name) {
  struct Row {
    std::string_view name;
    Activation activation;
  };
  static constexpr Row kRows[] = {{"gelu", Activation::gelu},
                                  {"gelu_python", Activation::gelu},
                                  {"gelu_new", Activation::gelu_tanh},
                                  {"gelu_pytorch_tanh", Activation::gelu_tanh},
                                  {"gelu_fast", Activation::gelu_tanh},
                                  {"gelu_accurate", Activation::gelu_tanh},
                                  {"quick_gelu", Activation::quick_gelu},
                                  {"relu", Activation::relu},
                                  {"silu", Activation::silu},
                                  {"swish", Activation::silu},
                                  {"sigmoid", Activation::sigmoid},
                                  {"tanh", Activation::tanh},
                                  {"hardswish", Activation::hardswish},
                                  {"leaky_relu", Activation::leaky_relu},
                                  {"linear", Activation::none}};
  std::vector<std::string> known;
  for (const Row& row : kRows) {
    if (row.name == name) return row.activation;
    known.emplace_back(row.name);
  }
  throw Error(fmt::format("{}: argument {} names the activation '{}', which is not known{}", model, argument, printable(name),
                          suggest_names(name, known)));
}

Tensor TokenEmbedding::operator()(const Tensor& ids, std::string_view model) const {
  if (!is_ids(ids)) refuse(model, "input_ids", ids, "i64 [B, T]");
  const Tensor rows = ids.contiguous().to(DType::i64);
  for (std::int64_t i = 0; i < rows.numel(); ++i)
    if (const std::int64_t id = rows.data<std::int64_t>()[i]; id < 0 || id >= table.size(0))
      throw Error(
          fmt::format("{}: input_ids has {}, expected 0 to {}: the tokenizer is of another model", model, id, table.size(0) - 1));
  return gather_rows(table, rows);
}

Tensor key_mask(const Tensor& attention_mask, const Shape& shape, std::string_view model) {
  if (!attention_mask.defined()) return {};
  if (!is_ids(attention_mask) || attention_mask.shape() != shape)
    refuse(model, "attention_mask", attention_mask, fmt::format("i64 {}", shape.to_string()));
  const Tensor counts = attention_mask.contiguous().to(DType::i64);
  Tensor mask = Tensor::empty({shape[0], 1, 1, shape[1]}, DType::boolean);
  for (std::int64_t i = 0; i < mask.numel(); ++i) mask.data<bool>()[i] = counts.data<std::int64_t>()[i] != 0;
  return mask;
}

}  // namespace vitrine::detail
