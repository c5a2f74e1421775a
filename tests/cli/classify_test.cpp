#include <catch.h>
#include <weights/files.h>

#include <algorithm>
#include <cstring>
#include <map>

#include <nlohmann/json.hpp>

#include <vitrine/pipelines/image.h>

#include "cli/run.h"

using nlohmann::json;

namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// nat_fashion with a head of `classes` classes and no word about it in the metadata, as a fine-tuned checkpoint.
void write_fine_tuned(const std::string& path, std::int64_t classes) {
  const auto source = vitrine::open_safetensors(std::string(VITRINE_SOURCE_DIR) + "/weights/shipped/nat_fashion.safetensors");
  std::map<std::string, vitrine::Tensor> tensors;
  for (const std::string& name : source->names()) {
    const vitrine::Tensor stored = source->load(name, {});
    tensors[name] = stored;
    if (!name.starts_with("head.")) continue;
    vitrine::Shape shape = stored.shape();
    shape[0] = classes;
    const vitrine::Tensor head = vitrine::Tensor::zeros(shape);
    std::memcpy(const_cast<void*>(head.raw()), stored.raw(), std::min(head.bytes(), stored.bytes()));
    tensors[name] = head;
  }
  vitrine::save_safetensors(path, tensors);
}

}  // namespace

TEST_CASE("the ten clothes are known, and JSON is all that standard output holds") {
  const RunResult result = run_vitrine({"classify", example_image("clothes"), "--json", "--topk", "3"});
  CHECK(result.code == 0);
  CHECK(result.error_lines() == 1);
  CHECK(contains(result.err, "clothes only"));
  const std::map<std::string, std::string> names{
      {"ankle_boot", "Ankle boot"},   {"bag", "Bag"},        {"coat", "Coat"},   {"dress", "Dress"},
      {"pullover", "Pullover"},       {"sandal", "Sandal"},  {"shirt", "Shirt"}, {"sneaker", "Sneaker"},
      {"t_shirt_top", "T-shirt/top"}, {"trouser", "Trouser"}};
  const json rows = json::parse(result.out);
  REQUIRE(rows.size() == names.size());
  std::size_t at = 0;
  for (const auto& [file, label] : names) {  // both are sorted by name
    const json& row = rows[at++];
    CHECK(row["image"] == example_image("clothes/" + file + ".png"));
    REQUIRE(row["predictions"].size() == 3);
    CHECK(row["predictions"][0]["label"] == label);
    CHECK(row["predictions"][0]["score"].get<double>() > row["predictions"][1]["score"].get<double>());
  }
}

TEST_CASE("text output, with --quiet saying nothing on standard error") {
  const RunResult result = run_vitrine({"classify", example_image("clothes/coat.png"), "--quiet", "--topk", "2"});
  CHECK(result.code == 0);
  CHECK(result.err.empty());
  CHECK(result.out.starts_with(example_image("clothes/coat.png") + "\n"));
  CHECK(contains(result.out, "%  Coat\n"));
  CHECK(std::count(result.out.begin(), result.out.end(), '\n') == 3);
}

TEST_CASE("more classes than there are gives all of them, with scores that sum to 1") {
  const RunResult result = run_vitrine({"classify", example_image("clothes/bag.png"), "--json", "--topk", "1000"});
  const json predictions = json::parse(result.out)[0]["predictions"];
  REQUIRE(predictions.size() == 10);
  double sum = 0.0;
  for (const json& p : predictions) sum += p["score"].get<double>();
  CHECK(sum == Approx(1.0).margin(1e-5));
}

TEST_CASE("a picture from standard input, and names with spaces and letters beyond ASCII") {
  const RunResult piped =
      run_vitrine({"classify", "-", "--json"}, {.input = example_image("clothes/dress.png"), .output = "", .file_limit = -1});
  CHECK(piped.code == 0);
  CHECK(json::parse(piped.out)[0]["image"] == "-");
  CHECK(json::parse(piped.out)[0]["predictions"][0]["label"] == "Dress");

  const Folder folder;
  std::filesystem::create_directory(folder / "größe 1");
  std::filesystem::copy_file(example_image("clothes/dress.png"), folder / "größe 1/ein kleid.png");
  for (const std::string& path : {folder / "größe 1/ein kleid.png", folder.path()}) {
    const RunResult result = run_vitrine({"classify", path, "--json"});
    CHECK(result.code == 0);
    CHECK(json::parse(result.out)[0]["image"] == folder / "größe 1/ein kleid.png");
    CHECK(json::parse(result.out)[0]["predictions"][0]["label"] == "Dress");
  }
}

