#include <catch.h>
#include <weights/files.h>

#include <cmath>

#include <nlohmann/json.hpp>

#include <vitrine/pipelines/image.h>

#include "cli/run.h"

using nlohmann::json;

TEST_CASE("pooled features: a row a picture, the same in both file formats") {
  const Folder folder;
  const RunResult tensors = run_vitrine({"features", example_image("clothes"), "--out", folder / "f.safetensors", "--json"});
  INFO(tensors.err);
  REQUIRE(tensors.code == 0);
  CHECK(json::parse(tensors.out)["shape"] == json{10, 96});
  const auto source = vitrine::open_safetensors(folder / "f.safetensors");
  CHECK(source->metadata().at("tokens") == "pooled");
  CHECK(json::parse(source->metadata().at("images")).size() == 10);
  const vitrine::Tensor features = source->load("features", {});
  REQUIRE(features.shape() == vitrine::Shape{10, 96});

  REQUIRE(run_vitrine({"features", example_image("clothes"), "--out", folder / "f.npy", "--batch-size", "4"}).code == 0);
  const std::string npy = read_bytes(folder / "f.npy");
  REQUIRE(npy.substr(1, 5) == "NUMPY");
  CHECK(npy.find("'shape': (10, 96)") != std::string::npos);
  CHECK(npy.find("'<f4'") != std::string::npos);
  std::vector<float> values(10 * 96);
  REQUIRE(npy.size() > 4 * values.size());
  std::memcpy(values.data(), npy.data() + npy.size() - 4 * values.size(), 4 * values.size());
  for (std::size_t i = 0; i < values.size(); ++i) CHECK(std::abs(values[i] - features.data<float>()[i]) < 1e-4f);
}

TEST_CASE("patch tokens are a map, and their components a picture beside the photograph") {
  const Folder folder;
  const RunResult result = run_vitrine({"features", example_image("clothes/coat.png"), "--tokens", "patch", "--picture", "--out",
                                        folder / "f.safetensors", "--json"});
  INFO(result.err);
  REQUIRE(result.code == 0);
  const json printed = json::parse(result.out);
  CHECK(printed["shape"] == json{1, 5, 5, 96});
  REQUIRE(printed["pictures"].size() == 1);
  CHECK(printed["pictures"][0] == folder / "coat.features.png");
  const auto picture = vitrine::read_image(folder / "coat.features.png");
  CHECK(picture.height == 28);
  CHECK(picture.width == 28 + 8 + 28);
}

TEST_CASE("a model without a class token says so; pictures that fail have no row") {
  const Folder folder;
  const RunResult none =
      run_vitrine({"features", example_image("clothes/coat.png"), "--tokens", "cls", "--out", folder / "f.npy"});
  CHECK(none.code == 1);
  CHECK(none.error_lines() == 1);
  CHECK(none.err.find("class token") != std::string::npos);
  CHECK(!std::filesystem::exists(folder / "f.npy"));

  write_bytes(folder / "broken.png", "");
  const RunResult some =
      run_vitrine({"features", folder / "broken.png", example_image("clothes/coat.png"), "--out", folder / "f.npy", "--json"});
  CHECK(some.code == 1);
  CHECK(json::parse(some.out)["shape"] == json{1, 96});
  CHECK(json::parse(some.out)["images"] == json{example_image("clothes/coat.png")});
}
