// What the text encoders (clip_text.h, t5.h) share: keys of transformers' config.json, activations, ids to embeddings.
#pragma once

#include <cstdint>
#include <string_view>

#include <vitrine/backbones/arguments.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine::detail {

// Keys of any config.json of transformers that do not change what an encoder computes.
void ignore_transformers_keys(ArgumentReader& reader);

// transformers' names of activations (hidden_act, the second half of feed_forward_proj).
Activation parse_hidden_act(std::string_view model, std::string_view argument, std::string_view name);

// ids i64 or i32 [B, T] on the host, each from 0 to vocab_size - 1 -> rows of w.weight [vocab_size, dim], [B, T, dim] in the
// table's type.
struct TokenEmbedding {
  TokenEmbedding() = default;
  TokenEmbedding(const Weights& w, std::int64_t vocab_size, std::int64_t dim)
      : table(w.on_device("weight", {vocab_size, dim}, w.dtype())) {}
  Tensor operator()(const Tensor& ids, std::string_view model) const;

  Tensor table;
};

// On the host: attention_mask i64 or i32 of `shape` [B, T], not 0 where a token counts -> boolean [B, 1, 1, T]; undefined stays
// so.
Tensor key_mask(const Tensor& attention_mask, const Shape& shape, std::string_view model);

}  // namespace vitrine::detail
