#include <vitrine/pipelines/commands/model_options.h>

#include <cstdlib>

#include <memory>
#include <tuple>
#include <utility>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

namespace vitrine::command {

namespace {

constexpr const char* kGroup = "Model";

bool is_number(const std::string& text) {
  char* end = nullptr;
  std::strtod(text.c_str(), &end);
  return !text.empty() && *end == '\0';
}

std::vector<float> parse_numbers(const std::string& option, const std::string& text) {
  std::vector<float> values;
  for (const std::string& part : CLI::detail::split(text, ',')) {
    if (!is_number(part)) throw CLI::ValidationError(option, fmt::format("'{}' is no number", part));
    values.push_back(std::strtof(part.c_str(), nullptr));
  }
  return values;
}

}  // namespace

std::pair<std::int64_t, std::int64_t> parse_size(const std::string& option, const std::string& text) {
  const auto parts = CLI::detail::split(text, 'x');
  std::vector<std::int64_t> sizes;
  for (const std::string& part : parts) {
    std::int64_t size = 0;
    if (!CLI::detail::lexical_cast(part, size) || size < 1) break;
    sizes.push_back(size);
  }
  if (sizes.size() != parts.size() || sizes.size() > 2)
    throw CLI::ValidationError(option, fmt::format("'{}' is neither one side nor two as in 256x192", text));
  return {sizes.front(), sizes.back()};
}

void add_model_options(CLI::App& app, ModelOptions& options) {
  app.add_option("--model", options.model,
                 "A name of `vitrine models`, may carry [arguments], or hf:OWNER/NAME[@REVISION]; default: what the weights say")
      ->option_text("NAME")
      ->group(kGroup);
  app.add_option("--weights,--checkpoint", options.weights,
                 "Checkpoint: .safetensors, .pth, .pt, .bin, .onnx, index.json, a folder with one, or hf:OWNER/NAME")
      ->option_text("FILE")
      ->group(kGroup);
  add_weights_dtype_option(app, [&options] { options.int8_weights = true; });
  PreprocessOverrides& preprocess = options.preprocess;
  app.add_option_function<std::string>(
         "--img-size",
         [&preprocess](const std::string& text) {
           std::tie(preprocess.height, preprocess.width) = parse_size("--img-size", text);
         },
         "Input size, SIZE or HEIGHTxWIDTH; default: the model's")
      ->option_text("SIZE")
      ->group(kGroup);
  app.add_option_function<double>(
         "--crop-pct", [&preprocess](const double& value) { preprocess.crop_pct = value; },
         "Share of the picture that the crop keeps")
      ->option_text("SHARE")
      ->check(CLI::Range(0.01, 1.0))
      ->group(kGroup);
  app.add_option("--crop-mode", preprocess.crop_mode, "center, squash, border or pad")
      ->option_text("MODE")
      ->check(CLI::IsMember({"center", "squash", "border", "pad"}))
      ->group(kGroup);
  app.add_option("--interpolation", preprocess.interpolation, "nearest, box, bilinear, hamming, bicubic or lanczos")
      ->option_text("NAME")
      ->check(CLI::IsMember({"nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"}))
      ->group(kGroup);
  for (const auto& [option, values] : {std::pair{"--mean", &preprocess.mean}, std::pair{"--std", &preprocess.std}})
    app.add_option_function<std::string>(
           option, [option = option, values = values](const std::string& text) { *values = parse_numbers(option, text); },
           "One value, or one a channel: 0.5 0.5 0.5 or 0.5,0.5,0.5")
        ->option_text("NUMBERS")
        ->group(kGroup);
}

void add_weights_dtype_option(CLI::App& app, const std::function<void()>& chosen) {
  app.add_option_function<std::string>(
         "--weights-dtype",
         [chosen](const std::string& name) {
           if (name != "i8")
             throw CLI::ValidationError(
                 "--weights-dtype",
                 fmt::format("'{}', expected i8; else weights have the type that is computed in (--dtype)", name));
           chosen();
         },
         "Keep the weights of linear layers as int8 with a scale each output: a quarter of f32, half of bf16")
      ->option_text("i8")
      ->group(kGroup);
}

void add_labels_option(CLI::App& app, ModelOptions& options) {
  app.add_option("--labels", options.labels,
                 "Class names, a line each; default: those of the weights, or of ImageNet for 1000 classes")
      ->option_text("FILE")
      ->group(kGroup);
}

void add_batch_options(CLI::App& app, BatchOptions& options) {
  app.add_option("-b,--batch-size", options.batch_size, fmt::format("Pictures at a time (default {})", options.batch_size))
      ->option_text("N")
      ->check(CLI::Range(1, 65536));
  app.add_option("-j,--workers", options.workers,
                 "Threads that read and resize the next pictures meanwhile (default: half of the threads, at least 1)")
      ->option_text("N")
      ->check(CLI::Range(0, 256));
}

ModelOptions complete_options(const Console& console, ModelOptions options, const std::string& fallback) {
  if (options.model.empty() && options.weights.empty()) options.model = fallback;
  options.dtype = console.options().dtype;
  options.device = Context::current().device();
  options.progress = show_downloads(console);
  return options;
}

FetchProgress show_downloads(const Console& console) {
  struct State {
    std::string file;
    std::unique_ptr<Progress> progress;
  };
  return [&console, state = std::make_shared<State>()](std::string_view file, std::int64_t done, std::int64_t total) {
    constexpr std::int64_t kStep = 1 << 20;
    if (total > kStep && (!state->progress || state->file != file)) {
      state->file = file;
      state->progress.reset();  // clears its line before the next begins
      state->progress = std::make_unique<Progress>(console, fmt::format("download {} MB", file), total / kStep);
    }
    if (state->progress && total > 0) state->progress->update(done / kStep);
    if (done >= total) state->progress.reset();
    return !interrupted();
  };
}

std::vector<std::string> join_numbers(int argc, char** argv) {
  std::vector<std::string> joined;
  bool open = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (open && is_number(argument)) {
      const bool first = joined.back() == "--mean" || joined.back() == "--std";
      if (first)
        joined.push_back(argument);
      else
        joined.back() += "," + argument;
      continue;
    }
    open = argument == "--mean" || argument == "--std";
    joined.push_back(argument);
  }
  return joined;
}

}  // namespace vitrine::command
