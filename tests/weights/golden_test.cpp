// The parameters of the reference cases: their sum of bit patterns must be the one that the references state.
#include <fstream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <catch.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/weights/sources.h>

using namespace vitrine;

TEST_CASE("synthetic parameters of the backbones have the references' checksums") {
  const std::string folder = VITRINE_SHARED_DIR "/goldens/backbones/";
  std::ifstream stream(folder + "cases.json");
  if (!stream) {
    WARN("skipped: there is no " << folder << "cases.json");
    return;
  }
  // One of each kind of name and gain; all of them would be 2.6 billion values.
  const std::set<std::string> wanted = {
      "vit_tiny_patch16_224", "vit_small_patch14_dinov2", "eva02_tiny_patch14_224", "nat_mini", "dinat_s_tiny", "resnet50",
      "halonet50ts",          "xcit_tiny_12_p8_224"};
  std::size_t compared = 0;
  for (const auto& entry : nlohmann::json::parse(stream)) {
    const std::string name = entry.at("name");
    if (!wanted.contains(name)) continue;
    INFO(name);
    std::ifstream file(folder + entry.at("parameters").get<std::string>());
    REQUIRE(file);
    std::vector<std::pair<std::string, Shape>> parameters;
    for (const auto& parameter : nlohmann::json::parse(file))
      parameters.emplace_back(parameter.at(0), Shape(parameter.at(1).get<std::vector<std::int64_t>>()));
    const auto source = synthetic_weights(parameters, entry.value("weight_gain", 1.0));
    CHECK(fmt::format("{:016x}", checksum(*source)) == entry.at("parameters_checksum").get<std::string>());
    ++compared;
  }
  CHECK(compared == wanted.size());
}
