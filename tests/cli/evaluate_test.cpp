#include <catch.h>
#include <weights/files.h>

#include <csignal>
#include <thread>

#include <nlohmann/json.hpp>

#include <vitrine/pipelines/image.h>

#include "cli/run.h"

using nlohmann::json;

namespace {

// In the order of the classes.
constexpr const char* kClothes[] = {"t_shirt_top", "trouser", "pullover", "dress", "coat",
                                    "sandal",      "shirt",   "sneaker",  "bag",   "ankle_boot"};

std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xff);
  return bytes;
}

// MNIST's files with the ten clothes, `times` over.
void write_idx(const Folder& folder, std::uint32_t times) {
  std::string pixels, labels, all_pixels, all_labels;
  for (char label = 0; label < 10; ++label) {
    const auto image =
        vitrine::read_image(example_image(std::string("clothes/") + kClothes[static_cast<int>(label)] + ".png"), 1);
    pixels.append(image.pixels.begin(), image.pixels.end());
    labels += label;
  }
  for (std::uint32_t i = 0; i < times; ++i) all_pixels += pixels, all_labels += labels;
  const std::string magic("\0\0\x08", 3);
  write_bytes(folder / "t10k-images-idx3-ubyte",
              magic + '\3' + big_endian(10 * times) + big_endian(28) + big_endian(28) + all_pixels);
  write_bytes(folder / "t10k-labels-idx1-ubyte", magic + '\1' + big_endian(10 * times) + all_labels);
}

// A sub-folder a class, numbered.
void write_folders(const Folder& folder) {
  for (int i = 0; i < 10; ++i) {
    std::filesystem::create_directory(folder / std::to_string(i));
    std::filesystem::copy_file(example_image(std::string("clothes/") + kClothes[i] + ".png"),
                               folder / (std::to_string(i) + "/picture.png"));
  }
}

}  // namespace

TEST_CASE("evaluate on idx files: JSON with all keys, CSV with timm's columns, a confusion picture") {
  const Folder folder;
  write_idx(folder, 7);
  const RunResult result = run_vitrine({"evaluate", "--dataset", "idx:" + folder.path(), "--batch-size", "16", "--json",
                                        "--results-file", folder / "r.csv", "--confusion", folder / "matrix.png"});
  INFO(result.err);
  CHECK(result.code == 0);
  const json r = json::parse(result.out);
  CHECK(r["top1"] == 1.0);
  CHECK(r["top5"] == 1.0);
  CHECK(r["images"] == 70);
  CHECK(r["skipped"] == 0);
  CHECK(r["images_per_second"].get<double>() > 0.0);
  CHECK(r["interrupted"] == false);
  CHECK(r["top1_interval"][0].get<double>() == Approx(0.9480).margin(1e-4));  // Wilson: 70 of 70
  CHECK(r["top1_interval"][1].get<double>() == Approx(1.0));
  REQUIRE(r["per_class"].size() == 10);
  for (const json& c : r["per_class"]) {
    CHECK(c["images"] == 7);
    CHECK(c["correct"] == 7);
  }
  CHECK(r["per_class"][0]["class"] == "T-shirt/top");
  CHECK(
      read_bytes(folder / "r.csv").starts_with("model,top1,top1_err,top5,top5_err,param_count,img_size,crop_pct,interpolation,"));
  CHECK(vitrine::read_image(folder / "matrix.png").width > 100);
}

TEST_CASE("evaluate on folders: pictures that cannot be read are skipped, counted and named") {
  const Folder folder;
  write_folders(folder);
  write_bytes(folder / "3/broken.png", "text");
  const RunResult result = run_vitrine({"evaluate", "--dataset", "folder:" + folder.path(), "--json"});
  CHECK(result.code == 0);
  const json r = json::parse(result.out);
  CHECK(r["images"] == 10);
  CHECK(r["skipped"] == 1);
  CHECK(r["top1"] == 1.0);
  CHECK(result.err.find("broken.png") != std::string::npos);

  const RunResult text = run_vitrine({"evaluate", "--dataset", "folder:" + folder.path(), "--quiet"});
  CHECK(text.out.find("top-1   100.00%") != std::string::npos);
  CHECK(text.out.find("Ankle boot") != std::string::npos);
}

TEST_CASE("streams, workers and batch size do not change what is counted") {
  const Folder folder;
  write_folders(folder);
  write_bytes(folder / "3/broken.png", "text");
  for (const std::vector<std::string>& options : std::vector<std::vector<std::string>>{
           {"--streams", "1"}, {"--streams", "1", "--workers", "0"}, {"--streams", "3", "--threads", "3", "--batch-size", "2"}}) {
    INFO(options[0] << ' ' << options[1]);
    std::vector<std::string> arguments{"evaluate", "--dataset", "folder:" + folder.path(), "--json"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const json r = json::parse(run_vitrine(arguments).out);
    CHECK(r["images"] == 10);
    CHECK(r["skipped"] == 1);
    CHECK(r["top1"] == 1.0);
  }
}

TEST_CASE("data sets that are not there") {
  for (const std::string set : {"idx:/nonexistent", "folder:/nonexistent", "imagenet"}) {
    INFO(set);
    const RunResult result = run_vitrine({"evaluate", "--dataset", set});
    CHECK(result.code == 1);
    CHECK(result.out.empty());
    CHECK(result.error_lines() == 1);
  }
}

TEST_CASE("Ctrl-C ends an evaluation cleanly and keeps what was done") {
  const Folder folder;
  write_idx(folder, 6000);
  Program program(
      {"evaluate", "--dataset", "idx:" + folder.path(), "--json", "--results-file", folder / "r.json", "--threads", "1"});
  program.wait_until_it_catches(SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  program.send(SIGINT);
  const RunResult result = program.wait();
  INFO(result.err);
  CHECK(result.code == 130);
  CHECK(result.err.find("interrupted") != std::string::npos);
  const json r = json::parse(result.out);
  CHECK(r["interrupted"] == true);
  CHECK(r["images"].get<int>() > 0);
  CHECK(r["images"].get<int>() < 60000);
  CHECK(r["images"].get<int>() % 64 == 0);
  CHECK(json::parse(read_bytes(folder / "r.json")) == r);
}

TEST_CASE("the shipped classifier has the accuracy that its metadata states") {
  if (!std::filesystem::exists("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")) {
    WARN("skipped: the package dataset-fashion-mnist is not installed");
    return;
  }
  const RunResult result = run_vitrine({"evaluate", "--dataset", "fashion-mnist", "--json"});
  CHECK(result.code == 0);
  const json r = json::parse(result.out);
  CHECK(r["images"] == 10000);
  CHECK(r["top1"].get<double>() == Approx(0.9181).margin(2.1e-4));  // two predictions may differ
  CHECK(r["top5"].get<double>() == Approx(0.9986).margin(2.1e-4));
}
