#include <cmath>
#include <map>
#include <memory>
#include <string>

#include <catch.h>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;
using vitrine::test::contains;

namespace {

const std::string kNat =
    "NAT[embed_dim=16,depths=[2,1,1],num_heads=[1,2,4],kernel_size=3,dilations=[[1,2],[1],[1]],num_classes=6]";
const std::string kSwin = "DiNAT_s[embed_dim=16,depths=[1,1],num_heads=[1,2],kernel_size=3,num_classes=6]";
const std::string kIsotropic = "NATIsotropic[patch_size=8,embed_dim=16,depth=3,num_heads=2,kernel_size=3,num_classes=6]";

std::unique_ptr<Backbone> build(const std::string& name, DType dtype = DType::f32) {
  return create_model(name, Weights(synthetic_weights(), {.dtype = dtype, .device = {}}));
}

Tensor images(std::int64_t batch, std::int64_t height, std::int64_t width, std::int64_t channels = 3) {
  return synthetic_tensor("input", {batch, height, width, channels});
}

double relative_l2(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const Tensor x = a.contiguous().to(DType::f32), y = b.contiguous().to(DType::f32);
  double difference = 0, reference = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const double d = x.data<float>()[i] - y.data<float>()[i];
    difference += d * d;
    reference += static_cast<double>(y.data<float>()[i]) * y.data<float>()[i];
  }
  return std::sqrt(difference / reference);
}

}  // namespace

TEST_CASE("a batch gives what its images give alone, whatever the number of threads") {
  for (const std::string& name : {kNat, kSwin, kIsotropic}) {
    INFO(name);
    const auto model = build(name);
    const Tensor both = images(2, 40, 56);
    const Tensor logits = model->forward(both);
    REQUIRE(logits.shape() == Shape{2, 6});
    REQUIRE(logits.dtype() == DType::f32);
    CHECK(relative_l2(model->forward(both.slice(0, 1, 2)), logits.slice(0, 1, 2)) < 1e-5);
    Context one({.threads = 1, .device = {}});
    ContextScope scope(one);
    CHECK(relative_l2(model->forward(both), logits) < 1e-5);
  }
}

TEST_CASE("the pyramid has strides and channels of the levels") {
  const auto nat = build(kNat)->forward_intermediates(images(1, 64, 96));
  REQUIRE(nat.size() == 3);
  CHECK(nat[0].map.shape() == Shape{1, 16, 24, 16});
  CHECK(nat[1].map.shape() == Shape{1, 8, 12, 32});
  CHECK(nat[2].map.shape() == Shape{1, 4, 6, 64});
  CHECK(nat[2].stride == 16);
  const auto model = build(kSwin);
  const auto last = model->forward_intermediates(images(1, 64, 96), {.indices = {-1}, .norm = true});
  REQUIRE(last.size() == 1);
  CHECK(last[0].stride == 8);
  CHECK(relative_l2(last[0].map, model->forward_features(images(1, 64, 96))) == 0.0);
  CHECK_THROWS_WITH(model->forward_intermediates(images(1, 64, 96), {.indices = {2}, .norm = false}),
                    contains("no intermediate 2"));
  const auto isotropic = build(kIsotropic)->forward_intermediates(images(1, 64, 96));
  REQUIRE(isotropic.size() == 1);
  CHECK(isotropic[0].map.shape() == Shape{1, 8, 12, 16});
  CHECK(isotropic[0].stride == 8);
}

TEST_CASE("the observer sees the modules of the original") {
  std::map<std::string, Shape> seen;
  const Observer observer = [&](std::string_view path, const Tensor& output) { seen[std::string(path)] = output.shape(); };
  build(kNat)->forward_features(images(1, 64, 96), observer);
  CHECK(seen.at("patch_embed") == Shape{1, 16, 24, 16});
  CHECK(seen.at("levels.0.blocks.1") == Shape{1, 16, 24, 16});
  CHECK(seen.at("levels.0") == Shape{1, 8, 12, 32});  // after its downsampling
  CHECK(seen.at("levels.2") == Shape{1, 4, 6, 64});
}

TEST_CASE("bf16 and f16 stay near f32") {
  for (const std::string& name : {kNat, kSwin, kIsotropic}) {
    INFO(name);
    const Tensor x = images(1, 40, 40), expected = build(name)->forward(x);
    CHECK(relative_l2(build(name, DType::bf16)->forward(x), expected) < 0.02);
    CHECK(relative_l2(build(name, DType::f16)->forward(x), expected) < 0.005);
  }
}

TEST_CASE("a model without head gives its pooled features") {
  const auto model = build("NAT[embed_dim=16,depths=[1],num_heads=[1],num_classes=0]");
  const Tensor features = model->forward_features(images(1, 32, 32));
  CHECK(relative_l2(model->forward_head(features), mean(features, 1, 2)) == 0.0);
  CHECK(relative_l2(model->forward_head(features, true), mean(features, 1, 2)) == 0.0);
}

TEST_CASE("one pixel is enough of an image") {
  for (const std::string& name : {kNat, kSwin, kIsotropic}) {
    INFO(name);
    const Tensor logits = build(name)->forward(images(1, 1, 1));
    for (std::int64_t i = 0; i < logits.numel(); ++i) CHECK(std::isfinite(logits.data<float>()[i]));
  }
}

TEST_CASE("wrong images and configurations are refused") {
  CHECK_THROWS_WITH(build(kNat)->forward(images(1, 32, 32, 1)), contains("images are [1, 32, 32, 1], expected [B, H, W, 3]"));
  CHECK_THROWS_WITH(build("vitrpb_small[img_size=32,num_classes=2,depth=1]")->forward(images(1, 48, 48)),
                    contains("expected 32x32"));
  CHECK_THROWS_WITH(build("NAT[depths=[1],num_heads=[1]]"), contains("embed_dim"));
  CHECK_THROWS_WITH(build("NAT[embed_dim=16,depths=[1,1],num_heads=[1]]"), contains("num_heads and depths"));
  CHECK_THROWS_WITH(build("NAT[embed_dim=16,depths=[1],num_heads=[3]]"), contains("heads divide"));
  CHECK_THROWS_WITH(build("NAT[embed_dim=16,depths=[2],num_heads=[1],dilations=[[1]]]"), contains("dilations has fewer entries"));
  CHECK_THROWS_WITH(build("NAT[embed_dim=1000000000000,depths=[2],num_heads=[1]]"), contains("embed_dim"));
}
