// hf:OWNER/NAME wherever a model or weights are named, against a hub on this machine.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <set>

#include <catch.h>
#include <weights/files.h>
#include <weights/http_server.h>

#include <nlohmann/json.hpp>

#include "cli/run.h"
#include "pipelines/diffusion_folders.h"

using nlohmann::json;

namespace {

std::string repository(const std::string& file) {
  return read_bytes(std::string(VITRINE_SOURCE_DIR) + "/tests/data/transformers/vit/" + file);
}

// A folder of diffusers as the files of a repository.
void serve_pipeline(FakeHub& hub, const std::string& name, const std::string& folder) {
  vitrine::test::write_diffusion_folder(name, folder);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) hub.files[entry.path().lexically_relative(folder).string()] = read_bytes(entry.path().string());
}

std::vector<std::string> to_draw(const std::string& name, const std::string& model, const std::string& out) {
  std::vector<std::string> arguments =
      vitrine::test::diffusion_case(name).arguments(std::filesystem::path(out).parent_path().string());
  arguments.insert(arguments.begin(), {"generate", "--quiet", "--no-metadata", "--model", model, "--out", out});
  return arguments;
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

TEST_CASE("a pipeline of the hub draws what its folder does, and without a connection") {
  for (const std::string name : {"sd", "sd3"}) {
    INFO(name);
    const std::string unread = "not to be fetched";
    FakeHub hub;
    const Environment environment(hub);
    const Folder folder;
    serve_pipeline(hub, name, folder / "local");
    hub.files["unet/diffusion_pytorch_model.fp16.safetensors"] = hub.files["v1-5-pruned.safetensors"] = unread;
    const auto draw = [&](const std::string& model, const std::string& out) {
      const RunResult result = run_vitrine(to_draw(name, model, folder / out));
      INFO(result.err);
      REQUIRE(result.code == 0);
      return read_bytes(folder / out);
    };
    const std::string expected = draw(folder / "local", "a.png");
    CHECK(draw("hf:owner/name", "b.png") == expected);
    std::set<std::string> contents;  // SD3's two CLIPs are the same here and come once
    for (const auto& [file, bytes] : hub.files)
      if (FakeHub::is_large(file) && bytes != unread) contents.insert(bytes);
    CHECK(hub.network().count("GET") == contents.size());
    setenv("HF_HUB_OFFLINE", "1", 1);
    const std::size_t before = hub.hub().requests().size();
    CHECK(draw("hf:owner/name", "c.png") == expected);
    CHECK(hub.hub().requests().size() == before);
    check_failure(run_vitrine(to_draw(name, "hf:owner/other", folder / "d.png")), "HF_HUB_OFFLINE is set");
  }
}

TEST_CASE("--variant takes the weights of that name, from a folder and from the hub") {
  FakeHub hub;
  const Environment environment(hub);
  const Folder folder;
  serve_pipeline(hub, "sd", folder / "sd");
  serve_pipeline(hub, "sd", folder / "both");
  // The U-Net and the text encoder have halves beside them: of the plain folder's values, rounded.
  for (const std::string part : {"unet/diffusion_pytorch_model", "text_encoder/model"}) {
    const std::string plain = folder / ("sd/" + part) + ".safetensors", half = folder / ("both/" + part) + ".fp16.safetensors";
    REQUIRE(run_vitrine({"convert", plain, half, "--dtype", "f16"}).code == 0);
    hub.files[part + ".fp16.safetensors"] = read_bytes(half);
    std::filesystem::remove(plain);
    std::filesystem::copy_file(half, plain);
  }
  const std::string note = ": no weights of the variant 'fp16' in vae: the plain ones are taken";
  const auto draw = [&](const std::string& model, const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = to_draw("sd", model, folder / out);
    arguments.insert(arguments.end(), more.begin(), more.end());
    const RunResult result = run_vitrine(arguments);
    INFO(result.err);
    REQUIRE(result.code == 0);
    CHECK((result.err.find(model + note) != std::string::npos) == !more.empty());
    CHECK(result.error_lines() == (more.empty() ? 0 : 1));
    return read_bytes(folder / out);
  };
  const std::string expected = draw(folder / "sd", "a.png", {}), whole = draw(folder / "both", "b.png", {});
  CHECK(expected != whole);
  CHECK(draw(folder / "both", "c.png", {"--variant", "fp16"}) == expected);
  CHECK(draw("hf:owner/name", "d.png", {"--variant", "fp16"}) == expected);
  setenv("HF_HUB_OFFLINE", "1", 1);
  CHECK(draw("hf:owner/name", "e.png", {"--variant", "fp16"}) == expected);
  const auto fails = [&](const std::string& model, const std::string& variant, const std::string& named) {
    std::vector<std::string> arguments = to_draw("sd", model, folder / "f.png");
    arguments.insert(arguments.end(), {"--variant", variant});
    check_failure(run_vitrine(arguments), named);
  };
  check_failure(run_vitrine(to_draw("sd", "hf:owner/name", folder / "f.png")), "has neither text_encoder/model.safetensors");
  fails(folder / "both", "fp8", "both: no part has weights of the variant 'fp8'");
  fails("hf:owner/name", "fp8", "hf:owner/name: no part has weights of the variant 'fp8'");
  fails(folder / "both", "a/b", "variant 'a/b': expected a name such as fp16");
  fails("dit_fashion", "fp16", "dit_fashion: has no variants");
  CHECK_FALSE(std::filesystem::exists(folder / "f.png"));
}

TEST_CASE("a pipeline of the hub that cannot be had") {
  FakeHub hub;
  const Environment environment(hub);
  const Folder folder;
  serve_pipeline(hub, "dit", folder / "local");
  const std::string weights = "transformer/diffusion_pytorch_model.safetensors";
  const auto fails = [&](const std::string& named, const std::string& model = "hf:owner/name") {
    check_failure(run_vitrine(to_draw("dit", model, folder / "o.png")), named);
    CHECK_FALSE(std::filesystem::exists(folder / "o.png"));
  };
  fails("there is no such repository, or it is private: the token of HF_TOKEN may not read it", "hf:owner/private");
  const auto answer = [&](int status, const std::string& code) {
    hub.misbehave = [=](const WebRequest&, WebReply& reply) { reply = {.status = status, .headers = {{"X-Error-Code", code}}}; };
  };
  answer(404, "RepoNotFound");
  fails("hf:owner/name: there is no such repository");
  answer(404, "RevisionNotFound");
  fails("there is no revision 'fp16'", "hf:owner/name@fp16");
  answer(403, "GatedRepo");
  fails("accept the model's terms");
  hub.misbehave = nullptr;
  const std::string index = hub.files["model_index.json"];
  hub.files.erase("model_index.json");
  fails("has no model_index.json: not a pipeline of diffusers");
  hub.commit = std::string(40, 'd');
  hub.files["model_index.json"] = index;

  // Weights whose bytes are others, then such as are cut: what was there before the cut is gone on from.
  hub.misbehave = [&](const WebRequest& request, WebReply& reply) {
    if (request.method == "GET" && request.path.ends_with(weights) && !reply.body.empty()) reply.body[reply.body.size() / 2] ^= 1;
  };
  fails(weights + ": what came is not what the hub announced");
  std::atomic<int> cuts{0};
  hub.misbehave = [&](const WebRequest& request, WebReply& reply) {
    if (request.method != "GET" || !request.path.starts_with("/network/") || !request.path.ends_with(weights)) return;
    reply.cut = reply.body.size() / 2;
    ++cuts;
    if (cuts > 1) reply = {.status = 403};
  };
  fails("access is refused");
  hub.misbehave = nullptr;
  CHECK(run_vitrine(to_draw("dit", "hf:owner/name", folder / "o.png")).code == 0);
  CHECK(hub.network().requests().back().path.find("vae/") != std::string::npos);
  const auto requests = hub.network().requests();
  CHECK(std::any_of(requests.begin(), requests.end(), [&](const WebRequest& request) {
    return request.path.ends_with(weights) && request.header("range").starts_with("bytes=");
  }));
  REQUIRE(run_vitrine(to_draw("dit", folder / "local", folder / "p.png")).code == 0);
  CHECK(read_bytes(folder / "o.png") == read_bytes(folder / "p.png"));
}
