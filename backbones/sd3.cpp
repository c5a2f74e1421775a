#include <vitrine/backbones/sd3.h>

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/denoiser_family.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/devices.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::JointTokens;
using detail::modulated_norm;
using detail::require;

namespace {

constexpr double kEps = 1e-6;
constexpr std::int64_t kMlpRatio = 4;

std::int64_t dim_of(const Sd3Config& c) { return c.num_attention_heads * c.attention_head_dim; }

void validate(const Sd3Config& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto check = [&](bool right, std::string_view what) { require(right, c.name, what); };
  check(sane(c.patch_size) && c.patch_size <= 256 && sane(c.sample_size) && c.sample_size >= c.patch_size,
        "patch_size or sample_size is out of range");
  check(sane(c.in_channels) && sane(c.out_channels), "in_channels or out_channels is out of range");
  check(c.num_layers > 0 && c.num_layers <= 1000, "num_layers is out of range");
  check(sane(c.attention_head_dim) && sane(c.num_attention_heads) && sane(dim_of(c)) && dim_of(c) % 4 == 0,
        "attention_head_dim or num_attention_heads is out of range, or their product no multiple of 4");
  check(sane(c.joint_attention_dim) && sane(c.pooled_projection_dim),
        "joint_attention_dim or pooled_projection_dim is out of range");
  check(c.caption_projection_dim == dim_of(c), "caption_projection_dim must be attention_head_dim * num_attention_heads");
  check(sane(c.pos_embed_max_size) && c.pos_embed_max_size <= 4096, "pos_embed_max_size is out of range");
}

detail::JointAttention attention(const Weights& w, const Sd3Config& c, bool text, bool text_out) {
  detail::JointAttention::Config attention;
  attention.dim = dim_of(c);
  attention.num_heads = c.num_attention_heads;
  attention.head_dim = c.attention_head_dim;
  attention.qk_norm = c.qk_norm;
  attention.text = text;
  attention.text_out = text_out;
  attention.mixing = c.mixing;
  attention.model = c.name;
  return {w, attention};
}

}  // namespace

Sd3::Block::Block(const Weights& w, const Sd3Config& c, std::int64_t index)
    : has_text_out(index + 1 < c.num_layers),
      is_dual(std::find(c.dual_attention_layers.begin(), c.dual_attention_layers.end(), index) != c.dual_attention_layers.end()),
      norm1(w / "norm1.linear", dim_of(c), is_dual ? 9 : 6, dim_of(c)),
      norm1_context(w / "norm1_context.linear", dim_of(c), has_text_out ? 6 : 2, dim_of(c)),
      attn(attention(w / "attn", c, true, has_text_out)),
      ff(w / "ff", dim_of(c), kMlpRatio * dim_of(c), "gelu-approximate", c.name) {
  if (is_dual) attn2 = attention(w / "attn2", c, false, false);
  if (has_text_out) ff_context = {w / "ff_context", dim_of(c), kMlpRatio * dim_of(c), "gelu-approximate", c.name};
}

void Sd3::Block::operator()(Tensor& x, const Tensor& steer, const JointTokens& tokens) const {
  const std::int64_t T = tokens.text, L = x.size(1);
  Tensor text = x.slice(1, 0, T), image = x.slice(1, T, L);
  // [B, 6 or 9, dim]: shift, scale, gate of attention, of the MLP, of the second attention; the last text: scale, shift
  const Tensor m = norm1(steer), c = norm1_context(steer);
  const Tensor text_y =
      has_text_out ? modulated_norm(text, c, 0) : layer_norm(text, {}, {}, kEps, c.select(1, 0), c.select(1, 1));
  const Tensor second = is_dual ? modulated_norm(image, m, 6) : Tensor();
  const Tensor y = attn(text_y, modulated_norm(image, m, 0), tokens);
  attn.to_out.add_to(image, y.slice(1, y.size(1) - image.size(1), y.size(1)), m.select(1, 2));
  if (is_dual) attn2.to_out.add_to(image, attn2(second, {0, tokens.height, tokens.width, {}, {}}), m.select(1, 8));
  ff.add_to(image, modulated_norm(image, m, 3), m.select(1, 5));
  if (!has_text_out) return;
  attn.to_add_out.add_to(text, y.slice(1, 0, T), c.select(1, 2));
  ff_context.add_to(text, modulated_norm(text, c, 3), c.select(1, 5));
}

Sd3::Sd3(const Weights& w, Sd3Config config) : config_(std::move(config)) {
  const Sd3Config& c = config_;
  validate(c);
  const std::int64_t dim = dim_of(c), side = c.pos_embed_max_size;
  const Weights embed = w / "time_text_embed";
  pos_embed_ = PatchEmbed(w / "pos_embed.proj", c.in_channels, dim, c.patch_size, c.patch_size);
  if (!w.source().is_open() && (w / "pos_embed").has("pos_embed"))
    table_ = (w / "pos_embed").on_device("pos_embed", {1, side * side, dim}).view({side, side, dim});
  timestep_embedder_ = detail::TimestepEmbedder(embed / "timestep_embedder", dim);
  text_embedder_ = detail::VectorMlp(embed / "text_embedder", c.pooled_projection_dim, dim);
  context_embedder_ = Linear(w / "context_embedder", c.joint_attention_dim, dim);
  for (std::int64_t i = 0; i < c.num_layers; ++i) blocks_.emplace_back(w / "transformer_blocks" / i, c, i);
  norm_out_ = detail::Modulation(w / "norm_out.linear", dim, 2, dim);
  proj_out_ = Linear(w / "proj_out", dim, c.patch_size * c.patch_size * c.out_channels);
  dtype_ = w.dtype();
  info_.name = c.name;
  info_.in_channels = c.in_channels;
  info_.out_channels = info_.guided_channels = c.out_channels;
  info_.height = info_.width = c.sample_size / c.patch_size * c.patch_size;
  info_.multiple = c.patch_size;
  info_.text_channels = c.joint_attention_dim;
  info_.pooled_channels = c.pooled_projection_dim;
}

