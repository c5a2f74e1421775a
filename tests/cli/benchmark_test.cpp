// vitrine benchmark with attention cases and charts; vitrine models --attention.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <catch.h>
#include <nlohmann/json.hpp>

#include "cli/run.h"

#include <vitrine/attention2d/mixer.h>

namespace {

using nlohmann::json;

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string read(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// A wrong command line: one line on stderr, with `part` in it, and exit code 2.
void check_usage(const std::vector<std::string>& arguments, const std::string& part) {
  const RunResult wrong = run_vitrine(arguments);
  INFO(wrong.err);
  CHECK(wrong.code == 2);
  CHECK(wrong.error_lines() == 1);
  CHECK(contains(wrong.err, part));
}

}  // namespace

TEST_CASE("attention cases are timed like models, one JSON object a line") {
  const RunResult result = run_vitrine({"benchmark", "na2d_14x14_h2_d32_k7", "focal_9x8_c16_l1_w3", "na2d_14x14_h2_k7", "--json",
                                        "--seconds", "0", "--threads", "1", "--dtype", "bf16"});
  CHECK(result.code == 1);  // one of them is no case; the others are run
  CHECK(result.err.empty());
  std::istringstream lines(result.out);
  std::vector<json> rows;
  for (std::string line; std::getline(lines, line);) rows.push_back(json::parse(line));
  REQUIRE(rows.size() == 3);
  CHECK(rows[0]["case"] == "na2d_14x14_h2_d32_k7");
  CHECK(rows[0]["tokens"] == json({14, 14}));
  CHECK(rows[0]["dtype"] == "bf16");
  CHECK(rows[0]["threads"] == 1);
  for (const char* number : {"median_ms", "min_ms", "p90_ms", "runs", "gflops", "gemm_share", "peak_activation_bytes"}) {
    INFO(number);
    CHECK(rows[0][number].get<double>() > 0);
  }
  CHECK(rows[1]["tokens"] == json({9, 8}));
  CHECK(rows[1]["parameters"].get<int>() == 16 * 34 + 34 + 16 * 9 + 2 * (16 * 16 + 16));
  CHECK(contains(rows[2]["error"].get<std::string>(), "no dNUMBER"));
}

TEST_CASE("cases that are none or too large are told by name") {
  const auto error_of = [](const char* name) { return run_vitrine({"benchmark", name, "--seconds", "0"}).err; };
  CHECK(contains(error_of("na2d"), "unknown model 'na2d'"));
  CHECK(contains(error_of("na2d"), "attention cases are like na2d_56x56_h2_d32_k7"));
  CHECK(contains(error_of("sdpa_h3_n0_d64"), "n is 0"));
  CHECK(contains(error_of("swin_14x14_c16_h3_w7_s0"),
                 "attention case 'swin_14x14_c16_h3_w7_s0': window_attention: dim 16 is not a multiple of 3 heads"));
  CHECK(contains(error_of("hilo_14x14_c16_h2_w2_a11"), "11 tenths of the heads"));
  CHECK(contains(error_of("sdpa_h16777216_n16777216_d16777216"), "attention case 'sdpa_h16777216_n16777216_d16777216': "));
  CHECK(contains(error_of("na2d_16000000x16000000_h2_d32_k7"), "attention case 'na2d_16000000x16000000_h2_d32_k7': "));
}

TEST_CASE("networks of generation are timed with the size of their latents") {
  const RunResult result = run_vitrine({"benchmark", "taesd_decode_3", "DiT-S/8", "vae_decode_0", "vae_decode_4x4", "dit_q_2",
                                        "DiT-Q/2", "--json", "--seconds", "0", "--batch-size", "2"});
  CHECK(result.code == 1);  // those that are none; the others are run
  std::istringstream lines(result.out);
  std::vector<json> rows;
  for (std::string line; std::getline(lines, line);) rows.push_back(json::parse(line));
  REQUIRE(rows.size() == 6);
  CHECK(rows[0]["case"] == "taesd_decode_3");
  CHECK(rows[0]["latent_size"] == json({3, 3}));
  CHECK(rows[0]["batch"] == 2);
  CHECK(rows[0]["weights_dtype"] == "f32");
  CHECK(rows[0]["parameters"] == 2445063);
  for (const char* number : {"median_ms", "gmacs", "gflops", "gemm_share", "peak_activation_bytes"})
    CHECK(rows[0][number].get<double>() > 0);
  CHECK(rows[1]["latent_size"] == json({32, 32}));
  const auto error = [&](std::size_t row) { return rows[row]["error"].get<std::string>(); };
  CHECK(contains(error(2), "generation case 'vae_decode_0': '0' is not a size"));
  CHECK(contains(error(3), "'4x4' is not a size of 1 to 1024; cases are like vae_decode_32"));
  CHECK(contains(error(4), "generation case 'dit_q_2': unknown denoiser 'DiT-Q/2'"));
  CHECK(contains(error(5), "unknown model 'DiT-Q/2'"));
}

TEST_CASE("int8 weights are those of models") {
  const RunResult result = run_vitrine({"benchmark", "nat_fashion", "--weights-dtype", "i8", "--json", "--seconds", "0"});
  CHECK(result.code == 0);
  CHECK(json::parse(result.out)["weights_dtype"] == "i8");
  const RunResult attention = run_vitrine({"benchmark", "na2d_8x8_h2_d32_k3", "--weights-dtype", "i8", "--seconds", "0"});
  CHECK(attention.code == 1);
  CHECK(contains(attention.err, "int8 weights are for models and denoisers"));
  CHECK(run_vitrine({"benchmark", "nat_fashion", "--weights-dtype", "i4"}).code == 2);
}

TEST_CASE("an implementation of an attention operator is timed by its name") {
  const auto benchmark = [](const char* name, const char* impl) {
    return run_vitrine({"benchmark", name, "--impl", impl, "--json", "--seconds", "0"});
  };
  CHECK(benchmark("sdpa_h1_n20_d8", "reference").code == 0);
  CHECK(contains(benchmark("sdpa_h1_n20_d8", "magic").out, "no implementation 'magic'"));
  CHECK(contains(benchmark("swin_14x14_c16_h2_w7_s0", "reference").out, "impl 'reference' is for operators"));
  CHECK(contains(benchmark("nat_fashion", "reference").out, "impl 'reference' is for attention operators"));
}

TEST_CASE("a dry run lists what attention cases could run with, and runs nothing") {
  const RunResult run = run_vitrine({"benchmark", "na2d_256x256_h2_d64_k131", "hilo_14x14_c384_h12_w2_a9", "--dry-run"});
  INFO(run.out << run.err);
  CHECK(run.code == 0);
  CHECK(contains(run.out, "chosen"));
  CHECK(contains(run.out, "cuda_sm90"));
  CHECK(contains(run.out, "the tensors are on the CPU"));
  CHECK(contains(run.out, "can run"));
  CHECK(contains(run.out, "hilo_14x14"));

  const RunResult lines =
      run_vitrine({"benchmark", "sdpa_h3_n197_d64", "--dry-run", "--json", "--impl", "flash_scalar", "--dtype", "bf16"});
  std::istringstream out(lines.out);
  int chosen = 0, all = 0;
  for (std::string line; std::getline(out, line); ++all) {
    const json row = json::parse(line);
    CHECK(row["case"] == "sdpa_h3_n197_d64");
    CHECK((row["can_run"] == row["reason"].get<std::string>().empty()));
    if (row["chosen"] == true) CHECK(row["implementation"] == "flash_scalar");
    chosen += row["chosen"] == true;
  }
  CHECK(chosen == 1);
  CHECK(all > 3);

  check_usage({"benchmark", "vit_tiny_patch16_224", "--dry-run"}, "--dry-run is for attention cases");
  const RunResult none = run_vitrine({"benchmark", "sdpa_h3_n197_d64", "--dry-run", "--impl", "flas"});
  CHECK(none.code == 1);
  CHECK(none.error_lines() == 1);
  CHECK(contains(none.err, "no implementation 'flas'"));
}

TEST_CASE("the chart of attention by map size") {
  const auto folder = std::filesystem::temp_directory_path() / ("vitrine-plot-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const std::string file = (folder / "a chart.svg").string();
  const RunResult result = run_vitrine({"benchmark", "--plot", file, "focal", "na2d", "--seconds", "0", "--json"});
  INFO(result.err);
  CHECK(result.code == 0);
  CHECK(contains(result.out, "\"na2d_64x64_h2_d32_k7\""));
  const std::string svg = read(file);
  CHECK(contains(svg, ">na2d</text>"));
  CHECK(contains(svg, ">focal</text>"));
  CHECK(contains(svg, "milliseconds"));
  CHECK(contains(svg, ">256</text>"));
  std::filesystem::remove_all(folder);

  check_usage({"benchmark"}, "NAME is required");
  check_usage({"benchmark", "--plot", "chart.gif"}, "--plot");
  check_usage({"benchmark", "--plot", "chart.svg", "na9d"}, "'na9d' is nothing to plot");
  check_usage({"benchmark", "--plot", "chart.svg", "na2d_{width}x{width}_h2_d32_k7"}, "is nothing to plot");
  check_usage({"benchmark", "--plot", "chart.svg", "nad2_{side}x{side}_h2_d32_k7"}, "is nothing to plot");
  check_usage({"benchmark", "--plot", "chart.svg", "--img-size", "64"}, "--img-size");
}

TEST_CASE("the chart of FLUX's attention by the picture's side") {
  const auto folder = std::filesystem::temp_directory_path() / ("vitrine-growth-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const std::string file = (folder / "growth.svg").string();
  const std::vector<std::string> common{"benchmark", "--plot",        file,        "--of", "flux-attention",
                                        "--sides",   "128,64,64,320", "--seconds", "0"};
  const auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), common.begin(), common.end());
    return run_vitrine(arguments);
  };
  const RunResult result = with({"--json"});
  INFO(result.err);
  CHECK(result.code == 0);
  for (const char* part : {"\"sdpa_h24_n576_d128\"", "\"clear_20x20_h24_d128_r8_t512\"", "\"na2d_4x4_h24_d128_k4\"",
                           "\"na2d_20x20_h24_d128_k15_t512\"", "\"elu_h24_n400_d128\"", "\"full_over\"", "\"image_size\":320"})
    CHECK(contains(result.out, part));
  CHECK(!contains(result.out, "\"extrapolated\":true"));
  const std::string svg = read(file);
  CHECK(contains(svg, ">CLEAR, radius 8</text>"));
  CHECK(contains(svg, "attention alone, no text: time of a pass"));
  CHECK(!contains(svg, ">extrapolated</text>"));

