#include <vitrine/pipelines/diffusion_model.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/backbones/arguments.h>
#include <vitrine/backbones/autoencoder_kl.h>
#include <vitrine/backbones/autoencoder_tiny.h>
#include <vitrine/backbones/unet.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/memory.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/detail/metadata.h>
#include <vitrine/pipelines/files.h>
#include <vitrine/pipelines/sampler.h>
#include <vitrine/weights/labels.h>
#include <vitrine/weights/shipped.h>
#include <vitrine/weights/sources.h>
#include <vitrine/weights/weight_names.h>

namespace fs = std::filesystem;

namespace vitrine {
namespace {

using detail::printable;
using Json = nlohmann::json;

// How the authors of DiT trained theirs; checkpoints of a denoiser alone do not say.
constexpr std::string_view kDitScheduler =
    R"({"_class_name":"DDIMScheduler","num_train_timesteps":1000,"beta_schedule":"linear","beta_start":0.0001,"beta_end":0.02,)"
    R"("prediction_type":"epsilon","clip_sample":false})";

std::string read_text(const fs::path& path, std::string_view what) {
  const std::vector<std::uint8_t> bytes = read_file(path.string(), what);
  return {bytes.begin(), bytes.end()};
}

// A configuration's members as JSON texts, and its class.
struct Config {
  std::string class_name;
  Arguments arguments;
};

Config read_config(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  const std::string text = read_text(path, "a config.json");
  if (text.empty()) throw Error(fmt::format("{}: is empty, expected a JSON object (an unfinished download?)", path.string()));
  Config config{.class_name = {}, .arguments = detail::parse_json_arguments(text, path.string())};
  if (const auto name = config.arguments.find("_class_name"); name != config.arguments.end())
    detail::ArgumentReader(path.string(), config.arguments).get("_class_name", config.class_name);
  return config;
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

// --- attention ---------------------------------------------------------------------------------------------------------

struct AttentionChoice {
  Arguments arguments;  // of the denoiser
  std::string weights;  // of LinFusion's layers
};

// "NAME:key=value,..." as arguments of the denoiser.
AttentionChoice parse_attention(const std::string& text, bool unet) {
  AttentionChoice choice;
  if (text.empty()) return choice;
  const auto colon = std::min(text.find(':'), text.size());
  const std::string name = text.substr(0, colon);
  Arguments options = detail::parse_arguments(std::string_view(text).substr(std::min(colon + 1, text.size())), text);
  if (name == "linfusion")
    if (const auto weights = options.extract("weights"); !weights.empty())
      choice.weights = Json::parse(weights.mapped()).get<std::string>();
  if (unet && name == "agent") {  // U-Nets have them as an object
    Json object = Json::object();
    for (const auto& [key, value] : options) object[key] = Json::parse(value);
    options = {{"agent", object.dump()}};
  }
  choice.arguments = std::move(options);
  choice.arguments["attention"] = Json(name).dump();
  return choice;
}

// --- autoencoders ------------------------------------------------------------------------------------------------------

std::unique_ptr<Autoencoder> build_autoencoder(const Config& config, const Weights& weights) {
  if (config.class_name == "AutoencoderTiny")
    return std::make_unique<AutoencoderTiny>(weights, parse_autoencoder_tiny_config(config.arguments));
  if (config.class_name == "AutoencoderKL")
    return std::make_unique<AutoencoderKL>(weights, parse_autoencoder_kl_config(config.arguments));
  throw Error(fmt::format("{}: the autoencoder {} is not known; known: AutoencoderKL, AutoencoderTiny",
                          weights.source().describe(), printable(config.class_name)));
}

// Shapes and configuration without packing anything.
template <typename Build>
auto try_build(const Build& build) {
  Context dry({.threads = 1, .device = {}, .dry_run = true});
  const ContextScope scope(dry);
  return build()->info();
}

// Classes of a model_index.json, {"0": "tench, Tinca tinca", ...}.
std::vector<std::string> classes_of(const Json& index) {
  std::vector<std::string> classes;
  const auto table = index.find("id2label");
  if (table == index.end() || !table->is_object()) return classes;
  for (std::size_t i = 0; i < table->size(); ++i) {
    const auto name = table->find(std::to_string(i));
    if (name == table->end() || !name->is_string()) return {};
    classes.push_back(name->get<std::string>());
  }
  return classes;
}

std::string numbered(std::string_view name, int index) {
  return index == 0 ? std::string(name) : fmt::format("{}_{}", name, index + 1);
}

}  // namespace

struct DiffusionModel::Parts {
  DiffusionModelOptions options;
  const PipelineKind* kind = nullptr;
  fs::path folder;  // of diffusers; empty: a denoiser alone
  std::string architecture;
  Arguments arguments;
  std::shared_ptr<const WeightSource> checkpoint;  // with the denoiser; a whole pipeline's has the other parts, too
  std::shared_ptr<const WeightSource> denoiser_weights;
  std::optional<Config> vae;
  std::shared_ptr<const WeightSource> vae_weights;
  std::string scheduler, scheduler_source, sampler;
  int steps = 0;
  double guidance = 0;
  std::vector<std::string> classes, warnings;
  DenoiserInfo denoiser_info;
  std::optional<AutoencoderInfo> autoencoder_info;

