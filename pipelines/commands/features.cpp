// vitrine features: pictures in, vectors out.
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/commands/files.h>
#include <vitrine/pipelines/commands/model_options.h>
#include <vitrine/pipelines/features.h>
#include <vitrine/pipelines/prefetch.h>
#include <vitrine/weights/sources.h>

namespace vitrine::command {

namespace {

struct Options {
  std::vector<std::string> inputs;
  std::string file, tokens = "pooled";
  bool picture = false;
  ModelOptions model;
  BatchOptions batch{.batch_size = 8, .workers = {}};
};

struct Picture {
  Image photograph;
  PreparedImage prepared;
};

void save(const Options& options, const std::string& model, const Tensor& features, const std::vector<std::string>& images) {
  if (has_extension(options.file, ".npy")) return save_npy(options.file, features);
  const auto list = nlohmann::json(images).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  save_safetensors(options.file, {{"features", features}}, {{"images", list}, {"model", model}, {"tokens", options.tokens}});
}

int run_features(Console& console, const Options& options) {
  constexpr std::string_view kExtensions[] = {".npy", ".safetensors"};
  check_output("--out", options.file, kExtensions);
  const Tokens tokens = parse_tokens(options.tokens);
  const std::vector<Input> inputs = expand_inputs(options.inputs);
  const FeatureExtractor extractor(complete_options(console, options.model, "nat_fashion"));
  for (const std::string& warning : extractor.model().warnings) console.warn(warning);

  const auto count = static_cast<std::int64_t>(inputs.size());
  std::vector<Tensor> parts;
  std::vector<std::string> images, pictures;
  std::vector<Failure> failures;
  OutputNames names;
  std::int64_t done = 0;
  Progress progress(console, "features", count);
  detail::Prefetch<Picture> prefetch(
      count,
      [&](std::int64_t i) {
        Picture picture;
        Image image = read_input(inputs[static_cast<std::size_t>(i)]);
        if (options.picture) picture.photograph = image;
        picture.prepared = extractor.prepare(std::move(image));
        return picture;
      },
      count > 1 ? options.batch.read_ahead() : 0, 2 * options.batch.batch_size);
  const bool complete = detail::in_batches(
      prefetch, count, options.batch.batch_size,
      [&](std::span<const std::int64_t> numbers, std::span<Picture> batch) {
        std::vector<PreparedImage> prepared;
        for (Picture& picture : batch) prepared.push_back(std::move(picture.prepared));
        parts.push_back(extractor.features(prepared, tokens));
        for (const std::int64_t number : numbers) images.push_back(inputs[static_cast<std::size_t>(number)].name);
        if (!options.picture) return;
        const Tensor patches = tokens == Tokens::patch ? parts.back() : extractor.features(prepared, Tokens::patch);
        for (std::size_t row = 0; row < batch.size(); ++row) {
          const auto folder = std::filesystem::path(options.file).parent_path();
          const std::string stem = names.next(inputs[static_cast<std::size_t>(numbers[row])].name);
          pictures.push_back((folder / (stem + ".features.png")).string());
          write_image(pictures.back(), components_picture(patches.select(0, static_cast<std::int64_t>(row)),
                                                          extractor.model().preprocess, batch[row].photograph));
        }
      },
      [&](std::int64_t number, const std::string& message) {
        failures.push_back({inputs[static_cast<std::size_t>(number)].name, message});
      },
      [&](std::int64_t items) {
        done = items;
        progress.update(items);
        return !interrupted();
      });
  progress.clear();
  nlohmann::ordered_json json{{"file", nullptr},          {"shape", nullptr}, {"model", extractor.model().name},
                              {"tokens", options.tokens}, {"images", images}, {"pictures", pictures}};
  if (!parts.empty()) {
    const Tensor features = parts.size() == 1 ? parts.front() : concat(parts, 0);
    save(options, extractor.model().name, features, images);
    json["file"] = options.file;
    json["shape"] = std::vector(features.shape().begin(), features.shape().end());
    if (!console.options().json)
      console.print(fmt::format("{}: {} features {} of {}, a row a picture", options.file, options.tokens,
                                features.shape().to_string(), extractor.model().name));
  }
  if (console.options().json)
    console.print_json(json);
  else
    for (const std::string& picture : pictures) console.print(picture);
  const int code = report_failures(console, failures, inputs.size());
  if (complete) return code;
  console.warn(fmt::format("interrupted after {} of {} pictures", done, count));
  return kInterrupted;
}

}  // namespace

const Command kFeaturesCommand{
    .name = "features",
    .summary = "Write what a backbone makes of pictures, as vectors or maps",
    .examples =
        "  vitrine features examples/images/clothes --out clothes.npy\n"
        "  vitrine features photos --model vit_small_patch14_dinov2 --weights dinov2.safetensors --tokens patch \\\n"
        "      --out photos.safetensors --picture\n"
        "--picture writes STEM.features.png beside the file: the photograph and the first three principal components of\n"
        "its patch tokens as red, green and blue. Pictures that cannot be read have no row.",
    .declare = [](CLI::App& app) -> std::function<int(Console&)> {
      auto options = std::make_shared<Options>();
      app.add_option("IMAGE", options->inputs, "Pictures, folders of pictures, or - for standard input")
          ->required()
          ->option_text("");
      app.add_option("-o,--out", options->file, "File to write: .npy or .safetensors")->required()->option_text("FILE");
      app.add_option("--tokens", options->tokens, "cls, pooled (default: what enters the classifier's last layer) or patch")
          ->option_text("KIND")
          ->check(CLI::IsMember({"cls", "pooled", "patch"}));
      app.add_flag("--picture", options->picture, "Show the patch tokens as colours beside each photograph");
      add_batch_options(app, options->batch);
      add_model_options(app, options->model);
      return [options](Console& console) { return run_features(console, *options); };
    },
};

}  // namespace vitrine::command
