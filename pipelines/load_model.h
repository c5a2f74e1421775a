// From what a user names (a model, a checkpoint, labels) to a model that is ready to take pictures.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/dtype.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>
#include <vitrine/weights/hub.h>

namespace vitrine {

// Preprocessing that replaces the model's own; what is unset stays.
struct PreprocessOverrides {
  std::optional<std::int64_t> height, width;
  std::optional<double> crop_pct;
  std::string crop_mode, interpolation;
  std::vector<float> mean, std;  // one value, or one a channel
};

struct ModelOptions {
  // A shipped model ("nat_fashion"), any other by name ("vit_small_patch16_224", may carry [arguments]), one of the Hugging Face
  // hub ("hf:timm/vit_small_patch16_224.augreg_in1k") with its weights; empty: what the metadata of the weights says.
  std::string model;
  std::string weights;  // a checkpoint, index.json, folder or hf:OWNER/NAME; empty: those that are shipped with the model
  std::string labels;   // a text file, a class name a line; empty: the names in the weights' metadata, or of ImageNet-1k
  DType dtype = DType::f32;
  Device device;
  bool int8_weights = false;  // as in WeightsOptions
  PreprocessOverrides preprocess;
  FetchProgress progress;  // of downloads
};

// What the options lead to, before anything is built: model and arguments, the opened weights and what their metadata says.
struct ResolvedModel {
  std::string name;  // for messages: the user's name for it
  std::string architecture;
  Arguments arguments;
  std::shared_ptr<const WeightSource> weights;
  std::string preprocess;  // JSON; may be empty
  std::vector<std::string> classes;
};
// Throws Error: unknown model (with the nearest names), no weights, weights that cannot be read.
VITRINE_API ResolvedModel resolve_model(const ModelOptions& options);

struct LoadedModel {
  std::string name;
  std::shared_ptr<const Backbone> backbone;
  PreprocessConfig preprocess;
  std::vector<std::string> classes;   // as many as the model has, or empty: unknown
  std::vector<std::string> warnings;  // a line each: NaN in the weights, labels that do not fit
};
// The head's size is the checkpoint's. Throws Error, besides the above, for missing, unexpected and wrongly shaped parameters.
VITRINE_API LoadedModel load_model(const ModelOptions& options);

// `config` with the user's values; throws Error for those that make no sense.
VITRINE_API PreprocessConfig apply_overrides(PreprocessConfig config, const PreprocessOverrides& overrides);
// "3 parameters hold NaN or infinity: a, b, c" or "".
VITRINE_API std::string nan_warning(const Weights& weights);

}  // namespace vitrine
