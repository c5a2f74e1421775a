#include <vitrine/attention2d/hilo.h>

#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/grouped.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/partition.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

HiLoAttention::HiLoAttention(const Weights& w, const HiLoConfig& c) : config(c) {
  const std::string where = detail::module_name("hilo_attention", w);
  detail::check_num_heads(where, c.dim, c.num_heads);
  detail::check_size(where, "window_size", c.window_size);
  if (!(c.alpha >= 0 && c.alpha <= 1)) throw Error(fmt::format("{}: alpha {}, expected 0 to 1", where, c.alpha));
  lo_heads = c.window_size == 1 ? c.num_heads : static_cast<std::int64_t>(static_cast<double>(c.num_heads) * c.alpha);
  hi_heads = c.num_heads - lo_heads;
  const std::int64_t head_dim = c.dim / c.num_heads, hi = hi_heads * head_dim, lo = lo_heads * head_dim;
  std::vector<Tensor> weights, biases;
  const auto read = [&](const char* name, std::int64_t outputs) {
    if (outputs == 0) return;
    weights.push_back((w / name).get("weight", {outputs, c.dim}));
    if (c.qkv_bias) biases.push_back((w / name).get("bias", {outputs}));
  };
  read("h_qkv", 3 * hi);
  read("l_q", lo);
  from_x = Linear(concat(weights, 0), c.qkv_bias ? concat(biases, 0) : Tensor(), w.options());
  if (hi > 0) h_proj = Linear(w / "h_proj", hi, hi);
  if (lo > 0) {
    l_kv = Linear(w / "l_kv", c.dim, 2 * lo, {.bias = c.qkv_bias});
    l_proj = Linear(w / "l_proj", lo, lo);
  }
}

Tensor HiLoAttention::operator()(const Tensor& x, Tensor residual) const {
  const std::int64_t size = config.window_size;
  if (x.rank() != 4 || x.size(3) != config.dim || x.size(1) % size != 0 || x.size(2) % size != 0)
    throw Error(fmt::format("hilo_attention: x is {}, expected [B, H, W, {}] with H and W multiples of the window's {}",
                            x.shape().to_string(), config.dim, size));
  if (residual.defined() && (residual.shape() != x.shape() || residual.dtype() != x.dtype()))
    throw Error(fmt::format("hilo_attention: residual is {} {}, expected {} {}", name_of(residual.dtype()),
                            residual.shape().to_string(), name_of(x.dtype()), x.shape().to_string()));
  const std::int64_t H = x.size(1), W = x.size(2), head_dim = config.dim / config.num_heads;
  const std::int64_t hi = hi_heads * head_dim, lo = lo_heads * head_dim;
  const Tensor parts = from_x(x).flatten(1, 2);  // [B, N, 3 hi + lo]
  // Both branches write their channels of one output, or add them to the residual in its memory.
  const bool adds = residual.defined();
  Tensor y = !adds                                              ? Tensor::empty(x.shape(), x.dtype(), x.device())
             : residual.is_unique() && residual.is_contiguous() ? std::move(residual)
                                                                : residual.clone();
  const auto project = [&](const Linear& proj, std::int64_t first, const Tensor& heads) {  // [B, N, heads, head_dim]
    Tensor part = y.flatten(1, 2).slice(2, first, first + proj.out_features());
    adds ? proj.add_to(part, heads.flatten(2, 3)) : proj.write_to(part, heads.flatten(2, 3));
  };
  if (hi > 0) {
    const Tensor qkv = parts.slice(2, 0, 3 * hi).unflatten(2, {3, hi_heads, head_dim});
    GroupedOptions options;
    options.scale = config.scale;
    options.queries = options.keys = windows.get(H, W, [&] {
      return partition_windows(H, W, {size, size}).tokens.to(x.device());
    });
    options.covers_all = true;
    project(h_proj, 0, grouped_attention(qkv.select(2, 0), qkv.select(2, 1), qkv.select(2, 2), options));
  }
  if (lo > 0) {
    const Tensor source = size == 1 ? x : avg_pool2d(x, {.kernel_h = size, .kernel_w = size, .stride_h = size, .stride_w = size});
    const Tensor kv = l_kv(source).flatten(1, 2).unflatten(2, {2, lo_heads, head_dim});  // [B, windows, 2, heads, head_dim]
    const Tensor q = parts.slice(2, 3 * hi, 3 * hi + lo).unflatten(2, {lo_heads, head_dim});
    project(l_proj, hi, attention(q, kv.select(2, 0), kv.select(2, 1), {.scale = config.scale}));
  }
  return y;
}

}  // namespace vitrine
