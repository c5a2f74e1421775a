// vitrine models: the names that --model takes.
#include <fnmatch.h>

#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/preprocess.h>
#include <vitrine/weights/shipped.h>

namespace vitrine::command {

namespace {

struct Row {
  std::string name, family;
  PreprocessConfig preprocess;
  const ShippedModel* shipped = nullptr;
};

std::vector<Row> find_rows(const std::string& pattern) {
  std::vector<Row> rows;
  for (const ShippedModel& shipped : shipped_models())
    if (fnmatch(pattern.c_str(), shipped.name.c_str(), 0) == 0)
      rows.push_back({shipped.name, shipped.family, parse_preprocess(shipped.preprocess), &shipped});
  for (const ModelEntry& entry : list_models(pattern)) rows.push_back({entry.name, entry.family, default_preprocess(entry.name)});
  return rows;
}

nlohmann::ordered_json to_json(const Row& row) {
  const PreprocessConfig& p = row.preprocess;
  nlohmann::ordered_json json{{"name", row.name},
                              {"family", row.family},
                              {"shipped", row.shipped != nullptr},
                              {"input_size", {p.channels, p.height, p.width}},
                              {"crop_pct", p.crop_pct},
                              {"crop_mode", p.crop_mode},
                              {"interpolation", p.interpolation},
                              {"mean", p.mean},
                              {"std", p.std}};
  if (row.shipped) {
    const ShippedModel& s = *row.shipped;
    json.update({{"file", s.file},
                 {"present", s.present},
                 {"classes", s.classes},
                 {"accuracy", s.accuracy},
                 {"source", s.source},
                 {"license", s.license},
                 {"description", s.description},
                 {"sha256", s.sha256}});
  }
  return json;
}

std::string shipped_text(const ShippedModel* shipped) {
  if (!shipped) return {};
  if (!shipped->present) return "shipped, not fetched yet";
  return shipped->accuracy.empty() ? "shipped" : fmt::format("shipped, {}", shipped->accuracy);
}

int run_models(Console& console, const std::string& pattern) {
  const std::vector<Row> rows = find_rows(pattern);
  if (rows.empty()) {
    std::vector<std::string> names;
    for (const Row& row : find_rows("*")) names.push_back(row.name);
    throw Error(fmt::format("no model matches '{}'{}", pattern, detail::suggest_names(pattern, names)));
  }
  if (console.options().json) {
    auto json = nlohmann::ordered_json::array();
    for (const Row& row : rows) json.push_back(to_json(row));
    console.print_json(json);
    return kSuccess;
  }
  std::vector<std::vector<std::string>> table{{"name", "family", "input", "weights"}};
  for (const Row& row : rows)
    table.push_back({row.name, row.family,
                     fmt::format("{}x{}x{}", row.preprocess.height, row.preprocess.width, row.preprocess.channels),
                     shipped_text(row.shipped)});
  console.print(format_table(table));
  return kSuccess;
}

}  // namespace

const Command kModelsCommand{
    .name = "models",
    .summary = "List the models by name",
    .examples = "  vitrine models\n  vitrine models 'vit_small_*'\n  vitrine models nat_fashion --json",
    .declare = [](CLI::App& app) -> std::function<int(Console&)> {
      auto pattern = std::make_shared<std::string>("*");
      app.add_option("PATTERN", *pattern, "Names to list; * is any text, ? any character (default all)")->option_text("");
      return [pattern](Console& console) { return run_models(console, *pattern); };
    },
};

}  // namespace vitrine::command
