// Finds the file that a path means, and joins the shards of a set.
#include <vitrine/weights/sources.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/weights/mapped_file.h>
#include <vitrine/weights/onnx.h>
#include <vitrine/weights/pytorch.h>
#include <vitrine/weights/safetensors.h>
#include <vitrine/weights/weight_names.h>

namespace fs = std::filesystem;

namespace vitrine {

namespace {

using detail::printable;
using nlohmann::json;

// In a folder, best first.
constexpr std::string_view kUsualNames[] = {"model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin",
                                            "diffusion_pytorch_model.bin"};
constexpr std::string_view kPyTorchNames[] = {".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl"};
constexpr std::size_t kLargestIndex = 64'000'000;  // 700,000 tensors

// The index as JSON, with what the parser alone would let pass refused: keys that come twice and deep nesting.
json parse_index(const std::string& path) {
  const detail::MappedFile file(path);
  if (file.bytes().size() > kLargestIndex)
    throw Error(fmt::format("{}: has {} bytes, an index has at most {}", path, file.bytes().size(), kLargestIndex));
  const char* text = reinterpret_cast<const char*>(file.bytes().data());
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int depth, json::parse_event_t event, json& value) {
    if (depth > 8) throw Error(fmt::format("{}: not an index of shards: it is nested deeper than 8 levels", path));
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      throw Error(fmt::format("{}: has '{}' twice", path, printable(value.get_ref<const std::string&>())));
    return true;
  };
  try {
    return json::parse(text, text + file.bytes().size(), watch);
  } catch (const json::parse_error& e) {
    throw Error(fmt::format("{}: not valid JSON at byte {}", path, e.byte));
  } catch (const json::out_of_range&) {  // the parser's word for 1e999
    throw Error(fmt::format("{}: not an index of shards: it has a number beyond the range of doubles", path));
  }
}

// A set of files with one list of names. Tensors that the index does not mention are not part of the set.
class ShardedSet final : public WeightSource {
 public:
  explicit ShardedSet(const std::string& path) : path_(path) {
    const json index = parse_index(path);
    const auto map = index.is_object() ? index.find("weight_map") : index.end();
    if (!index.is_object() || map == index.end() || !map->is_object())
      throw Error(fmt::format("{}: not an index of shards: it has no object weight_map", path));
    std::map<std::string, std::shared_ptr<const WeightSource>> shards;
    for (const auto& [name, file] : map->items()) {
      if (!file.is_string())
        throw Error(fmt::format("{}: weight_map['{}'] is {}, expected a file name", path, printable(name), file.type_name()));
      auto& shard = shards[file.get_ref<const std::string&>()];
      if (!shard) shard = open_shard(file.get_ref<const std::string&>());
      if (!shard->find(name))
        throw Error(
            fmt::format("{}: weight_map['{}'] names {}, which does not have it", path, printable(name), shard->describe()));
      places_.emplace(name, shard);
    }
    for (const auto& [file, shard] : shards) metadata_.merge(shard->metadata());
    if (const auto metadata = index.find("metadata"); metadata != index.end() && metadata->is_object())
      for (const auto& [key, value] : metadata->items())
        metadata_.insert_or_assign(key, value.is_string() ? value.get<std::string>() : value.dump());
  }

  std::string describe() const override { return path_; }
  std::map<std::string, std::string> metadata() const override { return metadata_; }

  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    for (const auto& [name, shard] : places_) all.push_back(name);
    return all;
  }

  std::optional<Entry> find(std::string_view name) const override {
    const auto found = places_.find(name);
    return found == places_.end() ? std::nullopt : found->second->find(name);
  }

  Tensor load(std::string_view name, const Shape& shape) const override {
    const auto found = places_.find(name);
    if (found == places_.end()) throw Error(fmt::format("{}: there is no '{}'", path_, printable(name)));
    return found->second->load(name, shape);
  }

  void release(std::string_view name) const override {
    const auto found = places_.find(name);
    if (found != places_.end()) found->second->release(name);
  }

