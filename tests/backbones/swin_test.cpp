#include <map>
#include <string>
#include <utility>

#include <catch.h>
#include "backbones/support.h"

#include <vitrine/layers/context.h>
#include <vitrine/layers/error.h>

using namespace vitrine;
using namespace vitrine::test;

namespace {

const std::string kSmall = "img_size=[32,48],patch_size=4,embed_dim=16,depths=[2,2],num_heads=[1,2],window_size=3,num_classes=6";
const std::string kSwin = "SwinTransformer[" + kSmall + "]", kSwinV2 = "SwinTransformerV2[" + kSmall + "]";
const std::string kDavit = "DaVit[embed_dims=[16,32],depths=[1,1],num_heads=[1,2],window_size=3,num_classes=6]";

std::map<std::string, Tensor> small_swin() {
  std::map<std::string, Tensor> tensors;
  const auto add = [&](const std::string& name, const Shape& shape) { tensors[name] = synthetic_parameter(name, shape); };
  const auto norm = [&](const std::string& name, std::int64_t dim) { add(name + ".weight", {dim}), add(name + ".bias", {dim}); };
  const auto linear = [&](const std::string& name, std::int64_t in, std::int64_t out) {
    add(name + ".weight", {out, in}), add(name + ".bias", {out});
  };
  add("patch_embed.proj.weight", {8, 3, 4, 4});
  add("patch_embed.proj.bias", {8});
  norm("patch_embed.norm", 8);
  for (const auto& [stage, dim] : {std::pair<std::string, std::int64_t>("0", 8), {"1", 16}}) {
    const std::string block = "layers." + stage + ".blocks.0.";
    norm(block + "norm1", dim), norm(block + "norm2", dim);
    add(block + "attn.relative_position_bias_table", {25, 1});
    linear(block + "attn.qkv", dim, 3 * dim), linear(block + "attn.proj", dim, dim);
    linear(block + "mlp.fc1", dim, 4 * dim), linear(block + "mlp.fc2", 4 * dim, dim);
  }
  norm("layers.1.downsample.norm", 32);
  add("layers.1.downsample.reduction.weight", {16, 32});
  norm("norm", 16);
  linear("head.fc", 16, 5);
  return tensors;
}

const std::string kStored = "SwinTransformer[img_size=32,embed_dim=8,depths=[1,1],num_heads=[1,1],window_size=3]";

std::unique_ptr<Backbone> stored(std::map<std::string, Tensor> tensors, const std::string& name = kStored) {
  return create_model(name, Weights(memory_weights(std::move(tensors), "memory")));
}

}  // namespace

TEST_CASE("swins: a batch gives what its images give alone, whatever the number of threads") {
  for (const std::string& name : {kSwin, kSwinV2, kDavit}) {
    INFO(name);
    const auto model = build(name);
    const Tensor both = images(2, 32, 48), logits = model->forward(both);
    REQUIRE(logits.shape() == Shape{2, 6});
    CHECK(relative_l2(model->forward(both.slice(0, 1, 2)), logits.slice(0, 1, 2)) < 1e-5);
    Context one({.threads = 1, .device = {}});
    ContextScope scope(one);
    CHECK(relative_l2(model->forward(both), logits) < 1e-5);
  }
}

TEST_CASE("swins: pyramids have strides and channels of the stages, the observer their modules") {
  for (const std::string& name : {kSwin, kSwinV2, kDavit}) {
    INFO(name);
    const auto model = build(name);
    const auto maps = model->forward_intermediates(images(1, 32, 48));
    REQUIRE(maps.size() == 2);
    CHECK(maps[0].map.shape() == Shape{1, 8, 12, 16});
    CHECK(maps[1].map.shape() == Shape{1, 4, 6, 32});
    CHECK(maps[1].stride == 8);
    std::map<std::string, Shape> seen;
    model->forward_features(images(1, 32, 48),
                            [&](std::string_view path, const Tensor& y) { seen[std::string(path)] = y.shape(); });
    CHECK(seen.at(name == kDavit ? "stages.1.blocks.0" : "layers.1.blocks.1") == Shape{1, 4, 6, 32});
    CHECK(seen.at(name == kDavit ? "stages.0" : "layers.0") == Shape{1, 8, 12, 16});
  }
}

TEST_CASE("swins: bf16 and f16 stay near f32") {
  for (const std::string& name : {kSwin, kSwinV2, kDavit}) {
    INFO(name);
    const Tensor x = images(1, 32, 48), expected = build(name)->forward(x);
    CHECK(relative_l2(build(name, DType::bf16)->forward(x), expected) < 0.02);
    CHECK(relative_l2(build(name, DType::f16)->forward(x), expected) < 0.005);
  }
}

