#include <vitrine/attention2d/bi_level_routing.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/cpu/routing.h>
#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/grouped.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/partition.h>
#include <vitrine/attention2d/routing_trace.h>
#include <vitrine/layers/checks.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/loops.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace cpu {

VITRINE_DEFINE_KERNEL_TABLE(RoutingKernels, routing_kernels)

}  // namespace cpu

namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// A map's regions, for maps of at least one token.
struct Regions {
  std::int64_t height, width, region_height, region_width, rows, columns;

  std::int64_t count() const { return rows * columns; }
  std::int64_t tokens() const { return region_height * region_width; }  // of a whole one
};

Regions regions_of(const char* op, std::int64_t height, std::int64_t width, const RegionSize& region) {
  if (region.height < 1 || region.width < 1 || region.height > height || region.width > width)
    throw Error(fmt::format("{}: regions of {}x{} on a map of {}x{}; expected 1 to the map's side", op, region.height,
                            region.width, height, width));
  return {height, width, region.height, region.width, ceil_div(height, region.height), ceil_div(width, region.width)};
}

// i32 [B, regions, topk x tokens]: the tokens of the regions that each one chose.
Tensor routed_tokens(const Tensor& tokens, const Tensor& routes) {
  const std::int64_t B = routes.size(0), R = routes.size(1), topk = routes.size(2), M = tokens.size(2);
  Tensor keys = Tensor::empty({B, R, topk * M}, DType::i32, routes.device());
  if (cuda::is_on_gpu(routes)) {
    cuda::attention_ops().routed_tokens(tokens, routes, keys);
    return keys;
  }
  const std::int32_t *route = routes.data<std::int32_t>(), *token = tokens.data<std::int32_t>();
  std::int32_t* to = keys.data<std::int32_t>();
  cpu::parallel_for(B * R * topk, std::max<std::int64_t>(1, cpu::kGrain / M), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) std::copy_n(token + route[i] * M, M, to + i * M);
  });
  return keys;
}

void check_routes(const Tensor& routes, std::int64_t batch, std::int64_t regions) {
  if (!routes.defined() || routes.dtype() != DType::i32 || routes.rank() != 3 || routes.size(0) != batch ||
      routes.size(1) != regions || routes.size(2) < 1 || !routes.is_contiguous())
    throw Error(fmt::format("routed_attention: routes are {}, expected contiguous i32 [{}, {}, topk]",
                            routes.defined() ? routes.shape().to_string() : "undefined", batch, regions));
  if (cuda::is_on_gpu(routes)) return;  // routes to no region give padding there
  const std::int32_t* route = routes.data<std::int32_t>();
  const auto* wrong = std::find_if(route, route + routes.numel(), [&](std::int32_t r) { return r < 0 || r >= regions; });
  if (wrong != route + routes.numel())
    throw Error(fmt::format("routed_attention: a route to region {}, there are {}", *wrong, regions));
}

float default_scale(std::int64_t dim) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim))); }

void check_side(std::string_view where, std::int64_t side) {
  constexpr std::int64_t kMostSide = 1 << 10;
  if (side < 0 || side > kMostSide || (side > 0 && side % 2 == 0))
    throw Error(fmt::format("{}: side_dwconv {}, expected an odd number below {} or 0", where, side, kMostSide));
}

Conv2d make_lepe(const Weights& w, std::int64_t dim, std::int64_t side) {
  if (side == 0) return {};
  return {w / "lepe", dim, dim, side, side, {.pad_h = side / 2, .pad_w = side / 2, .groups = dim}};
}

// The tokens of each region, where the routes are.
Tensor region_tokens(const Regions& r, Device device) {
  if (r.height > std::numeric_limits<std::int32_t>::max() / r.width)
    throw Error(fmt::format("routed_attention: a map of {}x{} has too many tokens", r.height, r.width));
  return partition_windows(r.height, r.width, {r.region_height, r.region_width}).tokens.to(device);
}

Tensor attend_routes(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& routes, const Tensor& tokens,
                     std::optional<float> scale) {
  check_routes(routes, q.size(0), tokens.size(1));
  detail::check_same_device("routed_attention", q, routes);
  GroupedOptions options;
  options.scale = scale;
  options.queries = tokens;
  options.keys = routed_tokens(tokens, routes);
  options.covers_all = true;
  return grouped_attention(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2), options).unflatten(1, {q.size(1), q.size(2)});
}

}  // namespace

