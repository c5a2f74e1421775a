// CLIP's tokenizer from the files that diffusion models publish it as.
//
// Source: arXiv:2103.00020; transformers 5.23, models/clip/tokenization_clip.py. Texts go through NFC, one space for white space
// and lower case, and are cut into runs of letters, single digits, and runs of what is neither; each is a word for byte-pair
// encoding (text/bpe.h). Unlike OpenAI's own, it does not repair broken Unicode or HTML.
#pragma once

#include <string>

#include <vitrine/layers/export.h>
#include <vitrine/pipelines/tokenizer.h>

namespace vitrine {

// vocab.json, {token: id}, and merges.txt, a line a merge, the best first. tokenizer_config.json and special_tokens_map.json
// beside vocab.json say which token pads (SDXL's second tokenizer: "!"), if they are there. Throws Error.
VITRINE_API Tokenizer open_clip_tokenizer(const std::string& vocab, const std::string& merges);

}  // namespace vitrine
