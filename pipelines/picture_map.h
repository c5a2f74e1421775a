// The way back from a model's maps to the picture that was put in.
#pragma once

#include <cstdint>
#include <vector>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

// `map` [h, w], f32, covers the model's input evenly (a value a pixel or a patch) -> values at each pixel of the picture of
// width x height that fit_image took, bilinear between the centres, row by row. What the crop left out is `outside`.
VITRINE_API std::vector<float> map_to_picture(const Tensor& map, const PreprocessConfig& config, std::int64_t width,
                                              std::int64_t height, float outside = 0.0f);

}  // namespace vitrine
