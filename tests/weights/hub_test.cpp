// The hub: its cache, and servers that behave and misbehave.
#include <csignal>
#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <catch.h>

#include <vitrine/weights/hash.h>
#include <vitrine/weights/hub.h>
#include <vitrine/weights/sources.h>

#include "files.h"
#include "http_server.h"

using namespace vitrine;

namespace {

namespace fs = std::filesystem;

const HubName kName{"owner", "name", "main"};
const std::string kLarge = "model.safetensors";

std::string content(std::size_t size, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

HubSettings settings_for(const FakeHub& hub, const Folder& folder) {
  HubSettings settings;
  settings.cache = folder / "hub";
  settings.endpoint = hub.url();
  settings.token = "hf_secret";
  settings.timeout_s = 1;
  settings.attempts = 3;
  settings.delay = std::chrono::milliseconds(1);
  return settings;
}

std::string fetch_trouble(const HubSettings& settings, const std::string& file = kLarge, const HubName& name = kName,
                          const FetchProgress& progress = {}) {
  try {
    fetch_hub_file(settings, name, file, progress);
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find('\n') == std::string::npos);
    CHECK(std::string(e.what()).find("hf_secret") == std::string::npos);
    return e.what();
  }
  return "";
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

// What a reader of the cache would take for good files.
void check_nothing_wrong(const Folder& folder, const FakeHub& hub) {
  const fs::path repository = folder / "hub/models--owner--name";
  std::set<std::string> hashes;
  for (const auto& [file, bytes] : hub.files) hashes.insert(FakeHub::hash_of(file, bytes));
  if (fs::exists(repository / "blobs"))
    for (const auto& entry : fs::directory_iterator(repository / "blobs")) {
      const std::string name = entry.path().filename().string();
      if (name.ends_with(".incomplete")) continue;
      CHECK(hashes.contains(name));
      bool right = false;
      for (const auto& [file, bytes] : hub.files)
        right = right || (FakeHub::hash_of(file, bytes) == name && read_bytes(entry.path().string()) == bytes);
      CHECK(right);
    }
  if (fs::exists(repository / "snapshots"))
    for (const auto& entry : fs::recursive_directory_iterator(repository / "snapshots"))
      if (entry.is_symlink()) {
        const fs::path file = entry.path().lexically_relative(repository / "snapshots" / hub.commit);
        CHECK(read_bytes(entry.path().string()) == hub.files.at(file.string()));
      }
}

}  // namespace

TEST_CASE("SHA-1 and SHA-256 are those of the standard") {
  const auto hex = [](detail::HashKind kind, const std::string& text) {
    detail::Hash hash(kind);
    for (const char& c : text) hash.update(std::as_bytes(std::span(&c, 1)));
    detail::Hash at_once(kind);
    at_once.update(std::as_bytes(std::span(text)));
    const std::string result = hash.hex();
    CHECK(at_once.hex() == result);
    return result;
  };
  CHECK(hex(detail::HashKind::sha1, "abc") == "a9993e364706816aba3e25717850c26c9cd0d89d");
  CHECK(hex(detail::HashKind::sha1, "") == "da39a3ee5e6b4b0d3255bfef95601890afd80709");
  CHECK(hex(detail::HashKind::sha256, "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex(detail::HashKind::sha256, "") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex(detail::HashKind::sha256, std::string(1000, 'a')) ==
        "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3");
  for (std::size_t size = 50; size < 70; ++size) hex(detail::HashKind::sha256, std::string(size, 'x'));
}

TEST_CASE("names of the hub") {
  const HubName plain = parse_hub_name("hf:timm/vit_tiny_patch16_224.augreg_in21k"), other = parse_hub_name("hf:a/b@refs/pr/1");
  CHECK(plain.owner == "timm");
  CHECK(plain.name == "vit_tiny_patch16_224.augreg_in21k");
  CHECK(plain.revision == "main");
  CHECK(other.revision == "refs/pr/1");
  for (const char* wrong : {"hf:", "hf:a", "hf:a/", "hf:/b", "hf:a/b/c", "hf:../b", "hf:a/..", "hf:a/b@", "hf:a/b@../x",
                            "hf:a/b@x/", "hf:a/b@/etc", "hf:a b/c", "hf:a/b?x", "hf:.a/b", "hf:a/b@x\n", "a/b"})
    CHECK_THROWS_AS(parse_hub_name(wrong), Error);
}

TEST_CASE("a model is fetched once into the cache that Python shares") {
  FakeHub hub;
  hub.files = {{"config.json", "{}"}, {kLarge, content(300'000)}};
  const Folder folder;
  const HubSettings settings = settings_for(hub, folder);
  std::int64_t last = 0;
  const std::string snapshot =
      fetch_hub_model(settings, kName, [&](std::string_view file, std::int64_t done, std::int64_t total) {
        if (file == kLarge && total > 0) {
          CHECK(done >= last);
          CHECK(total == 300'000);
          last = done;
        }
        return true;
      });
  CHECK(last == 300'000);
  const std::string root = folder / "hub/models--owner--name/";
  CHECK(snapshot == root + "snapshots/" + hub.commit);
  CHECK(read_bytes(root + "refs/main") == hub.commit);
  for (const auto& [file, bytes] : hub.files) {
    CHECK(read_bytes(snapshot + "/" + file) == bytes);
    CHECK(fs::read_symlink(snapshot + "/" + file).string() == "../../blobs/" + FakeHub::hash_of(file, bytes));
  }
  CHECK(fs::exists(root + ".no_exist/" + hub.commit + "/preprocessor_config.json"));

  // Again: one question for the branch's commit, nothing for a commit.
  const std::size_t gets = hub.hub().count("GET") + hub.network().count("GET"), heads = hub.hub().count("HEAD");
  CHECK(fetch_hub_model(settings, kName) == snapshot);
  CHECK(hub.hub().count("HEAD") == heads + 1);
  CHECK(fetch_hub_model(settings, {"owner", "name", hub.commit}) == snapshot);
  CHECK(hub.hub().count("HEAD") == heads + 1);
  CHECK(hub.hub().count("GET") + hub.network().count("GET") == gets);

  // A new commit of the branch: what is new comes, what has stayed does not.
  hub.commit = std::string(40, 'd');
  hub.files["config.json"] = "{\"new\": 1}";
  CHECK(read_bytes(fetch_hub_model(settings, kName) + "/config.json") == hub.files["config.json"]);
  CHECK(hub.network().count("GET") == 1);
}

TEST_CASE("the token goes to the hub alone") {
  FakeHub hub;
  hub.files = {{"config.json", "{}"}, {kLarge, content(1000)}};
  const Folder folder;
  HubSettings settings = settings_for(hub, folder);
  fetch_hub_model(settings, kName);
  for (const WebRequest& request : hub.hub().requests()) CHECK(request.header("authorization") == "Bearer hf_secret");
  REQUIRE(hub.network().count("GET") == 1);
  for (const WebRequest& request : hub.network().requests()) CHECK(request.header("authorization").empty());
  settings.token.clear();
  const std::size_t before = hub.hub().requests().size();
  fetch_hub_file(settings, kName, "config.json");
  CHECK(hub.hub().requests().size() == before + 1);
  CHECK(hub.hub().requests().back().header("authorization").empty());
}

TEST_CASE("connections that are cut are continued where they were") {
  FakeHub hub;
  hub.files = {{kLarge, content(100'000)}};
  hub.misbehave = [](const WebRequest& request, WebReply& reply) {
    if (request.method == "GET" && request.path.starts_with("/network/")) reply.cut = 30'000;
  };
  const Folder folder;
  const auto path = fetch_hub_file(settings_for(hub, folder), kName, kLarge);
  REQUIRE(path);
  CHECK(read_bytes(*path) == hub.files[kLarge]);
  std::vector<std::string> ranges;
  for (const WebRequest& request : hub.network().requests()) ranges.push_back(request.header("range"));
  CHECK(ranges == std::vector<std::string>{"", "bytes=30000-", "bytes=60000-", "bytes=90000-"});
}

TEST_CASE("connections that bring nothing end with what is known") {
  FakeHub hub;
  hub.files = {{kLarge, content(100'000)}};
  std::atomic<int> gets{0};
  hub.misbehave = [&](const WebRequest& request, WebReply& reply) {
    if (request.method == "GET" && request.path.starts_with("/network/")) reply.cut = gets++ == 0 ? 40'000 : 0;
  };
  const Folder folder;
  const std::string message = fetch_trouble(settings_for(hub, folder));
  CHECK(contains(message, "40000 of 100000 bytes that came are kept"));
  CHECK(gets == 4);
  check_nothing_wrong(folder, hub);
  hub.misbehave = nullptr;
  CHECK(read_bytes(*fetch_hub_file(settings_for(hub, folder), kName, kLarge)) == hub.files[kLarge]);
  CHECK(hub.network().requests().back().header("range") == "bytes=40000-");
}

TEST_CASE("bytes that are not those announced never become a file") {
  FakeHub hub;
  hub.files = {{kLarge, content(100'000)}};
  const Folder folder;
  const HubSettings settings = settings_for(hub, folder);
  SECTION("another content of the same size") {
    hub.misbehave = [](const WebRequest& request, WebReply& reply) {
      if (request.method == "GET" && !reply.body.empty()) reply.body[reply.body.size() / 2] ^= 1;
    };
    CHECK(contains(fetch_trouble(settings), "its hash is another"));
  }
  SECTION("more bytes") {
    hub.misbehave = [](const WebRequest& request, WebReply& reply) {
      if (request.method == "GET" && reply.status == 200) reply.body += "more";
    };
    CHECK(contains(fetch_trouble(settings), "its hash is another"));
  }
  SECTION("fewer bytes than announced, as a whole answer") {
    hub.misbehave = [](const WebRequest& request, WebReply& reply) {
      if (request.method == "GET" && reply.status == 200) reply.body.resize(50'000);
      if (reply.status == 206) reply = {.status = 200, .headers = {}, .body = ""};
    };
    CHECK(contains(fetch_trouble(settings), "the connection ends early"));
  }
  SECTION("an error page with status 200") {
    hub.misbehave = [](const WebRequest& request, WebReply& reply) {
      if (request.method == "GET") reply = {.status = 200, .headers = {}, .body = std::string(100'000, 'x')};
    };
    CHECK(contains(fetch_trouble(settings), "its hash is another"));
  }
  SECTION("a small file that changed") {
    hub.files["config.json"] = "{}";
    hub.misbehave = [](const WebRequest& request, WebReply& reply) {
      if (request.method == "GET") reply.body = "[]";
    };
    CHECK(contains(fetch_trouble(settings, "config.json"), "its hash is another"));
  }
  check_nothing_wrong(folder, hub);
  hub.misbehave = nullptr;
  CHECK(read_bytes(*fetch_hub_file(settings, kName, kLarge)) == hub.files[kLarge]);
}

TEST_CASE("servers that continue otherwise than asked") {
  FakeHub hub;
  hub.files = {{kLarge, content(100'000)}};
  const Folder folder;
  const HubSettings settings = settings_for(hub, folder);
  const std::string part =
      folder / "hub/models--owner--name/blobs/" + FakeHub::hash_of(kLarge, hub.files[kLarge]) + ".incomplete";
  fs::create_directories(fs::path(part).parent_path());
  SECTION("from the beginning") {
    write_bytes(part, hub.files[kLarge].substr(0, 1000));
    hub.misbehave = [&](const WebRequest& request, WebReply& reply) {
      if (request.method == "GET" && reply.status == 206) reply = {.status = 200, .headers = {}, .body = hub.files[kLarge]};
    };
  }
  SECTION("from somewhere else, once") {
    write_bytes(part, hub.files[kLarge].substr(0, 1000));
    std::shared_ptr<std::atomic<int>> count = std::make_shared<std::atomic<int>>(0);
    hub.misbehave = [count](const WebRequest&, WebReply& reply) {
      if (reply.status == 206 && (*count)++ == 0) reply.headers["Content-Range"] = "bytes 7-99999/100000";
    };
  }
  SECTION("the beginning is of another file") { write_bytes(part, std::string(5000, 'x')); }
  SECTION("the beginning is longer than the file") { write_bytes(part, std::string(200'000, 'x')); }
  SECTION("all is there already") { write_bytes(part, hub.files[kLarge]); }
  const auto path = fetch_hub_file(settings, kName, kLarge);
  REQUIRE(path);
  CHECK(read_bytes(*path) == hub.files[kLarge]);
  CHECK_FALSE(fs::exists(part));
}

TEST_CASE("statuses of the hub") {
  FakeHub hub;
  hub.files = {{kLarge, content(1000)}};
  const Folder folder;
  HubSettings settings = settings_for(hub, folder);
  const auto always = [&](int status, const std::string& code = "") {
    hub.misbehave = [=](const WebRequest&, WebReply& reply) {
      reply = {.status = status, .headers = {}, .body = "no"};
      if (!code.empty()) reply.headers["X-Error-Code"] = code;
    };
  };
  always(401);
  CHECK(contains(fetch_trouble(settings), "the token of HF_TOKEN may not read it"));
  settings.token.clear();
  CHECK(contains(fetch_trouble(settings), "set HF_TOKEN"));
  always(403, "GatedRepo");
  CHECK(contains(fetch_trouble(settings), "accept the model's terms"));
  always(404, "RepoNotFound");
  CHECK(contains(fetch_trouble(settings), "no such repository"));
  always(404, "RevisionNotFound");
  CHECK(contains(fetch_trouble(settings, kLarge, {"owner", "name", "dev"}), "hf:owner/name@dev: there is no revision 'dev'"));
  always(404, "EntryNotFound");
  CHECK_FALSE(fetch_hub_file(settings, kName, kLarge));
  always(400);
  CHECK(contains(fetch_trouble(settings), "status 400"));
  const std::size_t before = hub.hub().requests().size();
  always(500);
  CHECK(contains(fetch_trouble(settings), "status 500 after 3 attempts"));
  CHECK(hub.hub().requests().size() == before + 3);
  always(429);
  CHECK(contains(fetch_trouble(settings), "status 429"));
  check_nothing_wrong(folder, hub);

  // Trouble once, then none: for the question, and for both places of the file.
  for (const int status : {429, 500, 503}) {
    INFO(status);
    const Folder fresh;
    std::map<std::string, int> seen;
    std::mutex mutex;
    hub.misbehave = [&](const WebRequest& request, WebReply& reply) {
      const std::lock_guard lock(mutex);
      if (seen[request.method + request.path]++ == 0)
        reply = {.status = status, .headers = {{"Retry-After", "0"}}, .body = "wait"};
    };
    const auto path = fetch_hub_file(settings_for(hub, fresh), kName, kLarge);
    REQUIRE(path);
    CHECK(read_bytes(*path) == hub.files[kLarge]);
  }
}

TEST_CASE("redirects") {
  FakeHub hub;
  hub.files = {{kLarge, content(1000)}};
  const Folder folder;
  const HubSettings settings = settings_for(hub, folder);
  const auto to = [&](const std::string& where) {
    hub.misbehave = [=](const WebRequest& request, WebReply& reply) {
      if (request.path.starts_with("/owner/old/")) reply = {.status = 307, .headers = {{"Location", where}}, .body = ""};
    };
  };
  const HubName old{"owner", "old", "main"};
  to("/owner/name/resolve/main/" + kLarge);  // a repository that was renamed
  CHECK(read_bytes(*fetch_hub_file(settings, old, kLarge)) == hub.files[kLarge]);
  const Folder other;
  for (const auto& [where, expected] : std::map<std::string, std::string>{{"file:///etc/passwd", "not safe"},
                                                                          {"ftp://127.0.0.1/x", "not safe"},
                                                                          {"/owner/old/resolve/main/" + kLarge, "in a circle"}}) {
    hub.misbehave = [=, where = where](const WebRequest& request, WebReply& reply) {
      if (request.method == "GET" || where.starts_with("/"))
        reply = {.status = 302, .headers = {{"Location", where}}, .body = ""};
    };
    CHECK(contains(fetch_trouble(settings_for(hub, other)), expected));
  }
  check_nothing_wrong(other, hub);
}

TEST_CASE("answers of what is no hub") {
  FakeHub hub;
  hub.files = {{kLarge, content(1000)}};
  const Folder folder;
  const HubSettings settings = settings_for(hub, folder);
  for (const auto& [header, value] : std::vector<std::pair<std::string, std::string>>{{"X-Repo-Commit", ""},
                                                                                      {"X-Repo-Commit", "../../../../etc"},
                                                                                      {"X-Repo-Commit", std::string(40, '/')},
                                                                                      {"X-Linked-Etag", "\"../../x\""},
                                                                                      {"X-Linked-Etag", std::string(64, 'G')},
                                                                                      {"X-Linked-Etag", "\"abc\""}}) {
    INFO(header << " " << value);
    hub.misbehave = [=, header = header, value = value](const WebRequest&, WebReply& reply) { reply.headers[header] = value; };
    CHECK(contains(fetch_trouble(settings), "does not answer as a hub does"));
  }
  CHECK_FALSE(fs::exists(folder / "hub"));
  CHECK(contains(fetch_trouble(settings, "../x"), "cannot be fetched"));
  for (const char* wrong : {"/a", "a//b", "a/", "a/../b", "a/.b"})
    CHECK(contains(fetch_trouble(settings, wrong), "cannot be fetched"));
}

TEST_CASE("a server that stalls is left, and asked for the rest") {
  FakeHub hub;
  hub.files = {{kLarge, content(100'000)}};
  std::atomic<int> gets{0};
  hub.misbehave = [&](const WebRequest& request, WebReply& reply) {
    if (request.method != "GET" || !request.path.starts_with("/network/") || gets++ > 0) return;
    reply.piece = 60'000;
    reply.pause_ms = 2500;  // each piece comes later than the time that may pass without a byte
  };
  const Folder folder;
  const auto begin = std::chrono::steady_clock::now();
  CHECK(read_bytes(*fetch_hub_file(settings_for(hub, folder), kName, kLarge)) == hub.files[kLarge]);
  CHECK(gets == 2);
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
}

TEST_CASE("without a connection the cache serves") {
  const Folder folder;
  HubSettings settings;
  std::string snapshot;
  {
    FakeHub hub;
    hub.files = {{"config.json", "{}"}, {kLarge, content(1000)}};
    settings = settings_for(hub, folder);
    snapshot = fetch_hub_model(settings, kName);
  }
  CHECK(fetch_hub_model(settings, kName) == snapshot);  // the server has gone
  CHECK(contains(fetch_trouble(settings, kLarge, {"owner", "other", "main"}), "after 3 attempts"));
  settings.offline = true;
  CHECK(fetch_hub_model(settings, kName) == snapshot);
  CHECK(contains(fetch_trouble(settings, kLarge, {"owner", "other", "main"}), "HF_HUB_OFFLINE is set"));
  CHECK_FALSE(fetch_hub_file(settings, kName, "other.bin"));
}

TEST_CASE("shards are fetched with their index") {
  FakeHub hub;
  hub.files = {{"config.json", "{}"},
               {"model.safetensors.index.json", R"({"weight_map":{"a":"part-1.safetensors","b":"part-2.safetensors"}})"},
               {"part-1.safetensors", content(1000, 1)},
               {"part-2.safetensors", content(1000, 2)}};
  const Folder folder;
  const std::string snapshot = fetch_hub_model(settings_for(hub, folder), kName);
  for (const auto& [file, bytes] : hub.files) CHECK(read_bytes(snapshot + "/" + file) == bytes);
  hub.commit = std::string(40, 'e');
  hub.files["model.safetensors.index.json"] = R"({"weight_map":{"a":"../../../x.safetensors"}})";
  CHECK_THROWS_AS(fetch_hub_model(settings_for(hub, folder), kName), Error);
}

TEST_CASE("of a pipeline the files come that are read, and no others") {
  const std::string unet = "unet/diffusion_pytorch_model", index = R"({"_class_name": "StableDiffusionPipeline",
    "feature_extractor": [null, null], "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"], "../x": ["diffusers", "AutoencoderKL"], "requires_safety_checker": true})";
  FakeHub hub;
  const std::map<std::string, std::string> read = {{"model_index.json", index},
                                                   {"scheduler/scheduler_config.json", "{\"a\": 1}"},
                                                   {"text_encoder/config.json", "{\"a\": 2}"},
                                                   {"text_encoder/pytorch_model.bin", content(1000, 1)},
                                                   {"tokenizer/merges.txt", "a b"},
                                                   {"tokenizer/vocab.json", "{\"a\": 0}"},
                                                   {"unet/config.json", "{\"a\": 3}"},
                                                   {unet + ".safetensors.index.json",
                                                    R"({"weight_map": {"a": "diffusion_pytorch_model-1.safetensors",
                                                                       "b": "diffusion_pytorch_model-2.safetensors"}})"},
                                                   {unet + "-1.safetensors", content(1000, 2)},
                                                   {unet + "-2.safetensors", content(1000, 3)},
                                                   {"vae/config.json", "{\"a\": 4}"},
                                                   {"vae/diffusion_pytorch_model.safetensors", content(2000, 4)}};
  hub.files = read;
  for (const char* other :
       {"vae/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors",
        "safety_checker/model.safetensors", "v1-5-pruned.safetensors", "v1-5-pruned.ckpt", "README.md"})
    hub.files[other] = content(500);
  const Folder folder;
  HubSettings settings = settings_for(hub, folder);
  const std::string snapshot = fetch_hub_pipeline(settings, kName);
  std::map<std::string, std::string> came;
  for (const auto& entry : fs::recursive_directory_iterator(snapshot))
    if (!entry.is_directory()) came[entry.path().lexically_relative(snapshot).string()] = read_bytes(entry.path().string());
  CHECK(came == read);
  check_nothing_wrong(folder, hub);

  // Once more: one question. Offline: none, and the same folder.
  const std::size_t before = hub.hub().requests().size();
  CHECK(fetch_hub_pipeline(settings, kName) == snapshot);
  CHECK(hub.hub().requests().size() == before + 1);
  settings.offline = true;
  CHECK(fetch_hub_pipeline(settings, kName) == snapshot);
  CHECK(hub.hub().requests().size() == before + 1);
}

TEST_CASE("a variant of a pipeline comes where a part has it, and of the others the plain weights") {
  FakeHub hub;
  const std::string index = R"({"_class_name": "StableDiffusion3Pipeline", "scheduler": ["diffusers", "X"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"], "text_encoder_2": ["transformers", "CLIPTextModel"],
    "text_encoder_3": ["transformers", "T5EncoderModel"], "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"]})";
  const auto shards = [](const std::string& one, const std::string& two) {
    return fmt::format(R"({{"weight_map": {{"a": "{}", "b": "{}"}}}})", one, two);
  };
  const std::string transformer = "transformer/diffusion_pytorch_model", t5 = "text_encoder_3/model";
  std::map<std::string, std::string> wanted = {
      {"model_index.json", index},
      {"scheduler/scheduler_config.json", "{}"},
      {"text_encoder/model.fp16.safetensors", content(1000, 1)},
      {"text_encoder_2/pytorch_model.fp16.bin", content(1000, 2)},
      // Indexes as they are written today, and as diffusers wrote them before.
      {t5 + ".safetensors.index.fp16.json",
       shards("model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors")},
      {t5 + ".fp16-00001-of-00002.safetensors", content(1000, 3)},
      {t5 + ".fp16-00002-of-00002.safetensors", content(1000, 4)},
      {transformer + ".safetensors.fp16.index.json", shards("diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
                                                            "diffusion_pytorch_model-00002-of-00002.fp16.safetensors")},
      {transformer + "-00001-of-00002.fp16.safetensors", content(1000, 5)},
      {transformer + "-00002-of-00002.fp16.safetensors", content(1000, 6)},
      {"vae/diffusion_pytorch_model.safetensors", content(2000, 7)}};  // has none
  for (const char* part : {"text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae"})
    wanted[std::string(part) + "/config.json"] = fmt::format("{{\"a\": \"{}\"}}", part);
  const std::vector<std::string> plain{"text_encoder/model.safetensors", "text_encoder_2/model.safetensors", t5 + ".safetensors",
                                       transformer + ".safetensors"};
  hub.files = wanted;
  for (const std::string& file : plain) hub.files[file] = content(500);
  const Folder folder;
  const HubSettings settings = settings_for(hub, folder);
  const std::string snapshot = fetch_hub_pipeline(settings, kName, {}, "fp16");
  std::map<std::string, std::string> came;
  for (const auto& entry : fs::recursive_directory_iterator(snapshot))
    if (!entry.is_directory()) came[entry.path().lexically_relative(snapshot).string()] = read_bytes(entry.path().string());
  CHECK(came == wanted);
  for (const auto& [part, file] :
       std::map<std::string, std::string>{{"text_encoder", "model.fp16.safetensors"},
                                          {"text_encoder_2", "pytorch_model.fp16.bin"},
                                          {"text_encoder_3", "model.safetensors.index.fp16.json"},
                                          {"transformer", "diffusion_pytorch_model.safetensors.fp16.index.json"}})
    CHECK(find_weights(snapshot + "/" + part, "fp16") == snapshot + "/" + part + "/" + file);
  CHECK_FALSE(find_weights(snapshot + "/vae", "fp16"));
  CHECK(find_weights(snapshot + "/vae", "") == snapshot + "/vae/diffusion_pytorch_model.safetensors");

  const std::size_t before = hub.network().count("GET");
  const auto trouble = [&](const std::string& variant) -> std::string {
    try {
      fetch_hub_pipeline(settings, kName, {}, variant);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(contains(trouble("fp8"), "hf:owner/name: no part has weights of the variant 'fp8'"));
  CHECK(contains(trouble("../fp16"), "variant '../fp16': expected a name such as fp16"));
  CHECK(hub.network().count("GET") == before);  // nothing large came for it
  fetch_hub_pipeline(settings, kName);
  for (const std::string& file : plain) CHECK(fs::exists(snapshot + "/" + file));
}

TEST_CASE("pipelines that lack something") {
  FakeHub hub;
  const std::string index = R"({"_class_name": "DiTPipeline", "scheduler": ["diffusers", "DDIMScheduler"],
                                "vae": ["diffusers", "AutoencoderKL"]})";
  const std::map<std::string, std::string> whole = {{"model_index.json", index},
                                                    {"scheduler/scheduler_config.json", "{}"},
                                                    {"vae/config.json", "{\"a\": 4}"},
                                                    {"vae/diffusion_pytorch_model.safetensors", content(2000)}};
  const auto trouble = [&](const std::string& without) -> std::string {
    hub.files = whole;
    hub.files.erase(without);
    const Folder folder;
    HubSettings settings = settings_for(hub, folder);
    std::string message;
    try {
      fetch_hub_pipeline(settings, kName);
    } catch (const Error& error) {
      message = error.what();
    }
    check_nothing_wrong(folder, hub);
    return message;
  };
  CHECK(trouble("nothing").empty());
  CHECK(trouble("model_index.json") == "hf:owner/name: has no model_index.json: not a pipeline of diffusers");
  CHECK(trouble("scheduler/scheduler_config.json") == "hf:owner/name: has no scheduler/scheduler_config.json");
  CHECK(trouble("vae/config.json") == "hf:owner/name: has no vae/config.json");
  CHECK(contains(trouble("vae/diffusion_pytorch_model.safetensors"),
                 "has neither vae/diffusion_pytorch_model.safetensors nor diffusion_pytorch_model.bin"));
}

TEST_CASE("who stops keeps what has come") {
  FakeHub hub;
  hub.files = {{kLarge, content(400'000)}};
  hub.misbehave = [](const WebRequest& request, WebReply& reply) {
    if (request.method == "GET" && request.path.starts_with("/network/") && reply.status == 200) reply.pause_ms = 30;
  };
  const Folder folder;
  const HubSettings settings = settings_for(hub, folder);
  const std::string message =
      fetch_trouble(settings, kLarge, kName, [](std::string_view, std::int64_t done, std::int64_t) { return done < 100'000; });
  CHECK(contains(message, "interrupted"));
  check_nothing_wrong(folder, hub);
  CHECK(read_bytes(*fetch_hub_file(settings, kName, kLarge)) == hub.files[kLarge]);
  CHECK(hub.network().requests().back().header("range").starts_with("bytes="));
}

TEST_CASE("two who want the same file fetch it once") {
  FakeHub hub;
  hub.files = {{kLarge, content(300'000)}};
  hub.misbehave = [](const WebRequest& request, WebReply& reply) {
    if (request.method == "GET" && request.path.starts_with("/network/")) reply.pause_ms = 20;
  };
  const Folder folder;
  const HubSettings settings = settings_for(hub, folder);
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] { right += read_bytes(*fetch_hub_file(settings, kName, kLarge)) == hub.files[kLarge]; });
  for (std::thread& thread : threads) thread.join();
  CHECK(right == 4);
  CHECK(hub.network().count("GET") == 1);
}

// The process ends at any moment, as by a power cut: whatever is in the cache under its name is right, and the next run goes on.
TEST_CASE("a download that is killed at 50 random points leaves nothing that is taken for good") {
  FakeHub hub;
  hub.files = {{"config.json", "{\"a\": 1}"}, {kLarge, content(600'000)}};
  hub.misbehave = [](const WebRequest& request, WebReply& reply) {
    if (request.method != "GET") return;
    reply.piece = 20'000;
    reply.pause_ms = 1;
  };
  std::mt19937 random(7);
  int unfinished = 0, continued = 0;
  std::unique_ptr<Folder> folder = std::make_unique<Folder>();
  for (int round = 0; round < 50; ++round) {
    const HubSettings settings = settings_for(hub, *folder);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      try {
        fetch_hub_model(settings, kName);
      } catch (...) {
        _exit(1);
      }
      _exit(0);
    }
    // At a random byte, whatever the machine's speed; every fifth at a random time, which may be before the first.
    int status = 0;
    bool ended = false;
    const std::uint64_t last = hub.network().sent() + random() % 700'000;
    if (round % 5 != 0)
      while (!ended && hub.network().sent() < last) {
        ended = waitpid(child, &status, WNOHANG) == child;
        usleep(100);
      }
    if (!ended) {
      usleep(random() % 5000);
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
    }
    check_nothing_wrong(*folder, hub);
    const bool finished = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    unfinished += !finished;
    if (finished) {
      CHECK(fs::exists(*folder / ("hub/models--owner--name/snapshots/" + hub.commit + "/" + kLarge)));
      folder = std::make_unique<Folder>();
    }
  }
  for (const WebRequest& request : hub.network().requests()) continued += !request.header("range").empty();
  CHECK(unfinished > 10);
  CHECK(continued > 5);
  CHECK(read_bytes(fetch_hub_model(settings_for(hub, *folder), kName) + "/" + kLarge) == hub.files[kLarge]);
}

TEST_CASE("the environment says where the hub and its cache are") {
  const Folder folder;
  std::map<std::string, std::string> old;
  const auto set = [&](const char* name, const std::string& value) {
    if (const char* now = std::getenv(name); now && !old.contains(name)) old[name] = now;
    value.empty() ? unsetenv(name) : setenv(name, value.c_str(), 1);
  };
  const char* const all[] = {"HF_HOME",
                             "HF_HUB_CACHE",
                             "XDG_CACHE_HOME",
                             "HF_ENDPOINT",
                             "HF_TOKEN",
                             "HF_TOKEN_PATH",
                             "HF_HUB_OFFLINE",
                             "TRANSFORMERS_OFFLINE",
                             "HF_HUB_DOWNLOAD_TIMEOUT",
                             "HF_HUB_DISABLE_IMPLICIT_TOKEN",
                             "HOME"};
  for (const char* name : all) set(name, "");
  set("HOME", folder / "home");
  CHECK(hub_settings().cache == folder / "home/.cache/huggingface/hub");
  CHECK(hub_settings().endpoint == "https://huggingface.co");
  CHECK(hub_settings().token.empty());
  CHECK_FALSE(hub_settings().offline);
  set("XDG_CACHE_HOME", folder / "xdg");
  CHECK(hub_settings().cache == folder / "xdg/huggingface/hub");
  set("HF_HOME", folder.path());
  CHECK(hub_settings().cache == folder / "hub");
  set("HF_HUB_CACHE", folder / "elsewhere");
  CHECK(hub_settings().cache == folder / "elsewhere");
  write_bytes(folder / "token", "hf_file\n");
  CHECK(hub_settings().token == "hf_file");
  set("HF_TOKEN", "hf_environment");
  CHECK(hub_settings().token == "hf_environment");
  set("HF_TOKEN", "hf\r\nX-Other: 1");
  CHECK_THROWS_AS(hub_settings(), Error);
  set("HF_TOKEN", "");
  set("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
  CHECK(hub_settings().token.empty());
  set("HF_ENDPOINT", "http://localhost:8080/");
  CHECK(hub_settings().endpoint == "http://localhost:8080");
  set("HF_HUB_OFFLINE", "yes");
  CHECK(hub_settings().offline);
  set("HF_HUB_DOWNLOAD_TIMEOUT", "33");
  CHECK(hub_settings().timeout_s == 33);
  for (const char* name : all) set(name, old.contains(name) ? old[name] : "");
}
