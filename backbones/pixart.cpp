#include <vitrine/backbones/pixart.h>

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/backbones/arguments.h>
#include <vitrine/backbones/denoiser_family.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::require;

namespace {

constexpr std::int64_t kMlpRatio = 4;

std::int64_t dim_of(const PixArtConfig& c) { return c.num_attention_heads * c.attention_head_dim; }

void validate(const PixArtConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto check = [&](bool right, std::string_view what) { require(right, c.name, what); };
  check(sane(c.attention_head_dim) && sane(c.num_attention_heads) && sane(dim_of(c)) && dim_of(c) % 4 == 0,
        "attention_head_dim or num_attention_heads is out of range, or their product no multiple of 4");
  check(c.num_layers > 0 && c.num_layers <= 1000, "num_layers is out of range");
  check(sane(c.in_channels) && sane(c.out_channels), "in_channels or out_channels is out of range");
  check(sane(c.patch_size) && c.patch_size <= 256 && sane(c.sample_size) && c.sample_size >= c.patch_size,
        "patch_size or sample_size is out of range");
  check(sane(c.cross_attention_dim.value_or(1)) && sane(c.caption_channels.value_or(1)),
        "cross_attention_dim or caption_channels is out of range");
  check(!c.caption_channels || !c.cross_attention_dim || *c.cross_attention_dim == dim_of(c),
        "with caption_channels cross_attention_dim must be attention_head_dim * num_attention_heads");
  check(c.norm_eps >= 0 && c.norm_eps < 1, "norm_eps is out of range");
  check(c.interpolation_scale > 0 && c.interpolation_scale <= 1024, "interpolation_scale is out of range");
  check(!c.use_additional_conditions || dim_of(c) % 3 == 0,
        "use_additional_conditions needs attention_head_dim * num_attention_heads to be a multiple of 3");
}

}  // namespace

PixArt::Block::Block(const Weights& w, const PixArtConfig& c)
    : num_heads(c.num_attention_heads),
      eps(c.norm_eps),
      scale_shift_table(w.on_device("scale_shift_table", {6, dim_of(c)})),
      qkv(detail::stack_rows(w / "attn1", {"to_q", "to_k", "to_v"}, dim_of(c), dim_of(c), c.attention_bias)),
      to_out(w / "attn1.to_out.0", dim_of(c), dim_of(c)),
      has_text(c.cross_attention_dim.has_value()),
      ff(w / "ff", dim_of(c), kMlpRatio * dim_of(c), c.activation_fn, c.name) {
  if (c.norm_elementwise_affine) {
    norm1_weight = (w / "norm1").on_device("weight", {dim_of(c)});
    norm1_bias = (w / "norm1").on_device("bias", {dim_of(c)});
    norm2_weight = (w / "norm2").on_device("weight", {dim_of(c)});
    norm2_bias = (w / "norm2").on_device("bias", {dim_of(c)});
  }
  if (!has_text) return;
  detail::CrossAttention::Config cross;
  cross.dim = dim_of(c);
  cross.text_dim = *c.cross_attention_dim;
  cross.num_heads = c.num_attention_heads;
  cross.head_dim = c.attention_head_dim;
  cross.bias = c.attention_bias;
  cross.model = c.name;
  attn2 = detail::CrossAttention(w / "attn2", cross);
}

void PixArt::Block::operator()(Tensor& x, const Tensor& steer, const Tensor& text, const Tensor& text_bias) const {
  const Tensor m = add(steer, scale_shift_table);  // [B, 6, dim]: shift, scale, gate of attention, then of the MLP
  const Tensor y = layer_norm(x, norm1_weight, norm1_bias, eps, m.select(1, 1), m.select(1, 0));
  const Tensor heads = qkv(y).unflatten(2, {3, num_heads, x.size(2) / num_heads});  // [B, N, 3, heads, D]
  to_out.add_to(x, attention(heads.select(2, 0), heads.select(2, 1), heads.select(2, 2)).flatten(2, 3), m.select(1, 2));
  if (has_text) attn2.add_to(x, x, text, text_bias);  // without norm and gate
  ff.add_to(x, layer_norm(x, norm2_weight, norm2_bias, eps, m.select(1, 4), m.select(1, 3)), m.select(1, 5));
}

