#include <vitrine/attention2d/spatial_reduction.h>

#include <string>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/layers/error.h>

namespace vitrine {

KeyReduction::KeyReduction(const Weights& w, std::int64_t dim, std::int64_t sr_ratio, bool linear) : linear(linear) {
  if (sr_ratio == 1 && !linear) return;
  const std::int64_t cell = linear ? 1 : sr_ratio;
  sr = PatchEmbed(w / "sr", dim, dim, cell, cell);
  norm = LayerNorm(w / "norm", dim, 1e-5);
}

Tensor KeyReduction::operator()(const Tensor& x) const {
  if (!defined()) return x;
  if (linear) {
    Tensor y = norm(sr(adaptive_avg_pool2d(x, kSide, kSide)));
    activate_(y, Activation::gelu);
    return y;
  }
  return norm(sr(x.slice(1, 0, x.size(1) / sr.patch_h * sr.patch_h).slice(2, 0, x.size(2) / sr.patch_w * sr.patch_w)));
}

SpatialReductionAttention::SpatialReductionAttention(const Weights& w, const SpatialReductionConfig& c,
                                                     const LinearOptions& proj_options)
    : config(c) {
  const std::string where = detail::module_name("spatial_reduction", w);
  detail::check_num_heads(where, c.dim, c.num_heads);
  detail::check_size(where, "sr_ratio", c.sr_ratio);
  q = Linear(w / "q", c.dim, c.dim, {.bias = c.qkv_bias});
  kv = Linear(w / "kv", c.dim, 2 * c.dim, {.bias = c.qkv_bias});
  reduce = KeyReduction(w, c.dim, c.sr_ratio, c.linear);
  proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

Tensor SpatialReductionAttention::operator()(const Tensor& x, Tensor residual) const {
  const std::int64_t dim = config.dim, ratio = config.linear ? 1 : config.sr_ratio, heads = config.num_heads;
  if (x.rank() != 4 || x.size(3) != dim || x.size(1) < ratio || x.size(2) < ratio)
    throw Error(fmt::format("spatial_reduction_attention: x is {}, expected [B, H, W, {}] with sides of at least {}",
                            x.shape().to_string(), dim, ratio));
  const Tensor parts = kv(reduce(x)).flatten(1, 2);  // [B, M, 2 C]
  const auto split = [&](const Tensor& t) { return t.unflatten(2, {heads, dim / heads}); };
  const Tensor y = attention(split(q(x).flatten(1, 2)), split(parts.slice(2, 0, dim)), split(parts.slice(2, dim, 2 * dim)),
                             {.scale = config.scale});  // [B, N, heads, D]
  return proj(y.view(x.shape()), {.residual = std::move(residual)});
}

}  // namespace vitrine
