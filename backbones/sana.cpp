#include <vitrine/backbones/sana.h>

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/linear_attention.h>
#include <vitrine/backbones/arguments.h>
#include <vitrine/backbones/denoiser_family.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>
#include <vitrine/weights/sources.h>

namespace vitrine {

using detail::require;

namespace {

std::int64_t dim_of(const SanaConfig& c) { return c.num_attention_heads * c.attention_head_dim; }
std::int64_t hidden_of(const SanaConfig& c) { return static_cast<std::int64_t>(c.mlp_ratio * static_cast<double>(dim_of(c))); }

void validate(const SanaConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto check = [&](bool right, std::string_view what) { require(right, c.name, what); };
  check(sane(c.attention_head_dim) && sane(c.num_attention_heads) && sane(dim_of(c)) && dim_of(c) % 4 == 0,
        "attention_head_dim or num_attention_heads is out of range, or their product no multiple of 4");
  check(c.num_layers > 0 && c.num_layers <= 1000, "num_layers is out of range");
  check(sane(c.in_channels) && sane(c.out_channels), "in_channels or out_channels is out of range");
  check(sane(c.patch_size) && c.patch_size <= 256 && sane(c.sample_size) && c.sample_size >= c.patch_size,
        "patch_size or sample_size is out of range");
  check(sane(c.num_cross_attention_heads) && sane(c.cross_attention_head_dim) && sane(c.caption_channels),
        "num_cross_attention_heads, cross_attention_head_dim or caption_channels is out of range");
  check(c.cross_attention_dim == dim_of(c), "cross_attention_dim must be attention_head_dim * num_attention_heads");
  check(c.mlp_ratio > 0 && c.mlp_ratio <= 64 && hidden_of(c) > 0, "mlp_ratio is out of range");
  check(c.norm_eps >= 0 && c.norm_eps < 1, "norm_eps is out of range");
  check(!c.interpolation_scale || (*c.interpolation_scale > 0 && *c.interpolation_scale <= 1024),
        "interpolation_scale is out of range");
}

// The rows of the gate, the second half, before those of the value.
Tensor gate_first(const Tensor& x) {
  const std::int64_t half = x.size(0) / 2;
  return concat(std::array{x.slice(0, half, 2 * half), x.slice(0, 0, half)}, 0);
}

}  // namespace

// --- blocks ------------------------------------------------------------------------------------------------------

Sana::MixFfn::MixFfn(const Weights& w, std::int64_t dim, std::int64_t hidden)
    : conv_point(w / "conv_point", hidden, dim, {.bias = false, .scale = {}}) {
  const std::int64_t wide = 2 * hidden;
  const Weights in = w / "conv_inverted", depth = w / "conv_depth";
  conv_inverted =
      Linear(gate_first(in.get("weight", {wide, dim, 1, 1}).view({wide, dim})), gate_first(in.get("bias", {wide})), w.options());
  in.release("weight");
  const Weights swapped(memory_weights({{"weight", gate_first(depth.get("weight", {wide, 1, 3, 3}))},
                                        {"bias", gate_first(depth.get("bias", {wide}))}},
                                       depth.path()),
                        w.options());
  conv_depth = Conv2d(swapped, wide, wide, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = wide});
}

void Sana::MixFfn::add_to(Tensor& x, const Tensor& y, std::int64_t height, std::int64_t width, const Tensor& gate) const {
  const Tensor wide = conv_inverted(y, {.activation = Activation::silu, .residual = {}}).unflatten(1, {height, width});
  conv_point.add_to(x, gated_activation(conv_depth(wide), Activation::silu).flatten(1, 2), gate);
}

