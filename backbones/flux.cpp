#include <vitrine/backbones/flux.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/denoiser_family.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::JointTokens;
using detail::modulated_norm;
using detail::require;

namespace {

constexpr double kTheta = 10000, kMlpRatio = 4;

std::int64_t dim_of(const FluxConfig& c) { return c.num_attention_heads * c.attention_head_dim; }
std::int64_t hidden_of(const FluxConfig& c) { return static_cast<std::int64_t>(kMlpRatio) * dim_of(c); }

void validate(const FluxConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto check = [&](bool right, std::string_view what) { require(right, c.name, what); };
  check(sane(c.patch_size) && c.patch_size <= 256 && sane(c.in_channels) && sane(c.out_channels),
        "patch_size, in_channels or out_channels is out of range");
  check(c.num_layers >= 0 && c.num_layers <= 1000 && c.num_single_layers >= 0 && c.num_single_layers <= 1000,
        "num_layers or num_single_layers is out of range");
  check(sane(c.attention_head_dim) && sane(c.num_attention_heads) && sane(dim_of(c)),
        "attention_head_dim or num_attention_heads is out of range");
  check(sane(c.joint_attention_dim) && sane(c.pooled_projection_dim),
        "joint_attention_dim or pooled_projection_dim is out of range");
  const bool even =
      std::all_of(c.axes_dims_rope.begin(), c.axes_dims_rope.end(), [](std::int64_t n) { return n > 0 && n % 2 == 0; });
  check(even && std::accumulate(c.axes_dims_rope.begin(), c.axes_dims_rope.end(), std::int64_t{0}) == c.attention_head_dim,
        "axes_dims_rope must be even numbers whose sum is attention_head_dim");
}

detail::JointAttention::Config attention_config(const FluxConfig& c, bool joint) {
  detail::JointAttention::Config attention;
  attention.dim = dim_of(c);
  attention.num_heads = c.num_attention_heads;
  attention.head_dim = c.attention_head_dim;
  attention.qk_norm = "rms_norm";
  attention.text = attention.image_out = joint;
  attention.mixing = c.mixing;
  attention.model = c.name;
  return attention;
}

// Row r of the grid's ids: (0, y, x).
Tensor grid_ids(std::int64_t height, std::int64_t width) {
  Tensor ids = Tensor::zeros({height * width, 3});
  for (std::int64_t i = 0; i < height * width; ++i) {
    ids.data<float>()[3 * i + 1] = static_cast<float>(i / width);
    ids.data<float>()[3 * i + 2] = static_cast<float>(i % width);
  }
  return ids;
}

}  // namespace

// --- blocks ------------------------------------------------------------------------------------------------------

Flux::DoubleBlock::DoubleBlock(const Weights& w, const FluxConfig& c)
    : norm1(w / "norm1.linear", dim_of(c), 6, dim_of(c)),
      norm1_context(w / "norm1_context.linear", dim_of(c), 6, dim_of(c)),
      attn(w / "attn", attention_config(c, true)),
      ff(w / "ff", dim_of(c), hidden_of(c), "gelu-approximate", c.name),
      ff_context(w / "ff_context", dim_of(c), hidden_of(c), "gelu-approximate", c.name) {}

void Flux::DoubleBlock::operator()(Tensor& x, const Tensor& steer, const JointTokens& tokens) const {
  const std::int64_t T = tokens.text, L = x.size(1);
  Tensor text = x.slice(1, 0, T), image = x.slice(1, T, L);
  const Tensor m = norm1(steer), c = norm1_context(steer);  // [B, 6, dim]: shift, scale, gate of attention, then of the MLP
  const Tensor y = attn(modulated_norm(text, c, 0), modulated_norm(image, m, 0), tokens);
  attn.to_add_out.add_to(text, y.slice(1, 0, T), c.select(1, 2));
  attn.to_out.add_to(image, y.slice(1, T, L), m.select(1, 2));
  ff_context.add_to(text, modulated_norm(text, c, 3), c.select(1, 5));
  ff.add_to(image, modulated_norm(image, m, 3), m.select(1, 5));
}

Flux::SingleBlock::SingleBlock(const Weights& w, const FluxConfig& c)
    : norm(w / "norm.linear", dim_of(c), 3, dim_of(c)),
      attn(w / "attn", attention_config(c, false)),
      proj_mlp(w / "proj_mlp", dim_of(c), hidden_of(c)) {
  const std::int64_t dim = dim_of(c), columns = dim + hidden_of(c);
  const Weights out = w / "proj_out";
  const Tensor weight = out.get("weight", {dim, columns});
  proj_out_attn = Linear(weight.slice(1, 0, dim).contiguous(), out.get("bias", {dim}), w.options());
  proj_out_mlp = Linear(weight.slice(1, dim, columns).contiguous(), {}, w.options());
  out.release("weight");
}

