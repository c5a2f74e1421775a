// What a repository's config.json says about its weights: timm's, and those of transformers for ViT, DINOv2, BEiT and Swin.
#pragma once

#include <map>
#include <memory>
#include <string>

#include <vitrine/layers/export.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// The weights under our names, with metadata as our own files have it: architecture, config, preprocess, classes. The texts are
// those of config.json and preprocessor_config.json (empty: there is none); `where` names them in messages. Throws Error for a
// model that is not known, saying which are.
VITRINE_API std::shared_ptr<const WeightSource> published_weights(std::shared_ptr<const WeightSource> source,
                                                                  const std::string& config, const std::string& preprocessor,
                                                                  const std::string& where);

}  // namespace vitrine
