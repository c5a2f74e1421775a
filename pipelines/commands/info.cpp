// vitrine info: what this build and this machine have.
#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/devices.h>
#include <vitrine/pipelines/commands/command.h>
#include <vitrine/weights/shipped.h>

namespace vitrine::command {

namespace {

struct Processor {
  std::string name;
  std::vector<std::string> features;  // those that kernels here can use
};

Processor read_processor() {
  Processor processor;
  std::ifstream in("/proc/cpuinfo");
  const std::set<std::string> wanted{"avx2",        "fma",         "f16c",        "avx512f",  "avx512bw", "avx512dq", "avx512vl",
                                     "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"};
  for (std::string line; std::getline(in, line);) {
    const std::string value = line.substr(std::min(line.size(), line.find(':') + 2));
    if (processor.name.empty() && line.starts_with("model name")) processor.name = value;
    if (!line.starts_with("flags")) continue;
    std::istringstream flags(value);
    for (std::string flag; flags >> flag;)
      if (wanted.contains(flag)) processor.features.push_back(flag);
    break;
  }
  return processor;
}

void add_paths(nlohmann::ordered_json& facts) {
  try {
    const std::string data = data_directory();
    facts["data"] = data;
    facts["cache"] = data + "/weights";  // where models that the set-up fetched lie
  } catch (const Error& error) {
    facts["data"] = error.what();
  }
}

int run_info(Console& console) {
  const Processor processor = read_processor();
  const CudaDevices cuda = cuda_devices();
  nlohmann::ordered_json facts{
      {"version", VITRINE_VERSION},
      {"processor", processor.name},
      {"features", processor.features},
      {"instruction_set", cpu::name_of(cpu::isa())},
      {"instruction_set_of_processor", cpu::name_of(cpu::detected_isa())},
      {"onednn", cpu::onednn_version()},
      {"threads", Context::current().threads()},
      {"devices", {"cpu"}},
  };
  for (std::size_t i = 0; i < cuda.devices.size(); ++i)
    facts["devices"].push_back(fmt::format("cuda:{} {}", i, cuda.devices[i].name));
  if (cuda.devices.empty()) facts["cuda"] = cuda.reason;
  add_paths(facts);
  facts["shipped"] = nlohmann::ordered_json::object();
  for (const ShippedModel& model : shipped_models())
    facts["shipped"][model.name] = model.present ? model.file : "not fetched yet";
  if (console.options().json) {
    console.print_json(facts);
    return kSuccess;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, value] : facts.items()) {
    if (value.is_structured()) {
      std::string joined;
      for (const auto& [key, item] : value.items()) {
        const std::string text = item.get<std::string>();
        joined += (joined.empty() ? "" : ", ") + (value.is_object() ? key + " " + text : text);
      }
      rows.push_back({name, joined});
    } else {
      rows.push_back({name, value.is_string() ? value.get<std::string>() : value.dump()});
    }
  }
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
