// Under which names a folder's parameters are published.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace vitrine::detail {

// What stands for "model.safetensors", best first and the whole file last: its index of shards, itself. Of a variant, as
// diffusers 0.42 and transformers 5.23 name them: model.safetensors.index.fp16.json, model.safetensors.fp16.index.json (what
// diffusers wrote before), model.fp16.safetensors. Throws Error for a variant that is no name.
std::vector<std::string> weight_names(std::string_view usual, std::string_view variant);

// That no part of a pipeline has a variant, as a message.
std::string no_variant(std::string_view where, std::string_view variant);

}  // namespace vitrine::detail
