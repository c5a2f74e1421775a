#include "pipelines/diffusion_folders.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>

#include <vitrine/backbones/arguments.h>
#include <vitrine/backbones/autoencoder_kl.h>
#include <vitrine/backbones/clip_text.h>
#include <vitrine/backbones/denoiser.h>
#include <vitrine/weights/sources.h>

#include "backbones/compvis.h"
#include "backbones/support.h"

namespace fs = std::filesystem;
using nlohmann::json;

namespace vitrine::test {
namespace {

const fs::path kData = fs::path(VITRINE_SOURCE_DIR) / "tests/data/pipelines";

json read_case(const std::string& name) { return json::parse(std::ifstream(kData / (name + ".json"))); }

void write_json(const fs::path& path, const json& value) { std::ofstream(path) << value.dump(1) << '\n'; }

void write_weights(const fs::path& path, const json& parameters) {
  std::map<std::string, Tensor> tensors;
  for (const json& entry : parameters) {
    Shape shape(entry[1].get<std::vector<std::int64_t>>());
    tensors.emplace(entry[0].get<std::string>(), synthetic_parameter(entry[0].get<std::string>(), shape));
  }
  save_safetensors(path.string(), tensors);
}

}  // namespace

std::vector<std::string> diffusion_pipelines() { return {"sd", "inpaint", "sdxl", "sd3", "flux", "pixart", "dit"}; }

DiffusionCase diffusion_case(const std::string& name) {
  const json entry = read_case(name);
  DiffusionCase made{.name = name,
                     .call = entry["call"],
                     .seed = entry["seed"].get<std::uint64_t>(),
                     .expected = read_image((kData / (name + ".png")).string()),
                     .picture = {},
                     .mask = {}};
  if (name != "inpaint") return made;
  made.picture = Image{32, 32, 3, std::vector<std::uint8_t>(32 * 32 * 3)};
  for (std::size_t i = 0; i < made.picture->pixels.size(); ++i) made.picture->pixels[i] = static_cast<std::uint8_t>(i * 7 % 251);
  made.mask = Image{32, 32, 1, std::vector<std::uint8_t>(32 * 32)};
  for (std::int64_t y = 9; y < 22; ++y) std::fill(made.mask->row(y) + 7, made.mask->row(y) + 30, std::uint8_t{255});
  return made;
}

std::vector<std::string> DiffusionCase::arguments(const std::string& folder) const {
  std::vector<std::string> all{
      "--size",     std::to_string(size),         "--seed", std::to_string(seed), "--steps", call["num_inference_steps"].dump(),
      "--guidance", call["guidance_scale"].dump()};
  const auto add = [&](const char* option, const json& value) {
    all.emplace_back(option);
    all.push_back(value.is_string() ? value.get<std::string>() : value.dump());
  };
  if (call.contains("prompt")) add("--prompt", call["prompt"]);
  if (call.contains("negative_prompt")) add("--negative", call["negative_prompt"]);
  if (call.contains("class_labels")) add("--class", call["class_labels"][0]);
  if (picture) {
    write_image(folder + "/picture.png", *picture);
    write_image(folder + "/mask.png", *mask);
    all.insert(all.end(), {"--image", folder + "/picture.png", "--mask", folder + "/mask.png", "--strength", "1"});
  }
  return all;
}

void write_diffusion_folder(const std::string& name, const std::string& folder) {
  const json entry = read_case(name);
  fs::create_directories(folder);
  write_json(fs::path(folder) / "model_index.json", entry["index"]);
  for (const auto& [part, content] : entry["parts"].items()) {
    const fs::path path = fs::path(folder) / part;
    fs::create_directories(path);
    if (content.contains("tokenizer")) {
      for (const auto& file : fs::directory_iterator(kData / content["tokenizer"].get<std::string>()))
        fs::copy_file(file.path(), path / file.path().filename(), fs::copy_options::overwrite_existing);
      continue;
    }
    json config = content["config"];
    if (part == "scheduler") config["_class_name"] = content["class"];
    write_json(path / (part == "scheduler" ? "scheduler_config.json" : "config.json"), config);
    if (content.contains("parameters"))
      write_weights(path / (content["library"] == "diffusers" ? "diffusion_pytorch_model.safetensors" : "model.safetensors"),
                    content["parameters"]);
  }
}

namespace {

// What a part of such a configuration reads.
Tensors parameters_of(const std::string& part, const json& config) {
  const auto recorder = std::make_shared<Recorder>();
  const Weights weights(recorder);
  const Arguments arguments = detail::parse_json_arguments(config.dump(), part);
  if (part == "unet")
    create_denoiser("UNet2DConditionModel", weights, arguments);
  else if (part == "vae")
    AutoencoderKL(weights, parse_autoencoder_kl_config(arguments));
  else
    ClipTextModel(weights, parse_clip_text_config(arguments));
  return recorder->tensors;
}

}  // namespace

DiffusionCase write_published_pipeline(const std::string& name, const std::string& folder, const std::string& file) {
  const bool xl = name == "sdxl";
  const std::string base = xl ? "sdxl" : "sd";
  write_diffusion_folder(base, folder);
  json entry = read_case(base);
  std::map<std::string, json> configs;
  for (const auto& [part, content] : entry["parts"].items())
    if (content.contains("parameters")) configs[part] = content["config"];
  json& unet = configs["unet"];
  const auto repeat = [](const char* value, std::size_t count) { return json(std::vector<std::string>(count, value)); };
  unet["layers_per_block"] = 2;
  unet["block_out_channels"] = xl ? json{16, 16, 32} : json{16, 16, 32, 32};
  unet["down_block_types"] = repeat("CrossAttnDownBlock2D", xl ? 3 : 4);
  unet["up_block_types"] = repeat("CrossAttnUpBlock2D", xl ? 3 : 4);
  // XL has no attention in the largest maps, the others none in the smallest.
  unet["down_block_types"][xl ? 0 : 3] = "DownBlock2D";
  unet["up_block_types"][xl ? 2 : 0] = "UpBlock2D";
  if (xl) unet["transformer_layers_per_block"] = {1, 2, 3};
  if (name == "sd2") unet["use_linear_projection"] = true;
  json& vae = configs["vae"];
  vae["layers_per_block"] = 2;
  vae["block_out_channels"] = {8, 8, 16, 16};
  vae["down_block_types"] = repeat("DownEncoderBlock2D", 4);
  vae["up_block_types"] = repeat("UpDecoderBlock2D", 4);
  // Version 2 leaves out the last layer of its file.
  if (name == "sd2") configs["text_encoder"]["num_hidden_layers"] = 2;

  Tensors whole{{"model_ema.decay", Tensor::zeros({1})}, {"alphas_cumprod", Tensor::zeros({1000})}};
  for (const auto& [part, config] : configs) {
    write_json(fs::path(folder) / part / "config.json", config);
    const Tensors own = parameters_of(part, config);
    const bool of_diffusers = part == "unet" || part == "vae";
    save_safetensors(
        (fs::path(folder) / part / (of_diffusers ? "diffusion_pytorch_model.safetensors" : "model.safetensors")).string(), own);
    if (part == "unet") whole.merge(compvis_unet(own));
    if (part == "vae")
      for (const auto& [key, tensor] : compvis_autoencoder(own, 4)) whole["first_stage_model." + key] = tensor;
    if (of_diffusers) continue;
    Tensors text;  // with the prefix that they had when the files were made
    for (const auto& [key, tensor] : own) text[(key.starts_with("text_") ? "" : "text_model.") + key] = tensor;
    if (name == "sd2") {
      json longer = config;
      longer["num_hidden_layers"] = 3;
      for (const auto& [key, tensor] : parameters_of(part, longer))
        text.emplace((key.starts_with("text_") ? "" : "text_model.") + key, tensor);
      whole.merge(as_open_clip(text, "cond_stage_model.model."));
    } else if (part == "text_encoder_2") {
      whole.merge(as_open_clip(text, "conditioner.embedders.1.model."));
    } else {
      const std::string prefix = xl ? "conditioner.embedders.0.transformer." : "cond_stage_model.transformer.";
      for (const auto& [key, tensor] : text) whole[prefix + key] = tensor;
      whole[prefix + "text_model.embeddings.position_ids"] = Tensor::zeros({1, 77}, DType::i64);
    }
  }
  save_safetensors(file, whole);
  return {.name = name, .call = entry["call"], .seed = 3, .size = 64, .expected = {}, .picture = {}, .mask = {}};
}

void write_linfusion(const std::string& folder, const std::string& layers, const std::string& unet) {
  json config = json::parse(std::ifstream(fs::path(folder) / "unet" / "config.json"));
  config["attention"] = "linfusion";
  const Tensors all = parameters_of("unet", config);
  save_safetensors(unet, all);
  // The self-attentions by their number: down, up, middle.
  std::vector<std::string> paths;
  for (const std::string side : {"down_blocks.", "up_blocks.", "mid_block."})
    for (const auto& [name, tensor] : all)  // sorted; no number has two digits
      if (const auto end = name.find(".attn1.to_q.weight"); end != name.npos && name.starts_with(side))
        paths.push_back(name.substr(0, end) + ".attn1.");
  Tensors own;
  for (std::size_t i = 0; i < paths.size(); ++i)
    for (const auto& [name, tensor] : all)
      if (name.starts_with(paths[i])) own[std::to_string(i) + "." + name.substr(paths[i].size())] = tensor;
  save_safetensors(layers, own);
}

}  // namespace vitrine::test
