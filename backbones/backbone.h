// Backbones: models by name.
//
//   auto model = create_model("vit_small_patch16_224", Weights(open_weights("vit_small.safetensors")));
//   Tensor logits = model->forward(images);            // images [B, H, W, 3], normalized -> [B, num_classes]
//
// A model is immutable after building and may be run from several threads at once, each under its own Context.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/backbones/config.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// One map of forward_intermediates.
struct IntermediateMap {
  Tensor map;               // [B, H, W, C]
  std::int64_t stride = 1;  // input pixels a step of the map
  Tensor prefix_tokens;     // ViTs: class and register tokens [B, P, C], else undefined
};

// What forward_intermediates gives.
struct IntermediatesOptions {
  std::vector<int> indices;  // blocks (ViT) or stages to give; empty: all. Negative ones count from the end
  bool norm = false;         // apply the final norm
};

struct ModelInfo {
  std::string name, family;
  std::string source;                // paper and published code
  PreprocessConfig preprocess;       // of the variant, with the model's own input size
  std::int64_t num_classes = 1000;   // 0: no head
  std::int64_t num_features = 0;     // channels of pre_logits
  std::int64_t parameters = 0;       // elements of all parameters that were read
  std::int64_t parameter_bytes = 0;  // as stored in the model's dtype
  std::vector<std::string> classes;  // class names where the weights carry them
};

class Backbone;

// `name` may carry arguments: "vit_small_patch16_224[img_size=[192, 256],num_classes=10]"; those in `arguments` win.
// All parameters are read and packed before it returns; missing, unexpected and wrongly shaped ones are reported in
// one Error, unknown names and arguments with the nearest known ones. Without num_classes a checkpoint's head says it.
VITRINE_API std::unique_ptr<Backbone> create_model(std::string_view name, const Weights& weights,
                                                   const Arguments& arguments = {});

class VITRINE_API Backbone {
 public:
  virtual ~Backbone();

  // images [B, H, W, channels], normalized, f32 or the model's dtype -> tokens [B, N, C] or a map [B, H', W', C] after
  // the last block and norm, as timm's forward_features.
  virtual Tensor forward_features(const Tensor& images, const Observer& observer = {}) const = 0;
  // -> logits [B, num_classes], f32; with pre_logits what enters the last linear layer [B, num_features], f32.
  virtual Tensor forward_head(const Tensor& features, bool pre_logits = false) const = 0;
  virtual std::vector<IntermediateMap> forward_intermediates(const Tensor& images,
                                                             const IntermediatesOptions& options = {}) const = 0;
  Tensor forward(const Tensor& images) const { return forward_head(forward_features(images)); }

  const ModelInfo& info() const { return info_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }  // where images are taken, and results are

 protected:
  ModelInfo info_;  // a family fills in num_classes and num_features, the registry the rest
  DType dtype_ = DType::f32;
  Device device_;

  friend std::unique_ptr<Backbone> create_model(std::string_view name, const Weights& weights, const Arguments& arguments);
};

struct ModelEntry {
  std::string name, family;
  std::string source, attention;  // of the family: paper and published code; what mixes tokens
  // Percent of ImageNet-1k's validation set that the published weights classify rightly, as the paper or its repository gives it;
  // "*" after it: pre-trained on ImageNet-21k or 22k, "†": distilled from another network. Empty: none was found.
  std::string top1;
};
// Shell pattern: * and ?. One with a dot lists the published weights that a model's name may carry as NAME.TAG, which chooses
// their preprocessing and number of classes.
VITRINE_API std::vector<ModelEntry> list_models(std::string_view pattern = "*");
VITRINE_API bool is_model(std::string_view name);
// The defaults of a named model without building it.
VITRINE_API PreprocessConfig default_preprocess(std::string_view name);

}  // namespace vitrine
