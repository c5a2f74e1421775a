// One file of the format, which open_safetensors() and sharded sets are made of.
#pragma once

#include <memory>
#include <string>

#include <vitrine/layers/weights.h>

namespace vitrine::detail {

std::shared_ptr<const WeightSource> open_safetensors_file(const std::string& path);

}  // namespace vitrine::detail