TEST_CASE("swin takes images of its size, or any that the patch divides") {
  CHECK_THROWS_WITH(build(kSwin)->forward(images(1, 48, 48)), contains("expected 32x48; give img_size=[48,48]"));
  const std::string any = "SwinTransformer[strict_img_size=false," + kSmall + "]";
  CHECK(build(any)->forward_features(images(1, 20, 44)).shape() == Shape{1, 3, 6, 32});
  CHECK(relative_l2(build(any)->forward(images(1, 32, 48)), build(kSwin)->forward(images(1, 32, 48))) == 0.0);
  CHECK_THROWS_WITH(build(any)->forward(images(1, 21, 44)), contains("not a multiple of the patch"));
  // a convolution of stride 4 leaves the last two rows out
  const std::string odd =
      "SwinTransformer[img_size=[34,48],embed_dim=16,depths=[2,2],num_heads=[1,2],window_size=3,num_classes=6]";
  CHECK(relative_l2(build(odd)->forward(images(1, 34, 48)),
                    build(kSwin)->forward(images(1, 34, 48).slice(1, 0, 32).contiguous())) == 0.0);
}

TEST_CASE("swin: windows once, as a pair, or per stage") {
  const auto with = [](const std::string& window, std::int64_t side = 32) {
    return build("SwinTransformer[img_size=" + std::to_string(side) +
                 ",embed_dim=16,depths=[2,2],num_heads=[1,2],num_classes=6,window_size=" + window + "]")
        ->forward(images(1, side, side));
  };
  CHECK(relative_l2(with("[3,3]"), with("3")) == 0.0);
  CHECK(relative_l2(with("[[3,3],[3,3]]"), with("3")) == 0.0);
  CHECK(relative_l2(with("[[3,3],[2,3]]"), with("3")) > 1e-3);
  CHECK(relative_l2(with("100"), with("8")) == 0.0);  // no larger than the map
  CHECK_THROWS_WITH(with("[[3,3],[3,3],[3,3]]"), contains("window_size has 3 entries, expected one or 2"));
}

TEST_CASE("swin reads files of microsoft/Swin-Transformer") {
  std::map<std::string, Tensor> theirs;
  for (const auto& [name, tensor] : small_swin()) {
    std::string old = name;
    if (old.starts_with("layers.1.downsample")) old[7] = '0';
    if (old.starts_with("head.fc.")) old.erase(5, 3);
    theirs[old] = tensor;
  }
  theirs["layers.0.blocks.0.attn.relative_position_index"] = Tensor::zeros({9, 9}, DType::i64);
  theirs["layers.0.blocks.0.attn_mask"] = Tensor::zeros({4, 9, 9});
  const auto model = stored(theirs);
  CHECK(model->info().num_classes == 5);  // the head says it
  CHECK(relative_l2(model->forward(images(1, 32, 32)), stored(small_swin())->forward(images(1, 32, 32))) == 0.0);
}

TEST_CASE("swin resamples stored tables for windows of another size") {
  std::string other = kStored;
  other.replace(other.find("window_size=3"), 13, "window_size=[4,5]");
  const Tensor logits = stored(small_swin(), other)->forward(images(1, 32, 32));
  CHECK(logits.shape() == Shape{1, 5});
  auto wrong = small_swin();
  wrong["layers.0.blocks.0.attn.relative_position_bias_table"] = Tensor::zeros({24, 1});
  CHECK_THROWS_WITH(stored(wrong), contains("relative_position_bias_table is [24, 1], expected [25, 1]"));
}

TEST_CASE("swins: arguments out of range are refused") {
  CHECK_THROWS_WITH(build("SwinTransformer[embed_dim=16,depths=[1],num_heads=[3]]"), contains("num_heads must divide"));
  CHECK_THROWS_WITH(build("SwinTransformer[embed_dim=16,depths=[1,1],num_heads=[1]]"), contains("different lengths"));
  CHECK_THROWS_WITH(build("SwinTransformer[embed_dim=1000000000000]"), contains("embed_dim"));
  CHECK_THROWS_WITH(build("SwinTransformer[img_size=2]"), contains("smaller than patch_size"));
  CHECK_THROWS_WITH(build("SwinTransformer[img_size=4000,window_size=1000]"), contains("window_size is 1000x1000"));
  CHECK_THROWS_WITH(build("SwinTransformerV2[act_layer=gule]"), contains("gule"));
  CHECK_THROWS_WITH(build("DaVit[attn_types=[\"spatiall\"]]"), contains("spatiall"));
  CHECK_THROWS_WITH(build("DaVit[embed_dims=[96]]"), contains("different lengths"));
  CHECK_THROWS_WITH(build("DaVit[global_pool=catavgmax]"), contains("head_norm_first"));
}