void Flux::SingleBlock::operator()(Tensor& x, const Tensor& steer, const JointTokens& tokens) const {
  const Tensor m = norm(steer);  // [B, 3, dim]: shift, scale, gate
  const Tensor y = modulated_norm(x, m, 0), gate = m.select(1, 2);
  proj_out_attn.add_to(x, attn(y, tokens), gate);
  proj_out_mlp.add_to(x, proj_mlp(y, {.activation = Activation::gelu_tanh, .residual = {}}), gate);
}

// --- model -------------------------------------------------------------------------------------------------------

Flux::Flux(const Weights& w, FluxConfig config) : config_(std::move(config)) {
  const FluxConfig& c = config_;
  validate(c);
  const std::int64_t dim = dim_of(c), out = c.patch_size * c.patch_size * c.out_channels;
  const Weights embed = w / "time_text_embed";
  timestep_embedder_ = detail::TimestepEmbedder(embed / "timestep_embedder", dim);
  if (c.guidance_embeds) guidance_embedder_ = detail::TimestepEmbedder(embed / "guidance_embedder", dim);
  text_embedder_ = detail::VectorMlp(embed / "text_embedder", c.pooled_projection_dim, dim);
  context_embedder_ = Linear(w / "context_embedder", c.joint_attention_dim, dim);
  x_embedder_ = Linear(w / "x_embedder", c.in_channels, dim);
  for (std::int64_t i = 0; i < c.num_layers; ++i) blocks_.emplace_back(w / "transformer_blocks" / i, c);
  for (std::int64_t i = 0; i < c.num_single_layers; ++i) single_blocks_.emplace_back(w / "single_transformer_blocks" / i, c);
  norm_out_ = detail::Modulation(w / "norm_out.linear", dim, 2, dim);
  proj_out_ = Linear(w / "proj_out", dim, out);
  dtype_ = w.dtype();
  info_.name = c.name;
  info_.in_channels = c.in_channels / 4;
  info_.out_channels = info_.guided_channels = out / 4;
  info_.height = info_.width = 128;  // pictures of 1024 pixels
  info_.multiple = 2;
  info_.text_channels = c.joint_attention_dim;
  info_.pooled_channels = c.pooled_projection_dim;
  info_.takes_guidance = c.guidance_embeds;
  info_.timestep_scale = 1;
}

Tensor Flux::pack(const Tensor& latents) {
  const std::int64_t B = latents.size(0), H = latents.size(1) / 2, W = latents.size(2) / 2, C = latents.size(3);
  constexpr int kAxes[] = {0, 1, 3, 5, 2, 4};
  return permute(latents.contiguous().view({B, H, 2, W, 2, C}), kAxes).view({B, H * W, 4 * C});
}

Tensor Flux::unpack(const Tensor& tokens, std::int64_t height, std::int64_t width) {
  const std::int64_t B = tokens.size(0), H = height / 2, W = width / 2, C = tokens.size(2) / 4;
  constexpr int kAxes[] = {0, 1, 4, 2, 5, 3};
  return permute(tokens.contiguous().view({B, H, W, C, 2, 2}), kAxes).view({B, height, width, C});
}

JointTokens Flux::locate(std::array<std::int64_t, 2> grid, const Tensor& text_ids, const Tensor& image_ids) const {
  const FluxConfig& c = config_;
  const auto axes = static_cast<std::int64_t>(c.axes_dims_rope.size());
  JointTokens tokens{text_ids.size(0), grid[0], grid[1], {}, {}};
  const std::int64_t L = tokens.text + image_ids.size(0);
  tokens.sin = Tensor::empty({L, c.attention_head_dim});
  tokens.cos = Tensor::empty({L, c.attention_head_dim});
  float *sin = tokens.sin.data<float>(), *cos = tokens.cos.data<float>();
  for (std::int64_t i = 0; i < L; ++i) {
    const float* id = i < tokens.text ? text_ids.data<float>() + i * axes : image_ids.data<float>() + (i - tokens.text) * axes;
    for (std::int64_t axis = 0; axis < axes; ++axis) {
      const std::int64_t dim = c.axes_dims_rope[static_cast<std::size_t>(axis)];
      for (std::int64_t k = 0; k < dim; k += 2, sin += 2, cos += 2) {
        const double angle = id[axis] / std::pow(kTheta, static_cast<double>(k) / static_cast<double>(dim));
        sin[0] = sin[1] = static_cast<float>(std::sin(angle));
        cos[0] = cos[1] = static_cast<float>(std::cos(angle));
      }
    }
  }
  tokens.sin = tokens.sin.to(device_);
  tokens.cos = tokens.cos.to(device_);
  return tokens;
}

