// Weights by what a user names: a file, a folder, or a model of the Hugging Face hub.
#pragma once

#include <memory>
#include <string>

#include <vitrine/layers/export.h>
#include <vitrine/layers/weights.h>
#include <vitrine/weights/hub.h>

namespace vitrine {

// hf:OWNER/NAME[@REVISION] (downloaded into the cache where it is not there) or a path for open_weights(). A repository, and a
// folder with a config.json, has metadata that says which model it is; its names are ours.
VITRINE_API std::shared_ptr<const WeightSource> open_model_weights(const std::string& name, const FetchProgress& progress = {});

}  // namespace vitrine
