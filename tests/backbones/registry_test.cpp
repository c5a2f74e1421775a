#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>

#include <catch.h>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/error.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;
using vitrine::test::contains;

namespace {

constexpr const char* kTiny = R"(nat[embed_dim=8,depths=[1,1],num_heads=[1,2],kernel_size=3,mlp_ratio=2])";

std::unique_ptr<Backbone> tiny(const Arguments& arguments = {}) {
  return create_model(kTiny, Weights(synthetic_weights()), arguments);
}

}  // namespace

TEST_CASE("models are listed by shell patterns, each once, and found by name") {
  const auto all = list_models();
  std::set<std::string> names;
  for (const auto& entry : all) {
    CHECK(names.insert(entry.name).second);
    CHECK(is_model(entry.name));
  }
  const auto nat = list_models("nat_*");
  CHECK(nat.size() >= 4);
  CHECK(std::all_of(nat.begin(), nat.end(), [](const ModelEntry& e) { return e.name.starts_with("nat_"); }));
  CHECK(list_models("nat_min?").size() == 1);
  CHECK(list_models("*at_m*ni").size() == 2);
  CHECK(list_models("nat").empty());
  CHECK(is_model("NAT"));
  CHECK_FALSE(is_model("nat_min"));
  CHECK(is_model("nat_mini[num_classes=3]"));
}

TEST_CASE("an unknown model names the nearest ones") {
  CHECK_THROWS_WITH(create_model("nat_mimi", Weights(synthetic_weights())),
                    contains("unknown model 'nat_mimi'") && contains("nat_mini"));
  CHECK_THROWS_WITH(create_model("nat_mini[num_classes=3", Weights(synthetic_weights())),
                    contains("expected NAME[key=value,...]"));
  CHECK_THROWS_WITH(tiny({{"kernel", "3"}}), contains("unknown argument kernel=3") && contains("kernel_size"));
}

TEST_CASE("arguments: the map wins over the brackets") {
  CHECK(tiny()->info().num_classes == 1000);
  CHECK(tiny({{"num_classes", "5"}})->info().num_classes == 5);
  CHECK(create_model("nat[embed_dim=8,depths=[1],num_heads=[1],num_classes=5]", Weights(synthetic_weights()),
                     {{"num_classes", "6"}})
            ->info()
            .num_classes == 6);
}

TEST_CASE("what a model says of itself") {
  const auto model = tiny({{"num_classes", "5"}, {"in_chans", "1"}, {"img_size", "[40, 56]"}});
  const ModelInfo& info = model->info();
  CHECK(info.name == kTiny);
  CHECK(info.family == "nat");
  CHECK(info.num_features == 16);
  CHECK(info.preprocess.channels == 1);
  CHECK(info.preprocess.mean.size() == 1);
  CHECK(info.preprocess.height == 40);
  CHECK(info.preprocess.width == 56);
  // stem 9 * 4 + 4, 36 * 8 + 8, norm 16; blocks 8: qkv 216, rpb 25, proj 72, norms 32, mlp 128 + 16 + 128 + 8; ...
  const auto block = [](std::int64_t c, std::int64_t heads) {
    return 4 * c * c + 4 * c + 25 * heads + 4 * c + 4 * c * c + 3 * c;
  };
  CHECK(info.parameters == 40 + 296 + 16 + block(8, 1) + (8 * 16 * 9 + 32) + block(16, 2) + 32 + 16 * 5 + 5);
  CHECK(info.parameter_bytes == 4 * info.parameters);
  CHECK(default_preprocess("dinat_large_384").height == 384);
  CHECK(default_preprocess("dinat_large_384").crop_pct == 1.0);
  CHECK(default_preprocess("nat_mini[img_size=256]").width == 256);
}

TEST_CASE("the head follows a fine-tuned checkpoint, unless a number of classes is asked for") {
  const auto open = synthetic_weights();
  std::map<std::string, Tensor> tensors;
  const auto put = [&](const std::string& name, const Shape& shape) { tensors[name] = open->load(name, shape); };
  put("patch_embed.proj.0.weight", {4, 3, 3, 3}), put("patch_embed.proj.0.bias", {4});
  put("patch_embed.proj.1.weight", {8, 4, 3, 3}), put("patch_embed.proj.1.bias", {8});
  put("patch_embed.norm.weight", {8}), put("patch_embed.norm.bias", {8});
  const std::string b = "levels.0.blocks.0.";
  for (const char* norm : {"norm1", "norm2"}) put(b + norm + ".weight", {8}), put(b + norm + ".bias", {8});
  put(b + "attn.qkv.weight", {24, 8}), put(b + "attn.qkv.bias", {24}), put(b + "attn.rpb", {1, 13, 13});
  put(b + "attn.proj.weight", {8, 8}), put(b + "attn.proj.bias", {8});
  put(b + "mlp.fc1.weight", {24, 8}), put(b + "mlp.fc1.bias", {24}), put(b + "mlp.fc2.weight", {8, 24}),
      put(b + "mlp.fc2.bias", {8});
  put("norm.weight", {8}), put("norm.bias", {8});
  put("head.weight", {4, 8}), put("head.bias", {4});
  const std::string name = "NAT[embed_dim=8,depths=[1],num_heads=[1],mlp_ratio=3]";
  CHECK(create_model(name, Weights(memory_weights(tensors, "tuned")))->info().num_classes == 4);
  CHECK_THROWS_WITH(create_model(name, Weights(memory_weights(tensors, "tuned")), {{"num_classes", "6"}}),
                    contains("head.weight is [4, 8], expected [6, 8]"));
  tensors.erase("norm.bias");
  tensors["norm.bais"] = Tensor::zeros({8});
  CHECK_THROWS_WITH(create_model(name, Weights(memory_weights(tensors, "tuned"))),
                    contains("norm.bias") && contains("norm.bais"));
}
