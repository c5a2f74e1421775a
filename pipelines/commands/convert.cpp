// vitrine convert: a checkpoint of any format as .safetensors.
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/commands/files.h>
#include <vitrine/pipelines/commands/model_options.h>
#include <vitrine/pipelines/open_model.h>
#include <vitrine/weights/sources.h>

namespace vitrine::command {

namespace {

struct Options {
  std::string input, output;
  bool force = false;
};

int run_convert(Console& console, const Options& options, SaveOptions save) {
  constexpr std::string_view kExtensions[] = {".safetensors"};
  check_output("OUT", options.output, kExtensions);
  std::error_code error;
  if (!options.force && std::filesystem::exists(options.output, error))
    throw Error(fmt::format("{}: is there already; --force replaces it", options.output));
  const auto source = open_model_weights(options.input, show_downloads(console));
  // In KB, so that the line stays readable.
  std::unique_ptr<Progress> progress;
  save.progress = [&](std::int64_t done, std::int64_t total) {
    if (!progress) progress = std::make_unique<Progress>(console, "convert", (total + 1023) / 1024);
    progress->update(done / 1024, "KB");
    return !interrupted();
  };
  const bool complete = save_safetensors(options.output, *source, save);
  progress.reset();
  if (!complete) {
    console.warn("interrupted: nothing was written");
    return kInterrupted;
  }
  const auto tensors = source->names().size();
  const auto bytes = static_cast<std::uint64_t>(std::filesystem::file_size(options.output, error));
  if (console.options().json)
    console.print_json({{"file", options.output}, {"tensors", tensors}, {"bytes", bytes}});
  else
    console.print(fmt::format("{}: {} tensors, {:.2f} MB", options.output, tensors, static_cast<double>(bytes) / 1e6));
  return kSuccess;
}

}  // namespace

const Command kConvertCommand{
    .name = "convert",
    .summary = "Write a checkpoint of any format (PyTorch, ONNX, safetensors) as one .safetensors file",
    .examples =
        "  vitrine convert swin_tiny.pth swin_tiny.safetensors\n"
        "  vitrine convert hf:microsoft/swin-tiny-patch4-window7-224 swin_tiny.safetensors\n"
        "  vitrine convert model.onnx model.safetensors --dtype bf16\n"
        "  vitrine convert sharded/model.safetensors.index.json whole.safetensors --force",
    .declare = [](CLI::App& app) -> std::function<int(Console&)> {
      auto options = std::make_shared<Options>();
      app.add_option("IN", options->input,
                     "Checkpoint: .safetensors, .pth, .pt, .bin, .onnx, index.json, a folder with one, or hf:OWNER/NAME")
          ->required()
          ->option_text("");
      app.add_option("OUT", options->output, "The .safetensors file to write")->required()->option_text("");
      app.add_flag("--force", options->force, "Replace OUT where it exists");
      return [options, &app](Console& console) {
        SaveOptions save;
        if (app.count("--dtype") > 0) save.dtype = console.options().dtype;
        return run_convert(console, *options, save);
      };
    },
    .dtype_help = "Type to store floating-point tensors in (default: as they are, f64 as f32)",
};

}  // namespace vitrine::command
