// Repositories of transformers and timm: their config.json, their names, and what their models make of a picture.
#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include <catch.h>
#include <weights/files.h>

#include <vitrine/backbones/transformers.h>
#include <vitrine/pipelines/load_model.h>
#include <vitrine/pipelines/open_model.h>
#include <vitrine/pipelines/preprocess.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;

namespace {

std::string data(const std::string& name) { return std::string(VITRINE_SOURCE_DIR) + "/tests/data/transformers/" + name; }

void check_near(const Tensor& got, const Tensor& expected) {
  REQUIRE(got.shape() == expected.shape());
  double worst = 0, largest = 0;
  for (std::int64_t i = 0; i < got.numel(); ++i) {
    worst = std::max(worst, static_cast<double>(std::abs(got.data<float>()[i] - expected.data<float>()[i])));
    largest = std::max(largest, static_cast<double>(std::abs(expected.data<float>()[i])));
  }
  INFO("largest difference " << worst << " of " << largest);
  CHECK(worst <= 1e-4 * largest);
}

LoadedModel load(const std::string& weights) {
  ModelOptions options;
  options.weights = weights;
  return load_model(options);
}

std::string trouble_of(const std::string& config, const std::string& preprocessor = "") {
  const auto source = memory_weights({{"a", Tensor::zeros({1})}}, "memory");
  try {
    published_weights(source, config, preprocessor, "hf:a/b");
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find('\n') == std::string::npos);
    return e.what();
  }
  return "";
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace

TEST_CASE("models of transformers give what transformers gives") {
  for (const char* name : {"vit", "vit_features", "dinov2", "dinov2_swiglu", "beit", "beit_shared", "beit_absolute", "swin"}) {
    INFO(name);
    if (std::string_view(name) == "swin" && !is_model("SwinTransformer")) continue;
    const LoadedModel model = load(data(name));
    const auto expected = open_weights(data(name + std::string("/case.safetensors")));
    const Tensor input = expected->load("input", {});
    const Tensor features = model.backbone->forward_features(input);
    if (expected->find("features"))
      check_near(features, expected->load("features", {}));
    else
      check_near(model.backbone->forward_head(features), expected->load("logits", {}));
    CHECK(model.preprocess.height == input.size(1));
    CHECK(model.preprocess.interpolation == "bicubic");
    CHECK(model.preprocess.crop_mode == "squash");
    CHECK(model.preprocess.mean == std::vector{0.4f, 0.4f, 0.4f});
  }
  CHECK(load(data("vit")).classes == std::vector<std::string>{"kind 0", "kind 1", "kind 2", "kind 3", "kind 4"});
  CHECK(load(data("beit_shared")).classes.empty());  // LABEL_0, ...
  CHECK(load(data("dinov2")).backbone->info().num_classes == 0);
}

TEST_CASE("preprocessing of transformers in timm's terms") {
  const auto read = [](const std::string& json) {
    const auto source =
        published_weights(open_weights(data("vit/model.safetensors")), R"({"model_type":"vit","image_size":32})", json, "x");
    return parse_preprocess(source->metadata().at("preprocess"));
  };
  const PreprocessConfig plain = read(R"({"size": 224, "resample": 2})");
  CHECK(plain.height == 224);
  CHECK(plain.crop_mode == "squash");
  CHECK(plain.crop_pct == 1.0);
  CHECK(plain.interpolation == "bilinear");
  const PreprocessConfig shortest = read(
      R"({"size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": {"height": 224, "width": 224}, "resample": 3})");
  CHECK(shortest.height == 224);
  CHECK(shortest.crop_mode == "center");
  CHECK(shortest.crop_pct == 0.875);
  CHECK(shortest.interpolation == "bicubic");
  const PreprocessConfig squashed =
      read(R"({"size": {"height": 256, "width": 256}, "do_center_crop": true, "crop_size": {"height": 224, "width": 224}})");
  CHECK(squashed.width == 224);
  CHECK(squashed.crop_mode == "squash");
  CHECK(squashed.crop_pct == 0.875);
  CHECK(read(R"({"size": {"height": 256, "width": 256}, "do_center_crop": false, "crop_size": 224})").height == 256);
}

TEST_CASE("timm's repositories say architecture, arguments and preprocessing") {
  const Folder folder;
  const std::string config = R"({"architecture": "vit_tiny_patch16_224", "num_classes": 3,
    "model_args": {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3},
    "label_names": ["n1", "n2", "n3"], "label_descriptions": {"n1": "one", "n3": "three"},
    "pretrained_cfg": {"tag": "mine", "input_size": [3, 32, 32], "fixed_input_size": true, "crop_pct": 0.8, "mean": [0.1, 0.2, 0.3],
                       "interpolation": "bilinear", "num_classes": 3}})";
  write_bytes(folder / "config.json", config);
  std::map<std::string, Tensor> tensors{{"cls_token", Tensor::zeros({1, 1, 12})},
                                        {"pos_embed", Tensor::zeros({1, 17, 12})},
                                        {"patch_embed.proj.weight", Tensor::zeros({12, 3, 8, 8})},
                                        {"patch_embed.proj.bias", Tensor::zeros({12})},
                                        {"norm.weight", Tensor::zeros({12})},
                                        {"norm.bias", Tensor::zeros({12})},
                                        {"head.weight", Tensor::zeros({3, 12})},
                                        {"head.bias", Tensor::zeros({3})}};
  for (const std::string block : {"blocks.0.", "blocks.1."})
    for (const auto& [name, shape] : std::map<std::string, Shape>{{"norm1", {12}},
                                                                  {"norm2", {12}},
                                                                  {"attn.qkv", {36, 12}},
                                                                  {"attn.proj", {12, 12}},
                                                                  {"mlp.fc1", {48, 12}},
                                                                  {"mlp.fc2", {12, 48}}}) {
      tensors[block + name + ".weight"] = Tensor::zeros(shape);
      tensors[block + name + ".bias"] = Tensor::zeros({shape[0]});
    }
  save_safetensors(folder / "model.safetensors", tensors);
  const LoadedModel model = load(folder.path());
  CHECK(model.backbone->info().num_classes == 3);
  CHECK(model.preprocess.height == 32);
  CHECK(model.preprocess.crop_pct == 0.8);
  CHECK(model.preprocess.interpolation == "bilinear");
  CHECK(model.classes == std::vector<std::string>{"one", "n2", "three"});

  // The same as one file, which carries what config.json said.
  save_safetensors(folder / "converted.safetensors", *open_model_weights(folder.path()));
  CHECK(load(folder / "converted.safetensors").preprocess.crop_pct == 0.8);

  for (const char* name : {"head.weight", "head.bias"}) tensors.erase(name);
  save_safetensors(folder / "model.safetensors", tensors);
  std::filesystem::remove(folder / "converted.safetensors");
  std::string features = config;
  features.replace(features.find("\"num_classes\": 3"), 16, "\"num_classes\": 0");
  write_bytes(folder / "config.json", features);
  CHECK(load(folder.path()).backbone->info().num_classes == 0);
}