Sana::Block::Block(const Weights& w, const SanaConfig& c)
    : num_heads(c.num_attention_heads),
      eps(c.norm_eps),
      scale_shift_table(w.on_device("scale_shift_table", {6, dim_of(c)})),
      qkv(detail::stack_rows(w / "attn1", {"to_q", "to_k", "to_v"}, dim_of(c), dim_of(c), c.attention_bias)),
      to_out(w / "attn1.to_out.0", dim_of(c), dim_of(c)),
      norm_q(w / "attn1.norm_q", c.qk_norm, c.attention_head_dim, c.num_attention_heads, 1e-5, c.name),
      norm_k(w / "attn1.norm_k", c.qk_norm, c.attention_head_dim, c.num_attention_heads, 1e-5, c.name),
      ff(w / "ff", dim_of(c), hidden_of(c)) {
  if (c.norm_elementwise_affine) {
    norm2_weight = (w / "norm2").on_device("weight", {dim_of(c)});
    norm2_bias = (w / "norm2").on_device("bias", {dim_of(c)});
  }
  detail::CrossAttention::Config cross;
  cross.dim = dim_of(c);
  cross.text_dim = c.cross_attention_dim;
  cross.num_heads = c.num_cross_attention_heads;
  cross.head_dim = c.cross_attention_head_dim;
  cross.qk_norm = c.qk_norm;
  cross.model = c.name;
  attn2 = detail::CrossAttention(w / "attn2", cross);
}

void Sana::Block::operator()(Tensor& x, const Tensor& steer, const Tensor& text, const Tensor& text_bias, std::int64_t height,
                             std::int64_t width) const {
  const Tensor m = add(steer, scale_shift_table);  // [B, 6, dim]: shift, scale, gate of attention, then of the feed-forward
  const Tensor heads = qkv(detail::modulated_norm(x, m, 0, eps)).unflatten(2, {3, num_heads, x.size(2) / num_heads});
  Tensor q = heads.select(2, 0), k = heads.select(2, 1);  // [B, N, heads, D]
  norm_q(q);
  norm_k(k);
  LinearAttentionOptions options;
  options.query_map = options.key_map = FeatureMap::relu;
  options.eps = 1e-15f;
  to_out.add_to(x, linear_attention(q, k, heads.select(2, 2), options).flatten(2, 3), m.select(1, 2));
  attn2.add_to(x, x, text, text_bias);  // without norm and gate
  ff.add_to(x, layer_norm(x, norm2_weight, norm2_bias, eps, m.select(1, 4), m.select(1, 3)), height, width, m.select(1, 5));
}

// --- model -------------------------------------------------------------------------------------------------------

Sana::Sana(const Weights& w, SanaConfig config) : config_(std::move(config)) {
  const SanaConfig& c = config_;
  validate(c);
  const std::int64_t dim = dim_of(c);
  const Weights time = w / "time_embed";
  patch_embed_ = PatchEmbed(w / "patch_embed.proj", c.in_channels, dim, c.patch_size, c.patch_size);
  timestep_embedder_ = detail::TimestepEmbedder(time / (c.guidance_embeds ? "timestep_embedder" : "emb.timestep_embedder"), dim);
  if (c.guidance_embeds) guidance_embedder_ = detail::TimestepEmbedder(time / "guidance_embedder", dim);
  time_linear_ = detail::vector_linear(time / "linear", dim, 6 * dim);
  caption_1_ = Linear(w / "caption_projection.linear_1", c.caption_channels, dim);
  caption_2_ = Linear(w / "caption_projection.linear_2", dim, dim);
  caption_norm_ = (w / "caption_norm").on_device("weight", {dim});
  for (std::int64_t i = 0; i < c.num_layers; ++i) blocks_.emplace_back(w / "transformer_blocks" / i, c);
  scale_shift_table_ = w.on_device("scale_shift_table", {2, dim});
  proj_out_ = Linear(w / "proj_out", dim, c.patch_size * c.patch_size * c.out_channels);
  dtype_ = w.dtype();
  info_.name = c.name;
  info_.in_channels = c.in_channels;
  info_.out_channels = info_.guided_channels = c.out_channels;
  info_.height = info_.width = c.sample_size / c.patch_size * c.patch_size;
  info_.multiple = c.patch_size;
  info_.text_channels = c.caption_channels;
  info_.takes_guidance = c.guidance_embeds;
}

