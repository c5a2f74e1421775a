// vitrine models: the names that --model takes.
#include <fnmatch.h>

#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/attention2d/mixer.h>
#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/commands/model_table.h>
#include <vitrine/pipelines/preprocess.h>
#include <vitrine/weights/shipped.h>

namespace vitrine::command {

namespace {

struct Row {
  ModelEntry entry;
  PreprocessConfig preprocess;
  const ShippedModel* shipped = nullptr;
};

std::vector<Row> find_rows(const std::string& pattern) {
  std::vector<Row> rows;
  for (const ShippedModel& shipped : shipped_models())
    if (fnmatch(pattern.c_str(), shipped.name.c_str(), 0) == 0)
      rows.push_back({{.name = shipped.name, .family = shipped.family, .source = {}, .attention = {}, .top1 = {}},
                      parse_preprocess(shipped.preprocess),
                      &shipped});
  for (const ModelEntry& entry : list_models(pattern)) rows.push_back({entry, default_preprocess(entry.name)});
  return rows;
}

nlohmann::ordered_json to_json(const Row& row) {
  const PreprocessConfig& p = row.preprocess;
  nlohmann::ordered_json json{{"name", row.entry.name},
                              {"family", row.entry.family},
                              {"shipped", row.shipped != nullptr},
                              {"input_size", {p.channels, p.height, p.width}},
                              {"crop_pct", p.crop_pct},
                              {"crop_mode", p.crop_mode},
                              {"interpolation", p.interpolation},
                              {"mean", p.mean},
                              {"std", p.std}};
  if (!row.shipped) {
    json.update({{"source", row.entry.source}, {"attention", row.entry.attention}, {"top1", row.entry.top1}});
  } else {
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

std::string_view kind_text(MixerOptionKind kind) {
  switch (kind) {
    case MixerOptionKind::pair:
      return "integer or [rows,columns]";
    case MixerOptionKind::number:
      return "number";
    case MixerOptionKind::boolean:
      return "true or false";
    case MixerOptionKind::choice:
      return "choice";
    case MixerOptionKind::integer:
      break;
  }
  return "integer";
}

nlohmann::ordered_json default_of(const MixerOption& option) {
  if (option.kind == MixerOptionKind::choice) return std::string(option.choices[static_cast<std::size_t>(option.otherwise)]);
  if (option.kind == MixerOptionKind::boolean) return option.otherwise != 0;
  if (option.kind == MixerOptionKind::number) return option.otherwise;
  return static_cast<std::int64_t>(option.otherwise);
}

std::string range_text(const MixerOption& option) {
  if (option.kind == MixerOptionKind::boolean) return {};
  if (option.kind == MixerOptionKind::choice) return fmt::format("{}", fmt::join(option.choices, ", "));
  return fmt::format("{:.10g} to {:.10g}", option.least, option.most);
}

nlohmann::ordered_json to_json(const Mechanism& mechanism) {
  auto options = nlohmann::ordered_json::array();
  for (const MixerOption& o : mechanism.options) {
    nlohmann::ordered_json json{{"name", o.name}, {"type", kind_text(o.kind)}, {"default", default_of(o)}};
    if (o.kind == MixerOptionKind::choice)
      json["choices"] = o.choices;
    else if (o.kind != MixerOptionKind::boolean)
      json.update({{"least", o.least}, {"most", o.most}});
    json["description"] = o.what;
    options.push_back(std::move(json));
  }
  return {
      {"name", mechanism.name}, {"description", mechanism.what}, {"class_token", mechanism.takes_prefix}, {"options", options}};
}

// Pattern by name, as for models.
int run_attention(Console& console, const std::string& pattern) {
  auto json = nlohmann::ordered_json::array();
  std::vector<std::vector<std::string>> table{{"attention", "option", "default", "range", "description"}};
  std::vector<std::string> names;
  for (const Mechanism& mechanism : mechanisms()) {
    names.emplace_back(mechanism.name);
    if (fnmatch(pattern.c_str(), names.back().c_str(), 0) != 0) continue;
    json.push_back(to_json(mechanism));
    table.push_back({names.back(), "", "", "",
                     fmt::format("{}{}", mechanism.what, mechanism.takes_prefix ? "" : " (maps only: no class token)")});
    for (const MixerOption& o : mechanism.options) {
      const auto value = default_of(o);
      table.push_back(
          {"", std::string(o.name), value.is_string() ? value.get<std::string>() : value.dump(), range_text(o),
           o.kind == MixerOptionKind::pair ? fmt::format("{}; one number or [rows,columns]", o.what) : std::string(o.what)});
    }
  }
  if (json.empty()) throw Error(fmt::format("no attention matches '{}'{}", pattern, detail::suggest_names(pattern, names)));
  if (console.options().json)
    console.print_json(json);
  else
    console.print(format_table(table));
  return kSuccess;
}

int run_table(Console& console, const std::string& pattern) {
  if (console.options().json) throw UsageError("--markdown and --json exclude each other: give one of them");
  const std::vector<ModelEntry> models = list_models(pattern);
  if (models.empty()) throw Error(fmt::format("no published model matches '{}'; `vitrine models` lists all", pattern));
  console.print(model_table(models));
  return kSuccess;
}

int run_models(Console& console, const std::string& pattern) {
  const std::vector<Row> rows = find_rows(pattern);
  if (rows.empty()) {
    std::vector<std::string> names;
    for (const Row& row : find_rows("*")) names.push_back(row.entry.name);
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
    table.push_back({row.entry.name, row.entry.family,
                     fmt::format("{}x{}x{}", row.preprocess.height, row.preprocess.width, row.preprocess.channels),
                     shipped_text(row.shipped)});
  console.print(format_table(table));
  return kSuccess;
}

}  // namespace

const Command kModelsCommand{
    .name = "models",
    .summary = "List the models by name, or the attention that a plain vision transformer can be built with",
    .examples =
        "  vitrine models\n  vitrine models 'vit_small_*'\n  vitrine models nat_fashion --json\n  vitrine models --attention\n  "
        "vitrine models 'swin*' --markdown",
    .declare = [](CLI::App& app) -> std::function<int(Console&)> {
      auto pattern = std::make_shared<std::string>("*");
      app.add_option("PATTERN", *pattern, "Names to list; * is any text, ? any character (default all)")->option_text("");
      auto attention = std::make_shared<bool>(false);
      app.add_flag("--attention", *attention,
                   "List what vit_*[attention=NAME,option=value,...] takes; PATTERN then selects by these names");
      auto markdown = std::make_shared<bool>(false);
      app.add_flag(
             "--markdown", *markdown,
             "Print the table of backbones/README.md: parameters, multiply-adds, input, attention, source, ImageNet-1k top-1")
          ->excludes("--attention");
      return [=](Console& console) {
        if (*markdown) return run_table(console, *pattern);
        return *attention ? run_attention(console, *pattern) : run_models(console, *pattern);
      };
    },
};

}  // namespace vitrine::command
