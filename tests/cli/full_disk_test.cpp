// Output that cannot be written: one clear line, exit code 1, and no partial file.
#include <catch.h>
#include <weights/files.h>

#include "cli/run.h"

namespace {

constexpr const char* kNoSpace = "No space left on device";
constexpr const char* kTooLarge = "File too large";

void check_failure(const RunResult& result, const std::string& named) {
  INFO(result.err);
  CHECK(result.code == 1);
  CHECK(result.error_lines() == 1);
  CHECK(result.err.starts_with("vitrine: "));
  CHECK(result.err.find(named) != std::string::npos);
}

}  // namespace

TEST_CASE("standard output on a full disk") {
  const std::string picture = example_image("clothes/coat.png");
  const RunOptions full{.input = "/dev/null", .output = "/dev/full", .file_limit = -1};
  check_failure(run_vitrine({"classify", picture, "--quiet"}, full), kNoSpace);
  check_failure(run_vitrine({"classify", picture, "--quiet", "--json"}, full), kNoSpace);
  check_failure(run_vitrine({"models"}, full), kNoSpace);
  check_failure(run_vitrine({"info", "--json"}, full), kNoSpace);
  check_failure(run_vitrine({"--help"}, full), kNoSpace);
}

TEST_CASE("result files on a full disk") {
  const std::string picture = example_image("clothes/coat.png");
  const Folder folder;
  std::filesystem::create_directory(folder / "out");
  const Folder data;  // one class, one picture
  std::filesystem::create_directory(data / "4");
  std::filesystem::copy_file(picture, data / "4/coat.png");
  struct Case {
    std::vector<std::string> arguments;
    std::string file;
  };
  const std::vector<Case> cases{
      {{"classify", picture, "--results-file", folder / "out/r.csv"}, "r.csv"},
      {{"classify", picture, "--results-file", folder / "out/r.json"}, "r.json"},
      {{"convert", std::string(VITRINE_SOURCE_DIR) + "/tests/data/weights/zip.pth", folder / "out/c.safetensors"},
       "c.safetensors"},
      {{"features", picture, "--out", folder / "out/f.npy"}, "f.npy"},
      {{"features", picture, "--out", folder / "out/f.safetensors"}, "f.safetensors"},
      {{"features", picture, "--out", folder / "out/f.npy", "--picture"}, "coat.features.png"},
      {{"evaluate", "--dataset", "folder:" + data.path(), "--results-file", folder / "out/r.json"}, "r.json"},
      {{"evaluate", "--dataset", "folder:" + data.path(), "--confusion", folder / "out/c.png"}, "c.png"},
  };
  for (const Case& c : cases) {
    std::vector<std::string> arguments = c.arguments;
    arguments.push_back("--quiet");
    // Room for the message on standard error, which is a file here, and for none of the results.
    const RunOptions options{.input = "/dev/null", .output = "/dev/null", .file_limit = 300};
    const RunResult result = run_vitrine(arguments, options);
    check_failure(result, c.file);
    CHECK(result.err.find(kTooLarge) != std::string::npos);
    CHECK(std::filesystem::is_empty(folder / "out"));
  }
}

TEST_CASE("result files in a folder that is not there, and in place of one") {
  const std::string picture = example_image("clothes/coat.png");
  const Folder folder;
  check_failure(run_vitrine({"classify", picture, "--quiet", "--results-file", folder / "none/r.csv"}), "none");
  check_failure(run_vitrine({"features", picture, "--quiet", "--out", folder / "none/f.npy"}), "none");
  std::filesystem::create_directory(folder / "r.csv");
  check_failure(run_vitrine({"classify", picture, "--quiet", "--results-file", folder / "r.csv"}), "r.csv");
}
