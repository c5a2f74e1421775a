// HorNet, LITv2, PatchConvNet and Flowformer: maps, sizes, arguments.
#include <map>
#include <string>

#include <catch.h>

#include "backbones/support.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

const std::string kHorNet =
    "HorNet[depths=[1,1,1,1],base_dim=16,orders=[2,2,3,3],filters=[[],[],[4,3],[2,2]],scale=0.5,num_classes=6]";
const std::string kLitV2 =
    "LITv2[embed_dim=16,depths=[1,1,1],num_heads=[2,2,4],has_msa=[0,0,1],local_ws=[0,0,2],alpha=0.5,num_classes=6]";
const std::string kPatchConvNet = "PatchConvnet[embed_dim=32,depth=2,num_classes=6]";
const std::string kFlowformer =
    "Flowformer[img_size=64,embed_dim=[12,24,24,48],depth=[1,1,1,1],mlp_ratio=[2,2,2,2],num_classes=6]";

}  // namespace

TEST_CASE("hornet and relatives: pyramids have the strides and channels of the stages") {
  const auto hornet = build(kHorNet)->forward_intermediates(images(1, 67, 98));
  REQUIRE(hornet.size() == 4);
  CHECK(hornet[2].map.shape() == Shape{1, 4, 6, 64});
  CHECK(hornet[3].stride == 32);
  const auto lit = build(kLitV2)->forward_intermediates(images(1, 64, 96));
  REQUIRE(lit.size() == 3);
  CHECK(lit[0].map.shape() == Shape{1, 16, 24, 16});
  CHECK(lit[2].map.shape() == Shape{1, 4, 6, 64});
  CHECK(lit[2].stride == 16);
  const auto patch = build(kPatchConvNet)->forward_intermediates(images(1, 50, 64));
  REQUIRE(patch.size() == 2);
  CHECK(patch[1].map.shape() == Shape{1, 4, 4, 32});
  CHECK(patch[1].stride == 16);
  const auto flow = build(kFlowformer)->forward_intermediates(images(1, 64, 64));
  CHECK(flow[3].map.shape() == Shape{1, 2, 2, 48});
}

TEST_CASE("hornet and relatives: bf16 and f16 stay near f32, a batch gives what its images give alone") {
  for (const std::string& name : {kHorNet, kLitV2, kPatchConvNet, kFlowformer}) {
    INFO(name);
    const auto model = build(name);
    const Tensor both = images(2, 64, 64), expected = model->forward(both);
    REQUIRE(expected.shape() == Shape{2, 6});
    CHECK(relative_l2(model->forward(both.slice(0, 1, 2)), expected.slice(0, 1, 2)) < 1e-5);
    CHECK(relative_l2(build(name, DType::bf16)->forward(both), expected) < 0.03);
    CHECK(relative_l2(build(name, DType::f16)->forward(both), expected) < 0.005);
  }
}

TEST_CASE("patchconvnet: a token for each class") {
  const auto model = build("PatchConvnet[embed_dim=32,depth=1,num_classes=5,multiclass=true]");
  const Tensor features = model->forward_features(images(2, 48, 64));
  CHECK(features.shape() == Shape{2, 5 + 3 * 4, 32});
  CHECK(model->forward_head(features).shape() == Shape{2, 5});
}

TEST_CASE("hornet and relatives: the observer sees the modules of the original") {
  std::map<std::string, Shape> seen;
  const Observer observer = [&](std::string_view path, const Tensor& output) { seen[std::string(path)] = output.shape(); };
  build(kHorNet)->forward_features(images(1, 64, 64), observer);
  CHECK(seen.at("stages.3.0") == Shape{1, 128, 2, 2});  // channels first, as there
  build(kLitV2)->forward_features(images(1, 64, 64), observer);
  CHECK(seen.at("layers.0") == Shape{1, 64, 32});  // after its merging, as a sequence
  build(kPatchConvNet)->forward_features(images(1, 64, 64), observer);
  CHECK(seen.at("blocks_token_only.0") == Shape{1, 1, 32});
  build(kFlowformer)->forward_features(images(1, 64, 64), observer);
  CHECK(seen.at("blocks.0") == Shape{1, 256, 12});
}

TEST_CASE("hornet and relatives: wrong images and arguments are refused") {
  CHECK_THROWS_WITH(build("HorNet[base_dim=16,filters=[[],[],[4],[]]]"), contains("[height, width] or []"));
  CHECK_THROWS_WITH(build("HorNet[base_dim=10,orders=[5,5,5,5]]"), contains("gnconv"));
  CHECK_THROWS_WITH(build(kHorNet)->forward(images(1, 16, 16)), contains("smaller than its patch"));
  CHECK_THROWS_WITH(build("LITv2[depths=[1,1]]"), contains("different lengths"));
  CHECK_THROWS_WITH(build(kLitV2)->forward(images(1, 80, 64)), contains("multiples of the window"));
  CHECK_THROWS_WITH(build(kLitV2)->forward(images(1, 60, 64)), contains("even H and W"));
  CHECK_THROWS_WITH(build("PatchConvnet[embed_dim=20]"), contains("multiple of 8"));
  CHECK_THROWS_WITH(build(kPatchConvNet)->forward(images(1, 32, 32, 4)), contains("expected [B, H, W, 3]"));
  CHECK_THROWS_WITH(build("Flowformer[embed_dim=[64,128,256,512]]"), contains("multiples of 12"));
  CHECK_THROWS_WITH(build(kFlowformer)->forward(images(1, 64, 96)), contains("expected 64x64"));
}
