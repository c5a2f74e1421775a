// From pictures to a model's input, as timm's evaluation transform does it.
#pragma once

#include <span>
#include <string>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/pipelines/image.h>

namespace vitrine {

// crop_mode center: the shorter side resized to floor(size / crop_pct), centre crop; squash: both sides resized to
// floor(size / crop_pct), centre crop; border: the longer side resized, then padded. Rounding as torchvision's
// Resize and CenterCrop on PIL images.
VITRINE_API Image fit_image(const Image& image, const PreprocessConfig& config);

// Pictures of the model's size -> [B, H, W, C], (x / 255 - mean) / std, in `dtype`.
VITRINE_API Tensor normalize_images(std::span<const Image> images, const PreprocessConfig& config, DType dtype = DType::f32);

// JSON as in a checkpoint's metadata ("preprocess") or timm's pretrained_cfg, over `base`.
VITRINE_API PreprocessConfig parse_preprocess(const std::string& json, PreprocessConfig base = {});

}  // namespace vitrine
