#include <vitrine/attention2d/halo.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/grouped.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/partition.h>
#include <vitrine/attention2d/rows.h>
#include <vitrine/layers/cpu/parallel.h>

namespace vitrine {

namespace {

// i32 [1, blocks, win * win]: the window around each block, -1 outside of the map.
Tensor window_tokens(std::int64_t height, std::int64_t width, std::int64_t block, std::int64_t halo) {
  const std::int64_t rows = height / block, columns = width / block, win = block + 2 * halo;
  Tensor tokens = Tensor::empty({1, rows * columns, win * win}, DType::i32);
  std::int32_t* token = tokens.data<std::int32_t>();
  for (std::int64_t g = 0; g < rows * columns; ++g)
    for (std::int64_t i = 0; i < win * win; ++i) {
      const std::int64_t y = g / columns * block - halo + i / win, x = g % columns * block - halo + i % win;
      const bool inside = y >= 0 && y < height && x >= 0 && x < width;
      *token++ = inside ? static_cast<std::int32_t>(y * width + x) : -1;
    }
  return tokens;
}

// q [B, H, W, heads, D], rel [D, 2 win - 1] -> f32 [B, H W, heads, win]: q.rel[r - position + win - 1], the position being that
// of the query's row (axis 1) or column (axis 2) in its block.
Tensor axis_bias(const Tensor& q, const Tensor& rel, int axis, std::int64_t block) {
  const std::int64_t heads = q.size(3), dim = q.size(4), steps = rel.size(1), win = (steps + 1) / 2, width = q.size(2);
  const std::int64_t tokens = q.size(1) * width;
  Tensor bias = Tensor::empty({q.size(0), tokens, heads, win}, DType::f32, q.device());
  if (cuda::is_on_gpu(q)) {
    cuda::attention_ops().halo_bias(q, rel, axis == 1, block, bias);
    return bias;
  }
  cpu::parallel_for(q.size(0) * tokens, 64, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(dim));
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t token = item % tokens, position = (axis == 1 ? token / width : token % width) % block;
      for (std::int64_t h = 0; h < heads; ++h) {
        detail::read_row(q, (item * heads + h) * dim, row);
        float* to = bias.data<float>() + (item * heads + h) * win;
        std::fill_n(to, win, 0.0f);
        for (std::int64_t d = 0; d < dim; ++d) {
          const float* from = rel.data<float>() + d * steps + win - 1 - position;
          const float value = row[static_cast<std::size_t>(d)];
          for (std::int64_t r = 0; r < win; ++r) to[r] += value * from[r];
        }
      }
    }
  });
  return bias;
}

Tensor transposed(const Tensor& t) {  // [R, C] -> [C, R]
  Tensor turned = Tensor::empty({t.size(1), t.size(0)});
  for (std::int64_t r = 0; r < t.size(0); ++r)
    for (std::int64_t c = 0; c < t.size(1); ++c) turned.data<float>()[c * t.size(0) + r] = t.data<float>()[r * t.size(1) + c];
  return turned;
}

}  // namespace

HaloAttention::HaloAttention(const Weights& w, const HaloAttentionConfig& c) : config(c) {
  const std::string where = detail::module_name("halo_attention", w);
  for (const auto& [value, name] :
       {std::pair(c.dim, "dim"), std::pair(c.num_heads, "num_heads"), std::pair(c.head_dim, "head_dim"),
        std::pair(c.value_head_dim, "value_head_dim"), std::pair(c.block_size, "block_size")})
    detail::check_size(where, name, value);
  detail::check_size(where, "halo_size", c.halo_size, 0);
  if (c.stride < 1 || c.block_size % c.stride != 0)
    throw Error(fmt::format("{}: stride {} does not divide block_size {}", where, c.stride, c.block_size));
  const std::int64_t steps = 2 * (c.block_size + 2 * c.halo_size) - 1;
  q = Linear(w / "q", c.dim, c.num_heads * c.head_dim, {.bias = c.q_bias});
  kv = Linear(w / "kv", c.dim, c.num_heads * (c.head_dim + c.value_head_dim), {.bias = c.kv_bias});
  const Weights pos_embed = w / "pos_embed";
  height_rel = transposed(pos_embed.get("height_rel", {steps, c.head_dim})).to(w.device());
  width_rel = transposed(pos_embed.get("width_rel", {steps, c.head_dim})).to(w.device());
}

Tensor HaloAttention::operator()(const Tensor& x) const {  // [B, H, W, C]
  const HaloAttentionConfig& c = config;
  detail::check_map("halo_attention", x, c.dim);
  const std::int64_t H = x.size(1), W = x.size(2), s = c.stride, block = c.block_size / s;
  if (H < 1 || W < 1 || H % c.block_size != 0 || W % c.block_size != 0 || H > std::numeric_limits<std::int32_t>::max() / W)
    throw Error(fmt::format("halo_attention: the map is {}x{}, expected multiples of block_size {}", H, W, c.block_size));
  const Tensor strided = s == 1 ? x : x.unflatten(1, {H / s, s}).select(2, 0).unflatten(2, {W / s, s}).select(3, 0).contiguous();
  const Tensor queries = q(strided).unflatten(3, {c.num_heads, c.head_dim});  // [B, H / s, W / s, heads, D]
  const Tensor parts = kv(x).flatten(1, 2).unflatten(2, {c.num_heads, c.head_dim + c.value_head_dim});
  const Lists of_map = lists.get(H, W, [&] {
    return Lists{partition_windows(H / s, W / s, {block, block}).tokens.to(x.device()),
                 window_tokens(H, W, c.block_size, c.halo_size).to(x.device())};
  });
  const Tensor y =
      grouped_attention(queries.flatten(1, 2), parts.slice(3, 0, c.head_dim), parts.slice(3, c.head_dim, parts.size(3)),
                        {.queries = of_map.queries,
                         .keys = of_map.keys,
                         .row_bias = axis_bias(queries, height_rel, 1, block),
                         .column_bias = axis_bias(queries, width_rel, 2, block),
                         .covers_all = true});
  return y.view({x.size(0), H / s, W / s, c.num_heads * c.value_head_dim});
}

}  // namespace vitrine
