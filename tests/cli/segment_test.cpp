#include <catch.h>
#include <weights/files.h>

#include <nlohmann/json.hpp>

#include <vitrine/pipelines/image.h>
#include <vitrine/weights/shipped.h>

#include "cli/run.h"

using nlohmann::json;

namespace {

bool have_model() {
  const auto model = vitrine::find_shipped("vit_small_patch14_focus");
  if (model && model->present) return true;
  WARN("skipped: the photograph model was not fetched");
  return false;
}

}  // namespace

TEST_CASE("segment writes four files a picture, at the picture's own size") {
  if (!have_model()) return;
  const Folder folder;
  const RunResult result = run_vitrine({"segment", example_image("coffee.png"), "--out", folder / "new/results", "--json"});
  INFO(result.err);
  REQUIRE(result.code == 0);
  const json printed = json::parse(result.out)[0], stored = json::parse(read_bytes(folder / "new/results/coffee.json"));
  CHECK(printed == stored);
  CHECK(stored["width"] == 600);
  CHECK(stored["height"] == 400);
  CHECK(stored["threshold_of_range"] == 0.5);

  const auto importance = vitrine::read_image(folder / "new/results/coffee.importance.png", 1);
  const auto mask = vitrine::read_image(folder / "new/results/coffee.mask.png", 1);
  const auto overlay = vitrine::read_image(folder / "new/results/coffee.overlay.png");
  for (const vitrine::Image* image : {&importance, &mask, &overlay}) {
    CHECK(image->width == 600);
    CHECK(image->height == 400);
  }
  // The mask is where the map reaches the threshold: a grey level apart, for the map was rounded.
  const double threshold = 255.0 * stored["threshold"].get<double>();
  std::int64_t wrong = 0, set = 0;
  for (std::size_t i = 0; i < mask.pixels.size(); ++i) {
    set += mask.pixels[i] == 255;
    wrong += mask.pixels[i] == 255 ? importance.pixels[i] < threshold - 1 : importance.pixels[i] > threshold + 1;
    wrong += mask.pixels[i] != 0 && mask.pixels[i] != 255;
  }
  CHECK(wrong == 0);
  // The cup, not the table.
  CHECK(mask.pixels[150 * 600 + 300] == 255);
  CHECK(mask.pixels[390 * 600 + 590] == 0);
  REQUIRE(!stored["regions"].empty());
  const json& region = stored["regions"][0];
  CHECK(region["area"].get<std::int64_t>() <= set);
  CHECK(region["box"][0].get<int>() < 200);
  CHECK(region["box"][0].get<int>() + region["box"][2].get<int>() > 400);
  CHECK(region["score"].get<double>() >= stored["threshold"].get<double>());
}

TEST_CASE("inputs with one name get numbered results, and failures do not take a number") {
  if (!have_model()) return;
  const Folder folder;
  for (const char* name : {"a", "b", "c"}) std::filesystem::create_directory(folder / name);
  std::filesystem::copy_file(example_image("clothes/bag.png"), folder / "a/x.png");
  write_bytes(folder / "b/x.png", "broken");
  std::filesystem::copy_file(example_image("clothes/coat.png"), folder / "c/x.png");
  const RunResult result =
      run_vitrine({"segment", folder / "a/x.png", folder / "b/x.png", folder / "c/x.png", "--out", folder / "out"});
  CHECK(result.code == 1);
  CHECK(result.err.find("b/x.png") != std::string::npos);
  CHECK(json::parse(read_bytes(folder / "out/x.json"))["image"] == folder / "a/x.png");
  CHECK(json::parse(read_bytes(folder / "out/x-2.json"))["image"] == folder / "c/x.png");
  CHECK(std::distance(std::filesystem::directory_iterator(folder / "out"), std::filesystem::directory_iterator()) == 8);
}

TEST_CASE("thin pictures can be segmented, and the threshold moves the mask") {
  if (!have_model()) return;
  const Folder folder;
  for (const auto& [width, height] : {std::pair{1, 1}, std::pair{1, 3000}}) {
    vitrine::Image image{width, height, 3, std::vector<std::uint8_t>(static_cast<std::size_t>(3 * width * height), 100)};
    vitrine::write_image(folder / "thin.png", image);
    const RunResult result = run_vitrine({"segment", folder / "thin.png", "--out", folder / "out"});
    CHECK(result.code == 0);
    CHECK(vitrine::read_image(folder / "out/thin.mask.png", 1).height == height);
  }
  std::int64_t before = -1;
  for (const char* threshold : {"0.9", "0.5", "0.1"}) {
    CHECK(run_vitrine({"segment", example_image("rocket.jpg"), "--out", folder / "out", "--threshold", threshold}).code == 0);
    const auto mask = vitrine::read_image(folder / "out/rocket.mask.png", 1);
    const auto set = std::count(mask.pixels.begin(), mask.pixels.end(), 255);
    CHECK(set > before);
    before = set;
  }
}

TEST_CASE("a classifier is no segmentation model") {
  const Folder folder;
  const RunResult result =
      run_vitrine({"segment", example_image("coffee.png"), "--model", "nat_fashion", "--out", folder / "out"});
  CHECK(result.code == 1);
  CHECK(result.error_lines() == 1);
  CHECK(result.err.find("vit_small_patch14_focus") != std::string::npos);
}

TEST_CASE("a folder for results that is a file") {
  const Folder folder;
  write_bytes(folder / "file", "");
  const RunResult result = run_vitrine({"segment", example_image("coffee.png"), "--out", folder / "file"});
  CHECK(result.code == 1);
  CHECK(result.error_lines() == 1);
  CHECK(result.err.find("file") != std::string::npos);
}
