// The models that come with Vitrine: weights/registry.json of the data directory. That is VITRINE_DATA, or share/vitrine of
// the prefix that the library is installed in, or share/vitrine of the build folder (where it leads to weights/shipped).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/export.h>

namespace vitrine {

struct ShippedModel {
  std::string name;          // "nat_fashion"
  std::string file;          // absolute path of the .safetensors
  bool present = false;      // the file is there (the photograph model is fetched by the set-up)
  std::string family;        // backbone family
  std::string architecture;  // model name or family for create_model
  std::string config;        // JSON object of arguments
  std::string preprocess;    // JSON object
  std::vector<std::string> classes;
  std::string source, license, description, accuracy, sha256;
};

VITRINE_API const std::vector<ShippedModel>& shipped_models();
VITRINE_API std::optional<ShippedModel> find_shipped(std::string_view name);
VITRINE_API std::string data_directory();  // throws Error where none is found, saying where it looked

}  // namespace vitrine