TEST_CASE("configurations that cannot be used") {
  CHECK(contains(trouble_of(""), "config.json is not a JSON object"));
  CHECK(contains(trouble_of("[1]"), "config.json is not a JSON object"));
  CHECK(contains(trouble_of("{}"), "neither timm's architecture nor transformers' model_type"));
  CHECK(contains(trouble_of(R"({"model_type": "llama"})"), "'llama'; known are vit, dinov2, beit, swin"));
  CHECK(contains(trouble_of(R"({"model_type": "vit", "hidden_size": "x"})"), "config.json"));
  CHECK(contains(trouble_of(R"({"model_type": "vit"})", R"({"resample": 77})"), "unknown filter 77"));
  CHECK(contains(trouble_of(R"({"model_type": "vit"})", R"({"size": {"longest_edge": 3}})"),
                 "expected a number or height and width"));
}

TEST_CASE("parts become one parameter") {
  const auto part = [](float value, std::int64_t rows = 2) { return Tensor::full({rows, 3}, value); };
  const auto source = stacked(
      memory_weights({{"a.qkv[0].w", part(1)}, {"a.qkv[1].w", part(2, 1)}, {"a.qkv[2].w", part(3)}, {"b", part(4)}}, "m"));
  CHECK(source->names() == std::vector<std::string>{"a.qkv.w", "b"});
  CHECK(source->find("a.qkv.w")->shape == Shape{5, 3});
  const Tensor whole = source->load("a.qkv.w", {});
  CHECK(whole.data<float>()[5] == 1);
  CHECK(whole.data<float>()[6] == 2);
  CHECK(whole.data<float>()[9] == 3);
  CHECK_THROWS_AS(stacked(memory_weights({{"a[0]", part(1)}, {"a[2]", part(1)}}, "m")), Error);
  CHECK_THROWS_AS(stacked(memory_weights({{"a[0]", part(1)}, {"a[1]", Tensor::zeros({2, 4})}}, "m")), Error);
  CHECK_THROWS_AS(stacked(memory_weights({{"a[0]", part(1)}, {"a", part(1)}}, "m")), Error);
}
