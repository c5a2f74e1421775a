// What models are configured and watched with: named arguments, preprocessing, observers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/tensor.h>

namespace vitrine {

// How pictures become the model's input, with timm's names and values.
struct PreprocessConfig {
  std::int64_t height = 224, width = 224, channels = 3;
  double crop_pct = 0.875;
  std::string crop_mode = "center";       // center, squash, border, pad (not timm's: as border, filled with zeros)
  std::string interpolation = "bicubic";  // nearest, box, bilinear, hamming, bicubic, lanczos
  std::vector<float> mean{0.485f, 0.456f, 0.406f}, std{0.229f, 0.224f, 0.225f};
};

// Named constructor arguments as JSON texts: {"num_classes": "10", "kernel_size": "[7, 7]", "global_pool": "\"avg\""}.
// Names are those of the publisher's constructor (timm's for ViTs).
using Arguments = std::map<std::string, std::string>;

// Called with a module's path ("levels.0", "blocks.3") and what it returns, in the layout of the original.
using Observer = std::function<void(std::string_view path, const Tensor& output)>;

}  // namespace vitrine
