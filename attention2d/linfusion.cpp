#include <vitrine/attention2d/linfusion.h>

#include <string>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/linear_attention.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

LinFusionAttention::Mixer make_mixer(const Weights& w, std::int64_t dim, std::int64_t hidden) {
  detail::check_size(detail::module_name("linfusion_attention", w), "hidden width", hidden, 0);
  if (hidden == 0) return {};
  return {Linear(w / 0, dim, hidden), Linear(w / 3, hidden, dim), LayerNorm(w / 1, hidden, 1e-5)};
}

// The projection that follows a mixer: an identity one gives x + x.
Linear make_projection(const Weights& w, std::int64_t dim, bool is_mixed) {
  return Linear(w, dim, dim, {.bias = false, .scale = is_mixed ? Tensor() : Tensor::full({dim}, 2.0f)});
}

}  // namespace

Tensor linfusion_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::string_view impl) {
  for (const Tensor& t : {q, k})
    if (!t.defined() || t.rank() != 4 || t.size(1) == 0)
      throw Error(fmt::format("linfusion_attention: q or k is {}, expected [B, tokens, heads, head_dim]",
                              t.defined() ? t.shape().to_string() : "undefined"));
  const float keys_per_query = static_cast<float>(static_cast<double>(k.size(1)) / static_cast<double>(q.size(1)));
  return linear_attention(q, k, v, {.normalizer = LinearNormalizer::mean, .eps = 1e-4f, .scale = keys_per_query, .impl = impl});
}

Tensor LinFusionAttention::Mixer::operator()(const Tensor& x) const {
  if (!in.defined()) return x;
  Tensor y = norm(in(x));
  activate_(y, Activation::leaky_relu);
  return out(y, {.residual = x});
}

LinFusionAttention::LinFusionAttention(const Weights& w, const LinFusionAttentionConfig& c, const LinearOptions& out_options)
    : config(c) {
  const std::string where = detail::module_name("linfusion_attention", w);
  detail::check_num_heads(where, c.dim, c.num_heads);
  mix_q = make_mixer(w / "to_q_", c.dim, c.query_hidden);
  mix_k = make_mixer(w / "to_k_", c.dim, c.key_hidden);
  to_q = make_projection(w / "to_q", c.dim, c.query_hidden > 0);
  to_k = make_projection(w / "to_k", c.dim, c.key_hidden > 0);
  to_v = Linear(w / "to_v", c.dim, c.dim, {.bias = false});
  to_out = Linear(w / "to_out" / 0, c.dim, c.dim, out_options);
}

Tensor LinFusionAttention::operator()(const Tensor& x, const Tensor& context, Tensor residual) const {
  const Tensor& c = context.defined() ? context : x;
  detail::check_tokens("linfusion_attention", x, config.dim);
  detail::check_tokens("linfusion_attention", c, config.dim, "context");
  const auto heads = [&](const Tensor& t) { return t.unflatten(2, {config.num_heads, config.dim / config.num_heads}); };
  const Tensor y = linfusion_attention(heads(to_q(mix_q(x))), heads(to_k(mix_k(c))), heads(to_v(c)));
  return to_out(y.flatten(2, 3), {.residual = std::move(residual)});
}

}  // namespace vitrine
