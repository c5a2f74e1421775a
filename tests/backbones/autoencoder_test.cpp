// Autoencoders of latent diffusion: identities, tiles, configurations that make no sense. Numbers are in the golden tests.
#include <cmath>
#include <cstring>
#include <map>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include <backbones/compvis.h>
#include <backbones/support.h>
#include <catch.h>
#include <fmt/format.h>

#include <vitrine/backbones/autoencoder_kl.h>
#include <vitrine/backbones/autoencoder_tiny.h>
#include <vitrine/layers/memory.h>

namespace vitrine {
namespace {

using test::contains;
using test::Recorder;
using test::relative_l2;
using test::under_names;
using test::weights_of;

const Arguments kKl{{"block_out_channels", "[16,16]"},
                    {"down_block_types", R"(["DownEncoderBlock2D","DownEncoderBlock2D"])"},
                    {"up_block_types", R"(["UpDecoderBlock2D","UpDecoderBlock2D"])"},
                    {"norm_num_groups", "4"}};
const Arguments kTiny{{"encoder_block_out_channels", "[16,16]"},
                      {"decoder_block_out_channels", "[16,16]"},
                      {"num_encoder_blocks", "[1,0]"},
                      {"num_decoder_blocks", "[1,0]"}};

Arguments with(Arguments arguments, const std::string& name, const std::string& value) {
  arguments[name] = value;
  return arguments;
}
AutoencoderKL kl(const Arguments& arguments = kKl) {
  return AutoencoderKL(Weights(synthetic_weights()), parse_autoencoder_kl_config(arguments));
}
AutoencoderTiny tiny(const Arguments& arguments = kTiny) {
  return AutoencoderTiny(Weights(synthetic_weights()), parse_autoencoder_tiny_config(arguments));
}

Tensor latents(std::int64_t height, std::int64_t width, std::int64_t batch = 1) {
  return synthetic_tensor("latents", {batch, height, width, 4});
}

bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

TEST_CASE("a sample is the mean and a deviation of the noise") {
  const AutoencoderKL model = kl();
  const Tensor image = test::images(2, 8, 12);
  const AutoencoderKL::Distribution d = model.distribution(image);
  CHECK(d.mean.shape() == Shape{2, 4, 6, 4});
  CHECK(relative_l2(model.encode(image), d.mean) == 0);
  const Tensor noise = synthetic_tensor("noise", d.mean.shape()), z = model.encode(image, noise);
  const Tensor mean = d.mean.contiguous(), logvar = d.logvar.contiguous();
  for (std::int64_t i = 0; i < z.numel(); ++i)
    CHECK(std::abs(z.data<float>()[i] - mean.data<float>()[i] -
                   std::exp(0.5f * logvar.data<float>()[i]) * noise.data<float>()[i]) < 1e-6f);
  CHECK_THROWS_WITH(model.encode(image, latents(4, 6)), contains("noise is [1, 4, 6, 4], expected [2, 4, 6, 4]"));
}

TEST_CASE("latents are scaled as the configuration says, and back") {
  const Tensor z = latents(3, 5);
  const auto at = [](const Tensor& t, std::int64_t i) { return t.contiguous().data<float>()[i]; };
  const AutoencoderKL shifted = kl(with(with(kKl, "scaling_factor", "0.5"), "shift_factor", "0.25"));
  CHECK(std::abs(at(shifted.scale_latents(z), 7) - (at(z, 7) - 0.25f) * 0.5f) < 1e-6f);
  const AutoencoderKL by_channel = kl(with(with(kKl, "latents_mean", "[1,2,3,4]"), "latents_std", "[2,4,8,16]"));
  CHECK(std::abs(at(by_channel.scale_latents(z), 6) - (at(z, 6) - 3.0f) * 0.18215f / 8.0f) < 1e-6f);
  for (const AutoencoderKL* model : {&shifted, &by_channel})
    CHECK(relative_l2(model->unscale_latents(model->scale_latents(z)), z) < 1e-6);
  CHECK(relative_l2(tiny().scale_latents(z), z) == 0);
}

// A convolution sees a few positions: where a tile's border is farther away it changes nothing, and where tiles fade into each
// other the result is between theirs.
TEST_CASE("tiles of a network without norms are parts of the whole") {
  const AutoencoderTiny model = tiny();
  for (const auto& [height, width] : {std::pair<std::int64_t, std::int64_t>{40, 23}, {24, 61}, {25, 24}}) {
    INFO(height << "x" << width);
    const Tiling tiling{.size = 24, .overlap = 12};
    const Tensor z = latents(height, width, 2), whole = model.decode(z), tiled = model.decode(z, tiling);
    CHECK(relative_l2(tiled, whole) < 0.05);
    CHECK(relative_l2(tiled, whole) > 0);
    // The first tile alone counts up to where the second begins.
    const auto alone = [](std::int64_t n) { return 2 * (n <= 24 ? n : (n - 24) / ((n - 1) / 12 - 1)); };
    const std::int64_t rows = alone(height), columns = alone(width);
    CHECK(relative_l2(tiled.slice(1, 0, rows).slice(2, 0, columns), whole.slice(1, 0, rows).slice(2, 0, columns)) < 1e-6);
    const Tensor image = test::images(1, 2 * height, 2 * width);
    CHECK(relative_l2(model.encode(image, {}, tiling), model.encode(image)) < 0.05);
  }
}

TEST_CASE("tiles of a network with norms are near the whole") {
  const AutoencoderKL model = kl();
  const Tensor z = latents(40, 33), whole = model.decode(z);
  CHECK(relative_l2(model.decode(z, {.size = 20, .overlap = 6}), whole) < 0.2);
  const Tensor image = test::images(1, 80, 66);
  CHECK(relative_l2(model.distribution(image, {.size = 20, .overlap = 6}).mean, model.distribution(image).mean) < 0.2);
  CHECK(same(model.decode(z, {.size = 40, .overlap = 8}), whole));  // nothing to cut
  CHECK(same(model.decode(z, {.size = 64}), whole));
  CHECK(model.decode(latents(40, 1), {.size = 20, .overlap = 6}).shape() == Shape{1, 80, 2, 3});
}

// Weights sum to one: tiles that agree give what they agree on. Where latents are the same everywhere only borders differ.
TEST_CASE("tiles add up to one") {
  const AutoencoderTiny model = tiny();
  for (const std::int64_t overlap : {0, 1, 7, 12}) {
    const Tensor z = Tensor::zeros({1, 70, 70, 4}), whole = model.decode(z),
                 tiled = model.decode(z, {.size = 24, .overlap = overlap});
    // Where the first tile is alone, far from all borders.
    CHECK(relative_l2(tiled.slice(1, 16, 20).slice(2, 16, 20), whole.slice(1, 70, 74).slice(2, 70, 74)) < 1e-5);
    if (overlap < 12) continue;
    const Tensor y = tiled.slice(1, 40, 100).slice(2, 40, 100), x = whole.slice(1, 40, 100).slice(2, 40, 100);
    CHECK(relative_l2(y, x) < 0.05);
  }
}

TEST_CASE("tiles bound the memory") {
  const AutoencoderKL model = kl();
  const Tensor z = latents(96, 96);
  const auto peak = [&](const Tiling& tiling) {
    const std::int64_t before = memory_stats().in_use;
    reset_peak_memory();
    model.decode(z, tiling);
    return memory_stats().peak - before;
  };
  const std::int64_t whole = peak({}), tiled = peak({.size = 24, .overlap = 6});
  CHECK(tiled < whole / 4);
}

TEST_CASE("an autoencoder in other publishers' names") {
  Arguments arguments = with(with(kKl, "block_out_channels", "[8,8,8,16]"), "layers_per_block", "2");
  const auto four = [](const char* type) { return '[' + fmt::format("\"{0}\",\"{0}\",\"{0}\",\"{0}\"", type) + ']'; };
  arguments = with(with(arguments, "down_block_types", four("DownEncoderBlock2D")), "up_block_types", four("UpDecoderBlock2D"));
  const auto recorder = std::make_shared<Recorder>();
  const AutoencoderKLConfig config = parse_autoencoder_kl_config(arguments);
  const Tensor z = latents(3, 4), expected = AutoencoderKL(Weights(recorder), config).decode(z);

  auto old = under_names(recorder->tensors, {{R"(\.to_([qkv])\.)", ".$1."},
                                             {R"(\.q\.)", ".query."},
                                             {R"(\.k\.)", ".key."},
                                             {R"(\.v\.)", ".value."},
                                             {R"(\.to_out\.0\.)", ".proj_attn."}});
  REQUIRE(old.contains("decoder.mid_block.attentions.0.proj_attn.weight"));
  CHECK(relative_l2(AutoencoderKL(weights_of(old), config).decode(z), expected) == 0);
  old["decoder.mid_block.attentions.1.query.weight"] = Tensor::zeros({16, 16});
  CHECK_THROWS_WITH(AutoencoderKL(weights_of(old), config), contains("1 not used"));

  const auto theirs = test::compvis_autoencoder(recorder->tensors, 4);
  for (const char* known : {"encoder.down.2.downsample.conv.weight", "decoder.up.0.block.2.norm2.weight",
                            "decoder.up.3.upsample.conv.bias", "decoder.mid.attn_1.proj_out.weight", "post_quant_conv.weight"}) {
    INFO(known);
    REQUIRE(theirs.contains(known));
  }
  CHECK(relative_l2(AutoencoderKL(weights_of(theirs), config).decode(z), expected) == 0);
  std::map<std::string, Tensor> pipeline{{"model.diffusion_model.out.2.weight", Tensor::zeros({1})}};
  for (const auto& [name, tensor] : theirs) pipeline["first_stage_model." + name] = tensor;
  CHECK(relative_l2(AutoencoderKL(weights_of(pipeline), config).decode(z), expected) == 0);
}

TEST_CASE("TAESD's own two files are one autoencoder") {
  const auto recorder = std::make_shared<Recorder>();
  const AutoencoderTinyConfig config = parse_autoencoder_tiny_config(kTiny);
  const AutoencoderTiny model(Weights(recorder), config);
  std::map<std::string, Tensor> encoder, decoder;
  for (const auto& [name, tensor] : recorder->tensors) {
    const bool is_encoder = name.starts_with("encoder.");
    const std::string rest = name.substr(std::string("encoder.layers.").size());
    const auto dot = rest.find('.');
    const int index = std::stoi(rest.substr(0, dot)) + (is_encoder ? 0 : 1);
    (is_encoder ? encoder : decoder)[std::to_string(index) + rest.substr(dot)] = tensor;
  }
  REQUIRE(encoder.contains("1.conv.0.weight"));
  REQUIRE(decoder.contains("1.weight"));
  const AutoencoderTiny read(Weights(taesd_weights(memory_weights(encoder, "encoder"), memory_weights(decoder, "decoder"))),
                             config);
  const Tensor z = latents(5, 4);
  CHECK(relative_l2(read.decode(z), model.decode(z)) == 0);
  CHECK(relative_l2(read.encode(test::images(1, 8, 6)), model.encode(test::images(1, 8, 6))) == 0);
}

TEST_CASE("autoencoders refuse what they cannot do, in one line") {
  const AutoencoderKL model = kl();
  CHECK_THROWS_WITH(model.decode(Tensor::zeros({1, 4, 4, 3})),
                    contains("latents are f32 [1, 4, 4, 3], expected floating [B, H, W, 4]"));
  CHECK_THROWS_WITH(model.decode(Tensor()), contains("latents are undefined"));
  CHECK_THROWS_WITH(model.encode(test::images(1, 1, 8)),
                    contains("images are f32 [1, 1, 8, 3]") && contains("sides of 2 or more"));
  CHECK_THROWS_WITH(model.decode(latents(4, 4), {.size = 4, .overlap = 3}), contains("tiles of 4 that overlap by 3"));
  CHECK_THROWS_WITH(model.decode(latents(4, 4), {.size = -1}), contains("tiles of -1"));
  CHECK_THROWS_WITH(tiny().encode(test::images(1, 8, 8), latents(4, 4)), contains("noise must not be given"));

  CHECK_THROWS_WITH(kl(with(kKl, "block_out_channels", "[16]")), contains("2 down_block_types and 2 up_block_types for 1"));
  CHECK_THROWS_WITH(kl(with(kKl, "block_out_channels", "[]")), contains("block_out_channels has 0 levels"));
  CHECK_THROWS_WITH(kl(with(kKl, "block_out_channels", "[16,18]")), contains("norm_num_groups 4 does not divide"));
  CHECK_THROWS_WITH(kl(with(kKl, "latent_channels", "0")), contains("latent_channels is 0"));
  CHECK_THROWS_WITH(kl(with(kKl, "latent_channels", "4611686018427387904")), contains("latent_channels is 4611686018427387904"));
  CHECK_THROWS_WITH(kl(with(kKl, "down_block_types", R"(["DownEncoderBlock2D","DownBlock2D"])")),
                    contains("down_block_types") && contains("DownEncoderBlock2D"));
  CHECK_THROWS_WITH(kl(with(kKl, "act_fn", "\"mish\"")), contains("activation 'mish'"));
  CHECK_THROWS_WITH(kl(with(kKl, "latents_mean", "[1]")), contains("1 latents_mean and 0 latents_std, expected 4"));
  CHECK_THROWS_WITH(kl(with(kKl, "scaling_factor", "0")), contains("must not be 0"));
  CHECK_THROWS_WITH(kl(with(kKl, "scale_factor", "1")), contains("unknown argument scale_factor=1; nearest: scaling_factor"));
  CHECK_THROWS_WITH(tiny(with(kTiny, "num_decoder_blocks", "[1]")), contains("decoder_block_out_channels has 2 stages"));
  CHECK_THROWS_WITH(tiny(with(kTiny, "encoder_block_out_channels", "[16,32]")), contains("16 and 32; stages of one width"));
  CHECK_THROWS_WITH(tiny(with(kTiny, "upsampling_scaling_factor", "3")), contains("upsample_fn nearest by 3"));
  CHECK_THROWS_WITH(tiny(with(with(kTiny, "num_decoder_blocks", "[1]"), "decoder_block_out_channels", "[16]")),
                    contains("2 stages of the encoder and 1 of the decoder"));
}

}  // namespace
}  // namespace vitrine
