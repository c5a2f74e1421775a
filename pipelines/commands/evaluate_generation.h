// `vitrine evaluate --generation`: a generator judged by a classifier.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/load_model.h>

namespace vitrine::command {

struct EvaluateGenerationOptions {
  std::string generator;  // empty: no generation
  std::string generator_weights, sampler, state_file;
  std::int64_t per_class = 100, seed = 0;
  int steps = 0;
  std::optional<double> guidance;
};
void add_generation_options(CLI::App& app, EvaluateGenerationOptions& options);

// `classifier`: complete; `dataset`: of real pictures.
int run_evaluate_generation(Console& console, const EvaluateGenerationOptions& options, const ModelOptions& classifier,
                            const std::string& dataset, std::int64_t batch_size, const std::string& results_file);

}  // namespace vitrine::command
