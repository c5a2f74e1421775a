#include <vitrine/attention2d/window.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/grouped.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/recent_cache.h>

namespace vitrine {

using Size = std::array<std::int64_t, 2>;

// A map's windows and the bias of their patterns.
struct MapWindows {
  Partition partition;
  Tensor bias;
};

class WindowCache : public detail::RecentCache<Size, MapWindows> {};

namespace {

std::int64_t head_dim_of(const WindowAttentionConfig& c) { return c.head_dim > 0 ? c.head_dim : c.dim / c.num_heads; }
std::int64_t head_dim_of(const WindowAttentionV2Config& c) { return c.dim / c.num_heads; }
bool has_own_head_dim(const WindowAttentionConfig& c) { return c.head_dim > 0 && c.head_dim <= 1 << 16; }
bool has_own_head_dim(const WindowAttentionV2Config&) { return false; }

template <typename Config>
void validate(const Weights& w, const Config& c) {
  const std::string where = detail::module_name("window_attention", w);
  if (has_own_head_dim(c)) {
    detail::check_size(where, "dim", c.dim);
    detail::check_size(where, "num_heads", c.num_heads);
  } else {
    detail::check_num_heads(where, c.dim, c.num_heads);
  }
  for (std::size_t a = 0; a < 2; ++a) {
    if (c.window_size[a] < 1 || c.window_size[a] > 4096)
      throw Error(fmt::format("{}: window_size is {}, expected 1 to 4096", where, c.window_size[a]));
    if (c.shift_size[a] < 0 || c.shift_size[a] > 4096)
      throw Error(fmt::format("{}: shift_size is {}, expected 0 to 4096", where, c.shift_size[a]));
  }
}

// Everything but how logits are made is the same for both.
template <typename Module>
Tensor attend(const Module& m, const Tensor& x, Tensor residual, GroupedOptions options) {
  const auto& c = m.config;
  detail::check_map("window_attention", x, c.dim);
  if (x.numel() == 0) return m.proj(x, {.residual = std::move(residual)});
  const Size map{x.size(1), x.size(2)};
  const auto windows = m.cache->get(map, [&] {
    Partition p = partition_windows(map[0], map[1], c.window_size, c.shift_size, c.pad);
    Tensor bias = p.regions.defined() ? shifted_bias(m.bias, p.regions) : m.bias;
    return MapWindows{p.to(x.device()), bias.to(x.device())};
  });
  options.queries = options.keys = windows->partition.tokens;
  options.pattern = windows->partition.pattern;
  options.bias = windows->bias;
  options.pad_key = m.pad_key;
  options.pad_value = m.pad_value;
  options.covers_all = true;
  // three views [B, H W, heads, head_dim] of the fused projection
  const Tensor parts = m.qkv(x).flatten(1, 2).unflatten(2, {3, c.num_heads, head_dim_of(c)});
  const Tensor y = grouped_attention(parts.select(2, 0), parts.select(2, 1), parts.select(2, 2), options);
  return m.proj(y.view({x.size(0), map[0], map[1], c.num_heads * head_dim_of(c)}), {.residual = std::move(residual)});
}

// The continuous position bias: a table like Swin's, [(2 sh - 1)(2 sw - 1), heads].
Tensor continuous_bias_table(const Weights& w, const WindowAttentionV2Config& c) {
  const auto stored = (w / "cpb_mlp").shape_of("0.weight");
  const std::int64_t hidden = stored && stored->rank() == 2 ? (*stored)[0] : 512;
  const Tensor first = w.get("cpb_mlp.0.weight", {hidden, 2}), first_bias = w.get("cpb_mlp.0.bias", {hidden});
  const Tensor second = w.get("cpb_mlp.2.weight", {c.num_heads, hidden});
  std::array<std::vector<double>, 2> offsets;  // sign(r) log2(1 + |r|) / 3 of r = 8 offset / (size - 1)
  for (std::size_t a = 0; a < 2; ++a) {
    const std::int64_t of = c.pretrained_window_size[a] > 0 ? c.pretrained_window_size[a] : c.window_size[a];
    for (std::int64_t i = 1 - c.window_size[a]; i < c.window_size[a]; ++i) {
      const double r = 8.0 * static_cast<double>(i) / static_cast<double>(std::max<std::int64_t>(of - 1, 1));
      offsets[a].push_back(std::copysign(std::log2(1 + std::abs(r)) / 3, r));
    }
  }
  const auto rows = static_cast<std::int64_t>(offsets[0].size()), columns = static_cast<std::int64_t>(offsets[1].size());
  Tensor table = Tensor::empty({rows * columns, c.num_heads});
  cpu::parallel_for(rows * columns, 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> units(static_cast<std::size_t>(hidden));
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t u = 0; u < hidden; ++u) {
        const float* weight = first.data<float>() + 2 * u;
        const double sum =
            weight[0] * offsets[0][i / columns] + weight[1] * offsets[1][i % columns] + first_bias.data<float>()[u];
        units[static_cast<std::size_t>(u)] = std::max(sum, 0.0);
      }
      for (std::int64_t h = 0; h < c.num_heads; ++h) {
        double sum = 0;
        for (std::int64_t u = 0; u < hidden; ++u)
          sum += second.data<float>()[h * hidden + u] * units[static_cast<std::size_t>(u)];
        table.data<float>()[i * c.num_heads + h] = static_cast<float>(16 / (1 + std::exp(-sum)));
      }
    }
  });
  return table;
}

}  // namespace

