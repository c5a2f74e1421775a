// Features: pictures in, vectors out, for search, clustering and probes.
//
//   FeatureExtractor extractor(ModelOptions{.model = "vit_small_patch14_dinov2", .weights = "dinov2.safetensors"});
//   const PreparedImage photo = extractor.prepare(read_image("cat.png"));
//   Tensor features = extractor.features({&photo, 1}, Tokens::pooled);      // [1, C]
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/pipelines/image.h>
#include <vitrine/pipelines/load_model.h>
#include <vitrine/pipelines/preprocess.h>

namespace vitrine {

// cls: the class token after the final norm; pooled: what enters the classifier's last layer (timm's pre_logits);
// patch: the tokens of the patches, or the last map, after the final norm.
enum class Tokens : std::uint8_t { cls, pooled, patch };
VITRINE_API Tokens parse_tokens(std::string_view name);  // throws Error

// May be used from several threads at once, each under its own Context.
class VITRINE_API FeatureExtractor {
 public:
  explicit FeatureExtractor(const ModelOptions& options);

  PreparedImage prepare(Image image) const;  // what can be done with each picture before there is a batch
  // Pictures -> cls, pooled: [B, C]; patch: [B, H, W, C]. f32. Throws Error where the model has none.
  Tensor features(std::span<const PreparedImage> prepared, Tokens tokens) const;

  const LoadedModel& model() const { return model_; }

 private:
  LoadedModel model_;
};

// The coordinates of `rows` [N, C], f32, in their first k principal components: [N, k]. Components of a lower rank than k
// are 0. The sign is that which makes a component's largest entry positive.
VITRINE_API Tensor principal_components(const Tensor& rows, std::int64_t k);

// The first three principal components of patch tokens [H, W, C] as red, green and blue, at the size of the photograph
// that fit_image took, beside it.
VITRINE_API Image components_picture(const Tensor& tokens, const PreprocessConfig& config, const Image& photograph);

}  // namespace vitrine
