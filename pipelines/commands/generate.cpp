// vitrine generate: a class, a prompt or a picture in, pictures out.
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <vitrine/layers/file.h>
#include <vitrine/layers/memory.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/commands/files.h>
#include <vitrine/pipelines/commands/model_options.h>
#include <vitrine/pipelines/draw.h>
#include <vitrine/pipelines/generate.h>

namespace fs = std::filesystem;

namespace vitrine::command {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kKeyword = "vitrine";  // of the settings in a PNG

// What a picture is made of, as a JSON object: the options of the command line over those of --from. The same goes into the
// pictures.
struct Options {
  Json given = Json::object();
  std::string from, out;
  bool preview = false, no_metadata = false;
  std::int64_t batch_size = 1;
  const CLI::App* app = nullptr;
};

enum class Kind : std::uint8_t { text, integer, number };
struct Setting {
  const char *key, *option, *shown, *help, *group;
  Kind kind;
  double least = 0, most = 0;
};
constexpr const char *kWhat = "What is drawn", *kHow = "How", *kModel = "Model";
constexpr double kMost = 1e9;
constexpr Setting kSettings[] = {
    {"prompt", "--prompt", "TEXT", "What to draw, for models that read texts", kWhat, Kind::text},
    {"negative", "--negative", "TEXT", "What to keep away from", kWhat, Kind::text},
    {"image", "--image", "FILE", "Begin from this picture", kWhat, Kind::text},
    {"strength", "--strength", "S", "How much of it is drawn anew, above 0 to 1 (default 0.8)", kWhat, Kind::number, 0, 1},
    {"mask", "--mask", "FILE", "Draw anew only where this picture is white", kWhat, Kind::text},
    {"count", "--count,-n", "N", "Pictures (default 1, or one a class)", kWhat, Kind::integer, 1, kMost},
    {"seed", "--seed", "S", "Of the first picture, the next have S + 1, S + 2, ... (default: by chance)", kWhat, Kind::integer, 0,
     9e15},
    {"steps", "--steps", "N", "Steps of the sampler (default: the pipeline's)", kHow, Kind::integer, 1, 100000},
    {"guidance", "--guidance", "G", "How closely class or prompt are followed; 1: no guidance", kHow, Kind::number, -1000, 1000},
    {"guidance_rescale", "--guidance-rescale", "R", "Against too much contrast, 0 to 1", kHow, Kind::number, 0, 1},
    {"sampler", "--sampler", "NAME", "ddim, dpmpp-2m, euler, ..., may carry [settings] (default: the model's)", kHow, Kind::text},
    {"tile", "--tile", "PIXELS", "Side of the autoencoder's tiles (default: 512 for pictures above 1024)", kHow, Kind::integer, 0,
     16384},
    {"zoom", "--zoom", "N", "Write each pixel N times N times (default 1)", kHow, Kind::integer, 1, 64},
    {"model", "--model", "NAME", "dit_fashion (the default), a folder of diffusers, hf:OWNER/NAME, or a name like DiT-XL/2",
     kModel, Kind::text},
    {"weights", "--weights", "FILE", "Of the denoiser, or a whole pipeline in one file, in the place of the model's", kModel,
     Kind::text},
    {"variant", "--variant", "NAME", "Of each part's weights those of this name where there are some: fp16", kModel, Kind::text},
    {"vae", "--vae", "DIR", "Another autoencoder: a folder with config.json and weights", kModel, Kind::text},
    {"attention", "--attention", "NAME", "clear:radius=8, linfusion:weights=FILE, agent, neighborhood:kernel_size=5, ...", kModel,
     Kind::text},
    {"text_tokens", "--text-tokens", "N", "Tokens that T5 reads of a prompt (default: the pipeline's)", kModel, Kind::integer, 1,
     4096},
};

void add_setting(CLI::App& app, Json& given, const Setting& setting) {
  CLI::Option* option = nullptr;
  const std::string key = setting.key;
  switch (setting.kind) {
    case Kind::text:
      option = app.add_option_function<std::string>(
          setting.option, [&given, key](const std::string& v) { given[key] = v; }, setting.help);
      break;
    case Kind::integer:
      option = app.add_option_function<std::int64_t>(
          setting.option, [&given, key](const std::int64_t& v) { given[key] = v; }, setting.help);
      break;
    case Kind::number:
      option = app.add_option_function<double>(
          setting.option, [&given, key](const double& v) { given[key] = v; }, setting.help);
      break;
  }
  option->option_text(setting.shown)->group(setting.group);
  if (setting.kind == Kind::integer)
    option->check(CLI::Range(static_cast<std::int64_t>(setting.least), static_cast<std::int64_t>(setting.most)));
  else if (setting.kind == Kind::number)
    option->check(CLI::Range(setting.least, setting.most));
}

// "512x768", width x height, or "512".
void set_size(Json& given, const std::string& text) {
  const auto [width, height] = parse_size("--size", text);
  given["width"] = width;
  given["height"] = height;
}

Json read_settings(const std::string& path) {
  const PngMetadata metadata = read_png_metadata(path);
  const auto found = metadata.find(kKeyword);
  if (found == metadata.end())
    throw Error(fmt::format("{}: does not say how it was made; only pictures of `vitrine generate` do", path));
  Json settings = Json::parse(found->second, nullptr, false);
  if (!settings.is_object()) throw Error(fmt::format("{}: what it says about how it was made is damaged", path));
  return settings;
}

// Of its type, or what it is without; throws Error where a picture has another.
template <typename T>
T value_of(const Json& settings, const char* key, T otherwise) {
  const auto found = settings.find(key);
  if (found == settings.end()) return otherwise;
  const bool right = std::is_same_v<T, std::string> ? found->is_string()
                     : std::is_same_v<T, double>    ? found->is_number()
                                                    : found->is_number_integer();
  if (!right) throw Error(fmt::format("setting {}: {} is not of its kind", key, detail::printable(found->dump())));
  return found->get<T>();
}

bool has_int8_weights(const Json& settings) {
  const auto name = value_of<std::string>(settings, "weights_dtype", "");
  if (!name.empty() && name != "i8")
    throw Error(fmt::format("setting weights_dtype: '{}', expected i8", detail::printable(name)));
  return !name.empty();
}

DiffusionModelOptions model_options(const Console& console, const Json& settings, DType dtype) {
  return {.model = value_of<std::string>(settings, "model", "dit_fashion"),
          .weights = value_of<std::string>(settings, "weights", ""),
          .variant = value_of<std::string>(settings, "variant", ""),
          .vae = value_of<std::string>(settings, "vae", ""),
          .attention = value_of<std::string>(settings, "attention", ""),
          .text_tokens = value_of<std::int64_t>(settings, "text_tokens", 0),
          .dtype = dtype,
          .device = Context::current().device(),
          .int8_weights = has_int8_weights(settings),
          .progress = show_downloads(console)};
}

std::vector<std::int64_t> classes_of(const Json& settings, const Generator& generator) {
  std::vector<std::int64_t> classes;
  const auto list = settings.find("class");
  if (list == settings.end()) return classes;
  if (!list->is_array()) throw Error("setting class: expected a list of names");
  for (const Json& name : *list) {
    if (!name.is_string()) throw Error("setting class: expected a list of names");
    if (name == "all") {
      if (generator.model().denoiser().num_classes == 0) generator.class_index("all");  // says why not
      for (std::int64_t i = 0; i < generator.model().denoiser().num_classes; ++i) classes.push_back(i);
    } else {
      classes.push_back(generator.class_index(name.get<std::string>()));
    }
  }
  return classes;
}

GenerateJob make_job(const Json& settings, const Generator& generator, std::int64_t batch_size) {
  GenerateJob job;
  job.classes = classes_of(settings, generator);
  if (generator.model().kind().encode != nullptr && job.classes.empty() && !settings.contains("prompt"))
    throw Error(fmt::format("{}: draws prompts: give one (--prompt TEXT, \"\" for none)", generator.model().name()));
  job.prompt = value_of<std::string>(settings, "prompt", "");
  job.negative_prompt = value_of<std::string>(settings, "negative", "");
  job.width = value_of<std::int64_t>(settings, "width", 0);
  job.height = value_of<std::int64_t>(settings, "height", 0);
  job.steps = static_cast<int>(std::clamp<std::int64_t>(value_of<std::int64_t>(settings, "steps", 0), 0, 1 << 30));
  if (settings.contains("guidance")) job.guidance = value_of<double>(settings, "guidance", 1);
  job.guidance_rescale = value_of<double>(settings, "guidance_rescale", 0);
  job.seed = static_cast<std::uint64_t>(value_of<std::int64_t>(settings, "seed", 0));
  job.count = value_of<std::int64_t>(settings, "count", std::max<std::int64_t>(1, static_cast<std::int64_t>(job.classes.size())));
  job.batch_size = batch_size;
  job.sampler = value_of<std::string>(settings, "sampler", "");
  job.strength = value_of<double>(settings, "strength", job.strength);
  job.tile = value_of<std::int64_t>(settings, "tile", 0);
  if (const auto path = value_of<std::string>(settings, "image", ""); !path.empty()) job.image = read_image(path);
  if (const auto path = value_of<std::string>(settings, "mask", ""); !path.empty()) job.mask = read_image(path, 1);
  return generator.complete(std::move(job));
}

std::string class_name(const Generator& generator, std::int64_t index) {
  const auto& names = generator.model().classes();
  return names.empty() ? std::to_string(index) : names[static_cast<std::size_t>(index)];
}

// Where pictures go: a file, which of several pictures has a grid, or a folder, a file a picture.
class Output {
 public:
  Output(const Options& options, Json settings, std::int64_t zoom)
      : options_(options), settings_(std::move(settings)), zoom_(zoom) {
    constexpr std::string_view kExtensions[] = {".png", ".jpg", ".jpeg"};
    if (options.out.empty()) throw UsageError("--out: expected the name of a picture or of a folder");
    std::error_code error;
    const bool is_file = !fs::is_directory(options.out, error) && fs::path(options.out).has_extension();
    if (is_file) {
      check_output("--out", options.out, kExtensions);
      return;
    }
    make_folder(options.out);
    folder_ = true;
    // What is there stays: numbers go on after the last.
    for (const auto& entry : fs::directory_iterator(options.out, error)) {
      const std::string stem = entry.path().stem().string();
      if (!stem.empty() && stem.size() <= 9 && stem.find_first_not_of("0123456789") == stem.npos)
        next_ = std::max<std::int64_t>(next_, std::stoll(stem) + 1);
    }
    detail::check_writable(next_path());
  }