  // Beyond the first size all is extrapolated; the named mechanisms only.
  const RunResult guessed = with({"clear", "linfusion", "--most-seconds", "0"});
  INFO(guessed.err);
  CHECK(guessed.code == 0);
  CHECK(contains(guessed.err, "clear_8x8_h24_d128_r8: extrapolated"));
  CHECK(!contains(guessed.out, "sdpa"));
  CHECK(contains(guessed.out, "extrapolated"));
  const std::string dotted = read(file);
  CHECK(contains(dotted, ">extrapolated</text>"));
  CHECK(contains(dotted, "stroke-dasharray=\"1 4\""));
  std::filesystem::remove_all(folder);

  check_usage({"benchmark", "nat_fashion", "--of", "flux-block"}, "need --plot");
  check_usage({"benchmark", "--plot", "chart.svg", "--of", "magic"}, "--of");
  check_usage({"benchmark", "--plot", "chart.svg", "--of", "flux-block", "cleer"}, "'cleer' is nothing to plot");
  check_usage({"benchmark", "--plot", "chart.svg", "--of", "flux-block", "--impl", "flash"}, "--impl does not apply");
  check_usage({"benchmark", "--plot", "chart.svg", "--of", "flux-block", "--img-size", "64"}, "--img-size");
  check_usage({"benchmark", "--plot", "chart.svg", "--sides", "64"}, "--sides is for --of flux-");
  for (const char* side : {"0", "-16", "100", "16384", "9223372036854775807"})
    check_usage({"benchmark", "--plot", "chart.svg", "--of", "flux-block", "--sides", side}, "--sides");
  check_usage({"benchmark", "--plot", "chart.svg", "--of", "flux-block", "--sides", "64,x"}, "--sides");
  check_usage({"benchmark", "--plot", "chart.svg", "--of", "flux-block", "--most-seconds", "-1"}, "--most-seconds");
}