WindowAttention::WindowAttention(const Weights& w, const WindowAttentionConfig& c, const LinearOptions& proj_options)
    : config(c), cache(std::make_shared<WindowCache>()) {
  validate(w, c);
  const std::int64_t head_dim = head_dim_of(c), inner = c.num_heads * head_dim;
  qkv = Linear(w / "qkv", c.dim, 3 * inner, {.bias = c.qkv_bias});
  if (c.qkv_bias) {
    const Tensor parts = (w / "qkv").on_device("bias", {3 * inner}, w.dtype()).view({3, c.num_heads, head_dim});
    pad_key = parts.select(0, 1);
    pad_value = parts.select(0, 2);
  }
  if (c.rel_pos_bias) bias = relative_position_bias(read_relative_position_table(w, c.window_size, c.num_heads), c.window_size);
  proj = Linear(w / "proj", inner, c.dim, proj_options);
}

Tensor WindowAttention::operator()(const Tensor& x, Tensor residual) const {
  return attend(*this, x, std::move(residual), {.scale = config.scale});
}

WindowAttentionV2::WindowAttentionV2(const Weights& w, const WindowAttentionV2Config& c, const LinearOptions& proj_options)
    : config(c), cache(std::make_shared<WindowCache>()) {
  validate(w, c);
  const Tensor weight = w.get("qkv.weight", {3 * c.dim, c.dim});
  Tensor qkv_bias;  // k has none
  if (c.qkv_bias) {
    qkv_bias = Tensor::zeros({3 * c.dim});
    const Tensor q = w.get("q_bias", {c.dim}), v = w.get("v_bias", {c.dim});
    std::copy_n(q.data<float>(), c.dim, qkv_bias.data<float>());
    std::copy_n(v.data<float>(), c.dim, qkv_bias.data<float>() + 2 * c.dim);
    pad_value = w.on_device("v_bias", {c.dim}, w.dtype()).view({c.num_heads, c.dim / c.num_heads});
  }
  qkv = Linear(weight, qkv_bias, w.options());
  w.release("qkv.weight");
  const Tensor logit_scale = w.get("logit_scale", {c.num_heads, 1, 1});
  head_scale = Tensor::empty({c.num_heads});
  for (std::int64_t h = 0; h < c.num_heads; ++h)
    head_scale.data<float>()[h] =
        static_cast<float>(std::exp(std::min(static_cast<double>(logit_scale.data<float>()[h]), std::log(100.0))));
  head_scale = head_scale.to(w.device());
  bias = relative_position_bias(continuous_bias_table(w, c), c.window_size);
  proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

Tensor WindowAttentionV2::operator()(const Tensor& x, Tensor residual) const {
  return attend(*this, x, std::move(residual), {.scale = 1.0f, .head_scale = head_scale, .is_cosine = true});
}

}  // namespace vitrine
