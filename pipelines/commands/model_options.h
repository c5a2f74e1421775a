// The options that name a model, for all commands that run one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <vitrine/layers/context.h>
#include <vitrine/layers/devices.h>
#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/load_model.h>

namespace vitrine::command {

// --model, --weights, and timm's names for the preprocessing. `options.model` is the default.
void add_model_options(CLI::App& app, ModelOptions& options);
void add_labels_option(CLI::App& app, ModelOptions& options);

// --weights-dtype, of which there is one: `chosen` is called where it is given.
void add_weights_dtype_option(CLI::App& app, const std::function<void()>& chosen);

// Both sides of "224x320" or "224", as an option's value. Throws what the option parser reports.
std::pair<std::int64_t, std::int64_t> parse_size(const std::string& option, const std::string& text);

// --batch-size and --workers.
struct BatchOptions {
  std::int64_t batch_size = 1;
  std::optional<int> workers;

  // Threads that read ahead: as many as asked for, else half as many as compute, so that two cores are not fought over; a GPU
  // leaves them all.
  int read_ahead() const {
    const Context& context = Context::current();
    return workers.value_or(is_accelerator(context.device()) ? context.threads() : std::max(1, context.threads() / 2));
  }
};
void add_batch_options(CLI::App& app, BatchOptions& options);

// With the common options' type and device. Without a name and without weights: `fallback`.
ModelOptions complete_options(const Console& console, ModelOptions options, const std::string& fallback);

// A line about each file that is downloaded; stops at Ctrl-C. `console` must outlive it.
FetchProgress show_downloads(const Console& console);

// "--mean 0.5 0.5 0.5", as timm has it, becomes "--mean 0.5,0.5,0.5": pictures may follow.
std::vector<std::string> join_numbers(int argc, char** argv);

}  // namespace vitrine::command
