#include <vitrine/pipelines/detail/metadata.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/layers/error.h>

namespace vitrine::detail {

std::string metadata_value(const WeightSource& source, const std::string& key) {
  const auto metadata = source.metadata();
  const auto found = metadata.find(key);
  return found == metadata.end() ? std::string() : found->second;
}

std::vector<std::string> metadata_classes(const WeightSource& source) {
  const std::string json = metadata_value(source, "classes");
  if (json.empty()) return {};
  const auto value = nlohmann::json::parse(json, nullptr, false);
  const auto refuse = [&] { return Error(fmt::format("{}: metadata 'classes' is not a JSON list of names", source.describe())); };
  std::vector<std::string> classes;
  if (!value.is_array()) throw refuse();
  for (const auto& name : value) {
    if (!name.is_string()) throw refuse();
    classes.push_back(name.get<std::string>());
  }
  return classes;
}

}  // namespace vitrine::detail