TEST_CASE("davit pads maps of any size, and its parts can be left out") {
  CHECK(build(kDavit)->forward_features(images(1, 33, 45)).shape() == Shape{1, 5, 6, 32});
  const Tensor x = images(1, 33, 45), plain = build(kDavit)->forward(x);
  for (const char* option : {"cpe_act=true", "ffn=false", "channel_attn_v2=true", "head_norm_first=true", "down_kernel_size=3",
                             "attn_types=[\"channel\"]", "global_pool=max"}) {
    INFO(option);
    CHECK(relative_l2(build("DaVit[" + std::string(option) + "," + kDavit.substr(6))->forward(x), plain) > 1e-3);
  }
}

namespace {

const std::string kMaxvit =
    "MaxxVit[img_size=64,embed_dim=[32,64],depths=[1,1],block_type=[\"M\",\"M\"],stem_width=[8,16],transformer_window_size=4,num_"
    "classes="
    "6]";
const std::string kCoatnet =
    "MaxxVit[img_size=64,embed_dim=[32,64],depths=[1,1],block_type=[\"C\",[\"T\"]],stem_width=16,num_classes=6]";

}  // namespace

TEST_CASE("maxvit and coatnet: batches, pyramids, other types") {
  for (const std::string& name : {kMaxvit, kCoatnet}) {
    INFO(name);
    const auto model = build(name);
    const Tensor both = images(2, 64, 64), logits = model->forward(both);
    REQUIRE(logits.shape() == Shape{2, 6});
    CHECK(relative_l2(model->forward(both.slice(0, 1, 2)), logits.slice(0, 1, 2)) < 1e-5);
    CHECK(relative_l2(build(name, DType::bf16)->forward(both), logits) < 0.02);
    CHECK(relative_l2(build(name, DType::f16)->forward(both), logits) < 0.005);
    const auto maps = model->forward_intermediates(both);
    REQUIRE(maps.size() == 3);  // the stem's first
    CHECK(maps[0].map.shape() == Shape{2, 32, 32, 16});
    CHECK(maps[2].map.shape() == Shape{2, 8, 8, 64});
    CHECK(maps[2].stride == 8);
  }
  CHECK(build(kMaxvit)->forward(images(1, 96, 128)).shape() == Shape{1, 6});  // whole numbers of windows
  CHECK_THROWS_WITH(build(kMaxvit)->forward(images(1, 72, 64)), contains("multiples of 4x4"));
  CHECK_THROWS_WITH(build(kCoatnet)->forward(images(1, 96, 96)), contains("expected 8x8"));
}

TEST_CASE("maxvit: arguments out of range are refused") {
  CHECK_THROWS_WITH(build("MaxxVit[block_type=[\"C\",\"C\",\"T\",\"X\"]]"), contains("X"));
  CHECK_THROWS_WITH(build("MaxxVit[block_type=[\"C\"]]"), contains("block_type has fewer entries"));
  CHECK_THROWS_WITH(build("MaxxVit[img_size=16]"), contains("window of 0x0"));
  CHECK_THROWS_WITH(build("MaxxVit[embed_dim=[1]]"), contains("different lengths"));
  CHECK_THROWS_WITH(build("MaxxVit[conv_stride_mode=2x2]"), contains("2x2"));
}

TEST_CASE("halonet: batches, pyramids, arguments") {
  const std::string name = "halonet26t[blocks=[\"b\",\"a\"],widths=[32,64],strides=[1,2],num_heads=2,stem_chs=16,num_classes=6";
  const auto model = build(name + "]");
  const Tensor both = images(2, 64, 128), logits = model->forward(both);
  REQUIRE(logits.shape() == Shape{2, 6});
  CHECK(relative_l2(model->forward(both.slice(0, 1, 2)), logits.slice(0, 1, 2)) < 1e-5);
  CHECK(relative_l2(build(name + "]", DType::bf16)->forward(both), logits) < 0.03);
  const auto maps = model->forward_intermediates(both);
  REQUIRE(maps.size() == 3);
  CHECK(maps[0].map.shape() == Shape{2, 32, 64, 16});  // before the stem's pooling
  CHECK(maps[2].map.shape() == Shape{2, 8, 16, 64});
  CHECK(maps[2].stride == 8);
  CHECK_THROWS_WITH(model->forward(images(1, 72, 64)), contains("multiples of block_size 8"));
  CHECK_THROWS_WITH(build(name + ",num_heads=3]"), contains("3 heads do not divide"));
  CHECK_THROWS_WITH(build(name + ",stem_pool=avgpool]"), contains("avgpool"));
  CHECK_THROWS_WITH(build("halonet26t[widths=[1]]"), contains("different lengths"));
  CHECK_THROWS_WITH(build("halonet26t[blocks=[\"b\",\"c\"],widths=[32,64],strides=[1,2],num_heads=2]"), contains("a or b"));
}
