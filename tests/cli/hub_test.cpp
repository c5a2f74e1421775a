// hf:OWNER/NAME wherever a model or weights are named, against a hub on this machine.
#include <cstdlib>

#include <catch.h>
#include <weights/files.h>
#include <weights/http_server.h>

#include <nlohmann/json.hpp>

#include "cli/run.h"

using nlohmann::json;

namespace {

std::string repository(const std::string& file) {
  return read_bytes(std::string(VITRINE_SOURCE_DIR) + "/tests/data/transformers/vit/" + file);
}

// What the program finds in its environment.
struct Environment {
  explicit Environment(const FakeHub& hub) {
    setenv("HF_ENDPOINT", hub.url().c_str(), 1);
    setenv("HF_HOME", folder.path().c_str(), 1);
    setenv("HF_TOKEN", "hf_secret", 1);
    for (const char* name : {"HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}) unsetenv(name);
  }
  ~Environment() {
    for (const char* name : {"HF_ENDPOINT", "HF_HOME", "HF_TOKEN", "HF_HUB_OFFLINE"}) unsetenv(name);
  }
  Folder folder;
};

void check_failure(const RunResult& result, const std::string& named) {
  INFO(result.err);
  CHECK(result.code == 1);
  CHECK(result.error_lines() == 1);
  CHECK(result.err.find(named) != std::string::npos);
  CHECK(result.err.find("hf_secret") == std::string::npos);
}

}  // namespace

TEST_CASE("a model of the hub is fetched, run, and there without a connection") {
  FakeHub hub;
  for (const char* file : {"config.json", "preprocessor_config.json", "model.safetensors"}) hub.files[file] = repository(file);
  const Environment environment(hub);
  const std::string picture = example_image("clothes/coat.png");
  const RunResult run = run_vitrine({"classify", picture, "--model", "hf:owner/name", "--json"});
  INFO(run.err);
  CHECK(run.code == 0);
  const json predictions = json::parse(run.out)[0]["predictions"];
  CHECK(predictions.size() == 5);
  CHECK(predictions[0]["label"].get<std::string>().starts_with("kind "));
  CHECK(hub.network().count("GET") == 1);

  setenv("HF_HUB_OFFLINE", "1", 1);
  for (const char* option : {"--model", "--weights"}) {
    const RunResult offline = run_vitrine({"classify", picture, option, "hf:owner/name", "--json"});
    CHECK(offline.code == 0);
    CHECK(offline.out == run.out);
  }
  const json inspected = json::parse(run_vitrine({"inspect", "hf:owner/name", "--json"}).out);
  CHECK(inspected["metadata"]["architecture"] == "VisionTransformer");
  CHECK(inspected["metadata"]["config"]["embed_dim"] == 12);

  const std::string converted = environment.folder / "vit.safetensors";
  CHECK(run_vitrine({"convert", "hf:owner/name@main", converted}).code == 0);
  CHECK(run_vitrine({"classify", picture, "--weights", converted, "--json"}).out == run.out);
  CHECK(hub.network().count("GET") == 1);

  check_failure(run_vitrine({"classify", picture, "--model", "hf:owner/other"}), "HF_HUB_OFFLINE is set");
}

TEST_CASE("a model of the hub that cannot be had") {
  FakeHub hub;
  hub.files = {{"config.json", repository("config.json")}, {"model.safetensors", repository("model.safetensors")}};
  const Environment environment(hub);
  const std::string picture = example_image("clothes/coat.png");
  check_failure(run_vitrine({"classify", picture, "--model", "hf:owner"}), "expected hf:OWNER/NAME");
  check_failure(run_vitrine({"classify", picture, "--model", "hf:owner/private"}),
                "hf:owner/private: there is no such repository");
  check_failure(run_vitrine({"classify", picture, "--model", "hf:owner/name", "--weights", "x.pth"}), "brings its weights");
  hub.misbehave = [](const WebRequest& request, WebReply& reply) {
    if (request.method == "GET" && request.path.starts_with("/network/")) reply.body[100] ^= 1;
  };
  check_failure(run_vitrine({"inspect", "hf:owner/name"}), "its hash is another");
  hub.misbehave = nullptr;
  hub.files["config.json"] = R"({"model_type": "llama"})";
  hub.commit = std::string(40, 'd');
  check_failure(run_vitrine({"inspect", "hf:owner/name"}), "known are vit");
}
