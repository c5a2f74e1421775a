// The diffusion U-Net: identities, its other attentions, configurations that make no sense. Numbers are in the golden tests.
#include <cmath>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <utility>

#include <backbones/compvis.h>
#include <backbones/support.h>
#include <catch.h>

#include <vitrine/backbones/unet.h>
#include <vitrine/layers/context.h>

namespace vitrine {
namespace {

using test::contains;
using test::Recorder;
using test::relative_l2;

const Arguments kSmall{{"block_out_channels", "[16,32]"},
                       {"down_block_types", R"(["CrossAttnDownBlock2D","DownBlock2D"])"},
                       {"up_block_types", R"(["UpBlock2D","CrossAttnUpBlock2D"])"},
                       {"layers_per_block", "1"},
                       {"norm_num_groups", "8"},
                       {"cross_attention_dim", "12"},
                       {"attention_head_dim", "4"}};

Arguments with(Arguments arguments, const std::string& name, const std::string& value) {
  arguments[name] = value;
  return arguments;
}
UNet unet(const Arguments& arguments = kSmall) { return UNet(Weights(synthetic_weights()), parse_unet_config(arguments)); }
std::unique_ptr<Denoiser> unet_of(const std::shared_ptr<const WeightSource>& source, const Arguments& arguments) {
  return create_denoiser("UNet2DConditionModel", Weights(source), arguments);
}

Tensor latents(std::int64_t batch = 2, std::int64_t height = 8, std::int64_t width = 6) {
  return synthetic_tensor("latents", {batch, height, width, 4});
}
Tensor times(std::int64_t batch = 2, float value = 500) { return Tensor::full({batch}, value); }
Conditioning text(std::int64_t batch = 2) { return {.text = synthetic_tensor("text", {batch, 5, 12})}; }
Tensor integers(const std::vector<std::int64_t>& values, const Shape& shape) {
  Tensor t = Tensor::empty(shape, DType::i64);
  std::copy(values.begin(), values.end(), t.data<std::int64_t>());
  return t;
}

TEST_CASE("the U-Net is built by its class and by published names") {
  const auto built = unet_of(synthetic_weights(), kSmall);
  CHECK(built->info().name == "UNet2DConditionModel");
  CHECK(contains("diffusers").match(built->info().source));
  CHECK(built->info().text_channels == 12);
  CHECK(built->info().parameters > 0);
  CHECK(relative_l2(built->forward(latents(), times(), text()), unet().forward(latents(), times(), text())) == 0);
  Context context({.threads = 1, .device = {}, .dry_run = true});
  const ContextScope scope(context);
  // As published: numbers of parameters.
  constexpr std::pair<const char*, std::int64_t> kPublished[] = {
      {"stable-diffusion-v1-5", 859520964}, {"stable-diffusion-2-1", 865910724}, {"stable-diffusion-xl-base-1.0", 2567463684}};
  for (const auto& [name, parameters] : kPublished)
    CHECK(create_denoiser(name, Weights(zero_weights()))->info().parameters == parameters);
  CHECK_THROWS_WITH(create_denoiser("stable-diffusion-v1-4", Weights(synthetic_weights())),
                    contains("unknown denoiser") && contains("stable-diffusion-v1-5"));
}

TEST_CASE("pictures of a U-Net's batch do not meet") {
  const UNet model = unet();
  const Tensor x = latents(), t = Tensor::from(std::vector<float>{3, 900}, {2});
  const Conditioning both = text();
  const Tensor y = model.forward(x, t, both);
  for (std::int64_t i = 0; i < 2; ++i) {
    const Tensor one = model.forward(x.slice(0, i, i + 1), t.slice(0, i, i + 1), {.text = both.text.slice(0, i, i + 1)});
    CHECK(relative_l2(one, y.slice(0, i, i + 1)) < 1e-5);
  }
  CHECK(relative_l2(model.forward(x, times(), both), y) > 1e-2);
}

TEST_CASE("masked words of a U-Net's text are not seen") {
  const UNet model = unet();
  const Tensor mask = integers({1, 1, 1, 0, 0, 1, 1, 1, 0, 0}, {2, 5});
  Conditioning masked = text(), shorter = text();
  masked.text_mask = mask;
  shorter.text = shorter.text.slice(1, 0, 3);
  const Tensor y = model.forward(latents(), times(), masked);
  CHECK(relative_l2(y, model.forward(latents(), times(), shorter)) < 1e-5);
  CHECK(relative_l2(y, model.forward(latents(), times(), text())) > 1e-3);
}

TEST_CASE("the observer of a U-Net sees its blocks") {
  std::map<std::string, Shape> seen;
  unet().forward(latents(1), times(1), text(1),
                 [&](std::string_view path, const Tensor& x) { seen[std::string(path)] = x.shape(); });
  CHECK(seen.at("conv_in") == Shape{1, 16, 8, 6});
  CHECK(seen.at("down_blocks.0") == Shape{1, 16, 4, 3});
  CHECK(seen.at("down_blocks.1") == Shape{1, 32, 4, 3});
  CHECK(seen.at("mid_block") == Shape{1, 32, 4, 3});
  CHECK(seen.at("up_blocks.0") == Shape{1, 32, 8, 6});
  CHECK(seen.at("up_blocks.1") == Shape{1, 16, 8, 6});
  CHECK(seen.size() == 6);
}

TEST_CASE("a distilled guidance scale is one more time of the U-Net") {
  const UNet model = unet(with(kSmall, "time_cond_proj_dim", "10"));
  CHECK(model.info().takes_guidance);
  Conditioning guided = text();
  CHECK_THROWS_WITH(model.forward(latents(), times(), guided), contains("guidance is missing, expected [2]"));
  guided.guidance = Tensor::full({2}, 8.5f);
  const Tensor y = model.forward(latents(), times(), guided);
  // The embedding of (8.5 - 1) * 1000, as latent consistency models' pipelines make it: sines, then cosines.
  Tensor embedding = Tensor::empty({2, 10});
  for (int i = 0; i < 20; ++i) {
    const double angle = 7500.0 * std::exp(-std::log(10000.0) * (i % 5) / 4);
    embedding.data<float>()[i] = static_cast<float>(i % 10 < 5 ? std::sin(angle) : std::cos(angle));
  }
  guided.guidance = embedding;
  CHECK(relative_l2(model.forward(latents(), times(), guided), y) < 1e-3);  // angles of thousands are rounded
  guided.guidance = Tensor::full({2}, 4.0f);
  CHECK(relative_l2(model.forward(latents(), times(), guided), y) > 1e-2);
  guided.guidance = Tensor::zeros({2, 9});
  CHECK_THROWS_WITH(model.forward(latents(), times(), guided), contains("guidance is [2, 9], expected [2, 10]"));
}

TEST_CASE("agent attention that merges nothing is the U-Net's own") {
  const Arguments agent = with(kSmall, "attention", "\"agent\"");
  const Tensor y = unet().forward(latents(), times(), text());
  const UNet model = unet(with(agent, "agent", R"({"ratio":0,"agent_ratio":0})"));
  CHECK(relative_l2(model.forward(latents(), times(), text()), y) < 1e-5);
  // The published defaults merge half of the tokens of the largest map.
  const Tensor merged = unet(agent).forward(latents(), times(), text());
  CHECK(relative_l2(merged, y) > 1e-3);
  CHECK(relative_l2(model.with_agent({}).forward(latents(), times(), text()), merged) == 0);
  CHECK(relative_l2(unet(with(agent, "agent", R"({"max_downsample":0})")).forward(latents(), times(), text()), y) < 1e-5);
  CHECK_THROWS_WITH(unet().with_agent({}), contains("whose attention is not agent"));
}

TEST_CASE("LinFusion's own file replaces the U-Net's self-attention") {
  const Arguments linear = with(kSmall, "attention", "\"linfusion\"");
  const UNetConfig config = parse_unet_config(linear);
  const auto recorder = std::make_shared<Recorder>();
  const Tensor expected = UNet(Weights(recorder), config).forward(latents(), times(), text());
  // Down, up, middle: the order of the original's modules.
  const std::string paths[] = {
      "down_blocks.0.attentions.0.transformer_blocks.0.attn1.", "up_blocks.1.attentions.0.transformer_blocks.0.attn1.",
      "up_blocks.1.attentions.1.transformer_blocks.0.attn1.", "mid_block.attentions.0.transformer_blocks.0.attn1."};
  std::map<std::string, Tensor> unet_file, linfusion_file;
  for (const auto& [name, tensor] : recorder->tensors) {
    unet_file[name] = tensor;
    for (std::size_t i = 0; i < 4; ++i)
      if (name.starts_with(paths[i])) {
        unet_file.erase(name);
        if (name.find("to_q_") == name.npos && name.find("to_k_") == name.npos) unet_file[name] = Tensor::zeros(tensor.shape());
        linfusion_file[std::to_string(i) + "." + name.substr(paths[i].size())] = tensor;
      }
  }
  REQUIRE(linfusion_file.contains("3.to_q_.0.weight"));
  const auto both = with_linfusion(memory_weights(unet_file, "unet"), memory_weights(linfusion_file, "linfusion"), config);
  CHECK(relative_l2(unet_of(both, linear)->forward(latents(), times(), text()), expected) == 0);
  CHECK_THROWS_WITH(unet_of(memory_weights(unet_file, "unet"), linear), contains("missing") && contains("attn1.to_k_.0.weight"));
}

TEST_CASE("the U-Net in a pipeline's file of CompVis") {
  Arguments arguments = with(with(kSmall, "layers_per_block", "2"), "addition_embed_type", "\"text_time\"");
  arguments = with(with(arguments, "addition_time_embed_dim", "4"), "projection_class_embeddings_input_dim", "30");
  const auto recorder = std::make_shared<Recorder>();
  Conditioning c = text();
  c.pooled = synthetic_tensor("pooled", {2, 6});
  c.time_ids = Tensor::full({2, 6}, 64.0f);
  const Tensor expected = unet_of(recorder, arguments)->forward(latents(), times(), c);
  std::map<std::string, Tensor> file{{"first_stage_model.decoder.conv_in.weight", Tensor::zeros({1})},
                                     {"model_ema.decay", Tensor::zeros({1})}};
  file.merge(test::compvis_unet(recorder->tensors));
  for (const char* known :
       {"input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight", "input_blocks.3.0.op.weight", "output_blocks.2.1.conv.weight",
        "output_blocks.5.0.skip_connection.weight", "label_emb.0.2.bias", "middle_block.2.in_layers.0.weight", "out.2.weight"}) {
    INFO(known);
    REQUIRE(file.contains(std::string("model.diffusion_model.") + known));
  }
  CHECK(relative_l2(unet_of(memory_weights(file, "file"), arguments)->forward(latents(), times(), c), expected) == 0);
}

TEST_CASE("a U-Net takes latents of any size and gives their type") {
  const UNet model = unet(with(with(kSmall, "block_out_channels", "[16,16]"), "sample_size", "[8,6]"));
  CHECK(model.info().height == 8);
  CHECK(model.info().width == 6);
  for (const auto& [height, width] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {1, 9}, {7, 5}, {3, 8}}) {
    const Tensor y = model.forward(latents(1, height, width).to(DType::bf16), times(1), text(1));
    CHECK(y.shape() == Shape{1, height, width, 4});
    CHECK(y.dtype() == DType::bf16);
  }
}

TEST_CASE("U-Nets refuse what they cannot do, in one line") {
  const UNet model = unet();
  CHECK_THROWS_WITH(model.forward(Tensor::zeros({2, 8, 6, 3}), times(), text()), contains("latents are f32 [2, 8, 6, 3]"));
  CHECK_THROWS_WITH(model.forward(latents(), times(3), text()), contains("timesteps are f32 [3], expected f32 [2]"));
  CHECK_THROWS_WITH(model.forward(latents(), times(), {}), contains("text is missing, expected [2, any, 12]"));
  CHECK_THROWS_WITH(model.forward(latents(), times(), text(1)), contains("text is [1, 5, 12]"));
  Conditioning c = text();
  c.text_mask = integers({1, 1, 1, 1}, {2, 2});
  CHECK_THROWS_WITH(model.forward(latents(), times(), c), contains("text_mask is [2, 2], expected [2, 5]"));
  const UNet labelled = unet(with(kSmall, "num_class_embeds", "10"));
  c = text();
  CHECK_THROWS_WITH(labelled.forward(latents(), times(), c), contains("labels is missing"));
  c.labels = integers({3, 10}, {2});
  CHECK_THROWS_WITH(labelled.forward(latents(), times(), c), contains("labels has 10, expected 0 to 9"));
  const UNet sized = unet(with(with(with(kSmall, "addition_embed_type", "\"text_time\""), "addition_time_embed_dim", "4"),
                               "projection_class_embeddings_input_dim", "30"));
  CHECK(sized.info().pooled_channels == 6);
  c = text();
  CHECK_THROWS_WITH(sized.forward(latents(), times(), c), contains("time_ids is missing, expected [2, 6]"));

  CHECK_THROWS_WITH(unet(with(kSmall, "block_out_channels", "[16]")), contains("2 down_block_types and 2 up_block_types for 1"));
  CHECK_THROWS_WITH(unet(with(kSmall, "layers_per_block", "[1,2,3]")), contains("layers_per_block has 3 values for 2 levels"));
  CHECK_THROWS_WITH(unet(with(kSmall, "attention_head_dim", "5")), contains("attention_head_dim 5, the number of heads"));
  CHECK_THROWS_WITH(unet(with(kSmall, "norm_num_groups", "7")), contains("norm_num_groups 7 does not divide"));
  CHECK_THROWS_WITH(unet(with(kSmall, "norm_num_groups", "0")), contains("norm_num_groups is 0"));
  CHECK_THROWS_WITH(unet(with(kSmall, "block_out_channels", "[16,4611686018427387904]")), contains("4611686018427387904"));
  CHECK_THROWS_WITH(unet(with(kSmall, "down_block_types", R"(["DownBlock2D","AttnDownBlock2D"])")), contains("AttnDownBlock2D"));
  CHECK_THROWS_WITH(unet(with(kSmall, "mid_block_type", "\"UNetMidBlock2DSimpleCrossAttn\"")), contains("mid_block_type"));
  CHECK_THROWS_WITH(unet(with(kSmall, "encoder_hid_dim", "64")), contains("encoder_hid_dim is not known"));
  CHECK_THROWS_WITH(unet(with(kSmall, "dual_cross_attention", "true")), contains("no dual_cross_attention"));
  CHECK_THROWS_WITH(unet(with(kSmall, "attention", "\"linear\"")), contains("attention") && contains("linfusion"));
  CHECK_THROWS_WITH(unet(with(kSmall, "agent", R"({"ratio":0.5})")), contains("attention is not agent"));
  CHECK_THROWS_WITH(unet(with(with(kSmall, "attention", "\"agent\""), "agent", R"({"rate":0.5})")), contains("nearest: ratio"));
  CHECK_THROWS_WITH(unet(with(kSmall, "conv_in_kernel", "4")), contains("conv_in_kernel is 4, expected an odd size"));
  CHECK_THROWS_WITH(unet(with(kSmall, "cross_attention_dims", "12")), contains("nearest: cross_attention_dim"));
  CHECK(parse_unet_config(with(kSmall, "encoder_hid_dim", "null")).norm_num_groups == 8);
}

}  // namespace
}  // namespace vitrine
