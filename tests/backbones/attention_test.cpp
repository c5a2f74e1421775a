// Plain vision transformers with every mechanism of the table.
#include <map>
#include <string>

#include <attention2d/compare.h>
#include <catch.h>
#include <fmt/format.h>

#include <vitrine/attention2d/mixer.h>
#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

using test::contains;
using test::difference;

// 8 x 12 tokens.
constexpr const char* kSmall = "img_size=[32,48],patch_size=4,embed_dim=32,depth=2,num_heads=2,num_classes=5";

std::unique_ptr<Backbone> build(const std::string& arguments, const Weights& w = Weights(synthetic_weights())) {
  return create_model(fmt::format("vit_tiny_patch16_224[{},{}]", kSmall, arguments), w);
}

// Options that fit 8 x 12 tokens, where the defaults do not.
std::string options_of(const Mechanism& mechanism) {
  static const std::map<std::string, std::string, std::less<>> kOptions{
      {"window", "window_size=5,shift_size=2"},
      {"window_v2", "window_size=[4,6],shift_size=[2,3]"},
      {"partition", "size=4"},
      {"halo", "block_size=4,halo_size=1"},
      {"agent", "agent_num=9"},
      {"aggregated", "sr_ratio=3"},
      {"bi_level_routing", "n_win=4,topk=3"},
      {"neighborhood", "kernel_size=[3,5],dilation=2"},
      {"vsa", "window_size=5"},
      {"gnconv", "order=3,scale=0.5"},
  };
  const auto found = kOptions.find(mechanism.name);
  return fmt::format("attention={}{}{}", mechanism.name, found == kOptions.end() ? "" : ",",
                     found == kOptions.end() ? "" : found->second);
}

TEST_CASE("a plain ViT runs with every mechanism, each image by itself, for any number of threads") {
  const Tensor images = synthetic_tensor("images", {2, 32, 48, 3});
  Context one({.threads = 1, .device = {}}), many({.threads = 3, .device = {}});
  const auto under = [&](Context& context, const Backbone& model, const Tensor& x) {
    const ContextScope scope(context);
    return model.forward(x);
  };
  std::map<std::string, Tensor> seen;
  for (const Mechanism& mechanism : mechanisms()) {
    INFO(mechanism.name);
    const auto model = build(options_of(mechanism));
    const Tensor logits = under(one, *model, images);
    CHECK(logits.shape() == Shape{2, 5});
    CHECK(test::same_bits(under(many, *model, images), logits));
    CHECK(difference(under(one, *model, images.slice(0, 1, 2)), logits.slice(0, 1, 2), 1e-4) == "");
    const std::int64_t tokens = mechanism.takes_prefix ? 97 : 96;
    CHECK(model->forward_features(images).shape() == Shape{2, tokens, 32});
    // No two of them are the same function.
    for (const auto& [other, values] : seen) {
      INFO(other);
      CHECK(difference(logits, values, 1e-4) != "");
    }
    seen.emplace(mechanism.name, logits);
  }
}

TEST_CASE("mechanisms with a prefix run without one, with registers, in bf16") {
  const Tensor images = synthetic_tensor("images", {1, 32, 48, 3});
  for (const Mechanism& mechanism : mechanisms()) {
    INFO(mechanism.name);
    const std::string options = options_of(mechanism);
    CHECK(build(options + ",class_token=false,global_pool=avg")->forward(images).shape() == Shape{1, 5});
    CHECK(build(options + ",init_values=0.1")->forward(images).shape() == Shape{1, 5});
    const auto halved = build(options, Weights(synthetic_weights(), {.dtype = DType::bf16, .device = {}}));
    CHECK(difference(halved->forward(images.to(DType::bf16)), build(options)->forward(images), 0.1) == "");
    if (mechanism.takes_prefix && mechanism.name != "agent" && mechanism.name != "inline")
      CHECK(build(options + ",reg_tokens=3")->forward(images).shape() == Shape{1, 5});
  }
}

TEST_CASE("global attention by name is the ViT's own, and a neighborhood of the whole map too") {
  const Tensor images = synthetic_tensor("images", {2, 32, 48, 3});
  const Tensor expected = build("class_token=true")->forward(images);
  CHECK(difference(build("attention=global")->forward(images), expected, 1e-5) == "");
  CHECK(difference(build("attention=neighborhood,kernel_size=[8,12],rel_pos_bias=false")->forward(images), expected, 1e-5) == "");
}

