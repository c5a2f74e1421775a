#include <vitrine/backbones/transformers.h>

#include <iterator>
#include <span>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/weights/sources.h>

namespace vitrine {

namespace {

using Json = nlohmann::ordered_json;
using detail::printable;

// A value of config.json; `otherwise` where it is missing or null, as transformers' own default.
template <typename T>
T value_of(const Json& config, const char* name, T otherwise) {
  const auto found = config.find(name);
  return found == config.end() || found->is_null() ? otherwise : found->get<T>();
}

Json parse_object(const std::string& text, const std::string& where, std::string_view file) {
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) throw Error(fmt::format("{}: {} is not a JSON object", where, file));
  return json;
}

// --- name maps of transformers: to timm's names, parts of one parameter in brackets (weights/sources.h: stacked)

// First: the model's own name goes, which classifiers put before all but their head; blocks and stages are called as timm's.
constexpr NameRule kFrontRules[] = {
    {"(?:\\w+\\.)?encoder\\.layer\\.(.*)", "blocks.$1"},
    {"(?:\\w+\\.)?encoder\\.layers\\.(.*)", "layers.$1"},
    {"(?:\\w+\\.)?(embeddings|encoder|layernorm|pooler)\\.(.*)", "$1.$2"},
};

constexpr NameRule kSharedRules[] = {
    {"embeddings\\.cls_token", "cls_token"},
    {"embeddings\\.position_embeddings", "pos_embed"},
    {"embeddings\\.mask_token", ""},
    {"embeddings\\.patch_embeddings\\.projection\\.(.*)", "patch_embed.proj.$1"},
    {"(.*)\\.attention\\.(?:attention|self)\\.query\\.(.*)", "$1.attn.qkv[0].$2"},
    {"(.*)\\.attention\\.(?:attention|self)\\.key\\.(.*)", "$1.attn.qkv[1].$2"},
    {"(.*)\\.attention\\.(?:attention|self)\\.value\\.(.*)", "$1.attn.qkv[2].$2"},
    {"(.*)\\.attention\\.output\\.dense\\.(.*)", "$1.attn.proj.$2"},
    {"(.*)\\.layernorm_before\\.(.*)", "$1.norm1.$2"},
    {"(.*)\\.layernorm_after\\.(.*)", "$1.norm2.$2"},
    {"(.*)\\.(?:intermediate\\.dense|mlp\\.weights_in)\\.(.*)", "$1.mlp.fc1.$2"},
    {"(.*)\\.(?:output\\.dense|mlp\\.weights_out)\\.(.*)", "$1.mlp.fc2.$2"},
    {"(.*)\\.relative_position_index", ""},
    {"layernorm\\.(.*)", "norm.$1"},
    {"pooler\\.dense\\..*", ""},  // made for texts; no classifier uses it
    {"classifier\\.(.*)", "head.$1"},
};

// DINOv2's linear head takes the class token beside the mean of the patches, which no model here does: features only.
constexpr NameRule kDinov2Rules[] = {
    {"(.*)\\.layer_scale([12])\\.lambda1", "$1.ls$2.gamma"},
    {"classifier\\..*", ""},
};

constexpr NameRule kBeitRules[] = {
    {"(.*)\\.attention\\.attention\\.query\\.bias", "$1.attn.q_bias"},
    {"(.*)\\.attention\\.attention\\.value\\.bias", "$1.attn.v_bias"},
    {"(.*)\\.attention\\.attention\\.relative_position_bias\\.relative_position_bias_table",
     "$1.attn.relative_position_bias_table"},
    {"encoder\\.relative_position_bias\\.relative_position_bias_table", "rel_pos_bias.relative_position_bias_table"},
    {"(.*)\\.lambda_([12])", "$1.gamma_$2"},
    {"pooler\\.layernorm\\.(.*)", "fc_norm.$1"},
};

// timm has the merging of patches at the beginning of a stage, transformers (as Microsoft's code) at the end of the one before.
constexpr NameRule kSwinRules[] = {
    {"embeddings\\.norm\\.(.*)", "patch_embed.norm.$1"},
    {"(.*)\\.attention\\.self\\.relative_position_bias_table", "$1.attn.relative_position_bias_table"},
    {"layers\\.0\\.downsample\\.(.*)", "layers.1.downsample.$1"},
    {"layers\\.1\\.downsample\\.(.*)", "layers.2.downsample.$1"},
    {"layers\\.2\\.downsample\\.(.*)", "layers.3.downsample.$1"},
    {"classifier\\.(.*)", "head.fc.$1"},
};

// --- configurations of transformers: to the arguments of timm's constructors

// A ratio whose product with `dim` is `hidden` again after it was cut to an integer.
double mlp_ratio(std::int64_t hidden, std::int64_t dim) { return (static_cast<double>(hidden) + 0.5) / static_cast<double>(dim); }

Json plain_arguments(const Json& c) {
  const auto dim = value_of<std::int64_t>(c, "hidden_size", 768);
  return {{"img_size", value_of<Json>(c, "image_size", 224)},
          {"patch_size", value_of<Json>(c, "patch_size", 16)},
          {"in_chans", value_of<std::int64_t>(c, "num_channels", 3)},
          {"embed_dim", dim},
          {"depth", value_of<std::int64_t>(c, "num_hidden_layers", 12)},
          {"num_heads", value_of<std::int64_t>(c, "num_attention_heads", 12)},
          {"mlp_ratio", mlp_ratio(value_of<std::int64_t>(c, "intermediate_size", 4 * dim), dim)},
          {"qkv_bias", value_of(c, "qkv_bias", true)},
          {"norm_eps", value_of(c, "layer_norm_eps", 1e-12)},
          {"pos_embed_interpolation", "transformers"}};
}

Json vit_arguments(const Json& c, const WeightSource&) {
  Json arguments = plain_arguments(c);
  arguments["act_layer"] = value_of<std::string>(c, "hidden_act", "gelu");
  return arguments;
}

Json dinov2_arguments(const Json& c, const WeightSource& source) {
  Json arguments = plain_arguments(c);
  const auto dim = arguments["embed_dim"].get<std::int64_t>();
  auto hidden = static_cast<std::int64_t>(static_cast<double>(dim) * value_of(c, "mlp_ratio", 4.0));
  arguments["norm_eps"] = value_of(c, "layer_norm_eps", 1e-6);
  arguments["init_values"] = value_of(c, "layerscale_value", 1.0);
  arguments["act_layer"] = value_of<std::string>(c, "hidden_act", "gelu");
  if (value_of(c, "use_swiglu_ffn", false)) {  // gate and value side by side; the checkpoint says how wide they are
    arguments["mlp_layer"] = "SwiGLUPacked";
    arguments["act_layer"] = "silu";
    if (const auto entry = source.find("blocks.0.mlp.fc1.weight"); entry && entry->shape.rank() == 2) hidden = entry->shape[0];
  }
  arguments["mlp_ratio"] = mlp_ratio(hidden, dim);
  return arguments;
}

Json beit_arguments(const Json& c, const WeightSource&) {
  Json arguments = plain_arguments(c);
  arguments["qkv_bias"] = true;
  const double scale = value_of(c, "layer_scale_init_value", 0.1);
  arguments["init_values"] = scale > 0 ? Json(scale) : Json(nullptr);
  arguments["use_abs_pos_emb"] = value_of(c, "use_absolute_position_embeddings", false);
  arguments["use_rel_pos_bias"] = value_of(c, "use_relative_position_bias", false);
  arguments["use_shared_rel_pos_bias"] = value_of(c, "use_shared_relative_position_bias", false);
  arguments["global_pool"] = value_of(c, "use_mean_pooling", true) ? "avg" : "token";
  return arguments;
}

Json swin_arguments(const Json& c, const WeightSource&) {
  return {{"img_size", value_of<Json>(c, "image_size", 224)},
          {"patch_size", value_of<Json>(c, "patch_size", 4)},
          {"in_chans", value_of<std::int64_t>(c, "num_channels", 3)},
          {"embed_dim", value_of<std::int64_t>(c, "embed_dim", 96)},
          {"depths", value_of<Json>(c, "depths", {2, 2, 6, 2})},
          {"num_heads", value_of<Json>(c, "num_heads", {3, 6, 12, 24})},
          {"window_size", value_of<Json>(c, "window_size", 7)},
          {"mlp_ratio", value_of(c, "mlp_ratio", 4.0)},
          {"qkv_bias", value_of(c, "qkv_bias", true)}};
}

struct ModelType {
  std::string_view name;            // model_type
  std::string_view constructor;     // of ours, and timm's
  std::string_view head;            // without it the model has no classes
  std::span<const NameRule> rules;  // before the shared ones
  Json (*arguments)(const Json& config, const WeightSource& source);
};
constexpr ModelType kModelTypes[] = {
    {"vit", "VisionTransformer", "head.weight", {}, vit_arguments},
    {"dinov2", "VisionTransformer", "head.weight", kDinov2Rules, dinov2_arguments},
    {"beit", "Beit", "head.weight", kBeitRules, beit_arguments},
    {"swin", "SwinTransformer", "head.fc.weight", kSwinRules, swin_arguments},
};

// --- preprocessing of transformers' image processors, in timm's keys

std::pair<std::int64_t, std::int64_t> height_width(const Json& size, const std::string& where) {
  if (size.is_number_integer()) return {size.get<std::int64_t>(), size.get<std::int64_t>()};
  if (size.is_object() && size.contains("height") && size.contains("width")) return {size["height"], size["width"]};
  throw Error(fmt::format("{}: preprocessor_config.json has the size {}, expected a number or height and width", where,
                          printable(size.dump(), 60)));
}

constexpr std::string_view kFilters[] = {"nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"};  // Pillow's numbers

Json read_preprocessor(const Json& p, std::int64_t channels, const std::string& where) {
  Json result = Json::object();
  const Json size = value_of<Json>(p, "size", 224);
  const bool crops = value_of(p, "do_center_crop", false) || p.contains("crop_pct");
  // One number was the shorter side for those that crop, and both sides for the others.
  const bool shortest = size.is_object() && size.contains("shortest_edge");
  auto [height, width] = shortest
                             ? std::pair{size["shortest_edge"].get<std::int64_t>(), size["shortest_edge"].get<std::int64_t>()}
                             : height_width(size, where);
  result["crop_mode"] = shortest ? "center" : "squash";
  result["crop_pct"] = 1.0;
  if (crops && p.contains("crop_size")) {
    const auto [crop_height, crop_width] = height_width(p["crop_size"], where);
    result["crop_pct"] = static_cast<double>(crop_height) / static_cast<double>(height);
    height = crop_height, width = crop_width;
  }
  result["input_size"] = {channels, height, width};
  const auto filter = value_of<std::size_t>(p, "resample", 2);
  if (filter >= std::size(kFilters))
    throw Error(fmt::format("{}: preprocessor_config.json has the unknown filter {}", where, filter));
  result["interpolation"] = kFilters[filter];
  result["mean"] = value_of<Json>(p, "image_mean", {0.5, 0.5, 0.5});
  result["std"] = value_of<Json>(p, "image_std", {0.5, 0.5, 0.5});
  return result;
}

// --- metadata as our own files have it

std::string labels_of_transformers(const Json& config) {
  const auto labels = config.find("id2label");
  if (labels == config.end() || !labels->is_object()) return {};
  Json classes = Json::array();
  for (std::size_t i = 0; i < labels->size(); ++i) {
    const auto label = labels->find(std::to_string(i));
    if (label == labels->end() || !label->is_string() || *label == fmt::format("LABEL_{}", i)) return {};
    classes.push_back(*label);
  }
  return classes.dump();
}

std::shared_ptr<const WeightSource> from_transformers(std::shared_ptr<const WeightSource> source, const Json& config,
                                                      const std::string& preprocessor, const std::string& where) {
  const auto name = config["model_type"].get<std::string>();
  const ModelType* type = nullptr;
  std::vector<std::string> known;
  for (const ModelType& candidate : kModelTypes) {
    if (candidate.name == name) type = &candidate;
    known.emplace_back(candidate.name);
  }
  if (type == nullptr)
    throw Error(
        fmt::format("{}: is of transformers' type '{}'; known are {}", where, printable(name), detail::list_names(known, 10)));
  std::vector<NameRule> rules(type->rules.begin(), type->rules.end());
  rules.insert(rules.end(), std::begin(kSharedRules), std::end(kSharedRules));
  source = stacked(renamed(renamed(std::move(source), kFrontRules), rules));

  Json arguments = type->arguments(config, *source);
  std::map<std::string, std::string> metadata{{"architecture", std::string(type->constructor)}};
  const Json p = preprocessor.empty() ? Json::object() : parse_object(preprocessor, where, "preprocessor_config.json");
  const Json preprocess = read_preprocessor(p, arguments["in_chans"].get<std::int64_t>(), where);
  arguments["img_size"] = {preprocess["input_size"][1], preprocess["input_size"][2]};
  if (source->find(type->head))
    metadata["classes"] = labels_of_transformers(config);
  else
    arguments["num_classes"] = 0;
  metadata["config"] = arguments.dump();
  metadata["preprocess"] = preprocess.dump();
  if (metadata["classes"].empty()) metadata.erase("classes");
  return described(std::move(source), where, std::move(metadata));
}

std::string labels_of_timm(const Json& config, const Json& pretrained) {
  for (const Json* place : {&config, &pretrained}) {
    const auto names = place->find("label_names");
    if (names == place->end() || !names->is_array()) continue;
    const auto descriptions = place->find("label_descriptions");
    Json classes = Json::array();
    for (const Json& name : *names) {
      if (!name.is_string()) return {};
      const bool has_text =
          descriptions != place->end() && descriptions->is_object() && descriptions->contains(name.get<std::string>());
      classes.push_back(has_text ? (*descriptions)[name.get<std::string>()] : name);
    }
    return classes.dump();
  }
  return {};
}

std::shared_ptr<const WeightSource> from_timm(std::shared_ptr<const WeightSource> source, const Json& config,
                                              const std::string& where) {
  const Json pretrained = value_of<Json>(config, "pretrained_cfg", Json::object());
  const auto name = config["architecture"].get<std::string>();
  const std::string tagged = name + "." + value_of<std::string>(pretrained, "tag", "");
  std::map<std::string, std::string> metadata{{"architecture", is_model(tagged) ? tagged : name}};
  Json arguments = value_of<Json>(config, "model_args", Json::object()), preprocess = Json::object();
  for (const char* key : {"input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std"})
    if (const auto value = pretrained.find(key); value != pretrained.end() && !value->is_null()) preprocess[key] = *value;
  const auto size = pretrained.find("input_size");
  if (size != pretrained.end() && size->is_array() && size->size() == 3 && is_model(name)) {
    const PreprocessConfig own = default_preprocess(metadata["architecture"]);
    const bool other = (*size)[1] != own.height || (*size)[2] != own.width;
    if (other && value_of(pretrained, "fixed_input_size", false) && !arguments.contains("img_size"))
      arguments["img_size"] = {(*size)[1], (*size)[2]};
    if ((*size)[0] != own.channels && !arguments.contains("in_chans")) arguments["in_chans"] = (*size)[0];
  }
  if (value_of<std::int64_t>(config, "num_classes", 1000) == 0) arguments["num_classes"] = 0;
  metadata["config"] = arguments.dump();
  metadata["preprocess"] = preprocess.dump();
  if (std::string labels = labels_of_timm(config, pretrained); !labels.empty()) metadata["classes"] = std::move(labels);
  return described(std::move(source), where, std::move(metadata));
}

}  // namespace

std::shared_ptr<const WeightSource> published_weights(std::shared_ptr<const WeightSource> source, const std::string& config,
                                                      const std::string& preprocessor, const std::string& where) {
  const Json json = parse_object(config, where, "config.json");
  try {
    if (json.contains("architecture") && json["architecture"].is_string()) return from_timm(std::move(source), json, where);
    if (json.contains("model_type") && json["model_type"].is_string())
      return from_transformers(std::move(source), json, preprocessor, where);
  } catch (const nlohmann::json::exception& e) {  // a value of another kind than it should be
    throw Error(fmt::format("{}: config.json: {}", where, printable(e.what(), 120)));
  }
  throw Error(fmt::format("{}: config.json names neither timm's architecture nor transformers' model_type", where));
}

}  // namespace vitrine