Tensor Sana::forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning,
                     const Observer& observer) const {
  const SanaConfig& c = config_;
  detail::check_latents(info_, latents, timesteps);
  const std::int64_t B = latents.size(0), dim = dim_of(c), height = latents.size(1) / c.patch_size,
                     width = latents.size(2) / c.patch_size;
  Tensor time = timestep_embedder_(timesteps);  // [B, dim]
  if (c.guidance_embeds) add_(time, guidance_embedder_(detail::required(info_, "guidance", conditioning.guidance, {B})));
  const Tensor steer = time_linear_(activate(time, Activation::silu)).unflatten(1, {6, dim});

  Tensor text = detail::required(info_, "text", conditioning.text, {B, -1, c.caption_channels}).to(dtype_);
  const Tensor text_bias = detail::text_bias(info_, conditioning, text);
  text = caption_2_(caption_1_(text, {.activation = Activation::gelu_tanh, .residual = {}}));
  rms_norm_(text, caption_norm_, 1e-5);

  Tensor x = patch_embed_(latents.to(dtype_)).flatten(1, 2);  // [B, N, dim]
  if (c.interpolation_scale)
    add_(x, positions_.get(height, width, [&] {
      return detail::scaled_positions(dim, height, width, static_cast<double>(c.sample_size / c.patch_size),
                                      *c.interpolation_scale)
          .to(device_);
    }));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i](x, steer, text, text_bias, height, width);
    if (observer) observer(fmt::format("transformer_blocks.{}", i), x);
  }
  const Tensor m = detail::modulation_of(scale_shift_table_, time);
  const Tensor y = proj_out_(detail::modulated_norm(x, m, 0));  // [B, N, patch patch C]
  return detail::unpatchify(y, height, width, c.patch_size).to(latents.dtype());
}

// --- arguments ---------------------------------------------------------------------------------------------------

namespace detail {
namespace {

std::unique_ptr<Denoiser> build_sana(std::string_view name, const Weights& w, const Arguments& arguments) {
  SanaConfig c;
  c.name = name;
  std::optional<std::int64_t> out_channels = c.out_channels;
  std::optional<std::string> qk_norm;
  ArgumentReader(name, arguments)
      .get("in_channels", c.in_channels)
      .get("out_channels", out_channels)
      .get("num_attention_heads", c.num_attention_heads)
      .get("attention_head_dim", c.attention_head_dim)
      .get("num_layers", c.num_layers)
      .get("num_cross_attention_heads", c.num_cross_attention_heads)
      .get("cross_attention_head_dim", c.cross_attention_head_dim)
      .get("cross_attention_dim", c.cross_attention_dim)
      .get("caption_channels", c.caption_channels)
      .get("mlp_ratio", c.mlp_ratio)
      .get("attention_bias", c.attention_bias)
      .get("sample_size", c.sample_size)
      .get("patch_size", c.patch_size)
      .get("norm_elementwise_affine", c.norm_elementwise_affine)
      .get("norm_eps", c.norm_eps)
      .get("interpolation_scale", c.interpolation_scale)
      .get("guidance_embeds", c.guidance_embeds)
      .get("qk_norm", qk_norm)
      // Of the pipeline, or of training.
      .ignore({"dropout", "guidance_embeds_scale", "timestep_scale"})
      .finish();
  c.out_channels = out_channels.value_or(c.in_channels);
  c.qk_norm = qk_norm.value_or("");
  return std::make_unique<Sana>(w, std::move(c));
}

#define VITRINE_SANA_SMALL                                                                                    \
  R"("num_attention_heads":36,"num_layers":28,"num_cross_attention_heads":16,"cross_attention_head_dim":72,)" \
  R"("cross_attention_dim":1152)"
constexpr DenoiserVariant kVariants[] = {
    {"Sana_600M_512px", "{" VITRINE_SANA_SMALL R"(,"sample_size":16})"},
    {"Sana_600M_1024px", "{" VITRINE_SANA_SMALL "}"},
    {"Sana_1600M_512px", R"({"sample_size":16})"},
    {"Sana_1600M_1024px", "{}"},
    {"SANA1.5_1.6B_1024px", R"({"qk_norm":"rms_norm_across_heads"})"},
    {"SANA1.5_4.8B_1024px", R"({"num_layers":60,"qk_norm":"rms_norm_across_heads"})"},
};
#undef VITRINE_SANA_SMALL
constexpr DenoiserVariant kConstructors[] = {{"SanaTransformer2DModel", "{}"}};

}  // namespace

constinit const DenoiserFamily kSanaFamily{"sana", "arXiv:2410.10629; diffusers 0.42 sana_transformer.py", kVariants,
                                           kConstructors, build_sana};

}  // namespace detail
}  // namespace vitrine
