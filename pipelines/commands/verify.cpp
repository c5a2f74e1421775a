// vitrine verify: reference cases against what this build computes.
#include <memory>
#include <regex>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/verify.h>

namespace vitrine::command {

namespace {

struct Options {
  std::vector<std::string> files;
  std::string only;
};

void print_row(Console& console, const VerifyRow& row) {
  if (!console.options().json) {
    std::string line = fmt::format("{:4} {:48} {:4}", row.ok ? "ok" : "FAIL", row.name, row.dtype);
    if (!row.output.empty())
      line +=
          fmt::format("  max_abs {:<9.3g} rel_l2 {:<9.3g} bound {:.3g} of {}", row.max_abs, row.rel_l2, row.bound, row.measure);
    console.print(line);
    if (!row.ok) console.print("     " + row.message);
    if (!row.note.empty()) console.print("     " + row.note);
    return;
  }
  nlohmann::ordered_json json{{"name", row.name},     {"kind", row.kind},   {"dtype", row.dtype}, {"max_abs", row.max_abs},
                              {"rel_l2", row.rel_l2}, {"bound", row.bound}, {"ok", row.ok},       {"measure", row.measure}};
  if (!row.output.empty()) json["output"] = row.output;
  if (!row.ok) json["message"] = row.message;
  if (!row.note.empty()) json["note"] = row.note;
  console.print_json(json, -1);
}

int run_verify(Console& console, const Options& options) {
  try {
    const std::regex only(options.only);
  } catch (const std::regex_error& error) {
    throw UsageError(fmt::format("--only '{}' is not a regular expression: {}", options.only, error.what()));
  }
  int passed = 0, failed = 0;
  bool unreadable = false;
  for (const std::string& file : options.files) {
    try {
      verify_file(file, {.only = options.only, .dtype = console.options().dtype, .cancelled = interrupted},
                  [&](const VerifyRow& row) {
                    ++(row.ok ? passed : failed);
                    print_row(console, row);
                    console.flush();
                  });
    } catch (const Error& error) {  // the other files are still run
      console.warn(error.what());
      unreadable = true;
    }
    if (interrupted()) break;
  }
  if (passed + failed == 0 && !unreadable && !interrupted())
    console.warn(options.only.empty() ? "no cases" : fmt::format("no case matches '{}'", options.only));
  if (!console.options().json) console.print(fmt::format("{} passed, {} failed", passed, failed));
  if (interrupted()) return kInterrupted;
  return failed > 0 || unreadable || passed == 0 ? kFailure : kSuccess;
}

}  // namespace

const Command kVerifyCommand{
    .name = "verify",
    .summary = "Run reference cases (cases.json) and print the error of each",
    .examples =
        "  vitrine verify ../shared/goldens/attention/cases.json --only '^neighborhood'\n"
        "  vitrine verify ../shared/goldens/backbones/cases.json --only 'nat|vit_tiny' --dtype bf16\n"
        "  vitrine verify tests/data/goldens/*/cases.json --json",
    .declare = [](CLI::App& app) -> std::function<int(Console&)> {
      const auto options = std::make_shared<Options>();
      app.add_option("CASES", options->files, "Files of cases, as tests/data/goldens holds them")->required();
      app.add_option("--only", options->only, "Only cases in whose name this regular expression (ECMAScript) is found")
          ->option_text("REGEX");
      return [options](Console& console) { return run_verify(console, *options); };
    },
};

}  // namespace vitrine::command