TEST_CASE("windows shift in every second block only") {
  const Tensor images = synthetic_tensor("images", {1, 32, 48, 3});
  const auto at_depth = [&](int depth, int shift) {
    return build(fmt::format("attention=window,window_size=4,shift_size={},depth={}", shift, depth))->forward(images);
  };
  CHECK(test::same_bits(at_depth(1, 2), at_depth(1, 0)));
  CHECK(difference(at_depth(2, 2), at_depth(2, 0), 1e-4) != "");
}

TEST_CASE("layer scale and residual follow mechanisms without a last projection, too") {
  const Tensor x = synthetic_tensor("x", {2, 16, 32}), scale = synthetic_tensor("scale", {32}),
               residual = synthetic_tensor("r", {2, 16, 32});
  for (const Mechanism& mechanism : mechanisms()) {
    INFO(mechanism.name);
    MixerConfig config;
    config.dim = 32;
    config.num_heads = 2;
    config.tokens = {0, 4, 4};
    if (mechanism.name == "window_v2" || mechanism.name == "window" || mechanism.name == "vsa")
      config.values["window_size"] = {4, 4};
    if (mechanism.name == "partition") config.values["size"] = {2, 2};
    if (mechanism.name == "halo") config.values["block_size"] = {2, 2};
    if (mechanism.name == "bi_level_routing") config.values["n_win"] = config.values["topk"] = {2, 2};
    if (mechanism.name == "agent") config.values["agent_num"] = {4, 4};
    if (mechanism.name == "neighborhood") config.values["kernel_size"] = {3, 3};
    const Weights w(synthetic_weights());
    const auto plain = make_mixer(mechanism, w / "a", config);
    config.proj.scale = scale;
    const auto scaled = make_mixer(mechanism, w / "a", config);
    const Tensor expected = add(multiply((*plain)(x, config.tokens), scale), residual);
    CHECK(difference((*scaled)(x, config.tokens, residual), expected, 1e-5) == "");
  }
}

TEST_CASE("wrong mechanisms and options are refused in one line") {
  const auto error = [](const std::string& arguments) -> std::string {
    try {
      build(arguments)->forward(synthetic_tensor("images", {1, 32, 48, 3}));
    } catch (const Error& e) {
      return e.what();
    }
    return {};
  };
  const auto has = [](const std::string& text, const std::string& part) {
    INFO(text);
    return text.find(part) != std::string::npos && text.find('\n') == std::string::npos;
  };
  CHECK(has(error("attention=neighbourhood"), "unknown attention 'neighbourhood'; nearest: neighborhood"));
  CHECK(has(error("attention=window,kernel_size=3"), "unknown argument kernel_size=3"));
  CHECK(has(error("kernel_size=3"), "unknown argument kernel_size=3"));
  CHECK(has(error("attention=window,window_size=0"), "window_size is 0, expected an integer from 1 to 1024"));
  CHECK(has(error("attention=window,window_size=2.5"), "window_size is 2.5, expected an integer"));
  CHECK(has(error("attention=hilo,alpha=1.5"), "alpha is 1.5, expected 0 to 1"));
  CHECK(has(error("attention=window,pad=never"), "argument pad is 'never', expected one of 'roll_then_pad'"));
  CHECK(has(error("attention=window,class_token=true"), "works on maps only"));
  CHECK(has(error("attention=focal,reg_tokens=4"), "works on maps only"));
  CHECK(has(error("attention=focal,global_pool=token"), "global_pool 'token' needs class_token"));
  CHECK(has(error("attention=neighborhood,kernel_size=9"), "axis 0 of size 8"));
  CHECK(has(error("attention=hilo,window_size=5"), "5"));
  CHECK(has(error("attention=partition,size=5"), "5"));
  CHECK(has(error("attention=gnconv,order=7"), "dim 32 with order 7"));
  CHECK(has(error("attention=global,num_kv_heads=3"), "2 heads are not a multiple of num_kv_heads 3"));
  CHECK(has(error("attention=agent,agent_num=5"), "5"));
  CHECK(has(error("attention=focal,block_fn=ParallelScalingBlock"), "attention needs block_fn"));
  CHECK(has(error("attention=focal,qk_norm=true"), "qk_norm and scale_attn_norm do not exist"));
}

TEST_CASE("every option has a default within its range and says what it is") {
  for (const Mechanism& mechanism : mechanisms()) {
    CHECK(&find_mechanism(mechanism.name) == &mechanism);
    CHECK(!mechanism.what.empty());
    for (const MixerOption& option : mechanism.options) {
      INFO(mechanism.name << " " << option.name);
      CHECK(!option.what.empty());
      CHECK(option.least <= option.otherwise);
      CHECK(option.otherwise <= option.most);
      if (option.kind == MixerOptionKind::choice) CHECK(option.most + 1 == static_cast<double>(option.choices.size()));
    }
  }
}

}  // namespace
}  // namespace vitrine
