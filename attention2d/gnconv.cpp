#include <vitrine/attention2d/gnconv.h>

#include <numeric>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/heads.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

GnConv::GnConv(const Weights& w, const GnConvConfig& c, const LinearOptions& proj_options) : config(c) {
  const std::string where = detail::module_name("gnconv", w);
  detail::check_size(where, "dim", c.dim);
  if (c.order < 1 || c.order > 30 || c.dim % (std::int64_t{1} << (c.order - 1)) != 0)
    throw Error(fmt::format("{}: dim {} with order {}; expected order 1 to 30 and dim a multiple of 2^(order - 1)", where, c.dim,
                            c.order));
  for (std::int64_t i = c.order - 1; i >= 0; --i) dims.push_back(c.dim >> i);
  const std::int64_t first = dims.front(), wide = std::accumulate(dims.begin(), dims.end(), std::int64_t{0});
  // Each product with a part of the convolution brings in the factor once: it is folded into what makes a.
  Tensor rows = Tensor::full({first + wide}, 1.0f);
  for (std::int64_t i = 0; i < first; ++i) rows.data<float>()[i] = c.scale;
  const std::int64_t outs[] = {first, wide};
  const std::vector<Linear> parts =
      split_linear(w / "proj_in", c.dim, outs, {.bias = true, .scale = c.scale == 1.0f ? Tensor() : rows});
  proj_a = parts[0];
  proj_b = parts[1];
  if (c.global_filter[0] > 0)
    filter = GlobalLocalFilter(w / "dwconv", wide, c.global_filter[0], c.global_filter[1]);
  else
    dwconv = Conv2d(w / "dwconv", wide, wide, 7, 7, {.pad_h = 3, .pad_w = 3, .groups = wide});
  for (std::int64_t i = 0; i + 1 < c.order; ++i) {
    const std::int64_t out = dims[static_cast<std::size_t>(i + 1)];
    pws.emplace_back(w / "pws" / i, dims[static_cast<std::size_t>(i)], out,
                     LinearOptions{.bias = true, .scale = c.scale == 1.0f ? Tensor() : Tensor::full({out}, c.scale)});
  }
  proj_out = Linear(w / "proj_out", c.dim, c.dim, proj_options);
}

Tensor GnConv::operator()(const Tensor& x, Tensor residual) const {
  detail::check_map("gnconv", x, config.dim);
  if (x.size(1) == 0 || x.size(2) == 0) throw Error("gnconv: the map is empty");
  Tensor a = proj_a(x);                                                               // [B, H, W, dims[0]]
  const Tensor wide = proj_b(x), b = filter.defined() ? filter(wide) : dwconv(wide);  // [B, H, W, sum(dims)]
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (i > 0) a = pws[i - 1](a);  // [B, H, W, dims[i]]
    multiply_(a, b.slice(3, begin, begin + dims[i]));
    begin += dims[i];
  }
  return proj_out(a, {.activation = Activation::none, .residual = std::move(residual)});  // [B, H, W, C]
}

}  // namespace vitrine
