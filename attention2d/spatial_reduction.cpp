#include <vitrine/attention2d/spatial_reduction.h>

#include <string>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/layers/error.h>

namespace vitrine {

SpatialReductionAttention::SpatialReductionAttention(const Weights& w, const SpatialReductionConfig& c,
                                                     const LinearOptions& proj_options)
    : config(c) {
  const std::string where = detail::module_name("spatial_reduction", w);
  detail::check_num_heads(where, c.dim, c.num_heads);
  detail::check_size(where, "sr_ratio", c.sr_ratio);
  q = Linear(w / "q", c.dim, c.dim, {.bias = c.qkv_bias});
  kv = Linear(w / "kv", c.dim, 2 * c.dim, {.bias = c.qkv_bias});
  if (c.sr_ratio > 1) {
    sr = PatchEmbed(w / "sr", c.dim, c.dim, c.sr_ratio, c.sr_ratio);
    norm = LayerNorm(w / "norm", c.dim, 1e-5);
  }
  proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

Tensor SpatialReductionAttention::operator()(const Tensor& x, Tensor residual) const {
  const std::int64_t dim = config.dim, ratio = config.sr_ratio, heads = config.num_heads;
  if (x.rank() != 4 || x.size(3) != dim || x.size(1) < ratio || x.size(2) < ratio)
    throw Error(fmt::format("spatial_reduction_attention: x is {}, expected [B, H, W, {}] with sides of at least {}",
                            x.shape().to_string(), dim, ratio));
  const std::int64_t H = x.size(1), W = x.size(2);
  Tensor source = x;
  if (ratio > 1) source = norm(sr(x.slice(1, 0, H / ratio * ratio).slice(2, 0, W / ratio * ratio)));
  const Tensor parts = kv(source).flatten(1, 2);  // [B, M, 2 C]
  const auto split = [&](const Tensor& t) { return t.unflatten(2, {heads, dim / heads}); };
  const Tensor y = attention(split(q(x).flatten(1, 2)), split(parts.slice(2, 0, dim)), split(parts.slice(2, dim, 2 * dim)),
                             {.scale = config.scale});  // [B, N, heads, D]
  return proj(y.view(x.shape()), {.residual = std::move(residual)});
}

}  // namespace vitrine