  void open_folder(const fs::path& path);
  void open_denoiser(const std::string& name, const std::string& weights);
  void open_vae(const fs::path& path);
  void check_variant();
  // The weights of a part's folder, those of the variant where there are any.
  std::string weights_in(const fs::path& part) const {
    const auto variant = options.variant.empty() ? std::nullopt : find_weights(part.string(), options.variant);
    return variant.value_or(part.string());
  }
  void apply_attention();
  WeightsOptions computing() const {
    return {.dtype = options.dtype, .device = options.device, .int8_weights = options.int8_weights};
  }
  std::unique_ptr<Denoiser> build_denoiser() const {
    auto denoiser = create_denoiser(architecture, Weights(denoiser_weights, computing()), arguments);
    release_cached_memory();  // what packing needed, which passes do not
    return denoiser;
  }
  std::unique_ptr<Autoencoder> build_vae() const {
    AutoencoderInfo info = autoencoder_info.value_or(AutoencoderInfo{});
    // f16 overflows in it.
    const DType dtype = options.dtype == DType::f16 && info.force_upcast ? DType::f32 : options.dtype;
    return build_autoencoder(*vae, Weights(vae_weights, {.dtype = dtype, .device = options.device}));
  }
  ClipEncoder load_clip(int index) const;
  T5TextEncoder load_t5() const;
};

void DiffusionModel::Parts::open_folder(const fs::path& path) {
  folder = path;
  const fs::path index_path = path / "model_index.json";
  const std::string text = read_text(index_path, "a model_index.json");
  const Json index = Json::parse(text, nullptr, false);
  if (!index.is_object() || !index.contains("_class_name") || !index["_class_name"].is_string())
    throw Error(fmt::format("{}: not the index of a pipeline: it is no JSON object with a _class_name", index_path.string()));
  try {
    kind = &pipeline_kind(index["_class_name"].get<std::string>());
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", index_path.string(), error.what()));
  }
  steps = kind->steps;
  guidance = kind->guidance;
  classes = classes_of(index);
  if (!options.variant.empty()) check_variant();
  const fs::path denoiser = path / kind->denoiser_folder;
  Config config = read_config(denoiser);
  // Older files of DiT and PixArt.
  architecture = config.class_name == "Transformer2DModel" && kind->encode == nullptr ? "DiTTransformer2DModel"
                 : config.class_name == "Transformer2DModel"                          ? "PixArtTransformer2DModel"
                                                                                      : config.class_name;
  if (!is_denoiser(architecture))
    throw Error(fmt::format("{}: the denoiser {} is not known", (denoiser / "config.json").string(), printable(architecture)));
  arguments = std::move(config.arguments);
  std::erase_if(arguments, [](const auto& argument) { return argument.first.starts_with('_'); });  // _class_name, ...
  denoiser_weights = checkpoint = open_weights(options.weights.empty() ? weights_in(denoiser) : options.weights);
  if (options.vae.empty()) open_vae(path / "vae");
  scheduler_source = (path / "scheduler" / "scheduler_config.json").string();
  scheduler = read_text(scheduler_source, "a scheduler_config.json");
  std::string class_name;
  try {
    class_name = scheduler_class(scheduler);
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", scheduler_source, error.what()));
  }
  // A network that predicts noise works with any of them.
  if (is_sampler(class_name) || class_name.empty() || class_name.starts_with("FlowMatch")) return;
  sampler = "dpmpp-2m";
  warnings.push_back(fmt::format("{}: the scheduler {} is not known, {} takes its place; --sampler names another", options.model,
                                 printable(class_name), sampler));
}

// At least one part has the variant; of the others comes a warning.
void DiffusionModel::Parts::check_variant() {
  std::vector<std::string> parts{std::string(kind->denoiser_folder), "vae"}, without;
  for (int i = 0; i < kind->clip_encoders; ++i) parts.push_back(numbered("text_encoder", i));
  if (!kind->t5_folder.empty()) parts.emplace_back(kind->t5_folder);
  std::erase_if(parts, [&](const std::string& part) { return !is_folder(folder / part); });
  for (const std::string& part : parts)
    if (!find_weights((folder / part).string(), options.variant)) without.push_back(part);
  if (without.size() == parts.size()) throw Error(detail::no_variant(options.model, options.variant));
  if (!without.empty())
    warnings.push_back(fmt::format("{}: no weights of the variant '{}' in {}: the plain ones are taken", options.model,
                                   options.variant, detail::list_names(without, 8)));
}

// A published denoiser with its weights, or weights whose metadata say what they are.
void DiffusionModel::Parts::open_denoiser(const std::string& name, const std::string& weights) {
  denoiser_weights = checkpoint = open_weights(weights);
  architecture = name;
  scheduler_source = weights;
  scheduler = detail::metadata_value(*denoiser_weights, "scheduler");
  if (scheduler.empty()) scheduler = kDitScheduler;
  classes = detail::metadata_classes(*denoiser_weights);
  kind = &pipeline_kind("DiTPipeline");
  steps = kind->steps;
  guidance = kind->guidance;
  if (const std::string json = detail::metadata_value(*denoiser_weights, "generation"); !json.empty()) {
    const Arguments settings = detail::parse_json_arguments(json, weights);
    detail::ArgumentReader(weights, settings).get("steps", steps).get("guidance", guidance).finish();
  }
}

void DiffusionModel::Parts::open_vae(const fs::path& path) {
  vae = read_config(path);
  // The file of a whole pipeline by its authors.
  const bool in_file = options.vae.empty() && checkpoint->find("first_stage_model.decoder.conv_in.weight");
  vae_weights = in_file ? checkpoint : open_weights(options.vae.empty() ? weights_in(path) : path.string());
}

void DiffusionModel::Parts::apply_attention() {
  const bool unet = kind->denoiser_folder == "unet";
  AttentionChoice choice = parse_attention(options.attention, unet);
  for (auto& [key, value] : choice.arguments) arguments[key] = std::move(value);
  if (choice.weights.empty()) return;
  if (!unet) throw Error(fmt::format("--attention {}: LinFusion is for U-Nets of Stable Diffusion", options.attention));
  denoiser_weights = with_linfusion(denoiser_weights, open_weights(choice.weights), parse_unet_config(arguments));
}

ClipEncoder DiffusionModel::Parts::load_clip(int index) const {
  const fs::path path = folder / numbered("text_encoder", index);
  const Config config = read_config(path);
  auto weights = clip_in_pipeline(checkpoint, index);
  if (!weights) weights = open_weights(weights_in(path));
  return {open_tokenizer((folder / numbered("tokenizer", index)).string()),
          ClipTextModel(Weights(std::move(weights), computing()), parse_clip_text_config(config.arguments))};
}

T5TextEncoder DiffusionModel::Parts::load_t5() const {
  const fs::path path = folder / kind->t5_folder;
  const Config config = read_config(path);
  std::string tokenizer(kind->t5_folder);
  tokenizer.replace(0, std::string_view("text_encoder").size(), "tokenizer");
  return {open_tokenizer((folder / tokenizer).string()),
          T5Encoder(Weights(open_weights(weights_in(path)), computing()), parse_t5_config(config.arguments))};
}

DiffusionModel::DiffusionModel(DiffusionModelOptions options) : parts_(std::make_unique<Parts>()) {
  Parts& p = *parts_;
  p.options = std::move(options);
  const std::string& model = p.options.model;
  if (!p.options.variant.empty() && !is_hub_name(model) && !is_folder(model))
    throw Error(fmt::format("{}: has no variants (--variant {}); folders of diffusers and hf:OWNER/NAME have them", model,
                            printable(p.options.variant)));
  if (const auto shipped = find_shipped(model); shipped && is_denoiser(shipped->architecture)) {
    p.open_denoiser(shipped->architecture, p.options.weights.empty() ? shipped->file : p.options.weights);
  } else if (is_hub_name(model)) {
    p.open_folder(fetch_hub_pipeline(hub_settings(), parse_hub_name(model), p.options.progress, p.options.variant));
  } else if (is_folder(model)) {
    p.open_folder(model);
  } else if (is_denoiser(model)) {
    if (p.options.weights.empty())
      throw Error(fmt::format("{}: no weights are shipped with this model; give a checkpoint (--weights FILE)", model));
    p.open_denoiser(model, p.options.weights);
  } else {
    std::vector<std::string> known = list_denoisers();
    for (const ShippedModel& entry : shipped_models())
      if (is_denoiser(entry.architecture)) known.push_back(entry.name);
    throw Error(fmt::format("unknown generator '{}'{}; expected a folder of diffusers, hf:OWNER/NAME, or one of {}",
                            printable(model), detail::suggest_names(model, known, 3), detail::list_names(known, 6)));
  }
  if (!p.options.vae.empty()) p.open_vae(p.options.vae);
  p.apply_attention();
  p.denoiser_info = try_build([&] { return p.build_denoiser(); });
  if (p.denoiser_info.num_classes == 0 && p.folder.empty())
    throw Error(
        fmt::format("{}: reads texts, and a checkpoint of the denoiser has no text encoder; give a folder of diffusers "
                    "(--model FOLDER)",
                    model));
  if (p.vae) p.autoencoder_info = try_build([&] { return p.build_vae(); });
  if (!p.vae && p.denoiser_info.in_channels != 1 && p.denoiser_info.in_channels != 3)
    throw Error(fmt::format("{}: works on latents of {} channels; give the autoencoder that they are of (--vae FOLDER)", model,
                            p.denoiser_info.in_channels));
  const auto count = static_cast<std::size_t>(p.denoiser_info.num_classes);
  if (p.classes.empty() && count == imagenet_classes().size())
    for (const ImageNetClass& known : imagenet_classes()) p.classes.push_back(known.name);
  if (p.classes.size() != count) {
    if (!p.classes.empty())
      p.warnings.push_back(
          fmt::format("{}: {} class names, the model has {}: the names are not used", model, p.classes.size(), count));
    p.classes.clear();
  }
}

DiffusionModel::~DiffusionModel() = default;
DiffusionModel::DiffusionModel(DiffusionModel&&) noexcept = default;
DiffusionModel& DiffusionModel::operator=(DiffusionModel&&) noexcept = default;

std::unique_ptr<Denoiser> DiffusionModel::load_denoiser() const { return parts_->build_denoiser(); }
std::unique_ptr<Autoencoder> DiffusionModel::load_autoencoder() const { return parts_->vae ? parts_->build_vae() : nullptr; }

TextEncoders DiffusionModel::load_text_encoders() const {
  const Parts& p = *parts_;
  TextEncoders encoders;
  if (p.kind->encode == nullptr) return encoders;
  for (int i = 0; i < p.kind->clip_encoders; ++i) encoders.clip.push_back(p.load_clip(i));
  // SD3 is published without its T5, too.
  const bool optional = p.kind->clip_encoders > 1;
  if (!p.kind->t5_folder.empty() && (!optional || is_folder(p.folder / p.kind->t5_folder))) encoders.t5 = p.load_t5();
  encoders.t5_tokens = p.options.text_tokens > 0 ? p.options.text_tokens : p.kind->t5_tokens;
  encoders.text_channels = p.denoiser_info.text_channels;
  return encoders;
}

const std::string& DiffusionModel::name() const { return parts_->options.model; }
const PipelineKind& DiffusionModel::kind() const { return *parts_->kind; }
const DenoiserInfo& DiffusionModel::denoiser() const { return parts_->denoiser_info; }
const std::optional<AutoencoderInfo>& DiffusionModel::autoencoder() const { return parts_->autoencoder_info; }
int DiffusionModel::steps() const { return parts_->steps; }
double DiffusionModel::guidance() const { return parts_->guidance; }
const std::string& DiffusionModel::scheduler() const { return parts_->scheduler; }
const std::string& DiffusionModel::scheduler_source() const { return parts_->scheduler_source; }
const std::string& DiffusionModel::sampler() const { return parts_->sampler; }
const std::vector<std::string>& DiffusionModel::classes() const { return parts_->classes; }
const std::vector<std::string>& DiffusionModel::warnings() const { return parts_->warnings; }
DType DiffusionModel::dtype() const { return parts_->options.dtype; }

}  // namespace vitrine