 private:
  // Shards lie beside their index. An index from elsewhere must not lead to other files of this machine.
  std::shared_ptr<const WeightSource> open_shard(const std::string& file) const {
    if (file.find_first_of(std::string_view("/\\\0", 3)) != file.npos ||
        !(file.ends_with(".safetensors") || file.ends_with(".bin")))
      throw Error(fmt::format("{}: weight_map names the shard '{}', expected the name of a .safetensors file beside the index",
                              path_, printable(file)));
    return (file.ends_with(".bin") ? detail::open_pytorch_file
                                   : detail::open_safetensors_file)((fs::path(path_).parent_path() / file).string());
  }

  std::string path_;
  std::map<std::string, std::shared_ptr<const WeightSource>, std::less<>> places_;
  std::map<std::string, std::string> metadata_;
};

// The file of a folder that holds its parameters.
std::string weights_in(const std::string& folder) {
  if (auto usual = find_weights(folder, "")) return *usual;
  std::error_code error;
  std::vector<std::string> files, indexes;
  auto item = fs::directory_iterator(folder, error);
  for (; !error && item != fs::directory_iterator(); item.increment(error)) {
    const std::string name = item->path().filename().string();
    if (name.ends_with(".safetensors")) files.push_back(name);
    if (name.ends_with(".json") && name.find(".safetensors.") != name.npos && name.find(".index.") != name.npos)
      indexes.push_back(name);
  }
  if (error) throw Error(fmt::format("{}: cannot be read: {}", folder, error.message()));
  std::vector<std::string>& found = indexes.empty() ? files : indexes;
  std::sort(found.begin(), found.end());
  if (found.size() == 1) return (fs::path(folder) / found.front()).string();
  if (found.empty()) throw Error(fmt::format("{}: is a folder without a .safetensors file", folder));
  throw Error(
      fmt::format("{}: is a folder with several sets of parameters ({}): name the file", folder, detail::list_names(found)));
}

bool has_pytorch_name(const std::string& path) {
  return std::any_of(std::begin(kPyTorchNames), std::end(kPyTorchNames), [&](auto end) { return path.ends_with(end); });
}

// By what the file begins with, else by its name.
std::shared_ptr<const WeightSource> open_file(const std::string& path) {
  if (path.ends_with(".onnx")) return detail::open_onnx_file(path);
  if (has_pytorch_name(path) || detail::is_pytorch(detail::MappedFile(path).bytes())) return detail::open_pytorch_file(path);
  return detail::open_safetensors_file(path);
}

}  // namespace

std::shared_ptr<const WeightSource> open_safetensors(const std::string& path) {
  if (path.ends_with(".json")) return std::make_shared<ShardedSet>(path);
  return detail::open_safetensors_file(path);
}

std::vector<std::string> detail::weight_names(std::string_view usual, std::string_view variant) {
  if (variant.empty()) return {fmt::format("{}.index.json", usual), std::string(usual)};
  const auto dot = usual.rfind('.');
  const bool is_name =
      variant.front() != '.' && std::all_of(variant.begin(), variant.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
      });
  if (!is_name) throw Error(fmt::format("variant '{}': expected a name such as fp16", printable(variant)));
  return {fmt::format("{}.index.{}.json", usual, variant), fmt::format("{}.{}.index.json", usual, variant),
          fmt::format("{}.{}{}", usual.substr(0, dot), variant, usual.substr(dot))};
}

std::string detail::no_variant(std::string_view where, std::string_view variant) {
  return fmt::format(
      "{}: no part has weights of the variant '{}' (as diffusion_pytorch_model.{}.safetensors); without a variant "
      "the plain weights are taken",
      where, variant, variant);
}

std::optional<std::string> find_weights(const std::string& folder, std::string_view variant) {
  std::error_code error;
  for (const std::string_view usual : kUsualNames)
    for (const std::string& name : detail::weight_names(usual, variant))
      if (const fs::path path = fs::path(folder) / name; fs::exists(path, error)) return path.string();
  return std::nullopt;
}

std::shared_ptr<const WeightSource> open_weights(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return open_weights(weights_in(path));
  return path.ends_with(".json") ? std::make_shared<ShardedSet>(path) : open_file(path);
}

}  // namespace vitrine
