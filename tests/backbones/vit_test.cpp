// Small models of every argument of the plain ViTs, EVAs and BEiTs against timm (tests/data/vit), and what holds for all.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <catch.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;
using Json = nlohmann::json;
using vitrine::test::contains;

namespace {

Shape to_shape(const Json& sizes) { return Shape(sizes.get<std::vector<std::int64_t>>()); }

Tensor synthetic_images(const Shape& nchw) {  // [B, H, W, C]
  const int axes[] = {0, 2, 3, 1};
  return permute(synthetic_tensor("input", nchw), axes);
}

Arguments to_arguments(const Json& object) {
  Arguments arguments;
  for (const auto& [name, value] : object.items()) arguments[name] = value.dump();
  return arguments;
}

// max |a - b| of every `stride`-th value
double largest_difference(const Tensor& ours, const Json& expected) {
  const Tensor values = ours.to(DType::f32).contiguous();
  const std::int64_t stride = expected.at("stride");
  const auto& theirs = expected.at("values");
  REQUIRE(values.shape() == to_shape(expected.at("shape")));
  double largest = 0;
  for (std::size_t i = 0; i < theirs.size(); ++i) {
    const double d = std::abs(values.data<float>()[static_cast<std::int64_t>(i) * stride] - theirs[i].get<double>());
    if (!(d <= largest)) largest = d;
  }
  return largest;
}

std::unique_ptr<Backbone> small(const std::string& constructor, Arguments arguments = {}, WeightsOptions options = {}) {
  const Arguments base{{"img_size", "32"}, {"patch_size", "8"}, {"embed_dim", "64"},
                       {"depth", "2"},     {"num_heads", "4"},  {"num_classes", "10"}};
  arguments.insert(base.begin(), base.end());
  return create_model(constructor, Weights(synthetic_weights(), options), arguments);
}

std::string error_of(const std::string& name, const Arguments& arguments) {
  try {
    small(name, arguments);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

double difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const Tensor x = a.to(DType::f32).contiguous(), y = b.to(DType::f32).contiguous();
  double largest = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i)
    largest = std::max(largest, static_cast<double>(std::abs(x.data<float>()[i] - y.data<float>()[i])));
  return largest;
}

}  // namespace

TEST_CASE("small vits, evas and beits give what timm gives, for every argument") {
  std::ifstream stream(VITRINE_SOURCE_DIR "/tests/data/vit/cases.json");
  REQUIRE(stream);
  const Json cases = Json::parse(stream);
  CHECK(cases.size() > 90);
  double worst = 0;
  for (const Json& entry : cases) {
    const std::string constructor = entry.at("constructor");
    INFO(constructor << " " << entry.at("arguments").dump() << " on " << entry.at("input").dump());
    std::vector<std::pair<std::string, Shape>> parameters;
    for (const auto& parameter : entry.at("parameters")) parameters.emplace_back(parameter.at(0), to_shape(parameter.at(1)));
    const Weights weights(synthetic_weights(parameters));
    const auto model = create_model(constructor, weights, to_arguments(entry.at("arguments")));
    const Tensor images = synthetic_images(to_shape(entry.at("input")));
    const Tensor tokens = model->forward_features(images);
    const std::vector<IntermediateMap> maps = model->forward_intermediates(images);
    REQUIRE(maps.size() == 2);
    const std::pair<const char*, Tensor> outputs[] = {
        {"logits", model->forward_head(tokens)}, {"pre_logits", model->forward_head(tokens, true)}, {"features", maps[1].map}};
    for (const auto& [name, output] : outputs) {
      INFO(name);
      const Json& expected = entry.at("outputs").at(name);
      const double error = largest_difference(output, expected) / expected.at("std").get<double>();
      CHECK(error <= 5e-5);
      worst = std::max(worst, error);
    }
  }
  WARN(fmt::format("{} cases, largest difference {:.1e} of an output's standard deviation", cases.size(), worst));
}

