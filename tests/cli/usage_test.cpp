// Help, versions, exit codes and wrong usage.
#include <catch.h>

#include "cli/run.h"

namespace {

const std::vector<std::string> kCommands{"classify", "segment", "features", "evaluate", "models", "inspect", "verify", "info"};

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("help names every command, and each command's help has examples and the common options") {
  const RunResult all = run_vitrine({"--help"});
  CHECK(run_vitrine({"help"}).out == all.out);
  CHECK(all.code == 0);
  CHECK(all.err.empty());
  for (const std::string& command : kCommands) {
    INFO(command);
    CHECK(contains(all.out, "\n  " + command));
    const RunResult help = run_vitrine({command, "--help"});
    CHECK(help.code == 0);
    CHECK(help.err.empty());
    CHECK(run_vitrine({"help", command}).out == help.out);
    CHECK(contains(help.out, "Examples:\n  "));
    CHECK(contains(help.out, "vitrine " + command));
    for (const char* option : {"--device", "--dtype", "--threads", "--quiet", "--json"}) CHECK(contains(help.out, option));
  }
}

TEST_CASE("the version is a line on standard output") {
  const RunResult version = run_vitrine({"--version"});
  CHECK(version.code == 0);
  CHECK(version.out.find_first_not_of("0123456789.\n") == std::string::npos);
  CHECK(version.out.size() >= 6);
}

TEST_CASE("without a command the help goes to standard error") {
  const RunResult result = run_vitrine({});
  CHECK(result.code == 2);
  CHECK(result.out.empty());
  CHECK(contains(result.err, "classify"));
}

TEST_CASE("an unknown command comes with the nearest one") {
  const RunResult result = run_vitrine({"clasify", "x.png"});
  CHECK(result.code == 2);
  CHECK(result.out.empty());
  CHECK(result.error_lines() == 1);
  CHECK(contains(result.err, "classify"));
}

TEST_CASE("wrong usage is one line that names the option, and exit code 2") {
  struct Case {
    std::vector<std::string> arguments;
    std::string named;
  };
  const std::vector<Case> cases{
      {{"--nonsense"}, ""},
      {{"info", "--nonsense"}, "--nonsense"},
      {{"info", "surplus"}, "surplus"},
      {{"info", "--threads", "-1"}, "--threads"},
      {{"info", "--threads", "many"}, "--threads"},
      {{"info", "--dtype", "f8"}, "--dtype"},
      {{"info", "--device", "tpu"}, "--device"},
      {{"classify"}, "IMAGE"},
      {{"classify", "x.png", "--topk", "0"}, "--topk"},
      {{"classify", "x.png", "--topk"}, "--topk"},
      {{"classify", "x.png", "--batch-size", "0"}, "--batch-size"},
      {{"classify", "x.png", "--img-size", "big"}, "--img-size"},
      {{"classify", "x.png", "--img-size", "1x2x3"}, "--img-size"},
      {{"classify", "x.png", "--crop-pct", "0"}, "--crop-pct"},
      {{"classify", "x.png", "--interpolation", "spline"}, "--interpolation"},
      {{"classify", "x.png", "--mean", "0.5,grey"}, "--mean"},
      {{"classify", "x.png", "--results-file", "results.txt"}, "--results-file"},
      {{"classify", "-", "-"}, "standard input"},
      {{"segment", "x.png"}, "--out"},
      {{"segment", "x.png", "--out", "results", "--threshold", "1.5"}, "--threshold"},
      {{"features", "x.png"}, "--out"},
      {{"features", "x.png", "--out", "x.csv"}, "--out"},
      {{"features", "x.png", "--out", "x.npy", "--tokens", "all"}, "--tokens"},
      {{"evaluate"}, "--dataset"},
      {{"evaluate", "--dataset", "fashion-mnist", "--confusion", "matrix.pdf"}, "--confusion"},
      {{"models", "--markdown", "--json"}, "--markdown"},
      {{"models", "--markdown", "--attention"}, "--markdown"},
      {{"inspect"}, "FILE"},
  };
  for (const Case& c : cases) {
    std::string line;
    for (const std::string& word : c.arguments) line += word + " ";
    INFO(line);
    const RunResult result = run_vitrine(c.arguments);
    INFO(result.err);
    CHECK(result.code == 2);
    CHECK(result.out.empty());
    CHECK(result.error_lines() == 1);
    CHECK(result.err.starts_with("vitrine"));
    CHECK(contains(result.err, c.named));
    CHECK(contains(result.err, "--help"));
  }
}

TEST_CASE("a device that is not there is a failure, not wrong usage") {
  const RunResult result = run_vitrine({"classify", "x.png", "--device", "cuda"});
  CHECK(result.code == 1);
  CHECK(result.error_lines() == 1);
  CHECK(contains(result.err, "cuda"));
}
