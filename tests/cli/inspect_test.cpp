// models, inspect and info.
#include <catch.h>
#include <weights/files.h>

#include <nlohmann/json.hpp>

#include "cli/run.h"

using nlohmann::json;

namespace {

const std::string kShipped = std::string(VITRINE_SOURCE_DIR) + "/weights/shipped/nat_fashion.safetensors";

}  // namespace

TEST_CASE("models lists shipped ones and those of a pattern") {
  const RunResult all = run_vitrine({"models", "--json"});
  CHECK(all.code == 0);
  const json rows = json::parse(all.out);
  CHECK(rows.size() > 50);
  CHECK(rows[0]["name"] == "nat_fashion");
  CHECK(rows[0]["shipped"] == true);
  CHECK(rows[0]["present"] == true);
  CHECK(rows[0]["input_size"] == json{1, 40, 40});

  const json small = json::parse(run_vitrine({"models", "vit_small_patch16_22?", "--json"}).out);
  REQUIRE(small.size() == 1);
  CHECK(small[0]["name"] == "vit_small_patch16_224");
  CHECK(small[0]["shipped"] == false);

  const RunResult text = run_vitrine({"models", "nat_*"});
  CHECK(text.code == 0);
  CHECK(text.out.find("nat_mini") != std::string::npos);
  CHECK(text.out.find("vit_") == std::string::npos);

  const RunResult none = run_vitrine({"models", "nat_mimi"});
  CHECK(none.code == 1);
  CHECK(none.out.empty());
  CHECK(none.err.find("nat_mini") != std::string::npos);
}

TEST_CASE("inspect lists tensors, metadata and totals") {
  const RunResult result = run_vitrine({"inspect", kShipped, "--json"});
  CHECK(result.code == 0);
  const json r = json::parse(result.out);
  CHECK(r["tensors"] == 65);
  CHECK(r["entries"].size() == 65);
  CHECK(r["metadata"]["config"]["embed_dim"] == 48);
  CHECK(r["metadata"]["test_accuracy"] == "0.9181");
  std::int64_t elements = 0;
  for (const json& entry : r["entries"]) {
    std::int64_t product = 1;
    for (const json& size : entry["shape"]) product *= size.get<std::int64_t>();
    elements += product;
    CHECK(entry["dtype"] == "f32");
  }
  CHECK(r["elements"] == elements);
  CHECK(r["bytes"] == 4 * elements);

  const RunResult text = run_vitrine({"inspect", kShipped});
  CHECK(text.code == 0);
  CHECK(text.out.find("levels.0.blocks.0.attn.qkv.weight") != std::string::npos);
  CHECK(text.out.find("[144, 48]") != std::string::npos);
  CHECK(text.out.find("65 tensors") != std::string::npos);
}

TEST_CASE("info says what is in force") {
  const json r = json::parse(run_vitrine({"info", "--json", "--threads", "3"}).out);
  CHECK(r["threads"] == 3);
  CHECK(r["devices"][0] == "cpu");
  CHECK(r["onednn"].get<std::string>().starts_with("3."));
  CHECK(r["shipped"].contains("nat_fashion"));
  CHECK(run_vitrine({"info"}).out.find("instruction_set") != std::string::npos);
}