PixArt::PixArt(const Weights& w, PixArtConfig config) : config_(std::move(config)) {
  const PixArtConfig& c = config_;
  validate(c);
  const std::int64_t dim = dim_of(c);
  const Weights single = w / "adaln_single";
  pos_embed_ = PatchEmbed(w / "pos_embed.proj", c.in_channels, dim, c.patch_size, c.patch_size);
  timestep_embedder_ = detail::TimestepEmbedder(single / "emb.timestep_embedder", dim);
  if (c.use_additional_conditions) {
    resolution_embedder_ = detail::TimestepEmbedder(single / "emb.resolution_embedder", dim / 3);
    aspect_ratio_embedder_ = detail::TimestepEmbedder(single / "emb.aspect_ratio_embedder", dim / 3);
  }
  adaln_single_ = detail::vector_linear(single / "linear", dim, 6 * dim);
  if (c.caption_channels) {
    caption_1_ = Linear(w / "caption_projection.linear_1", *c.caption_channels, dim);
    caption_2_ = Linear(w / "caption_projection.linear_2", dim, dim);
  }
  for (std::int64_t i = 0; i < c.num_layers; ++i) blocks_.emplace_back(w / "transformer_blocks" / i, c);
  scale_shift_table_ = w.on_device("scale_shift_table", {2, dim});
  proj_out_ = Linear(w / "proj_out", dim, c.patch_size * c.patch_size * c.out_channels);
  dtype_ = w.dtype();
  info_.name = c.name;
  info_.in_channels = c.in_channels;
  info_.out_channels = c.out_channels;
  info_.guided_channels = std::min(c.in_channels, c.out_channels);
  info_.height = info_.width = c.sample_size / c.patch_size * c.patch_size;
  info_.multiple = c.patch_size;
  info_.text_channels = c.cross_attention_dim ? c.caption_channels.value_or(*c.cross_attention_dim) : 0;
  info_.takes_size = c.use_additional_conditions;
}

// [B, dim]: height, width and their ratio, a third of the channels each.
Tensor PixArt::embed_size(const Conditioning& conditioning, std::int64_t batch) const {
  const Tensor& resolution = detail::required(info_, "resolution", conditioning.resolution, {batch, 2});
  const Tensor& ratio = detail::required(info_, "aspect_ratio", conditioning.aspect_ratio, {batch, 1});
  const Tensor parts[] = {resolution_embedder_(resolution.contiguous().view({2 * batch})).view({batch, -1}),
                          aspect_ratio_embedder_(ratio.contiguous().view({batch}))};
  return concat(parts, 1);
}

Tensor PixArt::forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning,
                       const Observer& observer) const {
  const PixArtConfig& c = config_;
  detail::check_latents(info_, latents, timesteps);
  const std::int64_t B = latents.size(0), dim = dim_of(c), height = latents.size(1) / c.patch_size,
                     width = latents.size(2) / c.patch_size;
  Tensor time = timestep_embedder_(timesteps);  // [B, dim]
  if (c.use_additional_conditions) add_(time, embed_size(conditioning, B));
  const Tensor steer = adaln_single_(activate(time, Activation::silu)).unflatten(1, {6, dim});

  Tensor text, text_bias;
  if (info_.text_channels > 0) {
    text = detail::required(info_, "text", conditioning.text, {B, -1, info_.text_channels}).to(dtype_);
    text_bias = detail::text_bias(info_, conditioning, text);
    if (c.caption_channels) text = caption_2_(caption_1_(text, {.activation = Activation::gelu_tanh, .residual = {}}));
  }

  const Tensor position = positions_.get(height, width, [&] {
    return detail::scaled_positions(dim, height, width, static_cast<double>(c.sample_size / c.patch_size), c.interpolation_scale)
        .unsqueeze(0)
        .to(device_);
  });
  if (observer) observer("pos_embed.pos_embed", position);
  Tensor x = pos_embed_(latents.to(dtype_)).flatten(1, 2);  // [B, N, dim]
  add_(x, position);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i](x, steer, text, text_bias);
    if (observer) observer(fmt::format("transformer_blocks.{}", i), x);
  }
  const Tensor m = detail::modulation_of(scale_shift_table_, time);
  const Tensor y = proj_out_(detail::modulated_norm(x, m, 0));  // [B, N, patch patch C]
  return detail::unpatchify(y, height, width, c.patch_size).to(latents.dtype());
}

