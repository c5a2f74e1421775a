#include <vitrine/pipelines/open_model.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include <vitrine/backbones/transformers.h>
#include <vitrine/weights/sources.h>

namespace fs = std::filesystem;

namespace vitrine {

namespace {

std::string read_text(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

}  // namespace

std::shared_ptr<const WeightSource> open_model_weights(const std::string& name, const FetchProgress& progress) {
  const std::string path = is_hub_name(name) ? fetch_hub_model(hub_settings(), parse_hub_name(name), progress) : name;
  auto source = open_weights(path);
  std::error_code error;
  const fs::path config = fs::path(path) / "config.json";
  if (!fs::is_directory(path, error) || !fs::exists(config, error)) return source;
  return published_weights(std::move(source), read_text(config), read_text(fs::path(path) / "preprocessor_config.json"), name);
}

}  // namespace vitrine
