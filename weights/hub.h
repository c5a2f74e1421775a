// Models of the Hugging Face hub, hf:OWNER/NAME[@REVISION]: downloaded into the cache that Python's huggingface_hub uses, too,
// and taken from there when they are there. A file appears in the cache under its name once it is whole and its hash is right.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <vitrine/layers/export.h>

namespace vitrine {

// Called while a file comes (total: 0 where unknown) and while waiting; false stops, and what has come is kept for the next time.
using FetchProgress = std::function<bool(std::string_view file, std::int64_t done, std::int64_t total)>;

struct HubName {
  std::string owner, name;
  std::string revision = "main";  // a branch, a tag or a commit
};

VITRINE_API bool is_hub_name(std::string_view text);        // begins with "hf:"
VITRINE_API HubName parse_hub_name(std::string_view text);  // throws Error for what is none

struct HubSettings {
  std::string cache;                                // HF_HUB_CACHE, or hub below HF_HOME
  std::string endpoint = "https://huggingface.co";  // HF_ENDPOINT
  std::string token;                                // HF_TOKEN, or the file HF_TOKEN_PATH; goes to the endpoint alone
  bool offline = false;                             // HF_HUB_OFFLINE: only what the cache has
  std::int64_t timeout_s = 10;                      // HF_HUB_DOWNLOAD_TIMEOUT: without a byte
  int attempts = 5;                                 // in a row without a byte
  std::chrono::milliseconds delay{1000};            // before the second, doubled each time
};
VITRINE_API HubSettings hub_settings();  // of the environment

// The path of one file of the repository in the cache, or none where the repository has no such file. Throws Error: no
// connection and nothing in the cache, no access, damaged data, full disk, stopped.
VITRINE_API std::optional<std::string> fetch_hub_file(const HubSettings& settings, const HubName& name, const std::string& file,
                                                      const FetchProgress& progress = {});

// The folder that holds the repository's config.json and its weights (model.safetensors, pytorch_model.bin or their shards),
// all of one commit.
VITRINE_API std::string fetch_hub_model(const HubSettings& settings, const HubName& name, const FetchProgress& progress = {});
// The same of a pipeline of diffusers: its model_index.json and, in folders, its parts with configurations and weights. With a
// variant ("fp16") these are its weights where a part has some, else the plain ones; throws Error where no part has any.
VITRINE_API std::string fetch_hub_pipeline(const HubSettings& settings, const HubName& name, const FetchProgress& progress = {},
                                           const std::string& variant = {});

}  // namespace vitrine
