#include <vitrine/attention2d/fast_attention.h>

#include <cmath>

#include <fmt/format.h>

#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/linear_attention.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

Tensor fast_attention(const Tensor& q, const Tensor& k, const Tensor& v, const FastAttentionOptions& o) {
  detail::check_heads("fast_attention", q, k, v);
  if (o.order != 1 && o.order != 2) throw Error(fmt::format("fast_attention: order {}, expected 1 or 2", o.order));
  if (!(o.scale > 0)) throw Error(fmt::format("fast_attention: scale {}, expected a positive one", o.scale));
  const auto standardized = [&](const Tensor& x) { return layer_norm(x, {}, {}, o.eps); };
  const FeatureMap map = o.order == 1 ? FeatureMap::taylor1 : FeatureMap::taylor2;
  return linear_attention(standardized(q), standardized(k), v,
                          {.query_map = map, .key_map = map, .feature_scale = std::sqrt(o.scale), .eps = 0, .impl = o.impl});
}

}  // namespace vitrine
