// Checkpoints that do not fit: one clear line each, exit code 1.
#include <catch.h>
#include <weights/files.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include <nlohmann/json.hpp>

#include "cli/run.h"

namespace {

const std::string kShipped = std::string(VITRINE_SOURCE_DIR) + "/weights/shipped/nat_fashion.safetensors";

using Tensors = std::map<std::string, vitrine::Tensor>;

// The shipped classifier with its metadata, changed.
void write_changed(const std::string& path, const std::function<void(Tensors&)>& change) {
  const auto source = vitrine::open_safetensors(kShipped);
  Tensors tensors;
  for (const std::string& name : source->names()) tensors[name] = source->load(name, {}).clone();
  change(tensors);
  vitrine::save_safetensors(path, tensors, source->metadata());
}

RunResult classify_with(const std::string& weights, const std::string& model = "nat_fashion") {
  std::vector<std::string> arguments{"classify", example_image("clothes/coat.png"), "--weights", weights};
  if (!model.empty()) arguments.insert(arguments.end(), {"--model", model});
  return run_vitrine(arguments);
}

void check_failure(const RunResult& result, const std::string& named) {
  INFO(result.err);
  CHECK(result.code == 1);
  CHECK(result.out.empty());
  CHECK(result.error_lines() == 1);
  CHECK(result.err.starts_with("vitrine: "));
  CHECK(result.err.find(named) != std::string::npos);
}

}  // namespace

TEST_CASE("checkpoints that are cut, none, or not there") {
  const Folder folder;
  const std::string bytes = read_bytes(kShipped);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{4}, std::size_t{8}, std::size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    INFO(size << " bytes");
    write_bytes(folder / "cut.safetensors", bytes.substr(0, size));
    check_failure(classify_with(folder / "cut.safetensors"), "cut.safetensors");
  }
  write_bytes(folder / "text.safetensors", std::string(1000, 'x'));
  check_failure(classify_with(folder / "text.safetensors"), "text.safetensors");
  check_failure(classify_with(folder / "missing.safetensors"), "missing.safetensors");
  check_failure(classify_with(folder.path()), folder.path());
  for (const char* command : {"inspect", "segment", "evaluate"}) {
    std::vector<std::string> arguments{command};
    if (std::string(command) == "inspect")
      arguments.push_back(folder / "cut.safetensors");
    else
      arguments.insert(arguments.end(), {"--weights", folder / "cut.safetensors"});
    if (std::string(command) == "segment")
      arguments.insert(arguments.end(), {example_image("coffee.png"), "--out", folder / "out"});
    if (std::string(command) == "evaluate") arguments.insert(arguments.end(), {"--dataset", "idx:" + folder.path()});
    check_failure(run_vitrine(arguments), "cut.safetensors");
  }
}

TEST_CASE("missing, surplus and wrongly shaped tensors are named") {
  const Folder folder;
  const std::string file = folder / "changed.safetensors";
  write_changed(file, [](Tensors& t) { t.erase("levels.1.blocks.0.norm1.bias"); });
  check_failure(classify_with(file), "levels.1.blocks.0.norm1.bias");
  write_changed(file, [](Tensors& t) { t["norm.weight"] = vitrine::Tensor::zeros({95}); });
  const RunResult shaped = classify_with(file);
  check_failure(shaped, "norm.weight");
  CHECK(shaped.err.find("[95]") != std::string::npos);
  CHECK(shaped.err.find("[96]") != std::string::npos);
  write_changed(file, [](Tensors& t) { t["surplus.weight"] = vitrine::Tensor::zeros({3}); });
  check_failure(classify_with(file), "surplus.weight");
  write_changed(file, [](Tensors& t) { t.erase("head.weight"), t.erase("head.bias"); });
  check_failure(classify_with(file), "head");
}

TEST_CASE("weights of another model") { check_failure(classify_with(kShipped, "vit_tiny_patch16_224"), "vit_tiny_patch16_224"); }

TEST_CASE("an unknown model comes with the nearest names, and one without weights says what to do") {
  const std::string picture = example_image("clothes/coat.png");
  check_failure(run_vitrine({"classify", picture, "--model", "vit_smal_patch16_224"}), "vit_small_patch16_224");
  check_failure(run_vitrine({"classify", picture, "--model", "nat_fasion"}), "nat_fashion");
  check_failure(run_vitrine({"classify", picture, "--model", "vit_small_patch16_224"}), "--weights");
  check_failure(run_vitrine({"evaluate", "--dataset", "fashion-mnist", "--model", "nat_fashon"}), "nat_fashion");
}

TEST_CASE("a checkpoint without metadata needs the model's name") {
  const Folder folder;
  const auto source = vitrine::open_safetensors(kShipped);
  Tensors tensors;
  for (const std::string& name : source->names()) tensors[name] = source->load(name, {});
  vitrine::save_safetensors(folder / "bare.safetensors", tensors);
  check_failure(classify_with(folder / "bare.safetensors", ""), "--model");
  // With it, the architecture, the preprocessing and the classes are known.
  const RunResult named = run_vitrine({"classify", example_image("clothes/coat.png"), "--weights", kShipped, "--json"});
  CHECK(named.code == 0);
  CHECK(named.err.empty());
  CHECK(nlohmann::json::parse(named.out)[0]["predictions"][0]["label"] == "Coat");
}

TEST_CASE("weights with NaN are warned of") {
  const Folder folder;
  write_changed(folder / "nan.safetensors", [](Tensors& t) {
    t["levels.0.blocks.0.mlp.fc1.weight"].data<float>()[7] = std::numeric_limits<float>::quiet_NaN();
  });
  const RunResult result = classify_with(folder / "nan.safetensors");
  CHECK(result.code == 0);
  CHECK(result.error_lines() == 1);
  CHECK(result.err.find("NaN") != std::string::npos);
  CHECK(result.err.find("levels.0.blocks.0.mlp.fc1.weight") != std::string::npos);
}