Tensor region_means(const Tensor& x, const RegionSize& region, bool counts_padding) {
  detail::check_floating("region_means", x);
  detail::check_rank("region_means", x, 4, "[B, H, W, C]");
  const Regions r = regions_of("region_means", x.size(1), x.size(2), region);
  const std::int64_t B = x.size(0), C = x.size(3), bytes = cpu::bytes_of(x);
  Tensor means = Tensor::empty({B, r.count(), C}, DType::f32, x.device());
  if (cuda::is_on_gpu(x)) {
    if (means.numel() > 0) cuda::attention_ops().region_means({x, r.region_height, r.region_width, counts_padding, means});
    return means;
  }
  const auto mean = cpu::routing_kernels(cpu::isa()).mean[cpu::index_of(x.dtype())];
  const auto* from = static_cast<const std::byte*>(x.raw());
  float* to = means.data<float>();
  const std::int64_t grain = std::max<std::int64_t>(1, cpu::kGrain / std::max<std::int64_t>(1, r.tokens() * C));
  cpu::parallel_for(B * r.count(), grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t at = i % r.count(), top = at / r.columns * r.region_height, left = at % r.columns * r.region_width;
      const std::int64_t rows = std::min(r.region_height, r.height - top), columns = std::min(r.region_width, r.width - left);
      const float factor = 1.0f / static_cast<float>(counts_padding ? r.tokens() : rows * columns);
      mean(from + (i / r.count() * x.stride(0) + top * x.stride(1) + left * x.stride(2)) * bytes, rows, columns,
           x.stride(1) * bytes, x.stride(2) * bytes, C, factor, to + i * C);
    }
  });
  return means;
}

Tensor route_regions(const Tensor& q, const Tensor& k, std::int64_t topk) {
  for (const auto& [t, name] : {std::pair(&q, "q"), std::pair(&k, "k")})
    if (!t->defined() || t->dtype() != DType::f32 || t->rank() != 3 || t->shape() != q.shape())
      throw Error(fmt::format("route_regions: {} is {}, expected f32 [B, regions, C], the same for q and k", name,
                              t->defined() ? t->shape().to_string() : "undefined"));
  const std::int64_t B = q.size(0), R = q.size(1), C = q.size(2);
  if (topk < 1 || topk > R || R > std::numeric_limits<std::int32_t>::max())
    throw Error(fmt::format("route_regions: topk is {}, expected 1 to the number of regions, {}", topk, R));
  if (cuda::is_on_gpu(q)) {
    detail::check_same_device("route_regions", q, k);
    Tensor scores = Tensor::empty({B, R, R}, DType::f32, q.device());
    for (std::int64_t b = 0; b < B; ++b) {
      Tensor of_image = scores.select(0, b);
      cuda::attention_ops().products(q.select(0, b), k.select(0, b), of_image);
    }
    Context::current().add_macs(B * R * R * C);
    return top_k(scores, topk).second.to(DType::i32);
  }
  Tensor routes = Tensor::empty({B, R, topk}, DType::i32);
  std::int32_t* to = routes.data<std::int32_t>();
  const auto choose = cpu::routing_kernels(cpu::isa()).choose;
  const float *queries = q.data<float>(), *keys = k.data<float>();
  cpu::parallel_for(B * R, std::max<std::int64_t>(1, cpu::kGrain / std::max<std::int64_t>(1, R * C)),
                    [&](std::int64_t begin, std::int64_t end) {
                      std::vector<float> values(static_cast<std::size_t>(topk));
                      for (std::int64_t i = begin; i < end; ++i)
                        choose(queries + i / R * q.stride(0) + i % R * q.stride(1), keys + i / R * k.stride(0), k.stride(1), R, C,
                               topk, values.data(), to + i * topk);
                    });
  Context::current().add_macs(B * R * R * C);
  return routes;
}

Tensor routed_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& routes, const RegionSize& region,
                        std::optional<float> scale) {
  for (const auto& [t, name] : {std::pair(&q, "q"), std::pair(&k, "k"), std::pair(&v, "v")}) {
    bool fits = t->defined() && t->rank() == 5;
    for (int a = 0; fits && a < 4; ++a) fits = t->size(a) == q.size(a);
    if (!fits)
      throw Error(fmt::format("routed_attention: {} is {}, expected [B, H, W, heads, head_dim], the same four sizes for all",
                              name, t->defined() ? t->shape().to_string() : "undefined"));
  }
  const Regions r = regions_of("routed_attention", q.size(1), q.size(2), region);
  return attend_routes(q, k, v, routes, region_tokens(r, q.device()), scale);
}

