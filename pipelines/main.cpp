// The command `vitrine`: a thin layer over the library. Each command is a file in commands/; this one holds their table,
// the common options, and turns errors into one line and an exit code.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <vitrine/layers/context.h>
#include <vitrine/layers/devices.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/commands/model_options.h>

namespace {

using namespace vitrine::command;

// In the order of the help.
constexpr const Command* kCommands[] = {
    &kClassifyCommand, &kSegmentCommand, &kGenerateCommand, &kFeaturesCommand,  &kEvaluateCommand, &kModelsCommand,
    &kInspectCommand,  &kConvertCommand, &kVerifyCommand,   &kBenchmarkCommand, &kInfoCommand,
};

const Command* find_command(std::string_view name) {
  for (const Command* command : kCommands)
    if (command->name == name) return command;
  return nullptr;
}

void add_common_options(CLI::App& app, CommonOptions& options, std::string_view dtype_help) {
  constexpr const char* kGroup = "Common options";
  app.add_option("--device", options.device, "cpu (the default), cuda or cuda:INDEX")
      ->option_text("NAME")
      ->check([](const std::string& name) {
        return name == "cpu" || name == "cuda" || name.starts_with("cuda:") ? "" : fmt::format("'{}' is no device", name);
      })
      ->group(kGroup);
  app.add_option_function<std::string>(
         "--dtype", [&options](const std::string& name) { options.dtype = vitrine::parse_dtype(name); }, std::string(dtype_help))
      ->option_text("f32|bf16|f16")
      ->check(CLI::IsMember({"f32", "float32", "bf16", "bfloat16", "f16", "float16"}))
      ->group(kGroup);
  app.add_option("--threads", options.threads, "Threads; 0, the default: one a core that this process may use")
      ->option_text("N")
      ->check(CLI::Range(0, 4096))
      ->group(kGroup);
  app.add_flag("--quiet,-q", options.quiet, "No notes and no progress")->group(kGroup);
  app.add_flag("--json", options.json, "Only JSON on standard output")->group(kGroup);
}

int usage_error(std::string_view command, std::string_view message) {
  fmt::print(stderr, "vitrine{}{}: {}; see `vitrine {}{}--help`\n", command.empty() ? "" : " ", command, message, command,
             command.empty() ? "" : " ");
  return kUsage;
}

int run(int argc, char** argv) {
  Console console;
  CLI::App app("Vision and diffusion backbones on real pictures: classify, segment, generate, evaluate, and look inside.",
               "vitrine");
  app.set_version_flag("--version", VITRINE_VERSION);
  app.footer("`vitrine COMMAND --help` shows the options and examples of a command.");
  app.require_subcommand(1);

  // Only the command that was asked for gets its options: help of the whole program needs no more than names.
  std::string_view name = argc > 1 ? argv[1] : "";
  const bool asks_for_help = name == "help";  // vitrine help COMMAND: vitrine COMMAND --help
  if (asks_for_help) {
    --argc;
    ++argv;
    name = argc > 1 ? argv[1] : "--help";
  }
  std::function<int(Console&)> body;
  for (const Command* command : kCommands) {
    CLI::App* sub = app.add_subcommand(std::string(command->name), std::string(command->summary));
    if (command->name != name) continue;
    body = command->declare(*sub);
    add_common_options(*sub, console.options(), command->dtype_help);
    sub->footer(fmt::format("Examples:\n{}", command->examples));
  }
  if (name.empty()) {
    fmt::print(stderr, "{}", app.help());
    return kUsage;
  }
  if (name.front() != '-' && !find_command(name)) {
    std::vector<std::string> names;
    for (const Command* command : kCommands) names.emplace_back(command->name);
    return usage_error("", fmt::format("unknown command '{}'{}", name, vitrine::detail::suggest_names(name, names)));
  }
  try {
    std::vector<std::string> arguments = join_numbers(argc, argv);
    if (asks_for_help) arguments.emplace_back("--help");
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
    app.parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    std::string help = find_command(name) ? app.get_subcommand(std::string(name))->help("vitrine") : app.help();
    console.print(help.substr(0, help.find_last_not_of('\n') + 1));
    console.flush();
    return kSuccess;
  } catch (const CLI::CallForVersion& version) {
    console.print(version.what());
    console.flush();
    return kSuccess;
  } catch (const CLI::ParseError& error) {
    return usage_error(find_command(name) ? name : "", error.what());
  }
  const vitrine::Device device = vitrine::parse_device(console.options().device);
  catch_interrupt();
  vitrine::Context context({.threads = console.options().threads, .device = device});
  vitrine::ContextScope scope(context);
  try {
    const int code = body(console);
    console.flush();
    return code;
  } catch (const UsageError& error) {
    return usage_error(name, error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  // A reader that went away, and a file beyond the size limit, are failed writes with a message.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  int code = kFailure;
  try {
    code = run(argc, argv);
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "vitrine: not enough memory\n");
  } catch (const std::exception& error) {
    fmt::print(stderr, "vitrine: {}\n", error.what());
    if (interrupted()) code = kInterrupted;
  }
  return code;
}