  void add(Image picture, Json own) {
    if (zoom_ > 1) picture = resize_image(picture, picture.width * zoom_, picture.height * zoom_, Filter::nearest);
    if (!folder_) return pictures_.push_back(std::move(picture));
    Json settings = settings_;
    settings.update(own);
    write(next_path(), picture, settings);
    ++next_;
  }

  void finish() {
    remove_preview();
    if (folder_ || pictures_.empty()) return;
    Json settings = settings_;
    settings["count"] = pictures_.size();
    write(options_.out, pictures_.size() == 1 ? pictures_[0] : picture_grid(pictures_, 2 * zoom_), settings);
  }

  void show(const Image& picture) {
    preview_ = folder_ ? (fs::path(options_.out) / "preview.png").string()
                       : fs::path(options_.out).replace_extension(".preview.png").string();
    write_image(preview_, picture);
  }
  void remove_preview() {
    std::error_code ignored;
    if (!preview_.empty()) fs::remove(preview_, ignored);
    preview_.clear();
  }

  const std::vector<std::string>& files() const { return files_; }

 private:
  std::string next_path() const { return (fs::path(options_.out) / fmt::format("{:04}.png", next_)).string(); }

  void write(const std::string& path, const Image& picture, const Json& settings) {
    if (options_.no_metadata || !has_extension(path, ".png"))
      write_image(path, picture);
    else
      write_png(
          path, picture,
          {{kKeyword, settings.dump(-1, ' ', false, Json::error_handler_t::replace)}, {"Software", "Vitrine " VITRINE_VERSION}});
    files_.push_back(path);
  }

