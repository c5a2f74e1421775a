// Pipelines in diffusers' layout, made of tests/data/pipelines/NAME.json with synthetic weights, and what diffusers drew with
// them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <vitrine/pipelines/image.h>

namespace vitrine::test {

struct DiffusionCase {
  std::string name;
  nlohmann::json call;  // of the pipeline: prompt, num_inference_steps, ...
  std::uint64_t seed = 0;
  std::int64_t size = 32;
  Image expected;                      // RGB
  std::optional<Image> picture, mask;  // that in-painting begins from

  // Of `vitrine generate`, without model and output; `folder` is where pictures are put that the call needs.
  std::vector<std::string> arguments(const std::string& folder) const;
};

std::vector<std::string> diffusion_pipelines();  // sd, inpaint, sdxl, sd3, flux, pixart, dit
DiffusionCase diffusion_case(const std::string& name);
void write_diffusion_folder(const std::string& name, const std::string& folder);

// The same of networks with the levels of those that are published (sd, sd2, sdxl), small: in diffusers' layout into `folder`,
// and all parameters into one file, in CompVis's and Stability's names. Gives what to draw.
DiffusionCase write_published_pipeline(const std::string& name, const std::string& folder, const std::string& file);
// LinFusion's layers for the U-Net of a folder, as its authors publish them, and that U-Net with them in it.
void write_linfusion(const std::string& folder, const std::string& layers, const std::string& unet);

}  // namespace vitrine::test