TEST_CASE("models --attention lists every mechanism with its options") {
  const RunResult text = run_vitrine({"models", "--attention"});
  CHECK(text.code == 0);
  CHECK(text.err.empty());
  const RunResult result = run_vitrine({"models", "--attention", "--json"});
  REQUIRE(result.code == 0);
  const json listed = json::parse(result.out);
  REQUIRE(listed.size() == vitrine::mechanisms().size());
  for (std::size_t i = 0; i < listed.size(); ++i) {
    const vitrine::Mechanism& mechanism = vitrine::mechanisms()[i];
    INFO(mechanism.name);
    CHECK(listed[i]["name"] == mechanism.name);
    CHECK(listed[i]["class_token"] == mechanism.takes_prefix);
    REQUIRE(listed[i]["options"].size() == mechanism.options.size());
    CHECK(contains(text.out, std::string(mechanism.name)));
    for (std::size_t o = 0; o < mechanism.options.size(); ++o) {
      CHECK(listed[i]["options"][o]["name"] == mechanism.options[o].name);
      CHECK(listed[i]["options"][o].contains("default"));
      CHECK(contains(text.out, std::string(mechanism.options[o].name)));
    }
  }
  CHECK(json::parse(run_vitrine({"models", "--attention", "hi*", "--json"}).out).size() == 1);
  const RunResult none = run_vitrine({"models", "--attention", "windw"});
  CHECK(none.code == 1);
  CHECK(none.error_lines() == 1);
  CHECK(contains(none.err, "window"));
}

TEST_CASE("a ViT with another attention is benchmarked by its name") {
  const RunResult result = run_vitrine(
      {"benchmark", "vit_tiny_patch16_224[attention=hilo,alpha=0.5,window_size=2,depth=1]", "--seconds", "0", "--json"});
  INFO(result.out << result.err);
  CHECK(result.code == 0);
  const RunResult wrong = run_vitrine({"benchmark", "vit_tiny_patch16_224[attention=hilo,alpha=2]", "--seconds", "0"});
  CHECK(wrong.code == 1);
  CHECK(contains(wrong.err, "alpha is 2, expected 0 to 1"));
}
