// Pipelines in diffusers' layout, made of tests/data/pipelines/NAME.json with synthetic weights, and what diffusers drew with
// them.
#pragma once

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
  Image expected;  // RGB

  std::vector<std::string> arguments() const;  // of `vitrine generate`, without model and output
};

std::vector<std::string> diffusion_pipelines();  // sd, sdxl, sd3, flux, pixart, dit
DiffusionCase diffusion_case(const std::string& name);
void write_diffusion_folder(const std::string& name, const std::string& folder);

}  // namespace vitrine::test
