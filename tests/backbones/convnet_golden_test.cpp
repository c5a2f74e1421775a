// Convolutional networks and MLPs against timm and the published code: the published sizes, and small models of other options and
// odd sizes of images.
#include <catch.h>
#include <golden.h>

using namespace vitrine;
using namespace vitrine::test;

namespace {

constexpr int kPublished = 10, kSmall = 15;
const std::string kNames =
    "^(resnet50|convnext_tiny|mixer_b16_224|focalnet_tiny_[sl]rf|hornet_.*|litv2_.*|patchconvnet_.*|flowformer_cv)$";

}  // namespace

TEST_CASE("convolutional networks agree with the originals") {
  if (!have_shared_goldens()) SUCCEED("the published sizes are in the reference folder only");
  for (const DType dtype : {DType::f32, DType::bf16}) {
    if (have_shared_goldens()) verify_cases(goldens() + "/backbones/cases.json", kNames, dtype, kPublished, 0);
    verify_cases(VITRINE_SOURCE_DIR "/tests/data/goldens/convnets/cases.json", "", dtype, kSmall, kSmall);
  }
}
