// Parameters in the names under which CompVis and Stability publish whole pipelines in one file (v1-5-pruned.safetensors,
// sd_xl_base_1.0.safetensors): the other way around from what the families' name maps do, written down a second time.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include <vitrine/layers/tensor.h>

namespace vitrine::test {

using Tensors = std::map<std::string, Tensor>;

// Each name after all of `renames`, regular expressions with what takes their place.
Tensors under_names(const Tensors& tensors, const std::vector<std::pair<std::string, std::string>>& renames);

// Of U-Nets of two layers a block, behind "model.diffusion_model.".
Tensors compvis_unet(const Tensors& tensors);
// Of an AutoencoderKL with so many levels; nothing stands before the names.
Tensors compvis_autoencoder(const Tensors& tensors, int levels);
// Of a CLIP text model in open_clip's names and layout, behind `prefix`.
Tensors as_open_clip(const Tensors& tensors, const std::string& prefix);

}  // namespace vitrine::test
