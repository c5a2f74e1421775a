// vitrine info: what this build and this machine have.
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/isa.h>
#include <vitrine/pipelines/commands/command.h>

namespace vitrine::command {

namespace {

int run_info(Console& console) {
  nlohmann::ordered_json facts;
  facts["version"] = VITRINE_VERSION;
  facts["instruction_set"] = cpu::name_of(cpu::isa());
  facts["instruction_set_of_processor"] = cpu::name_of(cpu::detected_isa());
  facts["threads"] = Context::current().threads();
  facts["devices"] = {"cpu"};
  if (console.options().json) {
    console.print_json(facts);
    return kSuccess;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, value] : facts.items())
    rows.push_back({name, value.is_string() ? value.get<std::string>() : value.dump()});
  console.print(format_table(rows));
  return kSuccess;
}

}  // namespace

const Command kInfoCommand{
    .name = "info",
    .summary = "Show version, processor features, libraries, threads, devices and paths",
    .examples = "  vitrine info\n  VITRINE_ISA=avx2 vitrine info --json",
    .declare = [](CLI::App&) -> std::function<int(Console&)> { return run_info; },
};

}  // namespace vitrine::command
