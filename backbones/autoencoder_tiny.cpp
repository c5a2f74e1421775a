#include <vitrine/backbones/autoencoder_tiny.h>

#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/arguments.h>
#include <vitrine/backbones/text_encoder.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

namespace vitrine {

using detail::require;

namespace {

constexpr Conv2dOptions kSame{.pad_h = 1, .pad_w = 1};
constexpr Conv2dOptions kHalved{.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1, .bias = false};
constexpr float kMagnitude = 3.0f;  // latents beyond it are bent back

void validate(const AutoencoderTinyConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  detail::require_size(c.name, "in_channels", c.in_channels);
  detail::require_size(c.name, "out_channels", c.out_channels);
  detail::require_size(c.name, "latent_channels", c.latent_channels);
  const auto half = [&](const std::vector<std::int64_t>& channels, const std::vector<std::int64_t>& blocks, const char* which) {
    require(!channels.empty() && channels.size() <= 8 && channels.size() == blocks.size(), c.name,
            fmt::format("{0}_block_out_channels has {1} stages and num_{0}_blocks {2}; expected the same, 1 to 8", which,
                        channels.size(), blocks.size()));
    for (std::size_t i = 0; i < channels.size(); ++i) {
      detail::require_size(c.name, fmt::format("{}_block_out_channels", which), channels[i]);
      require(
          channels[i] == channels[0], c.name,
          fmt::format("{}_block_out_channels has {} and {}; stages of one width are expected", which, channels[0], channels[i]));
      require(blocks[i] >= 0 && blocks[i] <= kMost, c.name, fmt::format("num_{}_blocks has {}", which, blocks[i]));
    }
  };
  half(c.encoder_block_out_channels, c.num_encoder_blocks, "encoder");
  half(c.decoder_block_out_channels, c.num_decoder_blocks, "decoder");
  require(
      c.num_encoder_blocks.size() == c.num_decoder_blocks.size(), c.name,
      fmt::format("{} stages of the encoder and {} of the decoder", c.num_encoder_blocks.size(), c.num_decoder_blocks.size()));
  require(c.scaling_factor != 0, c.name, "scaling_factor must not be 0");
}

}  // namespace

AutoencoderTiny::Block::Block(const Weights& w, std::int64_t dim, Activation activation)
    : conv0(w / "conv" / 0, dim, dim, 3, 3, kSame),
      conv2(w / "conv" / 2, dim, dim, 3, 3, kSame),
      conv4(w / "conv" / 4, dim, dim, 3, 3, kSame),
      activation(activation) {}

Tensor AutoencoderTiny::Block::operator()(Tensor x) const {
  const Tensor y = conv2(conv0(x, {.activation = activation}), {.activation = activation});
  return conv4(y, {.activation = Activation::relu, .residual = std::move(x), .activate_sum = true});
}

Tensor AutoencoderTiny::run(const std::vector<Layer>& layers, Tensor x) {
  for (const Layer& layer : layers) x = std::visit([&](const auto& l) { return l(std::move(x)); }, layer);
  return x;
}

AutoencoderTiny::AutoencoderTiny(const Weights& w, AutoencoderTinyConfig config) : config_(std::move(config)) {
  const AutoencoderTinyConfig& c = config_;
  validate(c);
  const Activation activation = detail::parse_hidden_act(c.name, "act_fn", c.act_fn);

  Weights layers = w / "encoder" / "layers";
  std::int64_t index = 0;  // in the original's list, where activations and doublings are members, too
  std::int64_t dim = c.encoder_block_out_channels.front();
  for (std::size_t i = 0; i < c.num_encoder_blocks.size(); ++i) {
    if (i == 0)
      encoder_.emplace_back(Conv2d(layers / index++, c.in_channels, dim, 3, 3, kSame));
    else
      encoder_.emplace_back(Conv2d(layers / index++, dim, dim, 3, 3, kHalved));
    for (std::int64_t k = 0; k < c.num_encoder_blocks[i]; ++k) encoder_.emplace_back(Block(layers / index++, dim, activation));
  }
  encoder_.emplace_back(Conv2d(layers / index, dim, c.latent_channels, 3, 3, kSame));

  layers = w / "decoder" / "layers";
  dim = c.decoder_block_out_channels.front();
  decoder_.emplace_back(First{Conv2d(layers / 0, c.latent_channels, dim, 3, 3, kSame), activation});
  index = 2;
  for (std::size_t i = 0; i < c.num_decoder_blocks.size(); ++i) {
    for (std::int64_t k = 0; k < c.num_decoder_blocks[i]; ++k) decoder_.emplace_back(Block(layers / index++, dim, activation));
    if (i + 1 == c.num_decoder_blocks.size()) break;
    decoder_.emplace_back(UpsampleConv2d(layers / (index + 1), dim, dim, {.bias = false}));
    index += 2;
  }
  decoder_.emplace_back(Conv2d(layers / index, dim, c.out_channels, 3, 3, kSame));
  w.check(c.name);

  info_ = {.name = c.name,
           .source = "madebyollin/taesd; diffusers AutoencoderTiny",
           .in_channels = c.in_channels,
           .out_channels = c.out_channels,
           .latent_channels = c.latent_channels,
           .factor = std::int64_t{1} << (c.num_decoder_blocks.size() - 1),
           .parameters = w.parameters()};
  finish(w, {static_cast<float>(c.scaling_factor)}, {static_cast<float>(c.shift_factor)});
}

Tensor AutoencoderTiny::encode(const Tensor& images, const Tensor& noise, const Tiling& tiling) const {
  require(!noise.defined(), info_.name, "there is no distribution of latents to sample from; noise must not be given");
  const Tensor x = checked(images, info_.in_channels, 1, "images");
  return tiled(x, info_.factor, 1, tiling, [&](const Tensor& tile) { return run(encoder_, affine(tile, 0.5f, 0.5f)); });
}

Tensor AutoencoderTiny::decode(const Tensor& latents, const Tiling& tiling) const {
  const Tensor z = checked(latents, info_.latent_channels, 1, "latents");
  return tiled(z, 1, info_.factor, tiling, [&](const Tensor& tile) {
    Tensor x = affine(tile, 1.0f / kMagnitude, 0.0f);
    activate_(x, Activation::tanh);
    return affine(run(decoder_, affine(x, kMagnitude, 0.0f)), 2.0f, -1.0f);
  });
}

std::shared_ptr<const WeightSource> taesd_weights(std::shared_ptr<const WeightSource> encoder,
                                                  std::shared_ptr<const WeightSource> decoder) {
  constexpr NameRule kEncoder[] = {{R"((\d+\..*))", "encoder.layers.$1"}};
  // The bend of the latents is the first of the decoder's layers there.
  constexpr int kMost = 64;
  std::vector<std::string> texts;
  for (int i = 1; i < kMost; ++i) {
    texts.push_back(fmt::format(R"({}\.(.*))", i));
    texts.push_back(fmt::format("decoder.layers.{}.$1", i - 1));
  }
  std::vector<NameRule> rules;
  for (std::size_t i = 0; i < texts.size(); i += 2) rules.push_back({texts[i], texts[i + 1]});
  return overlaid(renamed(std::move(encoder), kEncoder), renamed(std::move(decoder), rules));
}

AutoencoderTinyConfig parse_autoencoder_tiny_config(const Arguments& arguments) {
  AutoencoderTinyConfig c;
  std::string upsample_fn = "nearest";
  std::int64_t factor = 2;
  detail::ArgumentReader(c.name, arguments)
      .get("in_channels", c.in_channels)
      .get("out_channels", c.out_channels)
      .get("latent_channels", c.latent_channels)
      .get("encoder_block_out_channels", c.encoder_block_out_channels)
      .get("decoder_block_out_channels", c.decoder_block_out_channels)
      .get("num_encoder_blocks", c.num_encoder_blocks)
      .get("num_decoder_blocks", c.num_decoder_blocks)
      .get("act_fn", c.act_fn)
      .get("scaling_factor", c.scaling_factor)
      .get("shift_factor", c.shift_factor)
      .get("upsample_fn", upsample_fn)
      .get("upsampling_scaling_factor", factor)
      // block_out_channels repeats the decoder's; magnitude and shift are of latents stored as bytes
      .ignore({"_class_name", "_diffusers_version", "_name_or_path", "block_out_channels", "force_upcast", "latent_magnitude",
               "latent_shift"})
      .finish();
  require(upsample_fn == "nearest" && factor == 2, c.name,
          fmt::format("upsample_fn {} by {}; only nearest by 2, as the encoder halves, is known", upsample_fn, factor));
  return c;
}

}  // namespace vitrine
