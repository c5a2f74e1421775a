// T5's tokenizer from a SentencePiece model (spiece.model).
//
// Source: arXiv:1808.06226; transformers' T5Tokenizer (4.x, over SentencePiece). Control symbols in a text (</s>, <pad>) stand
// for themselves; what lies between them goes to SentencePiece, which normalizes it and cuts it. </s> ends a text, <pad> fills it
// up.
#pragma once

#include <string>

#include <vitrine/layers/export.h>
#include <vitrine/pipelines/tokenizer.h>

namespace vitrine {

// tokenizer_config.json and special_tokens_map.json beside the model are looked at, if they are there. Throws Error: not a model,
// a damaged one, one without </s>, or SentencePiece's library is missing.
VITRINE_API Tokenizer open_t5_tokenizer(const std::string& model);

}  // namespace vitrine
