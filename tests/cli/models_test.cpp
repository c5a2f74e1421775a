// vitrine models: what it says of the published models, and that backbones/README.md says the same.
#include <fstream>
#include <sstream>
#include <string>

#include <catch.h>
#include <nlohmann/json.hpp>

#include "cli/run.h"

TEST_CASE("the table in backbones/README.md is that of vitrine models --markdown") {
  std::ostringstream file;
  file << std::ifstream(VITRINE_SOURCE_DIR "/backbones/README.md").rdbuf();
  const std::string text = file.str(), begin = "<!-- vitrine models --markdown -->\n", end = "<!-- end -->";
  const std::size_t first = text.find(begin), last = text.find(end, first);
  REQUIRE(first != std::string::npos);
  REQUIRE(last != std::string::npos);
  const RunResult table = run_vitrine({"models", "--markdown"});
  CHECK(table.code == 0);
  CHECK(table.err.empty());
  INFO("to bring it up to date: write the output of `vitrine models --markdown` between the two markers of backbones/README.md");
  CHECK(text.substr(first + begin.size(), last - first - begin.size()) == table.out);
}

TEST_CASE("a table of chosen models has a row for each") {
  const RunResult table = run_vitrine({"models", "nat_mini", "--markdown"});
  CHECK(table.code == 0);
  CHECK(table.out ==
        "### nat\n\nAttention: neighborhoods, dilated in turns (DiNAT). Source: arXiv:2204.07143, arXiv:2209.15001; "
        "SHI-Labs/Neighborhood-Attention-Transformer.\n\n| model | parameters, M | GMACs | input | top-1, % |\n"
        "|---|---|---|---|---|\n| nat_mini | 20.0 | 2.69 | 224x224 | 81.8 |\n");
  const RunResult none = run_vitrine({"models", "nat_fashion", "--markdown"});  // shipped, but no published name
  CHECK(none.code == 1);
  CHECK(none.error_lines() == 1);
}

TEST_CASE("every published model has a source and an attention, and its accuracy, where it has one, can be one") {
  const RunResult models = run_vitrine({"models", "--json"});
  REQUIRE(models.code == 0);
  int accuracies = 0;
  for (const auto& model : nlohmann::json::parse(models.out)) {
    if (model.at("shipped").get<bool>()) continue;
    INFO(model.at("name"));
    CHECK_FALSE(model.at("source").get<std::string>().empty());
    CHECK_FALSE(model.at("attention").get<std::string>().empty());
    const auto top1 = model.at("top1").get<std::string>();
    if (top1.empty()) continue;
    ++accuracies;
    std::size_t digits = 0;
    const double percent = std::stod(top1, &digits);
    CHECK(percent > 50);
    CHECK(percent < 92);
    const std::string mark = top1.substr(digits);
    CHECK((mark.empty() || mark == "*" || mark == "†"));
  }
  CHECK(accuracies >= 170);
}