BiLevelRoutingAttention::BiLevelRoutingAttention(const Weights& w, const BiLevelRoutingConfig& c,
                                                 const LinearOptions& proj_options)
    : config(c) {
  const std::string where = detail::module_name("bi_level_routing", w);
  if (config.qk_dim == 0) config.qk_dim = c.dim;
  const std::int64_t qk = config.qk_dim;
  detail::check_num_heads(where, c.dim, c.num_heads);
  detail::check_size(where, "qk_dim", qk);
  if (qk % c.num_heads != 0) throw Error(fmt::format("{}: qk_dim {} is not a multiple of {} heads", where, qk, c.num_heads));
  detail::check_size(where, "n_win", c.n_win);
  if (c.topk < 1) throw Error(fmt::format("{}: topk is {}, expected 1 to the number of regions", where, c.topk));
  if (c.scale && !(*c.scale > 0)) throw Error(fmt::format("{}: scale is {}, expected a positive one", where, *c.scale));
  check_side(where, c.side_dwconv);
  const bool partial = c.uneven == BiLevelRoutingConfig::Uneven::partial;
  const Weights qkv_weights = partial ? w / "qkv_linear" : w / "qkv" / "qkv";
  const std::int64_t outputs = 2 * qk + c.dim;
  const Tensor weight = qkv_weights.get("weight", partial ? Shape{outputs, c.dim, 1, 1} : Shape{outputs, c.dim});
  const Tensor bias = qkv_weights.get("bias", {outputs});
  routing = Linear(weight.view({outputs, c.dim}).slice(0, 0, 2 * qk), bias.slice(0, 0, 2 * qk), DType::f32, w.device());
  qkv = Linear(qkv_weights, c.dim, outputs);
  lepe = make_lepe(w, c.dim, c.side_dwconv);
  proj = Linear(w / (partial ? "output_linear" : "wo"), c.dim, c.dim, proj_options);
}

Tensor BiLevelRoutingAttention::operator()(const Tensor& x, Tensor residual) const {
  detail::check_map("bi_level_routing", x, config.dim);
  using Uneven = BiLevelRoutingConfig::Uneven;
  const std::int64_t H = x.size(1), W = x.size(2), n = config.n_win, heads = config.num_heads, qk = config.qk_dim;
  const bool divides = H % n == 0 && W % n == 0, pads = !divides && config.uneven == Uneven::pad;
  const std::int64_t rows = pads ? ceil_div(H, n) * n : H, columns = pads ? ceil_div(W, n) * n : W;
  if ((!divides && config.uneven == Uneven::refuse) || rows < n || columns < n)
    throw Error(fmt::format("bi_level_routing: a map of {}x{} cannot be cut into {}x{} regions", H, W, n, n));
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (rows > kMost / columns)
    throw Error(fmt::format("bi_level_routing: {}x{} regions of a map of {}x{} have more than {} tokens", n, n, H, W, kMost));
  const RegionSize region{rows / n, columns / n};
  if (const std::int64_t count = ceil_div(rows, region.height) * ceil_div(columns, region.width); config.topk > count)
    throw Error(fmt::format("bi_level_routing: topk is {}, a map of {}x{} has {} regions", config.topk, H, W, count));
  const Tensor map = pads ? pad_to(x, rows, columns) : x;
  const Tensor means = routing(region_means(map, region));  // f32 [B, R, 2 qk]
  const Tensor routes = traced_choice(route_regions(means.slice(2, 0, qk), means.slice(2, qk, 2 * qk), config.topk));

  const Tensor parts = qkv(map);  // [B, H, W, qk + qk + C]
  const auto part = [&](std::int64_t first, std::int64_t size) {
    return parts.slice(3, first, first + size).unflatten(3, {heads, size / heads});
  };
  const Tensor tokens = regions.get(
      rows, columns, [&] { return region_tokens(regions_of("bi_level_routing", rows, columns, region), x.device()); });
  Tensor y =
      attend_routes(part(0, qk), part(qk, qk), part(2 * qk, config.dim), routes, tokens, config.scale.value_or(default_scale(qk)))
          .flatten(3, 4);
  if (lepe.defined()) lepe.add_to(y, parts.slice(3, 2 * qk, 2 * qk + config.dim));
  if (y.size(1) != H || y.size(2) != W) y = y.slice(1, 0, H).slice(2, 0, W).contiguous();
  return proj(y, {.residual = std::move(residual)});  // [B, H, W, C]
}

LepeAttention::LepeAttention(const Weights& w, const LepeAttentionConfig& c, const LinearOptions& proj_options) : config(c) {
  const std::string where = detail::module_name("lepe_attention", w);
  detail::check_num_heads(where, c.dim, c.num_heads);
  check_side(where, c.side_dwconv);
  qkv = Linear(w / "qkv", c.dim, 3 * c.dim, {.bias = c.qkv_bias});
  lepe = make_lepe(w, c.dim, c.side_dwconv);
  proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

Tensor LepeAttention::operator()(const Tensor& x, Tensor residual) const {
  detail::check_map("lepe_attention", x, config.dim);
  const std::int64_t H = x.size(1), W = x.size(2);
  const auto [q, k, v] = detail::split_qkv("lepe_attention", qkv, x.flatten(1, 2), config.num_heads);
  Tensor y = attention(q, k, v, {.scale = config.scale}).flatten(2, 3).unflatten(1, {H, W});
  if (lepe.defined()) lepe.add_to(y, config.lepe_of_values ? v.flatten(2, 3).unflatten(1, {H, W}) : x);
  return proj(y, {.residual = std::move(residual)});
}

}  // namespace vitrine
