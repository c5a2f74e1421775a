// ConvNeXt, MLP-Mixer and FocalNet: maps, sizes, arguments.
#include <map>
#include <string>

#include <catch.h>

#include "backbones/support.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

const std::string kConvNeXt = "ConvNeXt[depths=[1,1,2,1],dims=[8,16,24,32],num_classes=6]";
const std::string kConvNeXtV2 = "ConvNeXt[depths=[1,1,1,1],dims=[8,16,24,32],num_classes=6,use_grn=true,ls_init_value=null]";
const std::string kMixer = "MlpMixer[img_size=[48,64],patch_size=8,num_blocks=2,embed_dim=16,num_classes=6]";
const std::string kFocalNet = "FocalNet[depths=[1,1,1],embed_dim=16,num_classes=6]";

}  // namespace

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