Tensor Sd3::positions(std::int64_t height, std::int64_t width) const {
  const std::int64_t side = config_.pos_embed_max_size, top = (side - height) / 2, left = (side - width) / 2;
  if (height > side || width > side)
    throw Error(fmt::format("{}: latents of {}x{} patches, expected at most {}x{} (pos_embed_max_size)", config_.name, height,
                            width, side, side));
  return computed_.get(height, width, [&] {
    if (table_.defined())
      return finished(
          table_.slice(0, top, top + height).slice(1, left, left + width).contiguous().view({height * width, dim_of(config_)}));
    const double step = static_cast<double>(side) / static_cast<double>(config_.sample_size / config_.patch_size);
    const auto axis = [&](std::int64_t first, std::int64_t count) {  // in f32, as the original
      std::vector<float> all;
      for (std::int64_t i = first; i < first + count; ++i) all.push_back(static_cast<float>(i) / static_cast<float>(step));
      return all;
    };
    return detail::sincos_positions(dim_of(config_), axis(top, height), axis(left, width)).to(device_);
  });
}

Tensor Sd3::forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning,
                    const Observer& observer) const {
  const Sd3Config& c = config_;
  detail::check_latents(info_, latents, timesteps);
  const std::int64_t B = latents.size(0), height = latents.size(1) / c.patch_size, width = latents.size(2) / c.patch_size;
  const Tensor& text = detail::required(info_, "text", conditioning.text, {B, -1, c.joint_attention_dim});
  const Tensor& pooled = detail::required(info_, "pooled", conditioning.pooled, {B, c.pooled_projection_dim});
  const std::int64_t T = text.size(1), L = T + height * width;

  Tensor steer = timestep_embedder_(timesteps);  // [B, dim]
  add_(steer, text_embedder_(pooled));
  activate_(steer, Activation::silu);

  Tensor x = Tensor::empty({B, L, dim_of(c)}, dtype_, latents.device());
  Tensor of_text = x.slice(1, 0, T), of_image = x.slice(1, T, L);
  context_embedder_.write_to(of_text, text.to(dtype_));
  pos_embed_.proj.write_to(of_image, patchify(latents.to(dtype_), c.patch_size, c.patch_size));
  add_(of_image, positions(height, width));
  if (observer) observer("pos_embed.pos_embed", positions(c.pos_embed_max_size, c.pos_embed_max_size).unsqueeze(0));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i](x, steer, {T, height, width, {}, {}});
    if (observer) observer(fmt::format("transformer_blocks.{}", i), x);
  }
  const Tensor m = norm_out_(steer);  // [B, 2, dim]: scale, shift
  const Tensor y = proj_out_(layer_norm(of_image, {}, {}, kEps, m.select(1, 0), m.select(1, 1)));
  return detail::unpatchify(y, height, width, c.patch_size).to(latents.dtype());
}

// --- arguments ---------------------------------------------------------------------------------------------------

namespace detail {
namespace {

std::unique_ptr<Denoiser> build_sd3(std::string_view name, const Weights& w, const Arguments& arguments) {
  Sd3Config c;
  c.name = name;
  std::optional<std::string> qk_norm;
  std::optional<std::int64_t> out_channels = c.out_channels;
  ArgumentReader reader(name, arguments);
  c.mixing = read_mixing(reader, name);
  reader.get("sample_size", c.sample_size)
      .get("patch_size", c.patch_size)
      .get("in_channels", c.in_channels)
      .get("num_layers", c.num_layers)
      .get("attention_head_dim", c.attention_head_dim)
      .get("num_attention_heads", c.num_attention_heads)
      .get("joint_attention_dim", c.joint_attention_dim)
      .get("caption_projection_dim", c.caption_projection_dim)
      .get("pooled_projection_dim", c.pooled_projection_dim)
      .get("out_channels", out_channels)
      .get("pos_embed_max_size", c.pos_embed_max_size)
      .get("dual_attention_layers", c.dual_attention_layers)
      .get("qk_norm", qk_norm)
      .finish();
  c.out_channels = out_channels.value_or(c.in_channels);
  c.qk_norm = qk_norm.value_or("");
  return std::make_unique<Sd3>(w, std::move(c));
}

constexpr DenoiserVariant kVariants[] = {
    {"stable-diffusion-3-medium",
     R"({"num_layers":24,"num_attention_heads":24,"caption_projection_dim":1536,"pos_embed_max_size":192})"},
    {"stable-diffusion-3.5-medium",
     R"({"num_layers":24,"num_attention_heads":24,"caption_projection_dim":1536,"pos_embed_max_size":384,"qk_norm":"rms_norm",)"
     R"("dual_attention_layers":[0,1,2,3,4,5,6,7,8,9,10,11,12]})"},
    {"stable-diffusion-3.5-large",
     R"({"num_layers":38,"num_attention_heads":38,"caption_projection_dim":2432,"pos_embed_max_size":192,"qk_norm":"rms_norm"})"},
};
constexpr DenoiserVariant kConstructors[] = {{"SD3Transformer2DModel", "{}"}};

}  // namespace

constinit const DenoiserFamily kSd3Family{"sd3", "arXiv:2403.03206; diffusers 0.42 transformer_sd3.py", kVariants, kConstructors,
                                          build_sd3};

}  // namespace detail
}  // namespace vitrine