Tensor Flux::run(const Tensor& tokens, const JointTokens& where, const Tensor& timesteps, const Conditioning& conditioning,
                 const Observer& observer) const {
  const FluxConfig& c = config_;
  const std::int64_t B = tokens.size(0), T = where.text, L = T + tokens.size(1);
  const Tensor& text = detail::required(info_, "text", conditioning.text, {B, T, c.joint_attention_dim});
  const Tensor& pooled = detail::required(info_, "pooled", conditioning.pooled, {B, c.pooled_projection_dim});

  Tensor steer = timestep_embedder_(affine(timesteps, 1000, 0));  // [B, dim]
  if (c.guidance_embeds)
    add_(steer, guidance_embedder_(affine(detail::required(info_, "guidance", conditioning.guidance, {B}), 1000, 0)));
  add_(steer, text_embedder_(pooled));
  activate_(steer, Activation::silu);

  Tensor x = Tensor::empty({B, L, dim_of(c)}, dtype_, tokens.device());
  Tensor of_text = x.slice(1, 0, T), of_image = x.slice(1, T, L);
  context_embedder_.write_to(of_text, text.to(dtype_));
  x_embedder_.write_to(of_image, tokens.to(dtype_));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i](x, steer, where);
    if (observer) observer(fmt::format("transformer_blocks.{}", i), x);
  }
  for (std::size_t i = 0; i < single_blocks_.size(); ++i) {
    single_blocks_[i](x, steer, where);
    if (observer) observer(fmt::format("single_transformer_blocks.{}", i), x);
  }
  const Tensor m = norm_out_(steer);  // [B, 2, dim]: scale, shift
  return proj_out_(layer_norm(of_image, {}, {}, 1e-6, m.select(1, 0), m.select(1, 1))).to(tokens.dtype());
}

Tensor Flux::forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning,
                     const Observer& observer) const {
  const FluxConfig& c = config_;
  require(c.in_channels % 4 == 0 && c.axes_dims_rope.size() == 3, c.name,
          "latents are packed 2 x 2 and have positions of three axes: in_channels must be a multiple of 4, axes_dims_rope three");
  detail::check_latents(info_, latents, timesteps);
  const std::int64_t H = latents.size(1), W = latents.size(2);
  const Tensor& text = detail::required(info_, "text", conditioning.text, {latents.size(0), -1, c.joint_attention_dim});
  const auto where = located_.get({text.size(1), H / 2, W / 2}, [&] {
    return locate({H / 2, W / 2}, Tensor::zeros({text.size(1), 3}), grid_ids(H / 2, W / 2));
  });
  return unpack(run(pack(latents), *where, timesteps, conditioning, observer), H, W);
}

Tensor Flux::forward_tokens(const Tensor& tokens, std::array<std::int64_t, 2> grid, const Tensor& text_ids,
                            const Tensor& image_ids, const Tensor& timesteps, const Conditioning& conditioning,
                            const Observer& observer) const {
  const auto axes = static_cast<std::int64_t>(config_.axes_dims_rope.size());
  detail::required(info_, "tokens", tokens, {-1, grid[0] * grid[1], config_.in_channels});
  detail::required(info_, "timesteps", timesteps, {tokens.size(0)});
  const Tensor of_text = detail::required(info_, "text_ids", text_ids, {-1, axes}).to(DType::f32).contiguous(),
               of_image = detail::required(info_, "image_ids", image_ids, {tokens.size(1), axes}).to(DType::f32).contiguous();
  return run(tokens, locate(grid, of_text, of_image), timesteps, conditioning, observer);
}

// --- arguments ---------------------------------------------------------------------------------------------------

namespace detail {
namespace {

std::unique_ptr<Denoiser> build_flux(std::string_view name, const Weights& w, const Arguments& arguments) {
  FluxConfig c;
  c.name = name;
  std::optional<std::int64_t> out_channels;
  ArgumentReader reader(name, arguments);
  c.mixing = read_mixing(reader, name);
  reader.get("patch_size", c.patch_size)
      .get("in_channels", c.in_channels)
      .get("out_channels", out_channels)
      .get("num_layers", c.num_layers)
      .get("num_single_layers", c.num_single_layers)
      .get("attention_head_dim", c.attention_head_dim)
      .get("num_attention_heads", c.num_attention_heads)
      .get("joint_attention_dim", c.joint_attention_dim)
      .get("pooled_projection_dim", c.pooled_projection_dim)
      .get("guidance_embeds", c.guidance_embeds)
      .get("axes_dims_rope", c.axes_dims_rope)
      .finish();
  c.out_channels = out_channels.value_or(c.in_channels);
  return std::make_unique<Flux>(w, std::move(c));
}

constexpr DenoiserVariant kVariants[] = {{"FLUX.1-dev", R"({"guidance_embeds":true})"}, {"FLUX.1-schnell", "{}"}};
constexpr DenoiserVariant kConstructors[] = {{"FluxTransformer2DModel", "{}"}};

}  // namespace

constinit const DenoiserFamily kFluxFamily{"flux", "black-forest-labs/flux; diffusers 0.42 transformer_flux.py", kVariants,
                                           kConstructors, build_flux};

}  // namespace detail
}  // namespace vitrine
