// ConvNeXt, MLP-Mixer and FocalNet: maps, sizes, arguments.
#include <map>
#include <string>
#include <vector>

#include <catch.h>

#include "backbones/support.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

const std::string kConvNeXt = "ConvNeXt[depths=[1,1,2,1],dims=[8,16,24,32],num_classes=6]";
const std::string kConvNeXtV2 = "ConvNeXt[depths=[1,1,2,1],dims=[8,16,24,32],num_classes=6,use_grn=true,ls_init_value=null]";
const std::string kMixer = "MlpMixer[img_size=[48,64],patch_size=8,num_blocks=2,embed_dim=16,num_classes=6]";
const std::string kFocalNet = "FocalNet[depths=[1,1,1],embed_dim=16,num_classes=6]";

// A parameter's name in the publisher's files and timm's.
struct Pair {
  std::string official, timm;
  Shape shape, official_shape = {};  // where it is another
};

void add(std::vector<Pair>& pairs, const std::string& official, const std::string& timm, const Shape& weight) {
  pairs.push_back({official + ".weight", timm + ".weight", weight});
  pairs.push_back({official + ".bias", timm + ".bias", {weight[0]}});
}

std::vector<Pair> convnext_pairs(bool v2) {
  const std::vector<std::int64_t> depths{1, 1, 2, 1}, dims{8, 16, 24, 32};
  std::vector<Pair> pairs;
  add(pairs, "downsample_layers.0.0", "stem.0", {8, 3, 4, 4});
  add(pairs, "downsample_layers.0.1", "stem.1", {8});
  for (std::size_t i = 0; i < 4; ++i) {
    const std::int64_t dim = dims[i];
    const std::string stage = std::to_string(i);
    if (i > 0) {
      add(pairs, "downsample_layers." + stage + ".0", "stages." + stage + ".downsample.0", {dims[i - 1]});
      add(pairs, "downsample_layers." + stage + ".1", "stages." + stage + ".downsample.1", {dim, dims[i - 1], 2, 2});
    }
    for (std::int64_t j = 0; j < depths[i]; ++j) {
      const std::string from = "stages." + stage + "." + std::to_string(j) + ".",
                        to = "stages." + stage + ".blocks." + std::to_string(j) + ".";
      add(pairs, from + "dwconv", to + "conv_dw", {dim, 1, 7, 7});
      add(pairs, from + "norm", to + "norm", {dim});
      add(pairs, from + "pwconv1", to + "mlp.fc1", {4 * dim, dim});
      add(pairs, from + "pwconv2", to + "mlp.fc2", {dim, 4 * dim});
      if (v2) {
        pairs.push_back({from + "grn.gamma", to + "mlp.grn.weight", {4 * dim}, {1, 1, 1, 4 * dim}});
        pairs.push_back({from + "grn.beta", to + "mlp.grn.bias", {4 * dim}, {1, 1, 1, 4 * dim}});
      } else {
        pairs.push_back({from + "gamma", to + "gamma", {dim}});
      }
    }
  }
  add(pairs, "norm", "head.norm", {32});
  add(pairs, "head", "head.fc", {6, 32});
  return pairs;
}

std::vector<Pair> focalnet_pairs(bool post, bool scaled) {
  std::vector<Pair> pairs;
  add(pairs, "patch_embed.proj", "stem.proj", {16, 3, 4, 4});
  add(pairs, "patch_embed.norm", "stem.norm", {16});
  for (std::int64_t i = 0; i < 3; ++i) {
    const std::int64_t dim = 16 << i;
    const std::string layer = "layers." + std::to_string(i);
    const std::string block = layer + ".blocks.0.", modulation = block + "modulation.", after = post ? "_post" : "";
    if (i < 2) {
      const std::string next = "layers." + std::to_string(i + 1);
      add(pairs, layer + ".downsample.proj", next + ".downsample.proj", {2 * dim, dim, 2, 2});
      add(pairs, layer + ".downsample.norm", next + ".downsample.norm", {2 * dim});
    }
    add(pairs, block + "norm1", block + "norm1" + after, {dim});
    add(pairs, block + "norm2", block + "norm2" + after, {dim});
    add(pairs, modulation + "f", modulation + "f", {2 * dim + 3, dim});
    add(pairs, modulation + "h", modulation + "h", {dim, dim, 1, 1});
    add(pairs, modulation + "proj", modulation + "proj", {dim, dim});
    pairs.push_back({modulation + "focal_layers.0.0.weight", modulation + "focal_layers.0.0.weight", {dim, 1, 3, 3}});
    pairs.push_back({modulation + "focal_layers.1.0.weight", modulation + "focal_layers.1.0.weight", {dim, 1, 5, 5}});
    if (post) add(pairs, modulation + "ln", modulation + "norm", {dim});
    if (scaled) {
      pairs.push_back({block + "gamma_1", block + "ls1.gamma", {dim}});
      pairs.push_back({block + "gamma_2", block + "ls2.gamma", {dim}});
    }
    add(pairs, block + "mlp.fc1", block + "mlp.fc1", {4 * dim, dim});
    add(pairs, block + "mlp.fc2", block + "mlp.fc2", {dim, 4 * dim});
  }
  add(pairs, "norm", "norm", {64});
  add(pairs, "head", "head.fc", {6, 64});
  return pairs;
}

}  // namespace

