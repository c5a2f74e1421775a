#include <vitrine/weights/shipped.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>

#include <dlfcn.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>

namespace fs = std::filesystem;

namespace vitrine {

namespace {

constexpr std::string_view kRegistry = "weights/registry.json";

bool has_registry(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / kRegistry, error);
}

// The folder that holds this library: what is installed may have been moved, so nothing is compiled in.
fs::path library_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&data_directory), &info) == 0 || !info.dli_fname) return {};
  std::error_code error;
  const fs::path real = fs::canonical(info.dli_fname, error);
  return error ? fs::path() : real.parent_path();
}

std::vector<ShippedModel> read_registry(const fs::path& folder) {
  const fs::path path = folder / kRegistry;
  try {
    std::ifstream stream(path);
    if (!stream) throw Error(fmt::format("{}: cannot be read", path.string()));
    const nlohmann::json registry = nlohmann::json::parse(stream);
    std::vector<ShippedModel> models;
    for (const nlohmann::json& entry : registry.at("models")) {
      ShippedModel model;
      model.name = entry.at("name");
      model.file = (path.parent_path() / entry.at("file").get<std::string>()).string();
      std::error_code error;
      model.present = fs::exists(model.file, error);
      model.family = entry.at("family");
      model.architecture = entry.at("architecture");
      model.config = entry.at("config").dump();
      model.preprocess = entry.at("preprocess").dump();
      model.classes = entry.at("classes").get<std::vector<std::string>>();
      model.source = entry.at("source");
      model.license = entry.at("license");
      model.description = entry.at("description");
      model.accuracy = entry.at("accuracy");
      model.sha256 = entry.at("sha256");
      models.push_back(std::move(model));
    }
    return models;
  } catch (const nlohmann::json::exception& e) {
    throw Error(fmt::format("{}: is not a registry of models: {}", path.string(), detail::printable(e.what(), 200)));
  }
}

}  // namespace

std::string data_directory() {
  if (const char* named = std::getenv("VITRINE_DATA"); named && *named) {
    if (has_registry(named)) return named;
    throw Error(fmt::format("VITRINE_DATA is {}, which has no {}", named, kRegistry));
  }
  const fs::path library = library_folder();
  // Installed: PREFIX/lib and PREFIX/share. In the build folder the data lies below the library.
  const fs::path installed = (library / "../share/vitrine").lexically_normal(), built = library / "share/vitrine";
  for (const fs::path& folder : {installed, built})
    if (!library.empty() && has_registry(folder)) return folder.string();
  throw Error(fmt::format("the data of Vitrine was not found: {} is neither in {} nor in {}; VITRINE_DATA may name its folder",
                          kRegistry, installed.string(), built.string()));
}

const std::vector<ShippedModel>& shipped_models() {
  static const std::vector<ShippedModel> models = read_registry(data_directory());
  return models;
}

std::optional<ShippedModel> find_shipped(std::string_view name) {
  const auto& models = shipped_models();
  const auto found = std::find_if(models.begin(), models.end(), [&](const ShippedModel& m) { return m.name == name; });
  return found == models.end() ? std::nullopt : std::optional(*found);
}

}  // namespace vitrine