  const Options& options_;
  Json settings_;
  std::int64_t zoom_;
  bool folder_ = false;
  std::int64_t next_ = 1;
  std::vector<Image> pictures_;
  std::vector<std::string> files_;
  std::string preview_;
};

int run_generate(Console& console, const Options& options) {
  Json settings = options.from.empty() ? Json::object() : read_settings(options.from);
  for (const auto& [key, value] : options.given.items()) settings[key] = value;
  DType dtype = console.options().dtype;
  if (options.app->count("--dtype") == 0 && settings.contains("dtype"))
    dtype = parse_dtype(value_of<std::string>(settings, "dtype", ""));

  // The text encoder goes before the denoiser comes: a command draws one prompt.
  const Generator generator(model_options(console, settings, dtype), false);
  for (const std::string& warning : generator.model().warnings()) console.warn(warning);
  if (!settings.contains("seed")) settings["seed"] = std::random_device()();
  const GenerateJob job = make_job(settings, generator, options.batch_size);
  settings["model"] = generator.model().name();
  settings["dtype"] = name_of(dtype);
  settings["width"] = job.width;
  settings["height"] = job.height;
  settings["steps"] = job.steps;
  settings["guidance"] = *job.guidance;
  settings["count"] = job.count;
  if (job.image) settings["strength"] = job.strength;
  if (!job.classes.empty()) {
    settings["class"] = Json::array();
    for (const std::int64_t index : job.classes) settings["class"].push_back(class_name(generator, index));
  }
  const auto zoom = value_of<std::int64_t>(settings, "zoom", 1);
  if (zoom < 1 || zoom > 64) throw Error(fmt::format("setting zoom: {}, expected 1 to 64", zoom));
  Output output(options, settings, zoom);
  for (const std::string& warning : generator.warnings(job)) console.warn(warning);

  const auto start = std::chrono::steady_clock::now();
  std::int64_t finished = 0;
  bool complete = false;
  {
    Progress progress(console, "generate", job.count * 1000);
    GenerateCallbacks callbacks;
    callbacks.progress = [&](const GenerateProgress& p) {
      const std::int64_t at_work = std::min(options.batch_size, p.count - p.done);
      progress.update(p.done * 1000 + at_work * 1000 * p.step / p.steps,
                      fmt::format("picture {} of {}, step {} of {}", p.done + 1, p.count, p.step, p.steps));
      return !interrupted();
    };
    callbacks.picture = [&](std::int64_t index, const Image& picture) {
      Json own{{"count", 1}, {"seed", job.seed + static_cast<std::uint64_t>(index)}};
      if (!job.classes.empty())
        own["class"] = Json::array({class_name(generator, job.classes[static_cast<std::size_t>(index) % job.classes.size()])});
      output.add(picture, own);
      ++finished;
    };
    if (options.preview) callbacks.preview = [&](std::int64_t, const Image& picture) { output.show(picture); };
    try {
      complete = generator.generate(job, callbacks);
    } catch (...) {
      progress.clear();
      output.finish();  // what is done is kept
      throw;
    }
    progress.clear();
    output.finish();
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (console.options().json) {
    Json result{{"settings", settings},
                {"files", output.files()},
                {"pictures", finished},
                {"seconds", seconds},
                {"peak_bytes", peak_resident_bytes()}};
    console.print_json(result);
  } else {
    for (const std::string& file : output.files()) console.print(file);
    console.note(fmt::format("{} picture{} of {}x{} in {:.1f} s, seed {}; peak memory {:.0f} MB", finished,
                             finished == 1 ? "" : "s", job.width, job.height, seconds, job.seed,
                             static_cast<double>(peak_resident_bytes()) / 1e6));
  }
  if (complete) return kSuccess;
  console.warn(fmt::format("interrupted after {} of {} pictures{}", finished, job.count, finished > 0 ? "; those are kept" : ""));
  return kInterrupted;
}

}  // namespace

const Command kGenerateCommand{
    .name = "generate",
    .summary = "Draw pictures of a class or a prompt, or change one",
    .examples =
        "  vitrine generate --class Sneaker --count 16 --seed 1 --zoom 4 --out sneakers.png\n"
        "  vitrine generate --class all --sampler dpmpp-2m --steps 15 --out clothes.png\n"
        "  vitrine generate --from sneakers.png --steps 100 --out finer.png\n"
        "  vitrine generate --model stable-diffusion-v1-5 --prompt \"a lighthouse in the fog\" --out lighthouse.png\n"
        "  vitrine generate --model stable-diffusion-v1-5 --image photo.jpg --strength 0.6 --prompt \"in oil\" --out "
        "painting.png\n"
        "  vitrine generate --model FLUX.1-dev --dtype bf16 --weights-dtype i8 --prompt \"a city\" --out city.png\n"
        "  vitrine generate --model FLUX.1-dev --attention clear:radius=8 --size 2048x2048 --prompt \"a city\" --out city.png",
    .declare = [](CLI::App& app) -> std::function<int(Console&)> {
      auto options = std::make_shared<Options>();
      options->app = &app;
      app.add_option("--out,-o", options->out,
                     "A picture (.png, .jpg), of several pictures their grid; or a folder, a file a picture")
          ->required()
          ->option_text("FILE|DIR");
      app.add_option_function<std::vector<std::string>>(
             "--class", [options](const std::vector<std::string>& names) { options->given["class"] = names; },
             "Class to draw, by name or number; several: in turn; all: one of each")
          ->option_text("NAME")
          ->expected(1, -1)
          ->group(kWhat);
      for (const Setting& setting : kSettings) add_setting(app, options->given, setting);
      app.add_option_function<std::string>(
             "--size", [options](const std::string& text) { set_size(options->given, text); },
             "WIDTHxHEIGHT or SIDE in pixels (default: the model's)")
          ->option_text("SIZE")
          ->group(kHow);
      add_weights_dtype_option(app, [options] { options->given["weights_dtype"] = "i8"; });
      app.add_option("--from", options->from, "Take what is not given from the settings in this PNG")->option_text("PICTURE");
      app.add_option("--batch-size,-b", options->batch_size, "Pictures at a time (default 1); the pictures do not depend on it")
          ->option_text("N")
          ->check(CLI::Range(1, 4096));
      app.add_flag("--preview", options->preview, "Show the picture at work in a file beside the result");
      app.add_flag("--no-metadata", options->no_metadata, "Do not write the settings into PNGs");
      return [options](Console& console) { return run_generate(console, *options); };
    },
};

}  // namespace vitrine::command