TEST_CASE("convnets: files under the publishers' names give what files under timm's give") {
  const std::string focalnet = kFocalNet.substr(0, kFocalNet.size() - 1);  // without its bracket
  const std::string scaled = ",layerscale_value=0.1]", post = ",use_post_norm=true,use_post_norm_in_modulation=true";
  struct {
    std::string model;
    std::vector<Pair> pairs;
  } const cases[] = {{kConvNeXt, convnext_pairs(false)},
                     {kConvNeXtV2, convnext_pairs(true)},
                     {kFocalNet, focalnet_pairs(false, false)},
                     {focalnet + scaled, focalnet_pairs(false, true)},
                     {focalnet + post + "]", focalnet_pairs(true, false)},
                     {focalnet + post + scaled, focalnet_pairs(true, true)}};
  for (const auto& [model, pairs] : cases) {
    INFO(model);
    std::map<std::string, Tensor> official, timm;
    for (const Pair& pair : pairs) {
      const Tensor value = synthetic_parameter(pair.timm, pair.shape);
      timm[pair.timm] = value;
      official[pair.official] = pair.official_shape.rank() > 0 ? value.view(pair.official_shape) : value;
    }
    const Tensor x = images(1, 64, 96);
    const Tensor ours = create_model(model, Weights(memory_weights(timm, "timm")))->forward(x);
    const Tensor theirs = create_model(model, Weights(memory_weights(official, "official")))->forward(x);
    CHECK(relative_l2(theirs, ours) == 0);
    CHECK(relative_l2(ours, build(model)->forward(x)) == 0);  // every parameter was in the table
  }
}

TEST_CASE("convnets: a FocalNet refuses files of one whose norms are elsewhere, or whose blocks are scaled") {
  const std::string focalnet = kFocalNet.substr(0, kFocalNet.size() - 1);
  const auto file = [](bool post, bool scaled, bool official) {
    std::map<std::string, Tensor> tensors;
    for (const Pair& pair : focalnet_pairs(post, scaled))
      tensors[official ? pair.official : pair.timm] = synthetic_parameter(pair.timm, pair.shape);
    return Weights(memory_weights(std::move(tensors), "file"));
  };
  CHECK_THROWS_WITH(create_model(focalnet + ",use_post_norm=true]", file(false, false, false)), contains("norm1_post"));
  CHECK_THROWS_WITH(create_model(kFocalNet, file(true, false, false)), contains("norm1_post"));
  CHECK_THROWS_WITH(create_model(kFocalNet, file(false, true, true)), contains("ls1.gamma"));
  CHECK_THROWS_WITH(create_model(focalnet + ",layerscale_value=0.1]", file(false, false, true)), contains("ls1.gamma"));
}

TEST_CASE("convnets: pyramids have the strides and channels of the stages") {
  const auto convnext = build(kConvNeXt)->forward_intermediates(images(1, 67, 98));
  REQUIRE(convnext.size() == 4);
  CHECK(convnext[0].map.shape() == Shape{1, 16, 24, 8});
  CHECK(convnext[3].map.shape() == Shape{1, 2, 3, 32});
  CHECK(convnext[3].stride == 32);
  const auto focalnet = build(kFocalNet)->forward_intermediates(images(1, 67, 98));
  REQUIRE(focalnet.size() == 3);
  CHECK(focalnet[2].map.shape() == Shape{1, 4, 6, 64});
  CHECK(focalnet[2].stride == 16);
  const auto last = build(kFocalNet)->forward_intermediates(images(1, 67, 98), {.indices = {-1}, .norm = true});
  CHECK(relative_l2(last[0].map, build(kFocalNet)->forward_features(images(1, 67, 98))) == 0.0);
}

