// From pictures to a model's input, as timm's evaluation transform does it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/pictures.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/pipelines/image.h>

namespace vitrine {

// crop_mode center: the shorter side resized to floor(size / crop_pct), centre crop; squash: both sides resized to
// floor(size / crop_pct), centre crop; border: the longer side resized, then padded with the mean colour; pad: padded
// with zeros. Rounding as torchvision's Resize and CenterCrop on PIL images. Channels become the model's (1 or 3).
VITRINE_API Image fit_image(const Image& image, const PreprocessConfig& config);

// Where fit_image puts a picture of this size: resized to width x height, its upper left corner at (left, top) of the
// model's input, negative where it is cut. Leads from a map over the input back to the picture.
struct Placement {
  std::int64_t width = 0, height = 0, left = 0, top = 0;
};
VITRINE_API Placement place_image(std::int64_t width, std::int64_t height, const PreprocessConfig& config);

// Pictures of the model's size -> [B, H, W, C], (x / 255 - mean) / std, in `dtype`.
VITRINE_API Tensor normalize_images(std::span<const Image> images, const PreprocessConfig& config, DType dtype = DType::f32);

// A picture on its way into a batch.
struct PreparedImage {
  Image pixels;                            // with the model's channels
  std::optional<ResamplePlan> resample{};  // what is yet to be done with them; nothing: they are of the model's size
  std::int64_t left = 0, top = 0;          // of what that gives, in the model's input
};
// What can be done with each picture before there is a batch, by the threads that decode: for the CPU that is fit_image, for a
// GPU, which does that itself, the coefficients. Asks nothing of the device.
VITRINE_API PreparedImage prepare_image(Image image, const PreprocessConfig& config, Device device = {});
// The model's input [B, H, W, C] in `dtype` on `device`: normalize_images of fit_image, to the bit, on each.
VITRINE_API Tensor batch_images(std::span<const PreparedImage> images, const PreprocessConfig& config, DType dtype = DType::f32,
                                Device device = {});

// JSON as in a checkpoint's metadata ("preprocess") or timm's pretrained_cfg, over `base`. Keys: input_size [C, H, W],
// size, channels ("grey", "rgb" or a number), crop_pct, crop_mode, interpolation, mean, std; a plain "size" means that the
// whole picture is resized to it (squash), "resize": "longest side, area, ..." that it is padded. Others are ignored, wrong
// values throw Error.
VITRINE_API PreprocessConfig parse_preprocess(const std::string& json, PreprocessConfig base = {});

}  // namespace vitrine
