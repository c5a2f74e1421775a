// The text encoders: what their goldens do not show (tests/pipelines runs those).
#include <array>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <backbones/compvis.h>
#include <backbones/support.h>

#include <vitrine/backbones/clip_text.h>
#include <vitrine/backbones/t5.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

using test::as_open_clip;
using test::contains;
using test::Recorder;
using test::relative_l2;
using test::weights_of;

Tensor ids(const std::vector<std::vector<std::int64_t>>& rows) {
  Tensor t = Tensor::empty({static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(rows[0].size())}, DType::i64);
  std::int64_t at = 0;
  for (const auto& row : rows)
    for (const std::int64_t id : row) t.data<std::int64_t>()[at++] = id;
  return t;
}

const Arguments kClip{{"vocab_size", "50"},       {"hidden_size", "24"},        {"intermediate_size", "40"},
                      {"num_hidden_layers", "3"}, {"num_attention_heads", "2"}, {"max_position_embeddings", "9"},
                      {"eos_token_id", "49"},     {"projection_dim", "8"}};
const Arguments kT5{{"vocab_size", "50"}, {"d_model", "24"},   {"d_kv", "8"},
                    {"d_ff", "40"},       {"num_layers", "2"}, {"num_heads", "2"}};

Arguments with(Arguments arguments, const std::string& name, const std::string& value) {
  arguments[name] = value;
  return arguments;
}

ClipTextModel clip(const Arguments& arguments = kClip) {
  return ClipTextModel(Weights(synthetic_weights()), parse_clip_text_config(arguments));
}
T5Encoder t5(const Arguments& arguments = kT5) { return T5Encoder(Weights(synthetic_weights()), parse_t5_config(arguments)); }

TEST_CASE("CLIP's tokens do not see those after them, nor masked ones") {
  const ClipTextModel model = clip();
  const Tensor one = model.forward(ids({{1, 5, 6, 49, 3}})).last_hidden_state,
               other = model.forward(ids({{1, 5, 6, 49, 7}})).last_hidden_state;
  CHECK(relative_l2(one.slice(1, 0, 4), other.slice(1, 0, 4)) < 1e-6);
  CHECK(relative_l2(one.slice(1, 4, 5), other.slice(1, 4, 5)) > 1e-2);
  const Tensor mask = ids({{1, 0, 1, 1, 1}});
  const Tensor masked = model.forward(ids({{1, 5, 6, 49, 3}}), mask).last_hidden_state,
               same = model.forward(ids({{1, 8, 6, 49, 3}}), mask).last_hidden_state;
  CHECK(relative_l2(masked.slice(1, 2, 5), same.slice(1, 2, 5)) < 1e-6);
  CHECK(relative_l2(masked.slice(1, 2, 5), one.slice(1, 2, 5)) > 1e-2);
}

TEST_CASE("CLIP gives the state before any of its last layers") {
  const ClipTextModel model = clip();
  const Tensor text = ids({{1, 5, 49}});
  const ClipTextModel::States last = model.forward(text, {}, 0);
  CHECK(relative_l2(model.final_layer_norm(last.hidden_state), last.last_hidden_state) == 0);
  std::vector<Tensor> states;
  for (std::int64_t skipped = 0; skipped <= 3; ++skipped) {
    states.push_back(model.forward(text, {}, skipped).hidden_state);
    if (skipped > 0) CHECK(relative_l2(states[skipped], states[skipped - 1]) > 1e-2);
  }
  const Tensor table = synthetic_parameter("text_model.embeddings.token_embedding.weight", {50, 24}),
               positions = synthetic_parameter("text_model.embeddings.position_embedding.weight", {9, 24});
  CHECK(relative_l2(states[3], add(gather_rows(table, text), positions.slice(0, 0, 3))) == 0);
  CHECK_THROWS_WITH(model.forward(text, {}, 4), contains("4 layers before the end of 3"));
}