TEST_CASE("mlp mixer: every block gives a map, each with the final norm where asked for") {
  const auto model = build(kMixer);
  const Tensor x = images(1, 48, 64);
  const auto maps = model->forward_intermediates(x);
  REQUIRE(maps.size() == 2);
  CHECK(maps[0].map.shape() == Shape{1, 6, 8, 16});
  CHECK(maps[0].stride == 8);
  const auto normed = model->forward_intermediates(x, {.indices = {}, .norm = true});
  CHECK(relative_l2(normed[1].map, model->forward_features(x)) == 0.0);
  CHECK(relative_l2(normed[0].map, maps[0].map) > 0.01);
}

TEST_CASE("convnets: bf16 and f16 stay near f32, a batch gives what its images give alone") {
  for (const std::string& name : {kConvNeXt, kConvNeXtV2, kMixer, kFocalNet}) {
    INFO(name);
    const auto model = build(name);
    const Tensor both = images(2, 48, 64), expected = model->forward(both);
    CHECK(relative_l2(model->forward(both.slice(0, 1, 2)), expected.slice(0, 1, 2)) < 1e-5);
    CHECK(relative_l2(build(name, DType::bf16)->forward(both), expected) < 0.04);
    CHECK(relative_l2(build(name, DType::f16)->forward(both), expected) < 0.005);
  }
}

TEST_CASE("convnets: the observer sees the modules of the original") {
  std::map<std::string, Shape> seen;
  const Observer observer = [&](std::string_view path, const Tensor& output) { seen[std::string(path)] = output.shape(); };
  build(kConvNeXt)->forward_features(images(1, 64, 64), observer);
  CHECK(seen.at("stages.2.blocks.1") == Shape{1, 24, 4, 4});  // channels first, as there
  CHECK(seen.at("stages.3") == Shape{1, 32, 2, 2});
  build(kMixer)->forward_features(images(1, 48, 64), observer);
  CHECK(seen.at("blocks.1") == Shape{1, 48, 16});
  build(kFocalNet)->forward_features(images(1, 64, 64), observer);
  CHECK(seen.at("layers.1.blocks.0") == Shape{1, 32, 8, 8});
}

TEST_CASE("convnets: wrong images and arguments are refused") {
  CHECK_THROWS_WITH(build(kConvNeXt)->forward(images(1, 16, 64)), contains("smaller than its patch"));
  CHECK_THROWS_WITH(build("ConvNeXt[depths=[1,1]]"), contains("expected four stages"));
  CHECK_THROWS_WITH(build("ConvNeXt[kernel_sizes=4]"), contains("kernel_sizes, expected odd ones"));
  CHECK_THROWS_WITH(build("ConvNeXt[stem_type=conv]"), contains("stem_type"));
  CHECK_THROWS_WITH(build("ConvNeXt[global_pool=catavgmax]"), contains("needs head_norm_first"));
  CHECK_THROWS_WITH(build("poolformer_s12[dims=[8,8]]"), contains("not of one length"));
  CHECK_THROWS_WITH(build("poolformer_s12[dims=[8,8,0,8]]"), contains("poolformer_s12"));
  CHECK_THROWS_WITH(build(kMixer)->forward(images(1, 64, 64)), contains("expected 48x64"));
  CHECK_THROWS_WITH(build("MlpMixer[block_layer=SpatialGatingBlock]"), contains("go together"));
  CHECK_THROWS_WITH(build("MlpMixer[mlp_ratio=[1,2,3]]"), contains("one number or two"));
  CHECK_THROWS_WITH(build("MlpMixer[img_size=100000,patch_size=1]"), contains("img_size"));
  CHECK_THROWS_WITH(build("FocalNet[focal_levels=[2]]"), contains("fewer stages than depths"));
  CHECK_THROWS_WITH(build("FocalNet[focal_windows=[4,4,4,4]]"), contains("expected an odd size"));
}