TEST_CASE("wrong arguments are named") {
  CHECK_THAT(error_of("VisionTransformer", {{"reg_token", "4"}}), contains("reg_tokens"));
  CHECK_THAT(error_of("VisionTransformer", {{"global_pool", "\"maxavg\""}}), contains("'avgmax'"));
  CHECK_THAT(error_of("VisionTransformer", {{"block_fn", "\"block\""}}), contains("nearest: Block"));
  CHECK_THAT(error_of("VisionTransformer", {{"depth", "\"twelve\""}}), contains("expected an integer"));
  CHECK_THAT(error_of("VisionTransformer", {{"num_heads", "5"}}), contains("multiple of num_heads"));
  CHECK_THAT(error_of("VisionTransformer", {{"class_token", "false"}}), contains("class_token"));
  CHECK_THAT(error_of("VisionTransformer", {{"img_size", "4"}}), contains("at least one patch"));
  CHECK_THAT(error_of("VisionTransformer", {{"pos_embed_interpolation", "\"bicubic\""}}), contains("'timm'"));
  CHECK_THAT(error_of("VisionTransformer", {{"norm_layer", "\"batchnorm\""}}), contains("layernorm"));
  CHECK_THAT(error_of("VisionTransformer", {{"attn_layer", "\"diff\""}, {"num_heads", "64"}}), contains("even width"));
  CHECK_THAT(error_of("VisionTransformerDistilled", {{"global_pool", "\"avg\""}}), contains("distilled"));
  CHECK_THAT(error_of("Eva", {{"num_kv_heads", "2"}}), contains("qkv_fused=false"));
  CHECK_THAT(error_of("Eva", {{"num_kv_heads", "[4]"}}), contains("an entry for each block"));
  CHECK_THAT(error_of("Eva", {{"rope_type", "\"base\""}}), contains("'mixed'"));
  CHECK_THAT(error_of("Eva", {{"reg_tokens", "4"}}), contains("num_reg_tokens"));
  CHECK_THAT(error_of("Beit", {{"global_pool", "\"map\""}}), contains("expected one of"));
  CHECK_THAT(error_of("Beit", {{"qk_norm", "true"}}), contains("unknown argument"));
}

TEST_CASE("wrong images and features are named") {
  const auto model = small("VisionTransformer");
  CHECK_THROWS_WITH(model->forward(synthetic_images({1, 1, 32, 32})), contains("expected [B, H, W, 3]"));
  CHECK_THROWS_WITH(model->forward(synthetic_images({1, 3, 33, 32})), contains("multiples of the patch 8x8"));
  CHECK_THROWS_WITH(model->forward(Tensor::zeros({1, 0, 32, 3})), contains("0x32"));
  CHECK_THROWS_WITH(model->forward(Tensor::zeros({32, 32, 3})), contains("expected [B, H, W, 3]"));
  CHECK_THROWS_WITH(model->forward_head(Tensor::zeros({1, 17, 32})), contains("expected [B, 1 + N, 64]"));
  CHECK_THROWS_WITH(small("VisionTransformerDistilled")->forward_head(Tensor::zeros({1, 2, 64})),
                    contains("expected [B, 2 + N, 64]"));
  IntermediatesOptions options;
  options.indices = {2};
  CHECK_THROWS_AS(model->forward_intermediates(synthetic_images({1, 3, 32, 32}), options), Error);
}

TEST_CASE("intermediates and the observer see the blocks") {
  const auto model = small("VisionTransformer", {{"reg_tokens", "2"}, {"patch_size", "[8, 4]"}});
  const Tensor images = synthetic_images({2, 3, 32, 32});
  std::vector<std::string> paths;
  std::vector<Tensor> seen;
  const Tensor tokens = model->forward_features(images, [&](std::string_view path, const Tensor& output) {
    paths.emplace_back(path);
    seen.push_back(output);
  });
  CHECK(paths == std::vector<std::string>{"patch_embed", "blocks.0", "blocks.1", "norm"});
  CHECK(difference(seen[3], tokens) == 0);
  CHECK(difference(seen[0], seen[1]) > 0);  // what was handed out is not written to later
  CHECK(difference(seen[1], seen[2]) > 0);

  const auto maps = model->forward_intermediates(images);
  REQUIRE(maps.size() == 2);
  CHECK(maps[0].map.shape() == Shape{2, 4, 8, 64});
  CHECK(maps[0].prefix_tokens.shape() == Shape{2, 3, 64});
  CHECK(maps[0].stride == 8);
  CHECK(difference(maps[0].map.flatten(1, 2), seen[1].slice(1, 3, 35)) == 0);
  CHECK(difference(maps[1].prefix_tokens, seen[2].slice(1, 0, 3)) == 0);

  IntermediatesOptions last;
  last.indices = {-1};
  last.norm = true;
  const auto normed = model->forward_intermediates(images, last);
  REQUIRE(normed.size() == 1);
  CHECK(difference(normed[0].map.flatten(1, 2), tokens.slice(1, 3, 35)) == 0);
}

TEST_CASE("a permuted batch gives permuted answers, and any number of threads the same") {
  const Arguments rotary{{"use_rot_pos_emb", "true"}, {"swiglu_mlp", "true"}, {"scale_mlp", "true"}};
  const Arguments relative{{"use_rel_pos_bias", "true"}};
  const std::pair<const char*, Arguments> models[] = {{"VisionTransformer", {}}, {"Eva", rotary}, {"Beit", relative}};
  for (const auto& [name, arguments] : models) {
    INFO(name);
    const auto model = small(name, arguments);
    const Tensor images = synthetic_images({3, 3, 32, 32});
    const Tensor parts[] = {images.slice(0, 2, 3), images.slice(0, 0, 2)};
    const Tensor logits = model->forward(images), permuted = model->forward(concat(parts, 0));
    CHECK(difference(logits.slice(0, 0, 2), permuted.slice(0, 1, 3)) <= 1e-5);
    CHECK(difference(logits.slice(0, 2, 3), permuted.slice(0, 0, 1)) <= 1e-5);
    for (const int threads : {1, 3}) {
      Context context({.threads = threads, .device = {}});
      const ContextScope scope(context);
      CHECK(difference(model->forward(images), logits) <= 1e-5);
    }
  }
}