// --- arguments ---------------------------------------------------------------------------------------------------

namespace detail {
namespace {

std::unique_ptr<Denoiser> build_pixart(std::string_view name, const Weights& w, const Arguments& arguments) {
  PixArtConfig c;
  c.name = name;
  std::string norm_type = "ada_norm_single", attention_type = "default";
  std::optional<std::int64_t> out_channels = c.out_channels;
  std::optional<double> interpolation_scale;
  std::optional<bool> use_additional_conditions;
  ArgumentReader(name, arguments)
      .get("num_attention_heads", c.num_attention_heads)
      .get("attention_head_dim", c.attention_head_dim)
      .get("in_channels", c.in_channels)
      .get("out_channels", out_channels)
      .get("num_layers", c.num_layers)
      .get("cross_attention_dim", c.cross_attention_dim)
      .get("attention_bias", c.attention_bias)
      .get("sample_size", c.sample_size)
      .get("patch_size", c.patch_size)
      .get("activation_fn", c.activation_fn)
      .get("norm_type", norm_type)
      .get("norm_elementwise_affine", c.norm_elementwise_affine)
      .get("norm_eps", c.norm_eps)
      .get("interpolation_scale", interpolation_scale)
      .get("use_additional_conditions", use_additional_conditions)
      .get("caption_channels", c.caption_channels)
      .get("attention_type", attention_type)
      // Without effect in this class.
      .ignore({"dropout", "norm_num_groups", "num_embeds_ada_norm", "upcast_attention", "use_linear_projection",
               "num_vector_embeds", "double_self_attention", "only_cross_attention"})
      .finish();
  parse_choice(name, "norm_type", norm_type, {"ada_norm_single"});
  parse_choice(name, "attention_type", attention_type, {"default"});
  c.out_channels = out_channels.value_or(c.in_channels);
  c.interpolation_scale = interpolation_scale.value_or(static_cast<double>(std::max<std::int64_t>(c.sample_size / 64, 1)));
  c.use_additional_conditions = use_additional_conditions.value_or(c.sample_size == 128);
  return std::make_unique<PixArt>(w, std::move(c));
}

constexpr DenoiserVariant kVariants[] = {
    {"PixArt-XL-2-512x512", R"({"caption_channels":4096,"sample_size":64})"},
    {"PixArt-XL-2-1024-MS", R"({"caption_channels":4096,"sample_size":128})"},
    {"PixArt-Sigma-XL-2-512-MS", R"({"caption_channels":4096,"sample_size":64,"use_additional_conditions":false})"},
    {"PixArt-Sigma-XL-2-1024-MS", R"({"caption_channels":4096,"sample_size":128,"use_additional_conditions":false})"},
    {"PixArt-Sigma-XL-2-2K-MS", R"({"caption_channels":4096,"sample_size":256,"use_additional_conditions":false})"},
};
constexpr DenoiserVariant kConstructors[] = {{"PixArtTransformer2DModel", "{}"}};

}  // namespace

constinit const DenoiserFamily kPixArtFamily{"pixart", "arXiv:2310.00426; diffusers 0.42 pixart_transformer_2d.py", kVariants,
                                             kConstructors, build_pixart};

}  // namespace detail
}  // namespace vitrine
