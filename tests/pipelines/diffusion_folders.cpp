#include "pipelines/diffusion_folders.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>

#include <vitrine/weights/sources.h>

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

}  // namespace vitrine::test
