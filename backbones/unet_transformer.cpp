#include <vitrine/backbones/unet_transformer.h>

#include <cmath>
#include <utility>

#include <vitrine/attention2d/attention.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/ops.h>

namespace vitrine::detail {

namespace {

constexpr double kLayerNormEps = 1e-5, kGroupNormEps = 1e-6;

CrossAttention text_attention(const Weights& w, const SpatialTransformerConfig& c) {
  CrossAttention::Config config;
  config.dim = c.dim;
  config.text_dim = c.text_channels;
  config.num_heads = c.heads;
  config.head_dim = c.dim / c.heads;
  config.bias = false;
  return {w, config};
}

decltype(SpatialTransformer::Block::attn1) make_attn1(const Weights& w, const SpatialTransformerConfig& c) {
  if (c.only_cross_attention) return text_attention(w, c);
  switch (c.attention) {
    case UNetAttention::linfusion: {
      const auto hidden = [&](const char* name) {  // the layer's own width where the file does not say
        const auto shape = w.source().is_open() ? std::nullopt : (w / name / 0).shape_of("weight");
        return shape && shape->rank() == 2 ? (*shape)[0] : c.dim;
      };
      return LinFusionAttention(
          w, {.dim = c.dim, .num_heads = c.heads, .query_hidden = hidden("to_q_"), .key_hidden = hidden("to_k_")});
    }
    case UNetAttention::agent:
      return AgentAttentionSd(w, {.dim = c.dim, .num_heads = c.heads, .head_dim = c.dim / c.heads});
    case UNetAttention::softmax:
      break;
  }
  return SpatialTransformer::SelfAttention(w, c);
}

// AgentSD: tokens are merged by the likeness of what enters the block, agents stand between those that are left.
Tensor attend_merged(const AgentAttentionSd& attn, const Tensor& y, const Tensor& x, std::int64_t height, std::int64_t width,
                     const TransformerContext& context) {
  const AgentSdOptions& o = context.agent_sd;
  AgentAttentionSd layer = attn;
  layer.config.k_scale2 = o.k_scale2;
  layer.config.k_shortcut = o.k_shortcut;
  const auto downsample = std::ceil(std::sqrt(static_cast<double>(context.latent_tokens / x.size(1))));
  if (downsample > static_cast<double>(o.max_downsample)) return layer(y, y);
  return layer.merged(
      y,
      {.height = height, .width = width, .ratio = o.ratio, .agent_ratio = o.agent_ratio, .cell_height = o.sy, .cell_width = o.sx},
      x);
}

}  // namespace

SpatialTransformer::SelfAttention::SelfAttention(const Weights& w, const SpatialTransformerConfig& c)
    : heads(c.heads), qkv(stack_rows(w, {"to_q", "to_k", "to_v"}, c.dim, c.dim, false)), to_out(w / "to_out" / 0, c.dim, c.dim) {}

void SpatialTransformer::SelfAttention::add_to(Tensor& x, const Tensor& y) const {
  const Tensor parts = qkv(y).unflatten(2, {3, heads, x.size(2) / heads});  // [B, N, 3, heads, D]
  to_out.add_to(x, attention(parts.select(2, 0), parts.select(2, 1), parts.select(2, 2)).flatten(2, 3));
}

SpatialTransformer::Block::Block(const Weights& w, const SpatialTransformerConfig& c)
    : norm1(w / "norm1", c.dim, kLayerNormEps),
      norm2(w / "norm2", c.dim, kLayerNormEps),
      norm3(w / "norm3", c.dim, kLayerNormEps),
      attn1(make_attn1(w / "attn1", c)),
      attn2(text_attention(w / "attn2", c)),
      ff(w / "ff", c.dim, 4 * c.dim, "geglu", w.path()) {}

void SpatialTransformer::Block::run(Tensor& x, std::int64_t height, std::int64_t width, const TransformerContext& context) const {
  const Tensor y = norm1(x);
  if (const auto* self = std::get_if<SelfAttention>(&attn1))
    self->add_to(x, y);
  else if (const auto* cross = std::get_if<CrossAttention>(&attn1))
    cross->add_to(x, y, context.text, {});  // the original masks attn2 only
  else if (const auto* linear = std::get_if<LinFusionAttention>(&attn1))
    x = (*linear)(y, {}, std::move(x));
  else
    add_(x, attend_merged(std::get<AgentAttentionSd>(attn1), y, x, height, width, context));
  attn2.add_to(x, norm2(x), context.text, context.text_bias);
  ff.add_to(x, norm3(x));
}

SpatialTransformer::SpatialTransformer(const Weights& w, const SpatialTransformerConfig& c)
    : norm(w / "norm", c.dim, c.groups, kGroupNormEps),
      proj_in(w / "proj_in", c.dim, c.dim),
      proj_out(w / "proj_out", c.dim, c.dim) {
  for (std::int64_t i = 0; i < c.layers; ++i) blocks.emplace_back(w / "transformer_blocks" / i, c);
}

Tensor SpatialTransformer::operator()(Tensor x, const TransformerContext& context) const {
  const std::int64_t H = x.size(1), W = x.size(2);
  Tensor tokens = proj_in(norm(x)).flatten(1, 2);  // [B, H W, dim]
  for (const Block& block : blocks) block.run(tokens, H, W, context);
  return proj_out(tokens.view(x.shape()), {.residual = std::move(x)});
}

}  // namespace vitrine::detail
