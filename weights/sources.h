// The sources of parameters: safetensors, PyTorch and ONNX files, sharded sets, synthetic values, tensors in memory, renamed
// views.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <vitrine/layers/export.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// A .safetensors file, mapped into memory, or a model.safetensors.index.json with its shards. Every field of the
// header is checked against the file's size; what is wrong throws Error: `PATH: not a safetensors file: ...`.
VITRINE_API std::shared_ptr<const WeightSource> open_safetensors(const std::string& path);

// Whatever `path` is: .safetensors; a PyTorch checkpoint (.pth, .pt, .bin), whose model is found where training code keeps
// it (state_dict, model, model_ema, ...) and of which nothing is run; the initializers of an .onnx; an index.json of shards;
// a folder that holds one of these.
VITRINE_API std::shared_ptr<const WeightSource> open_weights(const std::string& path);
// The file, or the index of shards, of a folder's parameters under one of the usual names (model.safetensors,
// diffusion_pytorch_model.bin, ...); of a variant, as publishers put several into one folder, under its own
// (model.fp16.safetensors). None where the folder has no such file.
VITRINE_API std::optional<std::string> find_weights(const std::string& folder, std::string_view variant);

// Values that follow from names, bit for bit as the references' synthetic.py: for reference cases and benchmarks.
// `gain` scales multi-dimensional weights. Open: it has every name with every shape. With `entries` it has just those,
// and a model that asks for others fails its check.
VITRINE_API std::shared_ptr<const WeightSource> synthetic_weights(double gain = 1.0);
VITRINE_API std::shared_ptr<const WeightSource> synthetic_weights(std::vector<std::pair<std::string, Shape>> entries,
                                                                  double gain = 1.0);
VITRINE_API Tensor synthetic_parameter(std::string_view name, const Shape& shape, double gain = 1.0);  // f32
VITRINE_API Tensor synthetic_tensor(std::string_view name, const Shape& shape);                        // f32, in [-1, 1)
// Zeros under every name with every shape, for dry runs (layers/context.h), where they take no memory.
VITRINE_API std::shared_ptr<const WeightSource> zero_weights();
// Sum modulo 2^64 of the f32 bit patterns of all entries of a source.
VITRINE_API std::uint64_t checksum(const WeightSource& source);

VITRINE_API std::shared_ptr<const WeightSource> memory_weights(std::map<std::string, Tensor> tensors, std::string description,
                                                               std::map<std::string, std::string> metadata = {});

// A publisher's names turned into ours, as data: rules are tried in order on each name of the file, the first regular
// expression (ECMAScript) that matches the whole name gives the new name; "" drops the tensor (it counts as used).
struct NameRule {
  std::string_view pattern, replacement;
};
VITRINE_API std::shared_ptr<const WeightSource> renamed(std::shared_ptr<const WeightSource> source,
                                                        std::span<const NameRule> rules);
// Several publishers: where a file has a parameter `marker`, `rules` turn its names into ours; `then`, if any, those that
// they gave: the layers within a block first, the places of blocks after.
struct NameMap {
  std::string_view marker;
  std::span<const NameRule> rules;
  std::span<const NameRule> then = {};
};
// By the first map whose marker is there, parts in brackets stacked; nothing changes where none is, or where the source has any
// name. The second: all of w's tree reads so.
VITRINE_API std::shared_ptr<const WeightSource> renamed(std::shared_ptr<const WeightSource> source,
                                                        std::span<const NameMap> maps);
VITRINE_API void rename_parameters(const Weights& w, std::span<const NameMap> maps);

// Names with a number in brackets are rows of one parameter: qkv[0].weight, qkv[1].weight and qkv[2].weight become qkv.weight.
VITRINE_API std::shared_ptr<const WeightSource> stacked(std::shared_ptr<const WeightSource> source);
// Both sources' tensors; where both have a name, those of `over`. The description and the metadata are the base's.
VITRINE_API std::shared_ptr<const WeightSource> overlaid(std::shared_ptr<const WeightSource> base,
                                                         std::shared_ptr<const WeightSource> over);
// The same tensors under another description, with other metadata.
VITRINE_API std::shared_ptr<const WeightSource> described(std::shared_ptr<const WeightSource> source, std::string name,
                                                          std::map<std::string, std::string> metadata);

// Writes through a temporary file that is renamed at the end; throws Error (disk full, ...) and leaves nothing behind.
VITRINE_API void save_safetensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                                  const std::map<std::string, std::string>& metadata = {});
// The same with a source's tensors and metadata, a tensor at a time: memory holds one.
struct SaveOptions {
  std::optional<DType> dtype;                                           // of floating-point tensors; none: as loaded
  std::function<bool(std::int64_t done, std::int64_t total)> progress;  // bytes; false stops
};
// False where `progress` stopped it: nothing is left behind.
VITRINE_API bool save_safetensors(const std::string& path, const WeightSource& source, const SaveOptions& options = {});
VITRINE_API void save_npy(const std::string& path, const Tensor& tensor);  // f32, f16, integers; bf16 as f32

}  // namespace vitrine
