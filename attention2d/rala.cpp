#include <vitrine/attention2d/rala.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/linear_attention.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

using Rotation = RalaAttention::Rotation;

// Pair j of either half turns by 10000 ** -(j / (D / 4 - 1)) a step: both ends included.
Rotation make_rotation(std::int64_t rows, std::int64_t columns, std::int64_t dim, Device device) {
  const std::int64_t pairs = dim / 4, longest = std::max(rows, columns);
  std::vector<float> sin(static_cast<std::size_t>(longest * dim / 2)), cos(sin.size());  // of a position, each pair twice
  cpu::parallel_for(longest, 32, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * pairs; i < end * pairs; ++i) {
      const double part = pairs > 1 ? static_cast<double>(i % pairs) / static_cast<double>(pairs - 1) : 0;
      const double angle = static_cast<double>(i / pairs) / std::pow(10000.0, part);
      sin[2 * i] = sin[2 * i + 1] = static_cast<float>(std::sin(angle));
      cos[2 * i] = cos[2 * i + 1] = static_cast<float>(std::cos(angle));
    }
  });
  Rotation r{Tensor::empty({rows * columns, dim}), Tensor::empty({rows * columns, dim})};
  const auto spread = [&](const std::vector<float>& half, Tensor& to) {
    float* row = to.data<float>();
    for (std::int64_t y = 0; y < rows; ++y)
      for (std::int64_t x = 0; x < columns; ++x, row += dim) {
        std::copy_n(half.data() + y * dim / 2, dim / 2, row);
        std::copy_n(half.data() + x * dim / 2, dim / 2, row + dim / 2);
      }
  };
  spread(sin, r.sin);
  spread(cos, r.cos);
  return {r.sin.to(device), r.cos.to(device)};
}

Tensor linear(const Tensor& q, const Tensor& k, const Tensor& v, const Rotation& turn) {
  constexpr FeatureMap kMap = FeatureMap::elu1;
  const double tokens = static_cast<double>(q.size(1)), dim = static_cast<double>(q.size(3));
  const Tensor query = affine(feature_sums(q, kMap), static_cast<float>(1 / (tokens * std::sqrt(dim))), 0.0f);
  const Tensor importance = affine(softmax(feature_dots(k, kMap, query)), static_cast<float>(tokens), 0.0f);  // [B, heads, N]
  return linear_attention(
      q, k, v, {.normalizer = LinearNormalizer::mean, .eps = 1e-6f, .key_weights = importance, .sin = turn.sin, .cos = turn.cos});
}

}  // namespace

RalaAttention::RalaAttention(const Weights& w, const RalaAttentionConfig& c, const LinearOptions& proj_options) : config(c) {
  const std::string where = detail::module_name("rala_attention", w);
  detail::check_num_heads(where, c.dim, c.num_heads);
  if (c.dim / c.num_heads % 4 != 0)
    throw Error(
        fmt::format("{}: heads of {} channels, expected a multiple of 4: two axes turn in pairs", where, c.dim / c.num_heads));
  qkvo = Linear(w / "qkvo", c.dim, 4 * c.dim);
  lepe = Conv2d(w / "lepe", c.dim, c.dim, 5, 5, {.pad_h = 2, .pad_w = 2, .groups = c.dim});
  proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

Tensor RalaAttention::operator()(const Tensor& x, Tensor residual) const {
  detail::check_map("rala_attention", x, config.dim);
  if (x.size(1) < 1 || x.size(2) < 1) throw Error("rala_attention: the map is empty");
  const std::int64_t C = config.dim, d = C / config.num_heads;
  const Tensor parts = qkvo(x);  // [B, H, W, 4 C]
  const auto map = [&](int i) { return parts.slice(3, i * C, (i + 1) * C); };
  const auto tokens = [&](int i) { return map(i).flatten(1, 2).unflatten(2, {config.num_heads, d}); };
  Tensor q = tokens(0), k = tokens(1), y;
  const Tensor v = tokens(2);
  const Rotation turn = rotation.get(x.size(1), x.size(2), [&] { return make_rotation(x.size(1), x.size(2), d, x.device()); });
  if (config.linear) {
    y = linear(q, k, v, turn);
  } else {
    rotary_(q, turn.sin, turn.cos, RotaryLayout::pairs);
    rotary_(k, turn.sin, turn.cos, RotaryLayout::pairs);
    y = attention(q, k, v);
  }
  y = y.view(x.shape());
  lepe.add_to(y, map(2));
  multiply_(y, map(3));
  return proj(y, {.residual = std::move(residual)});
}

}  // namespace vitrine
