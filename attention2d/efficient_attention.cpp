#include <vitrine/attention2d/efficient_attention.h>

#include <string>

#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/linear_attention.h>

namespace vitrine {

EfficientAttention::EfficientAttention(const Weights& w, const EfficientAttentionConfig& c) : config(c) {
  const std::string where = detail::module_name("efficient_attention", w);
  detail::check_size(where, "dim", c.dim);
  detail::check_num_heads(where, c.key_dim, c.num_heads);
  detail::check_num_heads(where, c.value_dim, c.num_heads);
  queries = Linear(w / "queries", c.dim, c.key_dim);
  keys = Linear(w / "keys", c.dim, c.key_dim);
  values = Linear(w / "values", c.dim, c.value_dim);
  reprojection = Linear(w / "reprojection", c.value_dim, c.dim);
}

Tensor EfficientAttention::operator()(const Tensor& x) const {
  detail::check_tokens("efficient_attention", x, config.dim);
  const auto heads = [&](const Tensor& t) { return t.unflatten(2, {config.num_heads, t.size(2) / config.num_heads}); };
  const Tensor y = linear_attention(
      heads(queries(x)), heads(keys(x)), heads(values(x)),
      {.query_map = FeatureMap::channel_softmax, .key_map = FeatureMap::token_softmax, .normalizer = LinearNormalizer::none});
  return reprojection(y.flatten(2, 3), {.residual = x});
}

}  // namespace vitrine