TEST_CASE("sizes may alternate and repeat") {
  for (const char* name : {"VisionTransformer", "Eva", "Beit"}) {
    INFO(name);
    const auto model = small(name, name == std::string("Eva") ? Arguments{{"use_rot_pos_emb", "true"}} : Arguments{});
    const Tensor first = model->forward(synthetic_images({1, 3, 32, 32}));
    for (std::int64_t rows = 1; rows <= 12; ++rows)  // more sizes than are kept
      CHECK(model->forward(synthetic_images({1, 3, 8 * rows, 24})).shape() == Shape{1, 10});
    CHECK(difference(model->forward(synthetic_images({1, 3, 32, 32})), first) == 0);
  }
}

TEST_CASE("bf16 is near f32, and its features are bf16") {
  for (const char* name : {"VisionTransformer", "Eva", "Beit"}) {
    INFO(name);
    const Tensor images = synthetic_images({2, 3, 32, 32});
    const auto exact = small(name), rounded = small(name, {}, {.dtype = DType::bf16, .device = {}});
    CHECK(rounded->dtype() == DType::bf16);
    CHECK(rounded->forward_features(images).dtype() == DType::bf16);
    const Tensor a = exact->forward(images), b = rounded->forward(images);
    CHECK(b.dtype() == DType::f32);
    double error = 0, norm = 0;
    for (std::int64_t i = 0; i < a.numel(); ++i) {
      error += std::pow(a.data<float>()[i] - b.data<float>()[i], 2);
      norm += std::pow(a.data<float>()[i], 2);
    }
    CHECK(std::sqrt(error / norm) <= 0.03);
  }
}

TEST_CASE("the variants are timm's, with their preprocessing, and tags choose others") {
  CHECK(list_models("vit_*").size() + list_models("deit*").size() + list_models("eva*").size() + list_models("beit*").size() +
            list_models("aimv2_*").size() + list_models("flexivit_*").size() + list_models("test_vit*").size() ==
        251);
  CHECK(list_models("vit_base_patch16_224.*").size() == 10);
  const auto base = default_preprocess("vit_base_patch16_224"), clip = default_preprocess("vit_base_patch16_clip_224.openai");
  CHECK(base.crop_pct == 0.9);
  CHECK(base.mean == std::vector<float>{0.5f, 0.5f, 0.5f});
  CHECK(clip.mean.front() == Approx(0.48145466));
  CHECK(default_preprocess("vit_base_patch16_224.dino").mean.front() == Approx(0.485));
  CHECK(default_preprocess("vit_so400m_patch14_siglip_378").height == 378);
  CHECK(default_preprocess("vit_large_patch16_sapiens2").height == 1024);
  CHECK(default_preprocess("vit_large_patch16_sapiens2").width == 768);
  CHECK(default_preprocess("vit_medium_patch16_gap_384").crop_mode == "squash");
  CHECK_FALSE(is_model("vit_base_patch16_224.nothing"));
  CHECK_THROWS_WITH(default_preprocess("vit_base_patch16_224.augreg_in21"), contains("augreg_in21k"));
  CHECK_THROWS_WITH(default_preprocess("vit_base_patch16_225"), contains("vit_base_patch16_224"));
  const Weights weights(synthetic_weights());
  const auto tagged = create_model("vit_tiny_patch16_224.augreg_in21k[depth=0]", weights);
  CHECK(tagged->info().num_classes == 21843);
  CHECK(create_model("vit_tiny_patch16_224[depth=1]", Weights(synthetic_weights()))->info().parameters == 823912);
}

TEST_CASE("what only pretraining needs may be in a file, other tensors may not") {
  std::ifstream stream(VITRINE_SOURCE_DIR "/tests/data/vit/cases.json");
  const Json entry = Json::parse(stream).at(0);
  std::vector<std::pair<std::string, Shape>> parameters;
  for (const auto& parameter : entry.at("parameters")) parameters.emplace_back(parameter.at(0), to_shape(parameter.at(1)));
  parameters.emplace_back("mask_token", Shape{1, 64});
  const Arguments arguments = to_arguments(entry.at("arguments"));
  CHECK(create_model("VisionTransformer", Weights(synthetic_weights(parameters)), arguments) != nullptr);
  parameters.emplace_back("blocks.0.ls1.gamma", Shape{64});
  CHECK_THROWS_WITH(create_model("VisionTransformer", Weights(synthetic_weights(parameters)), arguments),
                    contains("blocks.0.ls1.gamma"));
}
