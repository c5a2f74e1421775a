// vitrine classify: pictures in, labels out.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/layers/file.h>
#include <vitrine/pipelines/classify.h>
#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/commands/files.h>
#include <vitrine/pipelines/commands/model_options.h>
#include <vitrine/pipelines/prefetch.h>

namespace vitrine::command {

namespace {

struct Options {
  std::vector<std::string> inputs;
  ModelOptions model;
  BatchOptions batch{.batch_size = 16, .workers = {}};
  int topk = 5;
  std::string results_file;
};

struct Result {
  std::string image, error;
  std::vector<Classification> predictions;
};

nlohmann::ordered_json to_json(const Result& result) {
  nlohmann::ordered_json row{{"image", result.image}};
  if (!result.error.empty()) {
    row["error"] = result.error;
    return row;
  }
  row["predictions"] = nlohmann::ordered_json::array();
  for (const Classification& c : result.predictions)
    row["predictions"].push_back({{"label", c.label}, {"index", c.index}, {"score", c.score}});
  return row;
}

nlohmann::ordered_json to_json(const std::vector<Result>& results) {
  auto rows = nlohmann::ordered_json::array();
  for (const Result& result : results) rows.push_back(to_json(result));
  return rows;
}

std::string to_csv(const std::vector<Result>& results) {
  std::string text = "filename,rank,index,label,score\n";
  for (const Result& result : results)
    for (std::size_t i = 0; i < result.predictions.size(); ++i) {
      const Classification& c = result.predictions[i];
      text += fmt::format("{},{},{},{},{:.6g}\n", csv_field(result.image), i + 1, c.index, csv_field(c.label), c.score);
    }
  return text;
}

std::string to_text(const Result& result) {
  std::string text = result.image;
  for (const Classification& c : result.predictions) text += fmt::format("\n  {:6.2f}%  {}", 100.0 * c.score, c.label);
  return text;
}

int run_classify(Console& console, const Options& options) {
  constexpr std::string_view kExtensions[] = {".csv", ".json"};
  check_output("--results-file", options.results_file, kExtensions);
  const std::vector<Input> inputs = expand_inputs(options.inputs);
  const ImageClassifier classifier(complete_options(console, options.model, "nat_fashion"));
  if (options.model.model.empty() && options.model.weights.empty())
    console.note("the default model, nat_fashion, knows clothes only, one on a dark ground; --model and --weights name another");
  for (const std::string& warning : classifier.model().warnings) console.warn(warning);

  const auto count = static_cast<std::int64_t>(inputs.size());
  std::vector<Result> results;
  for (const Input& input : inputs) results.push_back({input.name, {}, {}});
  std::vector<Failure> failures;
  std::int64_t done = 0;
  Progress progress(console, "classify", count);
  // A single picture is read by this thread: nothing could overlap.
  detail::Prefetch<PreparedImage> pictures(
      count, [&](std::int64_t i) { return classifier.prepare(read_input(inputs[static_cast<std::size_t>(i)])); },
      count > 1 ? options.batch.read_ahead() : 0, 2 * options.batch.batch_size);
  const bool complete = detail::in_queued_batches(
      pictures, count, options.batch.batch_size, detail::batches_ahead(classifier.model().backbone->device()),
      [&](std::vector<std::int64_t> numbers, std::span<const PreparedImage> batch) {
        return [&, numbers = std::move(numbers), logits = classifier.queue(batch)]() mutable {
          progress.clear();
          auto ranked = classifier.rank(logits.get(), options.topk);
          for (std::size_t row = 0; row < numbers.size(); ++row) {
            Result& result = results[static_cast<std::size_t>(numbers[row])];
            result.predictions = std::move(ranked[row]);
            if (!console.options().json) console.print(to_text(result));
          }
        };
      },
      [&](std::int64_t number, const std::string& message) {
        results[static_cast<std::size_t>(number)].error = message;
        failures.push_back({inputs[static_cast<std::size_t>(number)].name, message});
      },
      [&](std::int64_t items) {
        done = items;
        progress.update(items);
        return !interrupted();
      });
  progress.clear();
  if (complete) done = count;
  results.resize(static_cast<std::size_t>(done));

  if (console.options().json) console.print_json(to_json(results));
  if (has_extension(options.results_file, ".csv"))
    detail::write_file(options.results_file, to_csv(results));
  else if (!options.results_file.empty())
    detail::write_file(options.results_file,
                       to_json(results).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  const int code = report_failures(console, failures, inputs.size());
  if (complete) return code;
  console.warn(fmt::format("interrupted after {} of {} pictures", done, count));
  return kInterrupted;
}

}  // namespace

const Command kClassifyCommand{
    .name = "classify",
    .summary = "Say what pictures show",
    .examples =
        "  vitrine classify examples/images/clothes\n"
        "  vitrine classify shirt.png --topk 3 --json\n"
        "  cat coat.jpg | vitrine classify -\n"
        "  vitrine classify photos --model vit_small_patch16_224 --weights vit_small.safetensors --results-file out.csv\n"
        "  vitrine classify photos --model hf:timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
    .declare = [](CLI::App& app) -> std::function<int(Console&)> {
      auto options = std::make_shared<Options>();
      app.add_option("IMAGE", options->inputs, "Pictures, folders of pictures, or - for standard input")
          ->required()
          ->option_text("");
      app.add_option("--topk", options->topk, "Classes a picture (default 5)")->option_text("K")->check(CLI::Range(1, 1 << 20));
      app.add_option("--results-file", options->results_file, "Write the results too: .csv or .json")->option_text("FILE");
      add_batch_options(app, options->batch);
      add_model_options(app, options->model);
      add_labels_option(app, options->model);
      return [options](Console& console) { return run_classify(console, *options); };
    },
};

}  // namespace vitrine::command
