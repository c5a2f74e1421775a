// The table of backbones/README.md.
#pragma once

#include <string>
#include <vector>

#include <vitrine/backbones/backbone.h>

namespace vitrine::command {

// Markdown: a section for each family in `models`, with its attention, its source and its models. Of a family with more than 60
// of them only those with a published accuracy are rows. Parameters and multiply-adds are those of model_cost.
std::string model_table(const std::vector<ModelEntry>& models);

}  // namespace vitrine::command
