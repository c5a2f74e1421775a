#include <vitrine/attention2d/varied_window.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/grouped.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/partition.h>
#include <vitrine/attention2d/rows.h>
#include <vitrine/layers/cpu/parallel.h>

namespace vitrine {

namespace {

using Size = std::array<std::int64_t, 2>;

// LeakyReLU of each window's mean, of a map padded with zeros to a multiple of the window: f32 [B, windows, C].
Tensor window_means(const Tensor& x, const Size& size) {
  const std::int64_t H = x.size(1), W = x.size(2), C = x.size(3);
  const std::int64_t columns = (W + size[1] - 1) / size[1], windows = (H + size[0] - 1) / size[0] * columns;
  Tensor means = Tensor::zeros({x.size(0), windows, C});
  cpu::parallel_for(x.size(0) * windows, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(C));
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t b = item / windows, top = item % windows / columns * size[0], left = item % columns * size[1];
      float* mean = means.data<float>() + item * C;
      for (std::int64_t y = top; y < std::min(top + size[0], H); ++y)
        for (std::int64_t at = left; at < std::min(left + size[1], W); ++at) {
          detail::read_row(x, b * x.stride(0) + y * x.stride(1) + at * x.stride(2), row);
          for (std::int64_t c = 0; c < C; ++c) mean[c] += row[static_cast<std::size_t>(c)];
        }
      for (std::int64_t c = 0; c < C; ++c) {
        mean[c] /= static_cast<float>(size[0] * size[1]);
        if (mean[c] < 0) mean[c] *= 0.01f;
      }
    }
  });
  return means;
}

// Where one axis of a window's keys begins, and their distance. Offsets are in halves of the map over its whole windows.
std::pair<float, float> keys_on_axis(std::int64_t window, std::int64_t size, std::int64_t length, float scale, float offset) {
  const float half = 0.5f * static_cast<float>(size - 1), centre = static_cast<float>(window * size) + half;
  const float padded = static_cast<float>((length + size - 1) / size * size), step = 1 + scale;
  return {centre - half * step + offset / static_cast<float>(length / size) * (padded - 1) / 2, step};
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
  bias = relative_position_bias(w.get("relative_position_bias_table", {rows, c.num_heads}), c.window_size);
  proj = Linear(w / "proj", out, out, proj_options);
}

Tensor VariedWindowAttention::operator()(const Tensor& x, Tensor residual) const {  // [B, H, W, C]
  detail::check_map("varied_window_attention", x, config.dim);
  const std::int64_t B = x.size(0), H = x.size(1), W = x.size(2), heads = config.num_heads;
  const Size size = config.window_size;
  if (H < size[0] || W < size[1])
    throw Error(
        fmt::format("varied_window_attention: the map is {}x{}, smaller than the window of {}x{}", H, W, size[0], size[1]));
  const Partition windows = partition_windows(H, W, size);
  const std::int64_t columns = (W + size[1] - 1) / size[1], groups = windows.tokens.size(1);
  const Tensor means = window_means(x, size), offset = offsets(means), scale = scales(means);  // [B, windows, 2 heads]
  Tensor boxes = Tensor::empty({B, groups, heads, 4});
  for (std::int64_t i = 0; i < B * groups * heads; ++i) {
    const std::int64_t window = i / heads % groups;
    const float *o = offset.data<float>() + 2 * i, *s = scale.data<float>() + 2 * i;  // (x, y)
    const auto [top, row_step] = keys_on_axis(window / columns, size[0], H, s[1], o[1]);
    const auto [left, column_step] = keys_on_axis(window % columns, size[1], W, s[0], o[0]);
    std::ranges::copy(std::array{top, left, row_step, column_step}, boxes.data<float>() + 4 * i);
  }
  const Tensor parts = qkv(x).flatten(1, 2).unflatten(2, {3, heads, config.out_dim / heads});
  const Tensor y = grouped_attention(
      parts.select(2, 0), parts.select(2, 1), parts.select(2, 2),
      {.scale = config.scale, .queries = windows.tokens, .bias = bias, .boxes = boxes, .map = {H, W}, .box_keys = size});
  return proj(y.view({B, H, W, config.out_dim}), {.residual = std::move(residual)});
}

}  // namespace vitrine
