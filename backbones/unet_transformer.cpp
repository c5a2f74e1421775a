#include <vitrine/backbones/unet_transformer.h>

#include <cmath>
#include <utility>

#include <vitrine/attention2d/attention.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/ops.h>

namespace vitrine::detail {

namespace {

constexpr double kLayerNormEps = 1e-5, kGroupNormEps = 1e-6;

Tensor split_heads(const Tensor& x, std::int64_t heads) { return x.unflatten(2, {heads, x.size(2) / heads}); }

decltype(SpatialTransformer::Block::attn1) make_attn1(const Weights& w, const SpatialTransformerConfig& c) {
  if (c.only_cross_attention) return SpatialTransformer::CrossAttention(w, c);
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
Tensor attend_merged(const AgentAttentionSd& attn, const Tensor& normed, const Tensor& x, std::int64_t height, std::int64_t width,
                     const TransformerContext& context, Tensor residual) {
  const AgentSdOptions& o = context.agent_sd;
  AgentAttentionSd layer = attn;
  layer.config.k_scale2 = o.k_scale2;
  layer.config.k_shortcut = o.k_shortcut;
  const auto downsample = std::ceil(std::sqrt(static_cast<double>(context.latent_tokens / x.size(1))));
  if (downsample > static_cast<double>(o.max_downsample)) return layer(normed, normed, std::move(residual));
  return sum(layer.merged(normed,
                          {.height = height,
                           .width = width,
                           .ratio = o.ratio,
                           .agent_ratio = o.agent_ratio,
                           .cell_height = o.sy,
                           .cell_width = o.sx},
                          x),
             residual);
}

}  // namespace

SpatialTransformer::SelfAttention::SelfAttention(const Weights& w, const SpatialTransformerConfig& c)
    : heads(c.heads), qkv(stack_rows(w, {"to_q", "to_k", "to_v"}, c.dim, c.dim, false)), to_out(w / "to_out" / 0, c.dim, c.dim) {}

Tensor SpatialTransformer::SelfAttention::operator()(const Tensor& x, Tensor residual) const {
  const Tensor parts = qkv(x).unflatten(2, {3, heads, x.size(2) / heads});  // [B, N, 3, heads, D]
  const Tensor y = attention(parts.select(2, 0), parts.select(2, 1), parts.select(2, 2));
  return to_out(y.flatten(2, 3), {.residual = std::move(residual)});
}

SpatialTransformer::CrossAttention::CrossAttention(const Weights& w, const SpatialTransformerConfig& c)
    : heads(c.heads),
      to_q(w / "to_q", c.dim, c.dim, {.bias = false}),
      to_kv(stack_rows(w, {"to_k", "to_v"}, c.text_channels, c.dim, false)),
      to_out(w / "to_out" / 0, c.dim, c.dim) {}

Tensor SpatialTransformer::CrossAttention::operator()(const Tensor& x, const TransformerContext& context, Tensor residual) const {
  const Tensor kv = to_kv(context.text).unflatten(2, {2, heads, x.size(2) / heads});  // [B, T, 2, heads, D]
  const Tensor y = attention(split_heads(to_q(x), heads), kv.select(2, 0), kv.select(2, 1), {.mask = context.text_mask});
  return to_out(y.flatten(2, 3), {.residual = std::move(residual)});
}

SpatialTransformer::Block::Block(const Weights& w, const SpatialTransformerConfig& c)
    : norm1(w / "norm1", c.dim, kLayerNormEps),
      norm2(w / "norm2", c.dim, kLayerNormEps),
      norm3(w / "norm3", c.dim, kLayerNormEps),
      attn1(make_attn1(w / "attn1", c)),
      attn2(w / "attn2", c),
      ff(w / "ff", c.dim, 4 * c.dim, "geglu", w.path()) {}

Tensor SpatialTransformer::Block::operator()(Tensor x, std::int64_t height, std::int64_t width,
                                             const TransformerContext& context) const {
  const Tensor normed = norm1(x);
  if (const auto* self = std::get_if<SelfAttention>(&attn1))
    x = (*self)(normed, std::move(x));
  else if (const auto* cross = std::get_if<CrossAttention>(&attn1))
    x = (*cross)(normed, context, std::move(x));
  else if (const auto* linear = std::get_if<LinFusionAttention>(&attn1))
    x = (*linear)(normed, {}, std::move(x));
  else
    x = attend_merged(std::get<AgentAttentionSd>(attn1), normed, x, height, width, context, x);
  x = attn2(norm2(x), context, std::move(x));
  ff.add_to(x, norm3(x));
  return x;
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
  for (const Block& block : blocks) tokens = block(std::move(tokens), H, W, context);
  return proj_out(tokens.view(x.shape()), {.residual = std::move(x)});
}

}  // namespace vitrine::detail