TEST_CASE("CLIP's text encoder is found in a whole CLIP model") {
  const auto recorder = std::make_shared<Recorder>();
  const ClipTextConfig config = parse_clip_text_config(with(kClip, "architectures", R"(["CLIPTextModelWithProjection"])"));
  const ClipTextModel model(Weights(recorder), config);
  const Tensor pooled = model.forward(ids({{1, 5, 49}})).pooled;
  CHECK(pooled.shape() == Shape{1, 8});
  auto tensors = recorder->tensors;
  tensors["vision_model.pre_layrnorm.weight"] = tensors["logit_scale"] = tensors["visual_projection.weight"] = Tensor::zeros({3});
  tensors["text_model.embeddings.position_ids"] = Tensor::zeros({1, 9}, DType::i64);
  CHECK(relative_l2(ClipTextModel(weights_of(tensors), config).forward(ids({{1, 5, 49}})).pooled, pooled) == 0);
  tensors["text_model.encoder.layers.3.mlp.fc1.bias"] = Tensor::zeros({40});
  CHECK_THROWS_WITH(ClipTextModel(weights_of(tensors), config),
                    contains("1 not used (text_model.encoder.layers.3.mlp.fc1.bias)"));
}

TEST_CASE("CLIP in open_clip's names, and in the files of whole pipelines") {
  const auto recorder = std::make_shared<Recorder>();
  const ClipTextConfig config = parse_clip_text_config(with(kClip, "architectures", R"(["CLIPTextModelWithProjection"])"));
  const Tensor text = ids({{1, 5, 49}});
  const auto expected = ClipTextModel(Weights(recorder), config).forward(text);
  const auto check = [&](const Weights& weights) {
    const auto states = ClipTextModel(weights, config).forward(text);
    CHECK(relative_l2(states.pooled, expected.pooled) < 1e-6);
    CHECK(relative_l2(states.hidden_state, expected.hidden_state) < 1e-6);
  };
  check(weights_of(as_open_clip(recorder->tensors, "")));

  // Stable Diffusion 1 and XL's first encoder; then 2, and XL's second beside its first.
  const auto in_file = [](const std::map<std::string, Tensor>& tensors, int index) {
    return clip_in_pipeline(memory_weights(tensors, "pipeline"), index);
  };
  for (const std::string prefix : {"cond_stage_model.transformer.", "conditioner.embedders.0.transformer."}) {
    std::map<std::string, Tensor> file{{"model.diffusion_model.out.2.weight", Tensor::zeros({1})}};
    for (const auto& [name, tensor] : recorder->tensors) file[prefix + name] = tensor;
    check(Weights(in_file(file, 0)));
    CHECK(in_file(file, 1) == nullptr);
    for (const auto& [name, tensor] : as_open_clip(recorder->tensors, "conditioner.embedders.1.model.")) file[name] = tensor;
    check(Weights(in_file(file, 0)));
    check(Weights(in_file(file, 1)));
  }
  auto second = as_open_clip(recorder->tensors, "cond_stage_model.model.");
  second["first_stage_model.decoder.conv_in.weight"] = Tensor::zeros({1});
  check(Weights(in_file(second, 0)));
  CHECK(in_file({{"unet.weight", Tensor::zeros({1})}}, 0) == nullptr);

  // Stable Diffusion 2 leaves out the last layer of its file, and no other.
  ClipTextConfig shorter = config;
  shorter.num_hidden_layers = 2;
  const auto less = ClipTextModel(Weights(in_file(second, 0)), shorter).forward(text, {}, 0);
  CHECK(relative_l2(less.hidden_state, expected.hidden_state) < 1e-6);  // before the last of three
  shorter.num_hidden_layers = 1;
  CHECK_THROWS_WITH(ClipTextModel(Weights(in_file(second, 0)), shorter), contains("encoder.layers.2"));
  second.erase("cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight");
  CHECK_THROWS_WITH(ClipTextModel(Weights(in_file(second, 0)), config), contains("self_attn"));
}

