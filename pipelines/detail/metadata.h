// What training wrote beside the weights of a file. Not installed.
#pragma once

#include <string>
#include <vector>

#include <vitrine/layers/weights.h>

namespace vitrine::detail {

std::string metadata_value(const WeightSource& source, const std::string& key);  // "" where there is none
// "classes", a JSON list of names; empty where there is none. Throws Error for anything else.
std::vector<std::string> metadata_classes(const WeightSource& source);

}  // namespace vitrine::detail