TEST_CASE("a name that is no UTF-8 still gives JSON") {
  const Folder folder;
  const std::string path = folder / "kleid\xff.png";
  std::filesystem::copy_file(example_image("clothes/dress.png"), path);
  const RunResult result = run_vitrine({"classify", path, "--json"});
  CHECK(result.code == 0);
  CHECK(json::parse(result.out)[0]["predictions"][0]["label"] == "Dress");
}

TEST_CASE("when some of many pictures fail the rest go on, and the failures come last") {
  const Folder folder;
  write_bytes(folder / "broken.png", "this is text");
  const RunResult result =
      run_vitrine({"classify", example_image("clothes/coat.png"), folder / "broken.png", folder / "missing.png",
                   example_image("clothes/bag.png"), "--json", "--batch-size", "1", "--quiet"});
  CHECK(result.code == 1);
  const json rows = json::parse(result.out);
  REQUIRE(rows.size() == 4);
  CHECK(rows[0]["predictions"][0]["label"] == "Coat");
  CHECK(contains(rows[1]["error"], "broken.png"));
  CHECK(contains(rows[2]["error"], "missing.png"));
  CHECK(rows[3]["predictions"][0]["label"] == "Bag");
  CHECK(contains(result.err, "2 of 4 pictures failed"));
  CHECK(contains(result.err, "broken.png"));
  CHECK(contains(result.err, "missing.png"));
}

TEST_CASE("batch size, workers and threads do not change results") {
  const std::string folder = example_image("clothes");
  const json expected = json::parse(run_vitrine({"classify", folder, "--json"}).out);
  for (const std::vector<std::string>& options : std::vector<std::vector<std::string>>{
           {"--batch-size", "1"}, {"--batch-size", "3", "--workers", "4"}, {"--workers", "0"}, {"--threads", "1"}}) {
    std::vector<std::string> arguments{"classify", folder, "--json"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const json rows = json::parse(run_vitrine(arguments).out);
    REQUIRE(rows.size() == expected.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      INFO(options[0] << ' ' << options[1] << ", picture " << i);
      const json &a = rows[i]["predictions"][0], &b = expected[i]["predictions"][0];
      CHECK(a["label"] == b["label"]);
      CHECK(a["score"].get<double>() == Approx(b["score"].get<double>()).margin(1e-5));
    }
  }
}

TEST_CASE("bf16 and int8 weights agree with f32") {
  const std::string folder = example_image("clothes");
  const json exact = json::parse(run_vitrine({"classify", folder, "--json"}).out);
  const auto& [option, value] = GENERATE(std::pair("--dtype", "bf16"), std::pair("--weights-dtype", "i8"));
  const RunResult result = run_vitrine({"classify", folder, "--json", option, value});
  CHECK(result.code == 0);
  const json rounded = json::parse(result.out);
  REQUIRE(rounded.size() == exact.size());
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const json &a = rounded[i]["predictions"][0], &b = exact[i]["predictions"][0];
    CHECK(a["label"] == b["label"]);
    CHECK(a["score"].get<double>() == Approx(b["score"].get<double>()).margin(0.03));
  }
}

TEST_CASE("results files: CSV and JSON") {
  const Folder folder;
  const std::string picture = folder / "a, \"b\".png";
  std::filesystem::copy_file(example_image("clothes/coat.png"), picture);
  CHECK(run_vitrine({"classify", picture, "--topk", "1", "--results-file", folder / "r.csv"}).code == 0);
  CHECK(read_bytes(folder / "r.csv")
            .starts_with("filename,rank,index,label,score\n\"" + (folder / "a, \"\"b\"\".png") + "\",1,4,Coat,0."));
  CHECK(run_vitrine({"classify", picture, "--topk", "1", "--results-file", folder / "r.json"}).code == 0);
  const json rows = json::parse(read_bytes(folder / "r.json"));
  CHECK(rows[0]["image"] == picture);
  CHECK(rows[0]["predictions"][0]["index"] == 4);
}

