#include <vitrine/pipelines/commands/model_table.h>

#include <algorithm>
#include <cstddef>

#include <fmt/format.h>

#include <vitrine/backbones/model_cost.h>

namespace vitrine::command {

namespace {

constexpr std::ptrdiff_t kMostRows = 60;  // of a family whose other models are counted only

std::string row(const ModelEntry& model) {
  const ModelCost cost = model_cost(model.name);
  const PreprocessConfig input = default_preprocess(model.name);
  return fmt::format("| {} | {:.1f} | {:.2f} | {}x{} | {} |\n", model.name, 1e-6 * static_cast<double>(cost.parameters),
                     1e-9 * static_cast<double>(cost.macs), input.height, input.width, model.top1);
}

}  // namespace

std::string model_table(const std::vector<ModelEntry>& models) {
  std::string text;
  for (auto first = models.begin(); first != models.end();) {
    const auto last = std::find_if(first, models.end(), [&](const ModelEntry& m) { return m.family != first->family; });
    text += fmt::format("{}### {}\n\nAttention: {}. Source: {}.\n", text.empty() ? "" : "\n", first->family, first->attention,
                        first->source);
    const bool all = last - first <= kMostRows;
    std::string rows;
    std::size_t left_out = 0;
    for (auto model = first; model != last; ++model) {
      if (all || !model->top1.empty())
        rows += row(*model);
      else
        ++left_out;
    }
    if (!rows.empty()) text += "\n| model | parameters, M | GMACs | input | top-1, % |\n|---|---|---|---|---|\n" + rows;
    if (left_out > 0)
      text += fmt::format("\n{}{} models without a published accuracy: `vitrine models` lists them.\n",
                          rows.empty() ? "" : "And ", left_out);
    first = last;
  }
  text.pop_back();  // what prints it ends the line
  return text;
}

}  // namespace vitrine::command
