#include <vitrine/backbones/unet.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/arguments.h>
#include <vitrine/backbones/denoiser_family.h>
#include <vitrine/backbones/hierarchical.h>
#include <vitrine/backbones/text_encoder.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>
#include <vitrine/weights/sources.h>

namespace vitrine {

using detail::require;

namespace {

constexpr std::string_view kCrossDown = "CrossAttnDownBlock2D", kDown = "DownBlock2D", kCrossUp = "CrossAttnUpBlock2D",
                           kUp = "UpBlock2D", kCrossMid = "UNetMidBlock2DCrossAttn", kMid = "UNetMidBlock2D";

Conv2dOptions padded(std::int64_t kernel) { return {.pad_h = (kernel - 1) / 2, .pad_w = (kernel - 1) / 2}; }

// Configuration with every list spelled out by level, checked.
UNetConfig checked(UNetConfig c) {
  const std::size_t levels = c.block_out_channels.size();
  require(levels > 0 && levels <= 8, c.name, fmt::format("block_out_channels has {} levels, expected 1 to 8", levels));
  require(c.down_block_types.size() == levels && c.up_block_types.size() == levels, c.name,
          fmt::format("{} down_block_types and {} up_block_types for {} block_out_channels", c.down_block_types.size(),
                      c.up_block_types.size(), levels));
  const auto by_level = [&](auto& list, std::string_view what) {
    if (list.size() == 1) list.resize(levels, list.front());
    require(list.size() == levels, c.name, fmt::format("{} has {} values for {} levels", what, list.size(), levels));
  };
  by_level(c.layers_per_block, "layers_per_block");
  by_level(c.transformer_layers_per_block, "transformer_layers_per_block");
  by_level(c.cross_attention_dim, "cross_attention_dim");
  by_level(c.attention_head_dim, "attention_head_dim");
  by_level(c.only_cross_attention, "only_cross_attention");
  for (const auto& [value, what] : {std::pair(c.in_channels, "in_channels"),
                                    {c.out_channels, "out_channels"},
                                    {c.norm_num_groups, "norm_num_groups"},
                                    {c.addition_time_embed_dim, "addition_time_embed_dim"},
                                    {c.projection_class_embeddings_input_dim, "projection_class_embeddings_input_dim"},
                                    {c.time_embedding_dim.value_or(1), "time_embedding_dim"},
                                    {c.time_cond_proj_dim.value_or(1), "time_cond_proj_dim"},
                                    {c.num_class_embeds.value_or(1), "num_class_embeds"},
                                    {c.sample_size[0], "sample_size"},
                                    {c.sample_size[1], "sample_size"}})
    detail::require_size(c.name, what, value);
  for (std::size_t i = 0; i < levels; ++i) {
    detail::require_size(c.name, "block_out_channels", c.block_out_channels[i]);
    detail::require_size(c.name, "layers_per_block", c.layers_per_block[i]);
    detail::require_size(c.name, "transformer_layers_per_block", c.transformer_layers_per_block[i], 1 << 16, 0);
    detail::require_size(c.name, "cross_attention_dim", c.cross_attention_dim[i]);
    detail::require_size(c.name, "attention_head_dim", c.attention_head_dim[i]);
    require(c.block_out_channels[i] % c.norm_num_groups == 0, c.name,
            fmt::format("norm_num_groups {} does not divide block_out_channels {}", c.norm_num_groups, c.block_out_channels[i]));
    require(c.block_out_channels[i] % c.attention_head_dim[i] == 0, c.name,
            fmt::format("attention_head_dim {}, the number of heads, does not divide block_out_channels {}",
                        c.attention_head_dim[i], c.block_out_channels[i]));
    require(c.cross_attention_dim[i] == c.cross_attention_dim[0], c.name, "cross_attention_dim differs between levels");
    detail::parse_choice(c.name, "down_block_types", c.down_block_types[i], {kCrossDown, kDown});
    detail::parse_choice(c.name, "up_block_types", c.up_block_types[i], {kCrossUp, kUp});
  }
  if (c.mid_block_type) detail::parse_choice(c.name, "mid_block_type", *c.mid_block_type, {kCrossMid, kMid});
  detail::parse_choice(c.name, "resnet_time_scale_shift", c.resnet_time_scale_shift, {"default", "scale_shift"});
  if (c.class_embed_type) detail::parse_choice(c.name, "class_embed_type", *c.class_embed_type, {"timestep"});
  if (c.addition_embed_type) {
    detail::parse_choice(c.name, "addition_embed_type", *c.addition_embed_type, {"text_time"});
    require(c.projection_class_embeddings_input_dim > 6 * c.addition_time_embed_dim, c.name,
            fmt::format("projection_class_embeddings_input_dim is {}, expected the text's and 6 times addition_time_embed_dim {}",
                        c.projection_class_embeddings_input_dim, c.addition_time_embed_dim));
  }
  for (const auto& [kernel, what] : {std::pair(c.conv_in_kernel, "conv_in_kernel"), {c.conv_out_kernel, "conv_out_kernel"}})
    require(kernel >= 1 && kernel <= 31 && kernel % 2 == 1, c.name, fmt::format("{} is {}, expected an odd size", what, kernel));
  require(c.downsample_padding == 0 || c.downsample_padding == 1, c.name,
          fmt::format("downsample_padding is {}, expected 0 or 1", c.downsample_padding));
  require(c.mid_block_scale_factor != 0, c.name, "mid_block_scale_factor must not be 0");
  require(c.norm_eps >= 0 && c.norm_eps < 1, c.name, "norm_eps is out of range");
  return c;
}

// The paths of all self-attention layers, in the order of the original's modules: down, up, middle.
std::vector<std::string> self_attention_paths(const UNetConfig& c) {
  std::vector<std::string> paths;
  const auto add = [&](const std::string& block, std::int64_t steps, std::int64_t layers) {
    for (std::int64_t step = 0; step < steps; ++step)
      for (std::int64_t layer = 0; layer < layers; ++layer)
        paths.push_back(fmt::format("{}.attentions.{}.transformer_blocks.{}.attn1", block, step, layer));
  };
  const std::size_t levels = c.block_out_channels.size();
  for (std::size_t i = 0; i < levels; ++i)
    if (c.down_block_types[i] == kCrossDown)
      add(fmt::format("down_blocks.{}", i), c.layers_per_block[i], c.transformer_layers_per_block[i]);
  for (std::size_t i = 0; i < levels; ++i)
    if (c.up_block_types[i] == kCrossUp)
      add(fmt::format("up_blocks.{}", i), c.layers_per_block[levels - 1 - i] + 1, c.transformer_layers_per_block[levels - 1 - i]);
  if (c.mid_block_type == kCrossMid) add("mid_block", 1, c.transformer_layers_per_block.back());
  return paths;
}

}  // namespace

UNet::Step UNet::make_step(const Weights& block, std::int64_t index, std::int64_t in, std::size_t level, bool attention,
                           double scale_factor) const {
  const UNetConfig& c = config_;
  const std::int64_t dim = c.block_out_channels[level];
  Step step{
      detail::ResnetBlock(block / "resnets" / index, {.in = in,
                                                      .out = dim,
                                                      .time_channels = c.time_embedding_dim.value_or(4 * c.block_out_channels[0]),
                                                      .groups = c.norm_num_groups,
                                                      .eps = c.norm_eps,
                                                      .activation = activation_,
                                                      .scale_shift = c.resnet_time_scale_shift == "scale_shift",
                                                      .output_scale_factor = scale_factor}),
      std::nullopt};
  if (attention)
    step.transformer.emplace(block / "attentions" / index,
                             detail::SpatialTransformerConfig{.dim = dim,
                                                              .heads = c.attention_head_dim[level],
                                                              .layers = c.transformer_layers_per_block[level],
                                                              .groups = c.norm_num_groups,
                                                              .text_channels = c.cross_attention_dim[level],
                                                              .only_cross_attention = c.only_cross_attention[level],
                                                              .attention = c.attention});
  return step;
}

void UNet::make_embeddings(const Weights& w) {
  const UNetConfig& c = config_;
  const std::int64_t in = c.block_out_channels[0], out = c.time_embedding_dim.value_or(4 * in);
  time_embedding_ = detail::VectorMlp(w / "time_embedding", in, out, activation_);
  if (c.time_cond_proj_dim)
    cond_proj_ = detail::vector_linear(w / "time_embedding" / "cond_proj", *c.time_cond_proj_dim, in, false);
  if (c.class_embed_type)
    class_embedding_ = detail::VectorMlp(w / "class_embedding", in, out, activation_);
  else if (c.num_class_embeds)
    class_table_ = (w / "class_embedding").on_device("weight", {*c.num_class_embeds, out});
  if (c.addition_embed_type)
    add_embedding_ = detail::VectorMlp(w / "add_embedding", c.projection_class_embeddings_input_dim, out);
}

UNet::UNet(const Weights& w, UNetConfig config) : config_(checked(std::move(config))) {
  const UNetConfig& c = config_;
  activation_ = detail::parse_hidden_act(c.name, "act_fn", c.act_fn);
  const std::vector<std::int64_t>& dims = c.block_out_channels;
  const std::size_t levels = dims.size();
  conv_in_ = Conv2d(w / "conv_in", c.in_channels, dims[0], c.conv_in_kernel, c.conv_in_kernel, padded(c.conv_in_kernel));
  make_embeddings(w);
  const Conv2dOptions halved = c.downsample_padding == 1
                                   ? Conv2dOptions{.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1}
                                   : Conv2dOptions{.stride_h = 2, .stride_w = 2, .pad_end_h = 1, .pad_end_w = 1};

  std::vector<std::int64_t> skips{dims[0]};  // channels of the maps that go to the way up
  for (std::size_t i = 0; i < levels; ++i) {
    const Weights block = w / "down_blocks" / static_cast<std::int64_t>(i);
    Level level;
    for (std::int64_t k = 0; k < c.layers_per_block[i]; ++k) {
      level.steps.push_back(make_step(block, k, skips.back(), i, c.down_block_types[i] == kCrossDown));
      skips.push_back(dims[i]);
    }
    if (i + 1 < levels) {
      level.down = Conv2d(block / "downsamplers" / 0 / "conv", dims[i], dims[i], 3, 3, halved);
      skips.push_back(dims[i]);
    }
    down_.push_back(std::move(level));
  }

  if (c.mid_block_type) {
    const Weights block = w / "mid_block";
    const bool attention = *c.mid_block_type == kCrossMid;
    mid_.push_back(make_step(block, 0, dims.back(), levels - 1, attention, c.mid_block_scale_factor));
    if (attention) mid_.push_back(make_step(block, 1, dims.back(), levels - 1, false, c.mid_block_scale_factor));
  }

  std::int64_t channels = dims.back();
  for (std::size_t up = 0; up < levels; ++up) {
    const std::size_t i = levels - 1 - up;
    const Weights block = w / "up_blocks" / static_cast<std::int64_t>(up);
    Level level;
    for (std::int64_t k = 0; k <= c.layers_per_block[i]; ++k) {
      level.steps.push_back(make_step(block, k, channels + skips.back(), i, c.up_block_types[up] == kCrossUp));
      skips.pop_back();
      channels = dims[i];
    }
    if (i > 0) level.up = UpsampleConv2d(block / "upsamplers" / 0 / "conv", dims[i], dims[i], {.any_size = true});
    up_.push_back(std::move(level));
  }
  norm_out_ = GroupNorm(w / "conv_norm_out", dims[0], c.norm_num_groups, c.norm_eps);
  conv_out_ = Conv2d(w / "conv_out", dims[0], c.out_channels, c.conv_out_kernel, c.conv_out_kernel, padded(c.conv_out_kernel));

  info_.name = c.name;
  info_.in_channels = c.in_channels;
  info_.out_channels = info_.guided_channels = c.out_channels;
  info_.height = c.sample_size[0];
  info_.width = c.sample_size[1];
  info_.num_classes = c.num_class_embeds.value_or(0);
  info_.text_channels = self_attention_paths(c).empty() ? 0 : c.cross_attention_dim[0];
  if (c.addition_embed_type) info_.pooled_channels = c.projection_class_embeddings_input_dim - 6 * c.addition_time_embed_dim;
  info_.takes_guidance = c.time_cond_proj_dim.has_value();
  info_.takes_time_ids = c.addition_embed_type.has_value();
  dtype_ = w.dtype();
}

UNet UNet::with_agent(const AgentSdOptions& options) const {
  require(config_.attention == UNetAttention::agent, info_.name, "agent options for a network whose attention is not agent");
  UNet other = *this;
  other.config_.agent = options;
  return other;
}

// f32 [B, time channels], activated: what all residual blocks look at.
Tensor UNet::embed(const Tensor& timesteps, const Conditioning& conditioning) const {
  const UNetConfig& c = config_;
  const std::int64_t B = timesteps.size(0), dim = c.block_out_channels[0];
  const auto sinusoids = [&](const Tensor& values, std::int64_t channels) {
    return vitrine::sinusoids(values, channels, static_cast<double>(channels / 2) - c.freq_shift, c.flip_sin_to_cos);
  };
  Tensor time = sinusoids(timesteps, dim);
  if (cond_proj_.defined()) {
    const std::int64_t channels = *c.time_cond_proj_dim;
    const Tensor& guidance = conditioning.guidance;
    // Latent consistency models: the guidance scale less one, as 1000 times a time.
    add_(time, cond_proj_(guidance.rank() == 2
                              ? detail::required(info_, "guidance", guidance, {B, channels}).to(DType::f32)
                              : vitrine::sinusoids(
                                    affine(detail::required(info_, "guidance", guidance, {B}).to(DType::f32), 1000.0f, -1000.0f),
                                    channels, static_cast<double>(channels / 2) - 1.0, false)));
  }
  Tensor y = time_embedding_(time);
  if (c.timestep_post_act) activate_(y, detail::parse_hidden_act(c.name, "timestep_post_act", *c.timestep_post_act));
  if (class_embedding_.defined())
    add_(y, class_embedding_(sinusoids(detail::required(info_, "labels", conditioning.labels, {B}).to(DType::f32), dim)));
  if (class_table_.defined()) {
    const Tensor labels = detail::required(info_, "labels", conditioning.labels, {B}).to(DType::i64).contiguous();
    for (std::int64_t b = 0; labels.device() == Device{} && b < B; ++b) {  // those on a GPU are not waited for
      const std::int64_t label = labels.data<std::int64_t>()[b];
      require(label >= 0 && label < class_table_.size(0), c.name,
              fmt::format("labels has {}, expected 0 to {}", label, class_table_.size(0) - 1));
    }
    add_(y, gather_rows(class_table_, labels));
  }
  if (add_embedding_.defined()) {
    const Tensor ids = detail::required(info_, "time_ids", conditioning.time_ids, {B, 6}).contiguous();
    const Tensor parts[] = {detail::required(info_, "pooled", conditioning.pooled, {B, info_.pooled_channels}).to(DType::f32),
                            sinusoids(ids.view({6 * B}), c.addition_time_embed_dim).view({B, 6 * c.addition_time_embed_dim})};
    add_(y, add_embedding_(concat(parts, 1)));
  }
  if (c.time_embedding_act_fn) activate_(y, detail::parse_hidden_act(c.name, "time_embedding_act_fn", *c.time_embedding_act_fn));
  activate_(y, activation_);
  return y;
}

Tensor UNet::run(const Step& step, Tensor x, const Tensor& time, const detail::TransformerContext& context) const {
  x = step.resnet(std::move(x), time);
  return step.transformer ? (*step.transformer)(std::move(x), context) : x;
}

Tensor UNet::forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning,
                     const Observer& observer) const {
  const UNetConfig& c = config_;
  detail::check_latents(info_, latents, timesteps);
  const std::int64_t B = latents.size(0);
  detail::TransformerContext context{.latent_tokens = latents.size(1) * latents.size(2), .agent_sd = c.agent};
  if (info_.text_channels > 0) {
    const Tensor& text = detail::required(info_, "text", conditioning.text, {B, -1, info_.text_channels});
    context.text = text.to(dtype_);
    context.text_bias = detail::text_bias(info_, conditioning, text);
  }
  const Tensor time = embed(timesteps, conditioning);  // [B, time channels]

  Tensor x = latents.to(dtype_);
  x = conv_in_(c.center_input_sample ? affine(x, 2.0f, -1.0f) : x);  // [B, H, W, C]
  detail::observe_nchw(observer, "conv_in", x);
  std::vector<Tensor> skips{x};
  for (std::size_t i = 0; i < down_.size(); ++i) {
    for (const Step& step : down_[i].steps) skips.push_back(x = run(step, std::move(x), time, context));
    if (down_[i].down.defined()) skips.push_back(x = down_[i].down(x));  // [B, ceil(H / 2), ceil(W / 2), C]
    detail::observe_nchw(observer, fmt::format("down_blocks.{}", i), x);
  }
  for (const Step& step : mid_) x = run(step, std::move(x), time, context);
  detail::observe_nchw(observer, "mid_block", x);
  for (std::size_t i = 0; i < up_.size(); ++i) {
    for (const Step& step : up_[i].steps) {
      const Tensor parts[] = {std::exchange(x, {}), std::move(skips.back())};
      skips.pop_back();
      x = run(step, concat(parts, 3), time, context);
    }
    if (up_[i].up.defined()) x = up_[i].up(x, skips.back().size(1), skips.back().size(2));
    detail::observe_nchw(observer, fmt::format("up_blocks.{}", i), x);
  }
  return conv_out_(norm_out_(std::move(x), {.activation = activation_})).to(latents.dtype());  // [B, H, W, out_channels]
}

