// vitrine evaluate: accuracy and throughput of a classifier on a data set.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/layers/file.h>
#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/commands/evaluate_generation.h>
#include <vitrine/pipelines/commands/files.h>
#include <vitrine/pipelines/commands/model_options.h>
#include <vitrine/pipelines/draw.h>
#include <vitrine/pipelines/evaluate.h>

namespace vitrine::command {

namespace {

struct Options {
  std::string dataset, results_file, confusion_file;
  ModelOptions model;
  BatchOptions batch{.batch_size = 64, .workers = {}};
  int streams = 0;
  EvaluateGenerationOptions generation;
};

struct Report {
  const LoadedModel& model;
  const Dataset& dataset;
  const Evaluation& result;
  const Options& options;
};

nlohmann::ordered_json interval_json(std::int64_t hits, std::int64_t count) {
  const Interval interval = wilson_interval(hits, count);
  return {interval.low, interval.high};
}

nlohmann::ordered_json to_json(const Report& report) {
  const Evaluation& r = report.result;
  nlohmann::ordered_json json{
      {"model", report.model.name},
      {"dataset", report.options.dataset},
      {"top1", r.share(r.top1)},
      {"top1_interval", interval_json(r.top1, r.images)},
      {"top5", r.share(r.top5)},
      {"top5_interval", interval_json(r.top5, r.images)},
      {"images", r.images},
      {"skipped", r.skipped},
      {"images_per_second", r.images_per_second()},
      {"seconds", r.seconds},
      {"batch_size", report.options.batch.batch_size},
      {"threads", Context::current().threads()},
      {"dtype", name_of(report.model.backbone->dtype())},
      {"interrupted", r.interrupted},
  };
  json["per_class"] = nlohmann::ordered_json::array();
  for (const ClassResult& c : r.per_class)
    json["per_class"].push_back(
        {{"class", c.name}, {"images", c.images}, {"correct", c.correct}, {"recall", c.recall()}, {"precision", c.precision()}});
  return json;
}

// A row with the columns of timm's validate.py (accuracies in percent), and ours.
std::string to_csv(const Report& report) {
  const Evaluation& r = report.result;
  const double top1 = 100.0 * r.share(r.top1), top5 = 100.0 * r.share(r.top5);
  const PreprocessConfig& p = report.model.preprocess;
  return fmt::format(
      "model,top1,top1_err,top5,top5_err,param_count,img_size,crop_pct,interpolation,images,skipped,images_per_second\n"
      "{},{:.4f},{:.4f},{:.4f},{:.4f},{:.2f},{},{},{},{},{},{:.1f}\n",
      csv_field(report.model.name), top1, 100.0 - top1, top5, 100.0 - top5,
      static_cast<double>(report.model.backbone->info().parameters) / 1e6, std::max(p.height, p.width), p.crop_pct,
      p.interpolation, r.images, r.skipped, r.images_per_second());
}

std::string to_text(const Report& report) {
  const Evaluation& r = report.result;
  const auto accuracy = [&](std::string name, std::int64_t hits) {
    const Interval interval = wilson_interval(hits, r.images);
    return std::vector<std::string>{std::move(name), fmt::format("{:.2f}%", 100.0 * r.share(hits)),
                                    fmt::format("95% interval {:.2f}% to {:.2f}%", 100.0 * interval.low, 100.0 * interval.high)};
  };
  std::string text = fmt::format("{} on {}\n", report.model.name, report.dataset.description());
  text += format_table(
      std::vector{accuracy("top-1", r.top1), accuracy("top-5", r.top5),
                  std::vector<std::string>{"images", std::to_string(r.images), fmt::format("{} skipped", r.skipped)},
                  std::vector<std::string>{"speed", fmt::format("{:.0f}/s", r.images_per_second()),
                                           fmt::format("batch {}, {}, {} threads", report.options.batch.batch_size,
                                                       name_of(report.model.backbone->dtype()), Context::current().threads())}});
  std::vector<std::vector<std::string>> rows{{"class", "images", "correct", "recall", "precision"}};
  for (const ClassResult& c : r.per_class)
    if (c.images || c.predicted)
      rows.push_back({c.name, std::to_string(c.images), std::to_string(c.correct), fmt::format("{:.2f}%", 100.0 * c.recall()),
                      fmt::format("{:.2f}%", 100.0 * c.precision())});
  constexpr int kRight[] = {1, 2, 3, 4};
  return text + "\n\n" + format_table(rows, kRight);
}

int run_evaluate(Console& console, const Options& options) {
  constexpr std::string_view kTables[] = {".csv", ".json"}, kPictures[] = {".png", ".jpg", ".jpeg"};
  check_output("--results-file", options.results_file, kTables);
  check_output("--confusion", options.confusion_file, kPictures);
  if (!options.generation.generator.empty()) {
    if (!options.confusion_file.empty()) throw UsageError("--confusion: not with --generation");
    if (has_extension(options.results_file, ".csv"))
      throw UsageError("--results-file: with --generation, the name must end in .json");
    return run_evaluate_generation(console, options.generation, complete_options(console, options.model, "nat_fashion"),
                                   options.dataset, options.batch.batch_size, options.results_file);
  }
  const ImageClassifier classifier(complete_options(console, options.model, "nat_fashion"));
  for (const std::string& warning : classifier.model().warnings) console.warn(warning);
  const auto dataset = open_dataset(options.dataset, classifier.model().classes);

  Evaluation result;
  {
    Progress progress(console, "evaluate", dataset->size());
    EvaluationOptions evaluation{.batch_size = options.batch.batch_size,
                                 .streams = options.streams,
                                 .decode_threads = options.batch.read_ahead(),
                                 .progress = {}};
    evaluation.progress = [&](const EvaluationProgress& p) {
      progress.update(p.done, fmt::format("{:.0f} images/s, top-1 {:.2f}%", p.images_per_second,
                                          100.0 * static_cast<double>(p.top1) / static_cast<double>(p.done)));
      return !interrupted();
    };
    result = evaluate(classifier, *dataset, evaluation);
  }
  const Report report{classifier.model(), *dataset, result, options};
  if (console.options().json)
    console.print_json(to_json(report));
  else
    console.print(to_text(report));
  if (has_extension(options.results_file, ".csv"))
    detail::write_file(options.results_file, to_csv(report));
  else if (!options.results_file.empty())
    detail::write_file(options.results_file,
                       to_json(report).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  if (!options.confusion_file.empty() && result.confusion.empty())
    throw Error(fmt::format("--confusion {}: too many classes for a picture", options.confusion_file));
  if (!options.confusion_file.empty())
    write_image(options.confusion_file, confusion_picture(result.confusion, classifier.model().classes));

  constexpr std::size_t kMostLines = 20;
  if (result.skipped > 0) console.warn(fmt::format("{} pictures could not be read and were skipped:", result.skipped));
  for (std::size_t i = 0; i < std::min(result.failures.size(), kMostLines); ++i) console.warn(result.failures[i]);
  if (result.failures.size() > kMostLines) console.warn(fmt::format("and {} more", result.failures.size() - kMostLines));
  if (result.interrupted) {
    console.warn(fmt::format("interrupted: the results are those of the first {} of {} pictures", result.images + result.skipped,
                             dataset->size()));
    return kInterrupted;
  }
  return result.images > 0 ? kSuccess : kFailure;
}

}  // namespace

const Command kEvaluateCommand{
    .name = "evaluate",
    .summary = "Measure a classifier's accuracy and speed on a data set, or judge a generator by it",
    .examples =
        "  vitrine evaluate --dataset fashion-mnist\n"
        "  vitrine evaluate --dataset fashion-mnist --json --confusion confusion.png\n"
        "  vitrine evaluate --generation --dataset fashion-mnist --sampler dpmpp-2m --steps 15 --state run.json\n"
        "  vitrine evaluate --model vit_small_patch16_224 --weights vit_small.safetensors --dataset folder:imagenet/val",
    .declare = [](CLI::App& app) -> std::function<int(Console&)> {
      auto options = std::make_shared<Options>();
      app.add_option("--dataset", options->dataset,
                     "fashion-mnist, idx:DIR (files as MNIST's), or folder:DIR (a sub-folder a class)")
          ->required()
          ->option_text("SET");
      app.add_option("--results-file", options->results_file, "Write the results too: .csv (timm's columns) or .json")
          ->option_text("FILE");
      app.add_option("--confusion", options->confusion_file, "Write the confusion matrix as a picture: .png")
          ->option_text("FILE");
      add_batch_options(app, options->batch);
      app.add_option("--streams", options->streams,
                     "Batches at a time, each on a share of the threads; 0, the default: one a thread for a small model, else 1")
          ->option_text("N")
          ->check(CLI::Range(0, 4096));
      add_model_options(app, options->model);
      add_labels_option(app, options->model);
      add_generation_options(app, options->generation);
      return [options](Console& console) { return run_evaluate(console, *options); };
    },
};

}  // namespace vitrine::command
