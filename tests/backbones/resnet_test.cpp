#include <memory>
#include <string>

#include <catch.h>

#include "backbones/support.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

const std::string kSmall = "ResNet[block=Bottleneck,layers=[1,1,1,1],channels=[8,16,24,32],num_classes=6]";

}  // namespace

TEST_CASE("resnet: the pyramid has five maps, the stem's first, at any size") {
  const auto maps = build(kSmall)->forward_intermediates(images(1, 65, 97));
  REQUIRE(maps.size() == 5);
  CHECK(maps[0].map.shape() == Shape{1, 33, 49, 64});
  CHECK(maps[1].map.shape() == Shape{1, 17, 25, 32});
  CHECK(maps[4].map.shape() == Shape{1, 3, 4, 128});
  CHECK(maps[0].stride == 2);
  CHECK(maps[4].stride == 32);
  // Dilated stages keep the stride of the ones before.
  const auto dilated = build("resnet18[output_stride=8,layers=[1,1,1,1]]")->forward_intermediates(images(1, 64, 64));
  CHECK(dilated[4].map.shape() == Shape{1, 8, 8, 512});
  CHECK(dilated[4].stride == 8);
}

TEST_CASE("resnet: bf16 and f16 stay near f32, a batch gives what its images give alone") {
  for (const std::string& name :
       {kSmall, std::string("resnetrs50[layers=[1,1,1,1]]"), std::string("ecaresnet26t[layers=[1,1,1,1]]"),
        std::string("resnetblur18[layers=[1,1,1,1]]"), std::string("resnet50_gn[layers=[1,1,1,1]]")}) {
    INFO(name);
    const auto model = build(name);
    const Tensor both = images(2, 64, 96), expected = model->forward(both);
    CHECK(relative_l2(model->forward(both.slice(0, 1, 2)), expected.slice(0, 1, 2)) < 1e-5);
    CHECK(relative_l2(build(name, DType::bf16)->forward(both), expected) < 0.03);
    CHECK(relative_l2(build(name, DType::f16)->forward(both), expected) < 0.005);
  }
}

TEST_CASE("resnet: pooled vectors of each kind") {
  const auto avg = build(kSmall), max = build("ResNet[block=Bottleneck,layers=[1,1,1,1],channels=[8,16,24,32],global_pool=max]"),
             both = build("ResNet[block=Bottleneck,layers=[1,1,1,1],channels=[8,16,24,32],global_pool=catavgmax]");
  const Tensor features = avg->forward_features(images(1, 64, 64));
  const Tensor mean = avg->forward_head(features, true), highest = max->forward_head(features, true);
  const Tensor joined = both->forward_head(features, true);
  REQUIRE(joined.shape() == Shape{1, 256});
  CHECK(both->info().num_features == 256);
  CHECK(relative_l2(joined.slice(1, 0, 128), mean) == 0.0);
  CHECK(relative_l2(joined.slice(1, 128, 256), highest) == 0.0);
}

TEST_CASE("resnet: wrong arguments are refused") {
  CHECK_THROWS_WITH(build("ResNet[layers=[1,1,1,1]]"), contains("argument block is missing"));
  CHECK_THROWS_WITH(build("ResNet[block=Basic,layers=[1]]"), contains("expected one of 'BasicBlock', 'Bottleneck'"));
  CHECK_THROWS_WITH(build("resnet50[layers=[1,1]]"), contains("channels and layers have different lengths"));
  CHECK_THROWS_WITH(build("resnet18[cardinality=32]"), contains("BasicBlock has no cardinality"));
  CHECK_THROWS_WITH(build("resnet18[output_stride=4]"), contains("output_stride, expected 8, 16 or 32"));
  CHECK_THROWS_WITH(build("resnet18[aa_layer=box]"), contains("aa_layer"));
  CHECK_THROWS_WITH(build("resnet18[block_args={\"attn_layer\":\"sa\"}]"), contains("attn_layer"));
  CHECK_THROWS_WITH(build("resnet18[stem_width=1000000000]"), contains("stem_width"));
  CHECK_THROWS_WITH(build("resnet18")->forward(images(1, 32, 32, 4)), contains("expected [B, H, W, 3]"));
}