// --- configuration -----------------------------------------------------------------------------------------------

namespace {

AgentSdOptions parse_agent(const std::string& model, const std::string& json) {
  AgentSdOptions o;
  const std::string where = model + ": agent";
  const Arguments arguments = detail::parse_json_arguments(json, where);
  detail::ArgumentReader(where, arguments)
      .get("ratio", o.ratio)
      .get("agent_ratio", o.agent_ratio)
      .get("max_downsample", o.max_downsample)
      .get("sx", o.sx)
      .get("sy", o.sy)
      .get("k_scale2", o.k_scale2)
      .get("k_shortcut", o.k_shortcut)
      .finish();
  return o;
}

}  // namespace

UNetConfig parse_unet_config(const Arguments& arguments, std::string_view name) {
  UNetConfig c;
  c.name = name;
  std::string attention = "softmax", attention_type = "default", time_embedding_type = "positional";
  bool dual = false, concatenated = false;
  detail::ArgumentReader reader(c.name, arguments);
  reader.get("sample_size", c.sample_size)
      .get("in_channels", c.in_channels)
      .get("out_channels", c.out_channels)
      .get("center_input_sample", c.center_input_sample)
      .get("down_block_types", c.down_block_types)
      .get("mid_block_type", c.mid_block_type)
      .get("up_block_types", c.up_block_types)
      .get_list("only_cross_attention", c.only_cross_attention)
      .get("block_out_channels", c.block_out_channels)
      .get_list("layers_per_block", c.layers_per_block)
      .get_list("transformer_layers_per_block", c.transformer_layers_per_block)
      .get_list("cross_attention_dim", c.cross_attention_dim)
      .get_list("attention_head_dim", c.attention_head_dim)
      .get("downsample_padding", c.downsample_padding)
      .get("mid_block_scale_factor", c.mid_block_scale_factor)
      .get("act_fn", c.act_fn)
      .get("resnet_time_scale_shift", c.resnet_time_scale_shift)
      .get("norm_num_groups", c.norm_num_groups)
      .get("norm_eps", c.norm_eps)
      .get("use_linear_projection", c.use_linear_projection)
      .get("conv_in_kernel", c.conv_in_kernel)
      .get("conv_out_kernel", c.conv_out_kernel)
      .get("flip_sin_to_cos", c.flip_sin_to_cos)
      .get("freq_shift", c.freq_shift)
      .get("time_embedding_dim", c.time_embedding_dim)
      .get("time_cond_proj_dim", c.time_cond_proj_dim)
      .get("time_embedding_act_fn", c.time_embedding_act_fn)
      .get("timestep_post_act", c.timestep_post_act)
      .get("class_embed_type", c.class_embed_type)
      .get("num_class_embeds", c.num_class_embeds)
      .get("addition_embed_type", c.addition_embed_type)
      .get("addition_time_embed_dim", c.addition_time_embed_dim)
      .get("projection_class_embeddings_input_dim", c.projection_class_embeddings_input_dim)
      .get("attention", attention)
      .get("attention_type", attention_type)
      .get("time_embedding_type", time_embedding_type)
      .get("dual_cross_attention", dual)
      .get("class_embeddings_concat", concatenated)
      // of training, of other kinds of blocks; attention is done in f32 anyway
      .ignore({"dropout", "upcast_attention", "resnet_skip_time_act", "resnet_out_scale_factor", "mid_block_only_cross_attention",
               "addition_embed_type_num_heads", "agent"});
  // Of other models (Kandinsky, GLIGEN, asymmetric ones) and not known here: they may be there without a value.
  constexpr std::array<std::string_view, 5> kUnknown{"num_attention_heads", "encoder_hid_dim", "encoder_hid_dim_type",
                                                     "cross_attention_norm", "reverse_transformer_layers_per_block"};
  for (const std::string_view name : kUnknown) {
    require(!reader.has(name), c.name, fmt::format("{} is not known; expected null", name));
    reader.ignore({name});
  }
  reader.finish();
  require(
      attention_type == "default" && time_embedding_type == "positional" && !dual && !concatenated, c.name,
      "attention_type default, time_embedding_type positional, no dual_cross_attention and no class_embeddings_concat are known");
  constexpr std::string_view kAttentions[] = {"softmax", "linfusion", "agent"};
  c.attention = static_cast<UNetAttention>(detail::parse_choice(c.name, "attention", attention, kAttentions));
  if (reader.has("agent")) {
    require(c.attention == UNetAttention::agent, c.name, "agent has options, but attention is not agent");
    c.agent = parse_agent(c.name, arguments.at("agent"));
  }
  return checked(std::move(c));
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

constexpr DenoiserVariant kVariants[] = {
    {"stable-diffusion-v1-5", R"({"cross_attention_dim":768})"},
    {"stable-diffusion-2-1",
     R"({"sample_size":96,"cross_attention_dim":1024,"attention_head_dim":[5,10,20,20],"use_linear_projection":true})"},
    {"stable-diffusion-xl-base-1.0",
     R"({"sample_size":128,"block_out_channels":[320,640,1280],)"
     R"("down_block_types":["DownBlock2D","CrossAttnDownBlock2D","CrossAttnDownBlock2D"],)"
     R"("up_block_types":["CrossAttnUpBlock2D","CrossAttnUpBlock2D","UpBlock2D"],)"
     R"("cross_attention_dim":2048,"attention_head_dim":[5,10,20],"transformer_layers_per_block":[1,2,10],)"
     R"("use_linear_projection":true,"addition_embed_type":"text_time"})"},
};
constexpr DenoiserVariant kConstructors[] = {{"UNet2DConditionModel", "{}"}};

// The names of CompVis/stable-diffusion and Stability's, whose files hold a whole pipeline. Transformers are as ours inside.
constexpr NameRule kCompVisLayers[] = {
    {R"(model\.diffusion_model\.(.*)\.in_layers\.0\.(.*))", "$1.norm1.$2"},
    {R"(model\.diffusion_model\.(.*)\.in_layers\.2\.(.*))", "$1.conv1.$2"},
    {R"(model\.diffusion_model\.(.*)\.emb_layers\.1\.(.*))", "$1.time_emb_proj.$2"},
    {R"(model\.diffusion_model\.(.*)\.out_layers\.0\.(.*))", "$1.norm2.$2"},
    {R"(model\.diffusion_model\.(.*)\.out_layers\.3\.(.*))", "$1.conv2.$2"},
    {R"(model\.diffusion_model\.(.*)\.skip_connection\.(.*))", "$1.conv_shortcut.$2"},
    {R"(model\.diffusion_model\.time_embed\.0\.(.*))", "time_embedding.linear_1.$1"},
    {R"(model\.diffusion_model\.time_embed\.2\.(.*))", "time_embedding.linear_2.$1"},
    {R"(model\.diffusion_model\.label_emb\.0\.0\.(.*))", "add_embedding.linear_1.$1"},
    {R"(model\.diffusion_model\.label_emb\.0\.2\.(.*))", "add_embedding.linear_2.$1"},
    {R"(model\.diffusion_model\.out\.0\.(.*))", "conv_norm_out.$1"},
    {R"(model\.diffusion_model\.out\.2\.(.*))", "conv_out.$1"},
    {R"(model\.diffusion_model\.(.*))", "$1"},
    {".*", ""},  // the other networks of the pipeline
};
// Its blocks are numbered through: on the way down two and one that halves a level, on the way up three.
#define VITRINE_DOWN(level, first, second, half)                                                \
  {R"(input_blocks\.)" first R"(\.0\.(.*))", "down_blocks." level ".resnets.0.$1"},             \
      {R"(input_blocks\.)" first R"(\.1\.(.*))", "down_blocks." level ".attentions.0.$1"},      \
      {R"(input_blocks\.)" second R"(\.0\.(.*))", "down_blocks." level ".resnets.1.$1"},        \
      {R"(input_blocks\.)" second R"(\.1\.(.*))", "down_blocks." level ".attentions.1.$1"}, {   \
    R"(input_blocks\.)" half R"(\.0\.op\.(.*))", "down_blocks." level ".downsamplers.0.conv.$1" \
  }
#define VITRINE_UP(level, first, second, third)                                                     \
  {R"(output_blocks\.)" third R"(\.[12]\.conv\.(.*))", "up_blocks." level ".upsamplers.0.conv.$1"}, \
      {R"(output_blocks\.)" first R"(\.0\.(.*))", "up_blocks." level ".resnets.0.$1"},              \
      {R"(output_blocks\.)" first R"(\.1\.(.*))", "up_blocks." level ".attentions.0.$1"},           \
      {R"(output_blocks\.)" second R"(\.0\.(.*))", "up_blocks." level ".resnets.1.$1"},             \
      {R"(output_blocks\.)" second R"(\.1\.(.*))", "up_blocks." level ".attentions.1.$1"},          \
      {R"(output_blocks\.)" third R"(\.0\.(.*))", "up_blocks." level ".resnets.2.$1"}, {            \
    R"(output_blocks\.)" third R"(\.1\.(.*))", "up_blocks." level ".attentions.2.$1"                \
  }
constexpr NameRule kCompVisBlocks[] = {
    {R"(input_blocks\.0\.0\.(.*))", "conv_in.$1"},
    VITRINE_DOWN("0", "1", "2", "3"),
    VITRINE_DOWN("1", "4", "5", "6"),
    VITRINE_DOWN("2", "7", "8", "9"),
    VITRINE_DOWN("3", "10", "11", "12"),
    {R"(middle_block\.0\.(.*))", "mid_block.resnets.0.$1"},
    {R"(middle_block\.1\.(.*))", "mid_block.attentions.0.$1"},
    {R"(middle_block\.2\.(.*))", "mid_block.resnets.1.$1"},
    VITRINE_UP("0", "0", "1", "2"),
    VITRINE_UP("1", "3", "4", "5"),
    VITRINE_UP("2", "6", "7", "8"),
    VITRINE_UP("3", "9", "10", "11"),
};
#undef VITRINE_DOWN
#undef VITRINE_UP
constexpr NameMap kNames[] = {{"model.diffusion_model.input_blocks.0.0.weight", kCompVisLayers, kCompVisBlocks}};

std::unique_ptr<Denoiser> build_unet(std::string_view name, const Weights& w, const Arguments& arguments) {
  return std::make_unique<UNet>(w, parse_unet_config(arguments, name));
}

}  // namespace

constinit const DenoiserFamily kUNetFamily{
    "unet", "arXiv:2112.10752; diffusers 0.42 unet_2d_condition.py", kVariants, kConstructors, build_unet, kNames};

}  // namespace detail

std::shared_ptr<const WeightSource> with_linfusion(std::shared_ptr<const WeightSource> unet,
                                                   std::shared_ptr<const WeightSource> linfusion, const UNetConfig& config) {
  const std::vector<std::string> paths = self_attention_paths(checked(config));
  std::vector<std::string> patterns, names;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    patterns.push_back(fmt::format(R"({}\.(.*))", i));
    names.push_back(paths[i] + ".$1");
  }
  std::vector<NameRule> rules;
  for (std::size_t i = 0; i < paths.size(); ++i) rules.push_back({patterns[i], names[i]});
  return overlaid(renamed(std::move(unet), detail::kNames), renamed(std::move(linfusion), rules));
}

}  // namespace vitrine