TEST_CASE("a fine-tuned head: its size is the checkpoint's, its names come from --labels") {
  const Folder folder;
  write_fine_tuned(folder / "three.safetensors", 3);
  const std::vector<std::string> command{"classify",  example_image("clothes/trouser.png"), "--model", "nat_fashion",
                                         "--weights", folder / "three.safetensors",         "--json"};
  // Without metadata the preprocessing is that of the architecture: say what the shipped model's is.
  std::vector<std::string> arguments = command;
  arguments.insert(arguments.end(), {"--img-size", "40", "--crop-mode", "squash", "--crop-pct", "1", "--interpolation",
                                     "bilinear", "--mean", "0.286", "--std", "0.353"});
  const RunResult plain = run_vitrine(arguments);
  CHECK(plain.code == 0);
  CHECK(plain.err.empty());
  const json predictions = json::parse(plain.out)[0]["predictions"];
  CHECK(predictions.size() == 3);
  CHECK(predictions[0]["label"] == "class 1");

  write_bytes(folder / "labels.txt", "shirt\r\nbreeches\njumper\n\n");
  arguments.insert(arguments.end(), {"--labels", folder / "labels.txt"});
  CHECK(json::parse(run_vitrine(arguments).out)[0]["predictions"][0]["label"] == "breeches");

  write_bytes(folder / "labels.txt", "one\ntwo\n");
  const RunResult wrong = run_vitrine(arguments);
  CHECK(wrong.code == 1);
  CHECK(wrong.error_lines() == 1);
  CHECK(contains(wrong.err, "2 labels"));
}

TEST_CASE("a head of 1000 classes has the names of ImageNet, unless others are given") {
  const Folder folder;
  write_fine_tuned(folder / "thousand.safetensors", 1000);
  std::vector<std::string> arguments{"classify",  example_image("clothes/trouser.png"), "--model", "nat_fashion",
                                     "--weights", folder / "thousand.safetensors",      "--json",  "--topk",
                                     "1000"};
  const json predictions = json::parse(run_vitrine(arguments).out)[0]["predictions"];
  REQUIRE(predictions.size() == 1000);
  for (const json& prediction : predictions)
    if (prediction["index"] == 2) CHECK(prediction["label"].get<std::string>().starts_with("great white shark"));
  std::string labels;
  for (int i = 0; i < 1000; ++i) labels += "mine\n";
  write_bytes(folder / "labels.txt", labels);
  arguments.insert(arguments.end(), {"--labels", folder / "labels.txt"});
  CHECK(json::parse(run_vitrine(arguments).out)[0]["predictions"][0]["label"] == "mine");
}

TEST_CASE("numbers of --mean may stand apart, with pictures after them") {
  const std::string picture = example_image("clothes/coat.png");
  const RunResult expected = run_vitrine({"classify", "--quiet", picture});
  const RunResult apart = run_vitrine({"classify", "--quiet", "--mean", "0.286", picture, "--std", "0.353"});
  CHECK(apart.code == 0);
  CHECK(apart.out == expected.out);
  const RunResult three = run_vitrine({"classify", "--quiet", "--mean", "0.5", "0.5", "0.5", picture});
  CHECK(three.code == 1);  // a model of one channel
  CHECK(contains(three.err, "mean"));
}

TEST_CASE("a picture of 1x1 and one of 1x3000") {
  const Folder folder;
  for (const auto& [width, height] : {std::pair{1, 1}, std::pair{1, 3000}, std::pair{3000, 1}}) {
    vitrine::Image image{width, height, 3, std::vector<std::uint8_t>(static_cast<std::size_t>(3 * width * height), 200)};
    vitrine::write_image(folder / "thin.png", image);
    const RunResult result = run_vitrine({"classify", folder / "thin.png", "--json"});
    CHECK(result.code == 0);
    CHECK(json::parse(result.out)[0]["predictions"].size() == 5);
  }
}
