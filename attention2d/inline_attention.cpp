#include <vitrine/attention2d/inline_attention.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/depthwise.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/linear_attention.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

constexpr std::int64_t kTaps = 9;

// Outputs 9 c + t, tap t of channel c, to t * head_dim + c.
Tensor taps_first(const Tensor& rows, std::int64_t head_dim) {
  return permute(rows.view({head_dim, kTaps, -1}), std::array{1, 0, 2}).view({kTaps * head_dim, -1});
}

// The depth-wise kernels of every sample, f32 [B, 3, 3, C].
Tensor predict_kernels(const InlineAttention& m, const Tensor& token) {
  const std::int64_t B = token.size(0), C = m.config.dim, heads = m.config.num_heads, d = C / heads;
  Tensor hidden = Tensor::empty({B, C}, DType::f32, token.device());
  Tensor kernels = Tensor::empty({B, heads * kTaps * d}, DType::f32, token.device());
  const auto each_head = [&](const std::vector<Linear>& layers, const Tensor& from, Tensor& to) {
    for (std::int64_t h = 0; h < heads; ++h) {
      Tensor part = to.slice(1, h * to.size(1) / heads, (h + 1) * to.size(1) / heads);
      layers[static_cast<std::size_t>(h)].write_to(part, from.slice(1, h * d, (h + 1) * d));
    }
  };
  each_head(m.hidden, token, hidden);
  activate_(hidden, Activation::gelu);
  each_head(m.kernel, hidden, kernels);
  return permute(kernels.view({B, heads, kTaps, d}), std::array{0, 2, 1, 3}).view({B, 3, 3, C});
}

void check_window(const Tensor& x, std::int64_t prefix, std::int64_t rows, std::int64_t columns) {
  if (x.size(1) != prefix + rows * columns)
    throw Error(fmt::format("inline_attention: x is {}, expected {} tokens of a window of {}x{}", x.shape().to_string(),
                            prefix + rows * columns, rows, columns));
}

}  // namespace

InlineAttention::InlineAttention(const Weights& w, const InlineAttentionConfig& c, const LinearOptions& proj_options)
    : config(c) {
  const std::string where = detail::module_name("inline_attention", w);
  detail::check_num_heads(where, c.dim, c.num_heads);
  for (const std::int64_t size : c.window_size) detail::check_size(where, "window_size", size);
  const std::int64_t d = c.dim / c.num_heads;
  if (c.mix_only) {
    get_v = Conv2d(w / "get_v", c.dim, c.dim, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = c.dim});
  } else {
    qkv = detail::fused_qkv(w, c.dim, c.qkv_bias, c.separate_kv);
    proj = Linear(w / "proj", c.dim, c.dim, proj_options);
  }
  const Weights r = w / "residual";
  const Tensor first = (r / 0).get("weight", {c.dim, d, 1}), first_bias = (r / 0).get("bias", {c.dim});
  const Tensor second = (r / 2).get("weight", {kTaps * c.dim, d, 1}), second_bias = (r / 2).get("bias", {kTaps * c.dim});
  for (std::int64_t h = 0; h < c.num_heads; ++h) {
    const auto rows = [&](const Tensor& t, std::int64_t count) { return t.slice(0, h * count, (h + 1) * count); };
    // in f32 whatever the model computes in: they are small
    hidden.emplace_back(rows(first, d).view({d, d}), rows(first_bias, d), DType::f32, w.device());
    kernel.emplace_back(taps_first(rows(second, kTaps * d).view({kTaps * d, d}), d),
                        taps_first(rows(second_bias, kTaps * d), d).view({kTaps * d}), DType::f32, w.device());
  }
}

Tensor InlineAttention::operator()(const Tensor& x, std::int64_t rows, std::int64_t columns, Tensor residual) const {
  detail::check_tokens("inline_attention", x, config.dim);
  check_window(x, config.class_token ? 1 : 0, rows, columns);
  const std::int64_t C = config.dim;
  const Tensor parts = qkv(x), token = mean(x.to(DType::f32), 1, 1);
  return proj(mix(parts.slice(2, 0, C), parts.slice(2, C, 2 * C), parts.slice(2, 2 * C, 3 * C), token, rows, columns),
              {.residual = std::move(residual)});
}

Tensor InlineAttention::mix(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& token, std::int64_t rows,
                            std::int64_t columns) const {
  const std::int64_t prefix = config.class_token ? 1 : 0;
  check_window(q, prefix, rows, columns);
  if (token.size(0) != q.size(0))
    throw Error(fmt::format("inline_attention: {} mean tokens for {} windows", token.size(0), q.size(0)));
  const auto heads = [&](const Tensor& t) { return t.unflatten(2, {config.num_heads, config.dim / config.num_heads}); };
  Tensor y = linear_attention(heads(q), heads(k), heads(v),
                              {.query_map = config.feature_map,
                               .key_map = config.feature_map,
                               .feature_scale = config.feature_scale,
                               .normalizer = LinearNormalizer::subtract,
                               .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config.dim / config.num_heads)))})
                 .flatten(2, 3);  // [B, N, C]
  const auto image = [&](const Tensor& t) { return t.slice(1, prefix, t.size(1)).unflatten(1, {rows, columns}); };
  Tensor onto = image(y);
  detail::add_depthwise("inline_attention", onto, image(v), predict_kernels(*this, token.to(DType::f32)));
  if (get_v.defined()) get_v.add_to(onto, image(v));
  return y;
}

}  // namespace vitrine