TEST_CASE("CLIP refuses texts and configurations that do not fit, in one line") {
  const ClipTextModel model = clip();
  CHECK_THROWS_WITH(model.forward(ids({{1, 50}})), contains("input_ids has 50, expected 0 to 49"));
  CHECK_THROWS_WITH(model.forward(ids({{1, -1}})), contains("input_ids has -1"));
  CHECK_THROWS_WITH(model.forward(ids({{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}})), contains("10 tokens a text, expected 1 to 9"));
  CHECK_THROWS_WITH(model.forward(Tensor::zeros({1, 4})), contains("input_ids is f32 [1, 4], expected i64 [B, T]"));
  CHECK_THROWS_WITH(model.forward(Tensor()), contains("input_ids is undefined"));
  CHECK_THROWS_WITH(model.forward(Tensor::zeros({1, 0}, DType::i64)), contains("0 tokens a text"));
  CHECK_THROWS_WITH(model.forward(ids({{1, 5}}), ids({{1, 1, 1}})),
                    contains("attention_mask is i64 [1, 3], expected i64 [1, 2]"));
  CHECK_THROWS_WITH(clip(with(kClip, "num_attention_heads", "5")),
                    contains("hidden_size 24 is not a multiple of num_attention_heads 5"));
  CHECK_THROWS_WITH(clip(with(kClip, "num_attention_heads", "0")), contains("num_attention_heads is 0"));
  CHECK_THROWS_WITH(clip(with(kClip, "hidden_size", "4611686018427387904")), contains("hidden_size is 4611686018427387904"));
  CHECK_THROWS_WITH(clip(with(kClip, "hidden_act", "\"quick_glue\"")), contains("nearest: quick_gelu"));
  CHECK_THROWS_WITH(clip(with(kClip, "hidden_sice", "24")), contains("unknown argument hidden_sice=24; nearest: hidden_size"));
  CHECK_THROWS_WITH(clip(with(kClip, "layer_norm_eps", "-1")), contains("layer_norm_eps"));
}

TEST_CASE("T5 reads either name of the embeddings, and leaves a decoder alone") {
  const auto recorder = std::make_shared<Recorder>();
  const T5Config config = parse_t5_config(kT5);
  const Tensor text = ids({{4, 9, 1}}), expected = T5Encoder(Weights(recorder), config).forward(text);
  auto tensors = recorder->tensors;
  const Tensor table = tensors.at("shared.weight");
  tensors["decoder.block.0.layer.0.layer_norm.weight"] = tensors["lm_head.weight"] = Tensor::zeros({24});
  tensors["encoder.embed_tokens.weight"] = table;
  CHECK(relative_l2(T5Encoder(weights_of(tensors), config).forward(text), expected) == 0);
  tensors.erase("shared.weight");
  CHECK(relative_l2(T5Encoder(weights_of(tensors), config).forward(text), expected) == 0);
  tensors.erase("encoder.embed_tokens.weight");
  CHECK_THROWS_WITH(T5Encoder(weights_of(tensors), config), contains("1 parameter missing (encoder.embed_tokens.weight"));
}

TEST_CASE("T5's masked tokens are seen by nobody, and texts of a batch do not meet") {
  const T5Encoder model = t5();
  const Tensor mask = ids({{1, 1, 1, 0, 0}, {1, 1, 1, 1, 1}});
  const Tensor both = model.forward(ids({{4, 9, 1, 0, 0}, {5, 6, 7, 8, 1}}), mask);
  CHECK(both.shape() == Shape{2, 5, 24});
  CHECK(relative_l2(both.slice(0, 0, 1).slice(1, 0, 3), model.forward(ids({{4, 9, 1}}))) < 1e-5);
  CHECK(relative_l2(both.slice(0, 1, 2), model.forward(ids({{5, 6, 7, 8, 1}}))) < 1e-5);
  CHECK(relative_l2(both.slice(0, 0, 1), model.forward(ids({{4, 9, 1, 0, 0}}))) > 1e-2);
}

TEST_CASE("T5 refuses configurations that make no sense, in one line") {
  CHECK_THROWS_WITH(t5(with(kT5, "d_kv", "0")), contains("d_kv is 0, expected 1 to"));
  CHECK_THROWS_WITH(t5(with(kT5, "num_heads", "9007199254740993")), contains("num_heads is 9007199254740993"));
  CHECK_THROWS_WITH(t5(with(kT5, "relative_attention_num_buckets", "3")),
                    contains("relative_attention_num_buckets is 3, expected 4"));
  CHECK_THROWS_WITH(t5(with(kT5, "relative_attention_max_distance", "8")), contains("expected more than the 8 distances"));
  CHECK_THROWS_WITH(t5(with(kT5, "feed_forward_proj", "\"gated-glu\"")),
                    contains("feed_forward_proj names the activation 'glu'"));
  CHECK_THROWS_WITH(t5(with(kT5, "dk_v", "8")), contains("nearest: d_kv"));
  CHECK_THROWS_WITH(t5().forward(ids({{1, 99}})), contains("T5EncoderModel: input_ids has 99"));
  CHECK_THROWS_WITH(t5().forward(Tensor::zeros({2, 0}, DType::i64)), contains("a text has no tokens"));
  CHECK(parse_t5_config({{"model_type", "\"umt5\""}}).own_bias);
}

}  // namespace
}  // namespace vitrine
