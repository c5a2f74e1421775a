// vitrine segment: what in photographs draws the eye, as files beside each other.
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/layers/file.h>
#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/commands/files.h>
#include <vitrine/pipelines/commands/model_options.h>
#include <vitrine/pipelines/prefetch.h>
#include <vitrine/pipelines/segment.h>

namespace vitrine::command {

namespace {

constexpr const char* kDefaultModel = "vit_small_patch14_focus";

struct Options {
  std::vector<std::string> inputs;
  std::string folder;
  ModelOptions model;
  BatchOptions batch{.batch_size = 1, .workers = {}};
  SegmentOptions segment;
};

struct Picture {
  Image photograph;
  PreparedImage prepared;
};

nlohmann::ordered_json to_json(const Segmentation& s, const Segmenter& segmenter, const std::string& image,
                               const SegmentOptions& options) {
  nlohmann::ordered_json json{{"image", image},
                              {"model", segmenter.name()},
                              {"width", s.width},
                              {"height", s.height},
                              {"range", {s.low, s.high}},
                              {"threshold", s.threshold},
                              {"threshold_of_range", options.threshold}};
  json["regions"] = nlohmann::ordered_json::array();
  for (const Region& region : s.regions)
    json["regions"].push_back(
        {{"box", {region.left, region.top, region.width, region.height}}, {"score", region.score}, {"area", region.area}});
  return json;
}

// STEM.importance.png, STEM.mask.png, STEM.overlay.png and STEM.json.
void write_results(const std::string& stem, const Image& photograph, const Segmentation& s, const std::string& json) {
  write_image(stem + ".importance.png", grey_picture(s.importance, s.width, s.height));
  write_image(stem + ".mask.png", s.mask());
  write_image(stem + ".overlay.png", s.overlay(photograph));
  detail::write_file(stem + ".json", json + "\n");
}

std::string to_text(const std::string& image, const std::string& stem, const Segmentation& s, const SegmentOptions& options) {
  std::string text = fmt::format("{}: {}x{}, {} region{} at and above {:.3f} ({:.0f}% of the map's range {:.3f} to {:.3f}), {}.*",
                                 image, s.width, s.height, s.regions.size(), s.regions.size() == 1 ? "" : "s", s.threshold,
                                 100.0 * options.threshold, s.low, s.high, stem);
  for (const Region& r : s.regions)
    text += fmt::format("\n  {}x{} at {},{}: score {:.3f}, area {}", r.width, r.height, r.left, r.top, r.score, r.area);
  return text;
}

int run_segment(Console& console, const Options& options) {
  make_folder(options.folder);
  const std::vector<Input> inputs = expand_inputs(options.inputs);
  const Segmenter segmenter(complete_options(console, options.model, kDefaultModel));
  for (const std::string& warning : segmenter.warnings()) console.warn(warning);

  const auto count = static_cast<std::int64_t>(inputs.size());
  auto rows = nlohmann::ordered_json::array();
  std::vector<Failure> failures;
  OutputNames names;
  std::int64_t done = 0;
  Progress progress(console, "segment", count);
  detail::Prefetch<Picture> pictures(
      count,
      [&](std::int64_t i) {
        Picture picture;
        picture.photograph = read_input(inputs[static_cast<std::size_t>(i)]);
        picture.prepared = segmenter.prepare(picture.photograph);
        return picture;
      },
      count > 1 ? options.batch.read_ahead() : 0, 2 * options.batch.batch_size);
  const bool complete = detail::in_batches(
      pictures, count, options.batch.batch_size,
      [&](std::span<const std::int64_t> numbers, std::span<Picture> batch) {
        std::vector<PreparedImage> prepared;
        for (Picture& picture : batch) prepared.push_back(std::move(picture.prepared));
        progress.clear();
        const Tensor maps = segmenter.importance(prepared);
        for (std::size_t row = 0; row < batch.size(); ++row) {
          const Image& photograph = batch[row].photograph;
          const std::string& name = inputs[static_cast<std::size_t>(numbers[row])].name;
          const Segmentation s = segmenter.finish(maps.select(0, static_cast<std::int64_t>(row)), photograph.width,
                                                  photograph.height, options.segment);
          auto json = to_json(s, segmenter, name, options.segment);
          const std::string stem = (std::filesystem::path(options.folder) / names.next(name)).string();
          write_results(stem, photograph, s, json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
          if (console.options().json)
            rows.push_back(std::move(json));
          else
            console.print(to_text(name, stem, s, options.segment));
        }
      },
      [&](std::int64_t number, const std::string& message) {
        const std::string& name = inputs[static_cast<std::size_t>(number)].name;
        failures.push_back({name, message});
        if (console.options().json) rows.push_back({{"image", name}, {"error", message}});
      },
      [&](std::int64_t items) {
        done = items;
        progress.update(items);
        return !interrupted();
      });
  progress.clear();
  if (console.options().json) console.print_json(rows);
  const int code = report_failures(console, failures, inputs.size());
  if (complete) return code;
  console.warn(fmt::format("interrupted after {} of {} pictures", done, count));
  return kInterrupted;
}

}  // namespace

const Command kSegmentCommand{
    .name = "segment",
    .summary = "Show what in photographs draws the eye: importance maps, masks, regions",
    .examples =
        "  vitrine segment examples/images/coffee.png --out results\n"
        "  vitrine segment photos --out results --threshold 0.3\n"
        "Each picture STEM gives STEM.importance.png (the map times 255), STEM.mask.png, STEM.overlay.png and STEM.json with\n"
        "the regions: box [left, top, width, height], score (mean of the map) and area in pixels.",
    .declare = [](CLI::App& app) -> std::function<int(Console&)> {
      auto options = std::make_shared<Options>();
      app.add_option("IMAGE", options->inputs, "Pictures, folders of pictures, or - for standard input")
          ->required()
          ->option_text("");
      app.add_option("-o,--out", options->folder, "Folder for the results; made where it is missing")
          ->required()
          ->option_text("DIR");
      app.add_option("--threshold", options->segment.threshold,
                     "Where the mask begins, as a share of the map's range, from 0 to 1 (default 0.5)")
          ->option_text("SHARE")
          ->check(CLI::Range(0.0, 1.0));
      app.add_option("--min-area", options->segment.min_area, "Least region, as a share of the picture (default 0.001)")
          ->option_text("SHARE")
          ->check(CLI::Range(0.0, 1.0));
      add_batch_options(app, options->batch);
      add_model_options(app, options->model);
      return [options](Console& console) { return run_segment(console, *options); };
    },
};

}  // namespace vitrine::command
