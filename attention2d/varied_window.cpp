#include <vitrine/attention2d/varied_window.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/bi_level_routing.h>
#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/grouped.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/key_axis.h>
#include <vitrine/attention2d/partition.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

using Size = std::array<std::int64_t, 2>;

// f32 [B, windows, heads, 4] of offsets and scales [B, windows, heads 2].
Tensor boxes_of(const Tensor& offset, const Tensor& scale, std::int64_t heads, const Size& map, const Size& size) {
  const std::int64_t B = offset.size(0), windows = offset.size(1), columns = (map[1] + size[1] - 1) / size[1];
  Tensor boxes = Tensor::empty({B, windows, heads, 4}, DType::f32, offset.device());
  if (cuda::is_on_gpu(offset)) {
    if (boxes.numel() > 0) cuda::attention_ops().window_boxes({offset, scale, map[0], map[1], size[0], size[1], boxes});
    return boxes;
  }
  for (std::int64_t i = 0; i < B * windows * heads; ++i) {
    const std::int64_t window = i / heads % windows;
    const float *o = offset.data<float>() + 2 * i, *s = scale.data<float>() + 2 * i;  // (x, y)
    const auto [top, row_step] = detail::keys_on_axis(window / columns, size[0], map[0], s[1], o[1]);
    const auto [left, column_step] = detail::keys_on_axis(window % columns, size[1], map[1], s[0], o[0]);
    std::ranges::copy(std::array{top, left, row_step, column_step}, boxes.data<float>() + 4 * i);
  }
  return boxes;
}

// An f32 linear, whatever the other layers compute in: it moves keys.
Linear regressor(const Weights& w, std::int64_t dim, std::int64_t out) {
  const Tensor weight = w.get("weight", {out, dim, 1, 1}).view({out, dim});
  return Linear(weight, w.get("bias", {out}), DType::f32, w.device());
}

}  // namespace

VariedWindowAttention::VariedWindowAttention(const Weights& w, const VariedWindowAttentionConfig& c,
                                             const LinearOptions& proj_options)
    : config(c) {
  const std::string where = detail::module_name("varied_window_attention", w);
  if (config.out_dim == 0) config.out_dim = c.dim;
  const std::int64_t out = config.out_dim;
  detail::check_num_heads(where, c.dim, c.num_heads);
  detail::check_num_heads(where, out, c.num_heads);
  if (!config.scale) config.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.dim / c.num_heads)));
  for (const std::int64_t size : c.window_size)
    if (size < 1 || size > 4096) throw Error(fmt::format("{}: window_size is {}, expected 1 to 4096", where, size));
  qkv = Linear(w / "qkv", c.dim, 3 * out, {.bias = c.qkv_bias});
  offsets = regressor(w / "sampling_offsets.2", c.dim, 2 * c.num_heads);
  scales = regressor(w / "sampling_scales.2", c.dim, 2 * c.num_heads);
  const std::int64_t rows = (2 * c.window_size[0] - 1) * (2 * c.window_size[1] - 1);
  bias = relative_position_bias(w.get("relative_position_bias_table", {rows, c.num_heads}), c.window_size).to(w.device());
  proj = Linear(w / "proj", out, out, proj_options);
}

Tensor VariedWindowAttention::operator()(const Tensor& x, Tensor residual) const {  // [B, H, W, C]
  detail::check_map("varied_window_attention", x, config.dim);
  const std::int64_t B = x.size(0), H = x.size(1), W = x.size(2), heads = config.num_heads;
  const Size size = config.window_size;
  if (H < size[0] || W < size[1])
    throw Error(
        fmt::format("varied_window_attention: the map is {}x{}, smaller than the window of {}x{}", H, W, size[0], size[1]));
  const Tensor tokens = windows.get(H, W, [&] { return partition_windows(H, W, size).tokens.to(x.device()); });
  // a map that is not a multiple of the window is one padded with zeros, which the means count
  Tensor means = region_means(x, {size[0], size[1]}, true);
  activate_(means, Activation::leaky_relu);
  const Tensor boxes = boxes_of(offsets(means), scales(means), heads, {H, W}, size);
  const Tensor parts = qkv(x).flatten(1, 2).unflatten(2, {3, heads, config.out_dim / heads});
  const Tensor y = grouped_attention(parts.select(2, 0), parts.select(2, 1), parts.select(2, 2),
                                     {.scale = config.scale,
                                      .queries = tokens,
                                      .bias = bias,
                                      .boxes = boxes,
                                      .map = {H, W},
                                      .box_keys = size,
                                      .covers_all = true});
  return proj(y.view({B, H, W, config.out_dim}), {.residual = std::move(residual)});
}

}  // namespace vitrine
