#include <vitrine/pipelines/commands/evaluate_generation.h>

#include <memory>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/layers/file.h>
#include <vitrine/pipelines/commands/files.h>
#include <vitrine/pipelines/commands/model_options.h>
#include <vitrine/pipelines/evaluate_generation.h>

namespace vitrine::command {

void add_generation_options(CLI::App& app, EvaluateGenerationOptions& options) {
  constexpr const char* kGroup = "Generation";
  app.add_option("--generation", options.generator,
                 "Judge a generator (default dit_fashion) by the classifier: draw pictures of each class, count those that it "
                 "takes for their class, and compare their features with the data set's")
      ->expected(0, 1)
      ->default_str("dit_fashion")
      ->option_text("[NAME]")
      ->group(kGroup);
  app.add_option("--generator-weights", options.generator_weights, "Of the generator, in the place of its own")
      ->option_text("FILE")
      ->group(kGroup);
  app.add_option("--per-class", options.per_class, "Pictures a class (default 100)")
      ->option_text("N")
      ->check(CLI::Range(1, 1'000'000))
      ->group(kGroup);
  app.add_option("--sampler", options.sampler, "As of `vitrine generate`")->option_text("NAME")->group(kGroup);
  app.add_option("--steps", options.steps, "The same")->option_text("N")->check(CLI::Range(1, 100'000))->group(kGroup);
  app.add_option_function<double>(
         "--guidance", [&options](const double& value) { options.guidance = value; }, "The same")
      ->option_text("G")
      ->group(kGroup);
  app.add_option("--seed", options.seed, "Of the first picture (default 0)")
      ->option_text("S")
      ->check(CLI::NonNegativeNumber)
      ->group(kGroup);
  app.add_option("--state", options.state_file, "Keep what is done in this file, and go on from it")
      ->option_text("FILE")
      ->group(kGroup);
}

int run_evaluate_generation(Console& console, const EvaluateGenerationOptions& options, const ModelOptions& classifier_options,
                            const std::string& dataset, std::int64_t batch_size, const std::string& results_file) {
  const ImageClassifier classifier(classifier_options);
  const Generator generator({.model = options.generator,
                             .weights = options.generator_weights,
                             .dtype = console.options().dtype,
                             .device = Context::current().device(),
                             .int8_weights = classifier_options.int8_weights,
                             .progress = show_downloads(console)});
  const auto reference = open_dataset(dataset, classifier.model().classes);
  GenerationEvaluationOptions evaluation;
  evaluation.job.steps = options.steps;
  evaluation.job.sampler = options.sampler;
  evaluation.job.guidance = options.guidance;
  evaluation.job.batch_size = batch_size;
  evaluation.per_class = options.per_class;
  evaluation.seed = static_cast<std::uint64_t>(options.seed);
  evaluation.state_file = options.state_file;
  GenerationEvaluation result;
  {
    const std::int64_t total = options.per_class * generator.model().denoiser().num_classes;
    Progress progress(console, "evaluate", total);
    evaluation.progress = [&](const EvaluationProgress& p) {
      const double share = p.done > 0 ? static_cast<double>(p.top1) / static_cast<double>(p.done) : 0.0;
      progress.update(p.done, fmt::format("agreement {:.1f}%", 100.0 * share));
      return !interrupted();
    };
    result = evaluate_generation(generator, classifier, *reference, evaluation);
  }
  const GenerateJob& job = result.job;
  const Interval interval = wilson_interval(result.agreeing, result.images);
  nlohmann::ordered_json json{{"generator", options.generator},
                              {"classifier", classifier.model().name},
                              {"dataset", dataset},
                              {"sampler", job.sampler.empty() ? "the model's" : job.sampler},
                              {"steps", job.steps},
                              {"guidance", *job.guidance},
                              {"images", result.images},
                              {"agreement", result.agreement()},
                              {"agreement_interval", {interval.low, interval.high}},
                              {"frechet_distance", result.frechet},
                              {"reference_images", result.reference_images},
                              {"seconds", result.seconds},
                              {"interrupted", result.interrupted}};
  json["per_class"] = nlohmann::ordered_json::array();
  std::vector<std::vector<std::string>> rows{{"class", "drawn", "agree", "agreement"}};
  for (const ClassResult& c : result.per_class) {
    json["per_class"].push_back({{"class", c.name}, {"images", c.images}, {"agreeing", c.correct}});
    rows.push_back({c.name, std::to_string(c.images), std::to_string(c.correct), fmt::format("{:.0f}%", 100.0 * c.recall())});
  }
  if (console.options().json) {
    console.print_json(json);
  } else {
    constexpr int kRight[] = {1, 2, 3};
    console.print(
        fmt::format("{} drawn by {} ({} steps, guidance {}), judged by {}\n"
                    "agreement         {:.1f}%  95% interval {:.1f}% to {:.1f}%\n"
                    "Frechet distance  {:.3f}  to the {} pictures of {}\n\n{}",
                    result.images, options.generator, job.steps, *job.guidance, classifier.model().name,
                    100.0 * result.agreement(), 100.0 * interval.low, 100.0 * interval.high, result.frechet,
                    result.reference_images, reference->description(), format_table(rows, kRight)));
  }
  if (!results_file.empty())
    detail::write_file(results_file, json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  if (!result.interrupted) return kSuccess;
  console.warn(fmt::format("interrupted after {} pictures{}", result.images,
                           options.state_file.empty() ? "" : "; the next run with this --state goes on from there"));
  return kInterrupted;
}

}  // namespace vitrine::command
