#include <vitrine/backbones/joint_attention.h>

#include <algorithm>
#include <string>
#include <utility>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/clear.h>
#include <vitrine/attention2d/linfusion.h>
#include <vitrine/attention2d/neighborhood.h>
#include <vitrine/backbones/tokens.h>

namespace vitrine::detail {

JointMixing read_mixing(ArgumentReader& reader, std::string_view model) {
  using Kind = JointMixing::Kind;
  std::string attention = "global";
  reader.get("attention", attention);
  JointMixing m;
  m.kind = static_cast<Kind>(parse_choice(model, "attention", attention, {"global", "clear", "neighborhood", "linfusion"}));
  if (m.kind == Kind::clear) reader.get("radius", m.radius).get("down", m.down).get("proportional", m.proportional);
  if (m.kind == Kind::neighborhood) reader.get("kernel_size", m.kernel_size);
  require(m.radius > 0 && m.radius <= 1 << 20, model, "radius is out of range");
  require(m.down > 0 && m.down <= 256, model, "down is out of range");
  require(m.kernel_size > 0 && m.kernel_size <= 1 << 20, model, "kernel_size is out of range");
  return m;
}

JointAttention::JointAttention(const Weights& w, const Config& config) : config_(config) {
  const Config& c = config_;
  const std::int64_t inner = c.num_heads * c.head_dim;
  const auto norm = [&](std::string_view name) { return QkNorm(w / name, c.qk_norm, c.head_dim, c.num_heads, 1e-6, c.model); };
  qkv_ = stack_rows(w, {"to_q", "to_k", "to_v"}, c.dim, inner, true);
  norm_q_ = norm("norm_q");
  norm_k_ = norm("norm_k");
  if (c.image_out) to_out = Linear(w / "to_out.0", inner, c.dim);
  if (c.text) {
    added_qkv_ = stack_rows(w, {"add_q_proj", "add_k_proj", "add_v_proj"}, c.dim, inner, true);
    norm_added_q_ = norm("norm_added_q");
    norm_added_k_ = norm("norm_added_k");
    if (c.text_out) to_add_out = Linear(w / "to_add_out", inner, c.dim);
  }
  if (c.mixing.down > 1) {
    const std::int64_t f = c.mixing.down;
    spatial_weight_ = (w / "processor").on_device("spatial_weight", {1, 1, 1, f, 1, f, 1});
  }
}

Tensor JointAttention::operator()(const Tensor& text, const Tensor& image, const JointTokens& tokens) const {
  const Config& c = config_;
  const std::int64_t inner = c.num_heads * c.head_dim, T = text.size(1), L = T + image.size(1);
  Tensor qkv = Tensor::empty({image.size(0), L, 3 * inner}, image.dtype(), image.device());
  Tensor of_text = qkv.slice(1, 0, T), of_image = qkv.slice(1, T, L);
  added_qkv_.write_to(of_text, text);
  qkv_.write_to(of_image, image);
  const auto norm = [&](const QkNorm& by, Tensor& part, std::int64_t begin) {
    Tensor heads = part.slice(2, begin, begin + inner).unflatten(2, {c.num_heads, c.head_dim});
    by(heads);
  };
  norm(norm_added_q_, of_text, 0);
  norm(norm_added_k_, of_text, inner);
  norm(norm_q_, of_image, 0);
  norm(norm_k_, of_image, inner);
  return attend(qkv, tokens);
}

Tensor JointAttention::operator()(const Tensor& x, const JointTokens& tokens) const {
  const Config& c = config_;
  Tensor qkv = qkv_(x);
  const Tensor heads = qkv.unflatten(2, {3, c.num_heads, c.head_dim});
  Tensor q = heads.select(2, 0), k = heads.select(2, 1);
  norm_q_(q);
  norm_k_(k);
  return attend(qkv, tokens);
}

Tensor JointAttention::attend(Tensor& qkv, const JointTokens& tokens) const {
  const Config& c = config_;
  const Tensor heads = qkv.unflatten(2, {3, c.num_heads, c.head_dim});  // [B, L, 3, heads, D]
  Tensor q = heads.select(2, 0), k = heads.select(2, 1);
  const Tensor v = heads.select(2, 2);
  if (tokens.sin.defined()) {
    rotary_(q, tokens.sin, tokens.cos, RotaryLayout::pairs);
    rotary_(k, tokens.sin, tokens.cos, RotaryLayout::pairs);
  }
  switch (const JointMixing& m = c.mixing; m.kind) {
    case JointMixing::Kind::clear: {
      ClearOptions options;
      options.height = tokens.height;
      options.width = tokens.width;
      options.text_length = tokens.text;
      options.radius = m.radius;
      options.down_factor = m.down > 1 ? m.down : 0;
      options.spatial_weight = spatial_weight_;
      options.proportional = m.proportional;
      return clear_attention(q, k, v, options).flatten(2, 3);
    }
    case JointMixing::Kind::neighborhood: {
      NeighborhoodOptions options;
      options.kernel_size = {std::min(m.kernel_size, tokens.height), std::min(m.kernel_size, tokens.width), 1};
      return joint_neighborhood_attention(q, k, v, tokens.text, tokens.height, tokens.width, options).flatten(2, 3);
    }
    case JointMixing::Kind::linfusion:
      return linfusion_attention(q, k, v).flatten(2, 3);
    case JointMixing::Kind::global:
      break;
  }
  if (c.text && !c.text_out) q = q.slice(1, tokens.text, q.size(1));
  return attention(q, k, v).flatten(2, 3);
}

}  // namespace vitrine::detail
