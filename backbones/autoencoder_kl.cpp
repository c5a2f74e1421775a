#include <vitrine/backbones/autoencoder_kl.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/backbones/arguments.h>
#include <vitrine/backbones/text_encoder.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

namespace vitrine {

using detail::require;

namespace {

constexpr double kEps = 1e-6;
constexpr Conv2dOptions kSame{.pad_h = 1, .pad_w = 1};
constexpr Conv2dOptions kHalved{.stride_h = 2, .stride_w = 2, .pad_end_h = 1, .pad_end_w = 1};  // zeros at right and bottom only
constexpr std::string_view kAttentionDown = "AttnDownEncoderBlock2D", kAttentionUp = "AttnUpDecoderBlock2D";

// diffusers' names before 0.15.
constexpr NameRule kOldAttention[] = {{R"((.*attentions\.\d+\.)query\.(.*))", "$1to_q.$2"},
                                      {R"((.*attentions\.\d+\.)key\.(.*))", "$1to_k.$2"},
                                      {R"((.*attentions\.\d+\.)value\.(.*))", "$1to_v.$2"},
                                      {R"((.*attentions\.\d+\.)proj_attn\.(.*))", "$1to_out.0.$2"}};
// CompVis/latent-diffusion's and black-forest-labs/flux's, alone or in the file of a pipeline.
#define VITRINE_ATTENTION(theirs, ours) \
  { R"((?:first_stage_model\.)?(.*\.attn(?:_1|\.\d+))\.)" theirs R"(\.(.*))", "$1." ours ".$2" }
constexpr NameRule kCompVisLayers[] = {
    VITRINE_ATTENTION("norm", "group_norm"),
    VITRINE_ATTENTION("q", "to_q"),
    VITRINE_ATTENTION("k", "to_k"),
    VITRINE_ATTENTION("v", "to_v"),
    VITRINE_ATTENTION("proj_out", "to_out.0"),
    {R"((?:first_stage_model\.)?(.*)\.nin_shortcut\.(.*))", "$1.conv_shortcut.$2"},
    {R"((?:first_stage_model\.)?(.*coder)\.norm_out\.(.*))", "$1.conv_norm_out.$2"},
    {R"((?:first_stage_model\.)?((?:en|de)coder\..*|(?:post_)?quant_conv\..*))", "$1"},
    {".*", ""},  // the pipeline's other networks, what training needed
};
#undef VITRINE_ATTENTION
// Levels of the way up are counted from below.
#define VITRINE_UP(theirs, ours)                                                                             \
  {R"(decoder\.up\.)" theirs R"(\.block\.(\d+)\.(.*))", "decoder.up_blocks." ours ".resnets.$1.$2"},         \
      {R"(decoder\.up\.)" theirs R"(\.attn\.(\d+)\.(.*))", "decoder.up_blocks." ours ".attentions.$1.$2"}, { \
    R"(decoder\.up\.)" theirs R"(\.upsample\.conv\.(.*))", "decoder.up_blocks." ours ".upsamplers.0.conv.$1" \
  }
constexpr NameRule kCompVisBlocks[] = {
    {R"((.*coder)\.mid\.block_1\.(.*))", "$1.mid_block.resnets.0.$2"},
    {R"((.*coder)\.mid\.attn_1\.(.*))", "$1.mid_block.attentions.0.$2"},
    {R"((.*coder)\.mid\.block_2\.(.*))", "$1.mid_block.resnets.1.$2"},
    {R"(encoder\.down\.(\d+)\.block\.(\d+)\.(.*))", "encoder.down_blocks.$1.resnets.$2.$3"},
    {R"(encoder\.down\.(\d+)\.attn\.(\d+)\.(.*))", "encoder.down_blocks.$1.attentions.$2.$3"},
    {R"(encoder\.down\.(\d+)\.downsample\.conv\.(.*))", "encoder.down_blocks.$1.downsamplers.0.conv.$2"},
    VITRINE_UP("0", "3"),
    VITRINE_UP("1", "2"),
    VITRINE_UP("2", "1"),
    VITRINE_UP("3", "0"),
};
#undef VITRINE_UP
constexpr NameMap kNames[] = {{"decoder.mid_block.attentions.0.query.weight", kOldAttention},
                              {"decoder.mid.block_1.norm1.weight", kCompVisLayers, kCompVisBlocks},
                              {"first_stage_model.decoder.mid.block_1.norm1.weight", kCompVisLayers, kCompVisBlocks}};

void validate(const AutoencoderKLConfig& c) {
  detail::require_size(c.name, "in_channels", c.in_channels);
  detail::require_size(c.name, "out_channels", c.out_channels);
  detail::require_size(c.name, "latent_channels", c.latent_channels);
  detail::require_size(c.name, "layers_per_block", c.layers_per_block);
  detail::require_size(c.name, "norm_num_groups", c.norm_num_groups);
  const std::size_t levels = c.block_out_channels.size();
  require(levels > 0 && levels <= 8, c.name, fmt::format("block_out_channels has {} levels, expected 1 to 8", levels));
  require(c.down_block_types.size() == levels && c.up_block_types.size() == levels, c.name,
          fmt::format("{} down_block_types and {} up_block_types for {} block_out_channels", c.down_block_types.size(),
                      c.up_block_types.size(), levels));
  for (const std::int64_t channels : c.block_out_channels) {
    detail::require_size(c.name, "block_out_channels", channels);
    require(channels % c.norm_num_groups == 0, c.name,
            fmt::format("norm_num_groups {} does not divide block_out_channels {}", c.norm_num_groups, channels));
  }
  for (const std::string& type : c.down_block_types)
    detail::parse_choice(c.name, "down_block_types", type, {"DownEncoderBlock2D", kAttentionDown});
  for (const std::string& type : c.up_block_types)
    detail::parse_choice(c.name, "up_block_types", type, {"UpDecoderBlock2D", kAttentionUp});
  const auto by_channel = static_cast<std::size_t>(c.latent_channels);
  require(c.latents_mean.size() == c.latents_std.size() && (c.latents_mean.empty() || c.latents_mean.size() == by_channel),
          c.name,
          fmt::format("{} latents_mean and {} latents_std, expected {} of each or none", c.latents_mean.size(),
                      c.latents_std.size(), by_channel));
  require(c.latents_mean.empty() || !c.shift_factor, c.name, "latents_mean and shift_factor are given; expected one of them");
  require(c.scaling_factor != 0 && std::find(c.latents_std.begin(), c.latents_std.end(), 0.0) == c.latents_std.end(), c.name,
          "scaling_factor and latents_std must not be 0");
}

}  // namespace

AutoencoderKL::Attention::Attention(const Weights& w, std::int64_t dim, std::int64_t groups)
    : group_norm(w / "group_norm", dim, groups, kEps),
      qkv(detail::stack_rows(w, {"to_q", "to_k", "to_v"}, dim, dim, true)),
      to_out(w / "to_out" / 0, dim, dim) {}

Tensor AutoencoderKL::Attention::operator()(Tensor x) const {
  const Tensor parts = qkv(group_norm(x)).flatten(1, 2).unflatten(2, {3, 1, x.size(3)});  // [B, N, 3, 1, C]
  const Tensor y = attention(parts.select(2, 0), parts.select(2, 1), parts.select(2, 2));
  return to_out(y.view(x.shape()), {.residual = std::move(x)});
}

Tensor AutoencoderKL::Level::operator()(Tensor x) const {
  for (std::size_t i = 0; i < resnets.size(); ++i) {
    x = resnets[i](std::move(x));
    if (i < attentions.size()) x = attentions[i](std::move(x));
  }
  return down.defined() ? down(x) : up.defined() ? up(x) : x;
}

Tensor AutoencoderKL::Half::operator()(const Tensor& x) const {
  Tensor y = conv_in(x);
  for (const Level& level : levels) y = level(std::move(y));
  return conv_out(norm_out(std::move(y), {.activation = Activation::silu}));
}

AutoencoderKL::Level AutoencoderKL::make_level(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t layers,
                                               bool attention) const {
  Level level;
  for (std::int64_t i = 0; i < layers; ++i) {
    level.resnets.emplace_back(w / "resnets" / i, detail::ResnetBlockConfig{.in = i == 0 ? in : out,
                                                                            .out = out,
                                                                            .groups = config_.norm_num_groups,
                                                                            .eps = kEps,
                                                                            .activation = detail::parse_hidden_act(
                                                                                config_.name, "act_fn", config_.act_fn)});
    if (attention) level.attentions.emplace_back(w / "attentions" / i, out, config_.norm_num_groups);
  }
  return level;
}

AutoencoderKL::Level AutoencoderKL::make_middle(const Weights& w) const {
  const std::int64_t dim = config_.block_out_channels.back();
  Level level = make_level(w, dim, dim, 2, false);
  if (config_.mid_block_add_attention) level.attentions.emplace_back(w / "attentions" / 0, dim, config_.norm_num_groups);
  return level;
}

AutoencoderKL::Half AutoencoderKL::make_encoder(const Weights& w) const {
  const AutoencoderKLConfig& c = config_;
  const std::vector<std::int64_t>& dims = c.block_out_channels;
  Half half;
  half.conv_in = Conv2d(w / "conv_in", c.in_channels, dims.front(), 3, 3, kSame);
  for (std::size_t i = 0; i < dims.size(); ++i) {
    const Weights block = w / "down_blocks" / static_cast<std::int64_t>(i);
    Level level =
        make_level(block, dims[i == 0 ? 0 : i - 1], dims[i], c.layers_per_block, c.down_block_types[i] == kAttentionDown);
    if (i + 1 < dims.size()) level.down = Conv2d(block / "downsamplers" / 0 / "conv", dims[i], dims[i], 3, 3, kHalved);
    half.levels.push_back(std::move(level));
  }
  half.levels.push_back(make_middle(w / "mid_block"));
  half.norm_out = GroupNorm(w / "conv_norm_out", dims.back(), c.norm_num_groups, kEps);
  half.conv_out = Conv2d(w / "conv_out", dims.back(), 2 * c.latent_channels, 3, 3, kSame);
  return half;
}

AutoencoderKL::Half AutoencoderKL::make_decoder(const Weights& w) const {
  const AutoencoderKLConfig& c = config_;
  const std::vector<std::int64_t> dims(c.block_out_channels.rbegin(), c.block_out_channels.rend());
  Half half;
  half.conv_in = Conv2d(w / "conv_in", c.latent_channels, dims.front(), 3, 3, kSame);
  half.levels.push_back(make_middle(w / "mid_block"));
  for (std::size_t i = 0; i < dims.size(); ++i) {
    const Weights block = w / "up_blocks" / static_cast<std::int64_t>(i);
    Level level =
        make_level(block, dims[i == 0 ? 0 : i - 1], dims[i], c.layers_per_block + 1, c.up_block_types[i] == kAttentionUp);
    if (i + 1 < dims.size()) level.up = UpsampleConv2d(block / "upsamplers" / 0 / "conv", dims[i], dims[i]);
    half.levels.push_back(std::move(level));
  }
  half.norm_out = GroupNorm(w / "conv_norm_out", dims.back(), c.norm_num_groups, kEps);
  half.conv_out = Conv2d(w / "conv_out", dims.back(), c.out_channels, 3, 3, kSame);
  return half;
}

AutoencoderKL::AutoencoderKL(const Weights& w, AutoencoderKLConfig config) : config_(std::move(config)) {
  const AutoencoderKLConfig& c = config_;
  validate(c);
  rename_parameters(w, kNames);
  encoder_ = make_encoder(w / "encoder");
  decoder_ = make_decoder(w / "decoder");
  const std::int64_t moments = 2 * c.latent_channels;
  if (c.use_quant_conv) quant_conv_ = Linear(w / "quant_conv", moments, moments);
  if (c.use_post_quant_conv) post_quant_conv_ = Linear(w / "post_quant_conv", c.latent_channels, c.latent_channels);
  w.check(c.name);

  info_ = {.name = c.name,
           .source = "arXiv:2112.10752; diffusers AutoencoderKL",
           .in_channels = c.in_channels,
           .out_channels = c.out_channels,
           .latent_channels = c.latent_channels,
           .factor = std::int64_t{1} << (c.block_out_channels.size() - 1),
           .parameters = w.parameters(),
           .force_upcast = c.force_upcast};
  std::vector<float> scale{static_cast<float>(c.scaling_factor)}, shift{static_cast<float>(c.shift_factor.value_or(0.0))};
  if (!c.latents_std.empty()) {
    scale.clear();
    for (const double deviation : c.latents_std) scale.push_back(static_cast<float>(c.scaling_factor / deviation));
    shift.assign(c.latents_mean.begin(), c.latents_mean.end());
  }
  finish(w, scale, shift);
}

Tensor AutoencoderKL::Distribution::sample(const Tensor& noise) const {
  if (!noise.defined() || noise.shape() != mean.shape())
    throw Error(fmt::format("AutoencoderKL: noise is {}, expected {}", noise.defined() ? noise.shape().to_string() : "undefined",
                            mean.shape().to_string()));
  Tensor z = exp(affine(logvar.to(DType::f32), 0.5f, 0.0f));  // the deviation
  multiply_(z, noise);
  add_(z, mean);
  return z.to(mean.dtype());
}

AutoencoderKL::Distribution AutoencoderKL::distribution(const Tensor& images, const Tiling& tiling) const {
  const Tensor x = checked(images, info_.in_channels, info_.factor, "images");
  const Tensor moments = tiled(x, info_.factor, 1, tiling, [&](const Tensor& tile) {
    const Tensor y = encoder_(tile);
    return quant_conv_.defined() ? quant_conv_(y) : y;
  });
  const std::int64_t C = info_.latent_channels;
  return {moments.slice(3, 0, C), clamp(moments.slice(3, C, 2 * C), -30.0f, 20.0f)};
}

Tensor AutoencoderKL::encode(const Tensor& images, const Tensor& noise, const Tiling& tiling) const {
  const Distribution d = distribution(images, tiling);
  return noise.defined() ? d.sample(noise) : d.mean.contiguous();
}

Tensor AutoencoderKL::decode(const Tensor& latents, const Tiling& tiling) const {
  const Tensor z = checked(latents, info_.latent_channels, 1, "latents");
  return tiled(z, 1, info_.factor, tiling,
               [&](const Tensor& tile) { return decoder_(post_quant_conv_.defined() ? post_quant_conv_(tile) : tile); });
}

AutoencoderKLConfig parse_autoencoder_kl_config(const Arguments& arguments) {
  AutoencoderKLConfig c;
  detail::ArgumentReader(c.name, arguments)
      .get("in_channels", c.in_channels)
      .get("out_channels", c.out_channels)
      .get("latent_channels", c.latent_channels)
      .get("layers_per_block", c.layers_per_block)
      .get("norm_num_groups", c.norm_num_groups)
      .get("block_out_channels", c.block_out_channels)
      .get("down_block_types", c.down_block_types)
      .get("up_block_types", c.up_block_types)
      .get("act_fn", c.act_fn)
      .get("scaling_factor", c.scaling_factor)
      .get("shift_factor", c.shift_factor)
      .get("latents_mean", c.latents_mean)
      .get("latents_std", c.latents_std)
      .get("use_quant_conv", c.use_quant_conv)
      .get("use_post_quant_conv", c.use_post_quant_conv)
      .get("mid_block_add_attention", c.mid_block_add_attention)
      .get("force_upcast", c.force_upcast)
      .ignore({"_class_name", "_diffusers_version", "_name_or_path", "sample_size"})
      .finish();
  return c;
}

}  // namespace vitrine
