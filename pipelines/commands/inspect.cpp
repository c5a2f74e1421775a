// vitrine inspect: what a checkpoint holds.
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/commands/model_options.h>
#include <vitrine/pipelines/open_model.h>
#include <vitrine/weights/sources.h>

namespace vitrine::command {

namespace {

struct Totals {
  std::int64_t tensors = 0, elements = 0, bytes = 0;
};

// A value of the metadata that is JSON itself is shown as such.
nlohmann::ordered_json metadata_value(const std::string& text) {
  auto value = nlohmann::ordered_json::parse(text, nullptr, false);
  return value.is_structured() ? value : nlohmann::ordered_json(text);
}

int run_inspect(Console& console, const std::string& path) {
  const auto source = open_model_weights(path, show_downloads(console));
  Totals totals;
  auto tensors = nlohmann::ordered_json::array();
  std::vector<std::vector<std::string>> table{{"tensor", "type", "shape", "elements"}};
  for (const std::string& name : source->names()) {
    const auto entry = source->find(name);
    const std::int64_t elements = entry->shape.numel();
    ++totals.tensors;
    totals.elements += elements;
    totals.bytes += elements * static_cast<std::int64_t>(size_of(entry->dtype));
    if (console.options().json)
      tensors.push_back(
          {{"name", name}, {"dtype", name_of(entry->dtype)}, {"shape", std::vector(entry->shape.begin(), entry->shape.end())}});
    else
      table.push_back({name, std::string(name_of(entry->dtype)), entry->shape.to_string(), std::to_string(elements)});
  }
  const auto metadata = source->metadata();
  if (console.options().json) {
    nlohmann::ordered_json json{{"file", source->describe()},
                                {"tensors", totals.tensors},
                                {"elements", totals.elements},
                                {"bytes", totals.bytes},
                                {"metadata", nlohmann::ordered_json::object()},
                                {"entries", tensors}};
    for (const auto& [key, value] : metadata) json["metadata"][key] = metadata_value(value);
    console.print_json(json);
    return kSuccess;
  }
  constexpr int kRight[] = {3};
  console.print(format_table(table, kRight));
  if (!metadata.empty()) console.print("");
  for (const auto& [key, value] : metadata) console.print(fmt::format("{}: {}", key, value));
  console.print(fmt::format("\n{} tensors, {} elements, {:.2f} MB", totals.tensors, totals.elements,
                            static_cast<double>(totals.bytes) / 1e6));
  return kSuccess;
}

}  // namespace

const Command kInspectCommand{
    .name = "inspect",
    .summary = "List the tensors and metadata of a checkpoint",
    .examples =
        "  vitrine inspect weights/shipped/nat_fashion.safetensors\n"
        "  vitrine inspect swin_tiny.pth\n"
        "  vitrine inspect hf:timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k\n"
        "  vitrine inspect sharded/model.safetensors.index.json --json",
    .declare = [](CLI::App& app) -> std::function<int(Console&)> {
      auto path = std::make_shared<std::string>();
      app.add_option("FILE", *path,
                     "A checkpoint: .safetensors, .pth, .pt, .bin, .onnx, an index.json, a folder with one, or hf:OWNER/NAME")
          ->required()
          ->option_text("");
      return [path](Console& console) { return run_inspect(console, *path); };
    },
};

}  // namespace vitrine::command
