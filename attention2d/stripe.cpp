#include <vitrine/attention2d/stripe.h>

#include <fmt/format.h>

#include <vitrine/attention2d/grouped.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/partition.h>
#include <vitrine/layers/error.h>

namespace vitrine {

StripeAttention::StripeAttention(const Weights& w, const StripeAttentionConfig& c) : config(c) {
  detail::check_num_heads(detail::module_name("stripe_attention", w), c.dim, c.num_heads);
  get_v = Conv2d(w / "get_v", c.dim, c.dim, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = c.dim});
}

Tensor StripeAttention::operator()(const Tensor& q, const Tensor& k, const Tensor& v, std::int64_t height,
                                   std::int64_t width) const {
  for (const Tensor* t : {&q, &k, &v}) detail::check_tokens("stripe_attention", *t, config.dim);
  const auto [rows, columns] = config.size;
  if (q.size(1) != height * width || rows < 1 || columns < 1 || height % rows != 0 || width % columns != 0)
    throw Error(fmt::format("stripe_attention: stripes of {}x{} do not divide a map of {}x{}", rows, columns, height, width));
  const auto heads = [&](const Tensor& t) { return t.unflatten(2, {config.num_heads, config.dim / config.num_heads}); };
  const Tensor tokens =
      stripes.get(height, width, [&] { return partition_windows(height, width, config.size).tokens.to(q.device()); });
  Tensor y = grouped_attention(heads(q), heads(k), heads(v),
                               {.scale = config.scale, .queries = tokens, .keys = tokens, .covers_all = true})
                 .flatten(2, 3);  // [B, N, C]
  // The stripes of one band of rows are a batch of views, so that the convolution ends at their borders.
  const auto band_of = [&](const Tensor& t, std::int64_t image, std::int64_t band) {
    return t.select(0, image)
        .slice(0, band * rows * width, (band + 1) * rows * width)
        .unflatten(0, {rows, width / columns, columns})
        .transpose(0, 1);  // [stripes, rows, columns, C]
  };
  for (std::int64_t image = 0; image < q.size(0); ++image)
    for (std::int64_t band = 0; band < height / rows; ++band) {
      Tensor to = band_of(y, image, band);
      get_v.add_to(to, band_of(v, image, band));
    }
  return y;
}

}  // namespace vitrine
