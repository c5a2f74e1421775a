#include <vitrine/attention2d/window.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include <attention2d/compare.h>
#include <catch.h>
#include <fmt/format.h>
#include <layers/random.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/halo.h>
#include <vitrine/attention2d/partition.h>
#include <vitrine/attention2d/varied_window.h>
#include <vitrine/layers/context.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

using test::contains;
using test::difference;
using test::Random;
using test::tolerance_of;
using Size = std::array<std::int64_t, 2>;

Weights weights(DType dtype = DType::f32) { return Weights(synthetic_weights(2.0), {.dtype = dtype, .device = {}}); }

Tensor with_threads(int threads, const auto& run) {
  Context context({.threads = threads, .device = {}});
  const ContextScope scope(context);
  return run();
}

Tensor map_of(Random& random, std::int64_t b, std::int64_t h, std::int64_t w, std::int64_t c, DType dtype = DType::f32) {
  return random.tensor({b, h, w, c}).to(dtype);
}

// x [B, H, W, C] moved up and left by `by`, what leaves at one end enters at the other.
Tensor rolled(const Tensor& x, const Size& by) {
  Tensor y = Tensor::empty(x.shape());
  const std::int64_t H = x.size(1), W = x.size(2), C = x.size(3);
  for (std::int64_t row = 0; row < x.size(0) * H; ++row)
    for (std::int64_t column = 0; column < W; ++column) {
      const std::int64_t from = row / H * H + (row % H + by[0]) % H;
      std::copy_n(x.data<float>() + (from * W + (column + by[1]) % W) * C, C, y.data<float>() + (row * W + column) * C);
    }
  return y;
}

// The same with zeros below and on the right.
Tensor padded(const Tensor& x, std::int64_t height, std::int64_t width) {
  Tensor y = Tensor::zeros({x.size(0), height, width, x.size(3)});
  for (std::int64_t b = 0; b < x.size(0); ++b)
    for (std::int64_t row = 0; row < x.size(1); ++row)
      std::copy_n(x.data<float>() + (b * x.size(1) + row) * x.size(2) * x.size(3), x.size(2) * x.size(3),
                  y.data<float>() + (b * height + row) * width * x.size(3));
  return y;
}

std::int64_t ceil_to(std::int64_t n, std::int64_t size) { return (n + size - 1) / size * size; }

// The definition, step by step: pad and roll the map, qkv, global attention in each window with bias and mask, back, proj.
Tensor windows_by_steps(const WindowAttention& m, const Tensor& x) {
  const auto& c = m.config;
  const Size size = c.window_size, shift = c.shift_size;
  const std::int64_t H = x.size(1), W = x.size(2), rows = ceil_to(H, size[0]), columns = ceil_to(W, size[1]),
                     N = size[0] * size[1];
  const bool pads_first = c.pad == WindowPad::pad_then_roll;
  const Tensor map = pads_first ? rolled(padded(x, rows, columns), shift) : padded(rolled(x, shift), rows, columns);
  const Tensor qkv = m.qkv(map);
  Tensor out = Tensor::empty(map.shape());
  const auto band = [&](std::int64_t at, int axis) {
    const std::int64_t length = axis == 0 ? rows : columns;
    return shift[axis] == 0 || at >= length - shift[axis] ? 2 : at >= length - size[axis] ? 1 : 0;
  };
  for (std::int64_t b = 0; b < x.size(0); ++b)
    for (std::int64_t top = 0; top < rows; top += size[0])
      for (std::int64_t left = 0; left < columns; left += size[1]) {
        const auto window = [&](const Tensor& t) {
          return t.slice(0, b, b + 1).slice(1, top, top + size[0]).slice(2, left, left + size[1]);
        };
        const Tensor parts = window(qkv).contiguous().view({1, N, 3, c.num_heads, c.dim / c.num_heads});
        Tensor bias = m.bias.defined() ? m.bias.clone() : Tensor::zeros({1, c.num_heads, N, N});
        for (std::int64_t row = 0; row < c.num_heads * N; ++row)
          for (std::int64_t k = 0; k < N; ++k) {
            const std::int64_t q = row % N;
            const bool same = band(top + q / size[1], 0) == band(top + k / size[1], 0) &&
                              band(left + q % size[1], 1) == band(left + k % size[1], 1);
            if (!same && (shift[0] > 0 || shift[1] > 0)) bias.data<float>()[row * N + k] -= 100;
          }
        const Tensor y =
            attention(parts.select(2, 0), parts.select(2, 1), parts.select(2, 2), {.bias = bias, .impl = "reference"});
        Tensor to = window(out);
        for (std::int64_t i = 0; i < N; ++i)
          std::copy_n(y.data<float>() + i * c.dim, c.dim,
                      to.data<float>() + i / size[1] * to.stride(1) + i % size[1] * to.stride(2));
      }
  const auto crop = [&](const Tensor& t) { return t.slice(1, 0, H).slice(2, 0, W).contiguous(); };
  const auto back = [&](const Tensor& t) {
    return rolled(t, {(t.size(1) - shift[0] % t.size(1)) % t.size(1), (t.size(2) - shift[1] % t.size(2)) % t.size(2)});
  };
  return m.proj(pads_first ? crop(back(out)) : back(crop(out)));
}

TEST_CASE("window attention is its definition, on maps and windows of any size") {
  Random random(1);
  for (int round = 0; round < 40; ++round) {
    const std::int64_t heads = random.integer(1, 3), dim = heads * random.integer(1, 3) * 8;
    WindowAttentionConfig config{.dim = dim, .num_heads = heads};
    config.window_size = {random.integer(1, 7), random.integer(1, 7)};
    config.shift_size = {random.integer(0, config.window_size[0]), random.integer(0, config.window_size[1])};
    config.pad = round % 2 == 0 ? WindowPad::roll_then_pad : WindowPad::pad_then_roll;
    config.qkv_bias = random.integer(0, 3) > 0;
    config.rel_pos_bias = random.integer(0, 3) > 0;
    const WindowAttention layer(weights(), config);
    const Tensor x = map_of(random, random.integer(1, 2), random.integer(1, 17), random.integer(1, 17), dim);
    INFO(fmt::format("round {}: x {} heads {} window {}x{} shift {}x{}", round, x.shape().to_string(), heads,
                     config.window_size[0], config.window_size[1], config.shift_size[0], config.shift_size[1]));
    CHECK(difference(layer(x), windows_by_steps(layer, x), 1e-5) == "");
  }
}

TEST_CASE("a shift by the window is no shift, windows as large as the map are global attention") {
  Random random(2);
  const Tensor x = map_of(random, 2, 12, 8, 32);
  WindowAttentionConfig config{.dim = 32, .num_heads = 2, .window_size = {4, 4}};
  const Tensor unshifted = WindowAttention(weights(), config)(x);
  config.shift_size = {4, 4};
  CHECK(difference(WindowAttention(weights(), config)(x), unshifted, 1e-6) == "");

  config = {.dim = 32, .num_heads = 2, .window_size = {12, 8}};
  const WindowAttention whole(weights(), config);
  const Tensor parts = whole.qkv(x).flatten(1, 2).unflatten(2, {3, 2, 16});
  const Tensor y = attention(parts.select(2, 0), parts.select(2, 1), parts.select(2, 2), {.bias = whole.bias});
  const Tensor global = whole.proj(y.view(x.shape()));
  CHECK(difference(whole(x), global, 1e-6) == "");
  // a block and a grid of the whole map likewise, by either order of qkv's outputs
  for (const auto partition : {PartitionKind::block, PartitionKind::grid}) {
    PartitionAttentionConfig p{.dim = 32, .head_dim = 16, .partition = partition, .size = {12, 8}, .head_first = false};
    PartitionAttention layer(weights(), p);
    layer.bias = whole.bias;
    CHECK(difference(layer(x), global, 1e-6) == "");
  }
}

TEST_CASE("a grid is a block of the map with its axes regrouped") {
  Random random(3);
  const std::int64_t H = 12, W = 10;
  const Partition grid = partition_grid(H, W, {3, 5});
  REQUIRE(grid.tokens.shape() == Shape{1, 8, 15});
  for (std::int64_t g = 0; g < 8; ++g)
    for (std::int64_t i = 0; i < 15; ++i)
      CHECK(grid.tokens.data<std::int32_t>()[g * 15 + i] == (g / 2 + i / 5 * 4) * W + g % 2 + i % 5 * 2);
  // size 1: every token attends to itself only
  PartitionAttentionConfig config{.dim = 16, .head_dim = 8, .partition = PartitionKind::grid, .size = {1, 1}};
  const PartitionAttention layer(weights(), config);
  const Tensor x = map_of(random, 1, H, W, 16);
  const Tensor values = layer.qkv(x).unflatten(3, {2, 3, 8}).select(4, 2).contiguous().view(x.shape());
  CHECK(difference(layer(x), layer.proj(values), 1e-5) == "");
}

TEST_CASE("a position bias by key - query is the one by query - key read backward") {
  const Size size{3, 2};
  PartitionAttentionConfig config{.dim = 16, .head_dim = 8, .size = size};
  config.rel_pos = RelativePosition::table_by_head;
  const PartitionAttention layer(weights(), config);
  const Tensor table = weights().get("rel_pos.relative_position_bias_table", {2, 5, 3});
  for (std::int64_t h = 0; h < 2; ++h)
    for (std::int64_t q = 0; q < 6; ++q)
      for (std::int64_t k = 0; k < 6; ++k)
        CHECK(layer.bias.data<float>()[(h * 6 + q) * 6 + k] ==
              table.data<float>()[(h * 5 + k / 2 - q / 2 + 2) * 3 + k % 2 - q % 2 + 1]);
}

TEST_CASE("Swin V2: logits do not depend on the length of q and k, a residual is added") {
  Random random(4);
  const WindowAttentionV2Config config{.dim = 32, .num_heads = 2, .window_size = {4, 4}, .shift_size = {2, 2}, .qkv_bias = false};
  WindowAttentionV2 layer(weights(), config);
  const Tensor x = map_of(random, 1, 9, 11, 32);
  const Tensor y = layer(x);
  // q and k twice as long, v as it is
  Tensor weight = weights().get("qkv.weight", {96, 32}).clone();
  for (std::int64_t i = 0; i < 64 * 32; ++i) weight.data<float>()[i] *= 2;
  WindowAttentionV2 longer = layer;
  longer.qkv = Linear(weight, {}, DType::f32);
  CHECK(difference(longer(x), y, 1e-5) == "");
  const Tensor sum = layer(x, x);
  for (std::int64_t i = 0; i < x.numel(); ++i)
    REQUIRE(std::abs(sum.data<float>()[i] - y.data<float>()[i] - x.data<float>()[i]) < 1e-5f);
}

TEST_CASE("halo attention without a halo is attention in blocks, a stride takes every other query") {
  Random random(5);
  HaloAttentionConfig config{.dim = 16, .num_heads = 2, .head_dim = 8, .value_head_dim = 12, .block_size = 4, .halo_size = 0};
  const HaloAttention layer(weights(), config);
  const Tensor x = map_of(random, 2, 8, 12, 16);
  const Tensor q = layer.q(x), kv = layer.kv(x), y = layer(x);
  REQUIRE(y.shape() == Shape{2, 8, 12, 24});
  const Tensor height = weights().get("pos_embed.height_rel", {7, 8}), width = weights().get("pos_embed.width_rel", {7, 8});
  for (std::int64_t top = 0; top < 8; top += 4)
    for (std::int64_t left = 0; left < 12; left += 4) {
      const auto block = [&](const Tensor& t) { return t.slice(1, top, top + 4).slice(2, left, left + 4).contiguous(); };
      const Tensor bq = block(q).view({2, 16, 2, 8}), bkv = block(kv).view({2, 16, 2, 20});
      Tensor bias = Tensor::zeros({2, 2, 16, 16});
      for (std::int64_t b = 0; b < 2; ++b)
        for (std::int64_t h = 0; h < 2; ++h)
          for (std::int64_t i = 0; i < 16; ++i)
            for (std::int64_t j = 0; j < 16; ++j)
              for (std::int64_t d = 0; d < 8; ++d)
                bias.data<float>()[((b * 2 + h) * 16 + i) * 16 + j] +=
                    bq.data<float>()[((b * 16 + i) * 2 + h) * 8 + d] *
                    (height.data<float>()[(j / 4 - i / 4 + 3) * 8 + d] + width.data<float>()[(j % 4 - i % 4 + 3) * 8 + d]);
      const Tensor expected =
          attention(bq, bkv.slice(3, 0, 8), bkv.slice(3, 8, 20), {.bias = bias, .impl = "reference"}).view({2, 4, 4, 24});
      CHECK(difference(block(y), expected, 1e-5) == "");
    }
  // stride 2 sees positions of the strided block, so without position embeddings its queries are every other one
  config.halo_size = 1;
  HaloAttention dense(weights(), config);
  config.stride = 2;
  HaloAttention strided(weights(), config);
  dense.height_rel = dense.width_rel = strided.height_rel = strided.width_rel = Tensor::zeros({8, 11});
  const Tensor every = dense(x).unflatten(1, {4, 2}).select(2, 0).unflatten(2, {6, 2}).select(3, 0);
  CHECK(difference(strided(x), every.contiguous(), 1e-5) == "");
}

// Regressors that move nothing.
Linear still(std::int64_t dim, std::int64_t out) { return Linear(Tensor::zeros({out, dim}), {}, DType::f32); }

TEST_CASE("windows that do not vary are windows") {
  Random random(8);
  VariedWindowAttentionConfig config{.dim = 32, .num_heads = 2, .window_size = {4, 3}};
  VariedWindowAttention varied(weights(), config);
  varied.offsets = varied.scales = still(32, 4);
  const Tensor x = map_of(random, 2, 12, 9, 32);
  const WindowAttention window(weights(), {.dim = 32, .num_heads = 2, .window_size = {4, 3}});
  CHECK(difference(varied(x), window(x), 1e-5) == "");
  // padding is zeros after qkv: the same where it has no bias
  config.qkv_bias = false;
  VariedWindowAttention unbiased(weights(), config);
  unbiased.offsets = unbiased.scales = still(32, 4);
  const WindowAttention plain(weights(), {.dim = 32, .num_heads = 2, .window_size = {4, 3}, .qkv_bias = false});
  const Tensor odd = map_of(random, 2, 11, 10, 32);
  CHECK(difference(unbiased(odd), plain(odd), 1e-5) == "");
}

// VSA by its formula, in double: grid_sample's coordinates from -1 to 1, corners aligned.
Tensor varied_by_formula(const VariedWindowAttention& m, const Tensor& x) {
  const std::int64_t B = x.size(0), H = x.size(1), W = x.size(2), C = x.size(3), heads = m.config.num_heads, D = C / heads;
  const Size size = m.config.window_size;
  const std::int64_t rows = ceil_to(H, size[0]), columns = ceil_to(W, size[1]), N = size[0] * size[1];
  const Tensor qkv = m.qkv(x);
  Tensor out = Tensor::zeros({B, H, W, C});
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t top = 0; top < rows; top += size[0])
      for (std::int64_t left = 0; left < columns; left += size[1]) {
        Tensor mean = Tensor::zeros({1, C});
        for (std::int64_t y = top; y < std::min(top + size[0], H); ++y)
          for (std::int64_t at = left; at < std::min(left + size[1], W); ++at)
            for (std::int64_t c = 0; c < C; ++c)
              mean.data<float>()[c] += x.data<float>()[((b * H + y) * W + at) * C + c] / static_cast<float>(N);
        for (std::int64_t c = 0; c < C; ++c) mean.data<float>()[c] *= mean.data<float>()[c] < 0 ? 0.01f : 1.0f;
        const Tensor offset = m.offsets(mean), scale = m.scales(mean);
        for (std::int64_t h = 0; h < heads; ++h) {
          const auto coordinate = [&](std::int64_t i, std::int64_t first, std::int64_t length, std::int64_t whole,
                                      std::int64_t of,
                                      int axis) {  // of key i of the axis
            const double to = 2.0 / static_cast<double>(length - 1), half = static_cast<double>(of - 1) / 2;
            const double centre = -1 + to * (static_cast<double>(first) + half), relative = to * (static_cast<double>(i) - half);
            return centre + relative * (1 + scale.data<float>()[2 * h + axis]) +
                   offset.data<float>()[2 * h + axis] / static_cast<double>(whole);
          };
          const auto sampled = [&](std::int64_t key, std::int64_t channel) {
            const double gy = coordinate(key / size[1], top, rows, H / size[0], size[0], 1);
            const double gx = coordinate(key % size[1], left, columns, W / size[1], size[1], 0);
            const double y = (gy + 1) / 2 * static_cast<double>(rows - 1), at = (gx + 1) / 2 * static_cast<double>(columns - 1);
            double sum = 0;
            for (std::int64_t ty = 0; ty < H; ++ty)
              for (std::int64_t tx = 0; tx < W; ++tx)
                sum += std::max(0.0, 1 - std::abs(y - static_cast<double>(ty))) *
                       std::max(0.0, 1 - std::abs(at - static_cast<double>(tx))) *
                       qkv.data<float>()[((b * H + ty) * W + tx) * 3 * C + channel];
            return sum;
          };
          std::vector<double> k(static_cast<std::size_t>(N * D)), v(k.size());
          for (std::int64_t j = 0; j < N; ++j)
            for (std::int64_t d = 0; d < D; ++d) {
              k[static_cast<std::size_t>(j * D + d)] = sampled(j, C + h * D + d);
              v[static_cast<std::size_t>(j * D + d)] = sampled(j, 2 * C + h * D + d);
            }
          for (std::int64_t i = 0; i < N; ++i) {
            const std::int64_t y = top + i / size[1], at = left + i % size[1];
            if (y >= H || at >= W) continue;
            std::vector<double> weight(static_cast<std::size_t>(N));
            double total = 0;
            for (std::int64_t j = 0; j < N; ++j) {
              double logit = 0;
              for (std::int64_t d = 0; d < D; ++d)
                logit += qkv.data<float>()[((b * H + y) * W + at) * 3 * C + h * D + d] * k[static_cast<std::size_t>(j * D + d)];
              weight[static_cast<std::size_t>(j)] =
                  std::exp(logit / std::sqrt(static_cast<double>(D)) + m.bias.data<float>()[(h * N + i) * N + j]);
              total += weight[static_cast<std::size_t>(j)];
            }
            for (std::int64_t d = 0; d < D; ++d) {
              double sum = 0;
              for (std::int64_t j = 0; j < N; ++j)
                sum += weight[static_cast<std::size_t>(j)] * v[static_cast<std::size_t>(j * D + d)];
              out.data<float>()[((b * H + y) * W + at) * C + h * D + d] = static_cast<float>(sum / total);
            }
          }
        }
      }
  return m.proj(out);
}

TEST_CASE("varied-size windows are their formula") {
  Random random(9);
  for (const Size& map : {Size{8, 6}, Size{9, 11}}) {
    const VariedWindowAttention layer(weights(), {.dim = 16, .num_heads = 2, .window_size = {4, 3}});
    const Tensor x = map_of(random, 2, map[0], map[1], 16);
    CHECK(difference(layer(x), varied_by_formula(layer, x), 1e-4) == "");
    CHECK(difference(layer(x), WindowAttention(weights(), {.dim = 16, .num_heads = 2, .window_size = {4, 3}})(x), 1e-3) != "");
  }
}

TEST_CASE("attention in windows does not depend on the number of threads nor on the batch") {
  Random random(6);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = map_of(random, 3, 13, 10, 32, dtype);
    const WindowAttention window(weights(dtype), {.dim = 32, .num_heads = 4, .window_size = {5, 4}, .shift_size = {2, 1}});
    const WindowAttentionV2 v2(weights(dtype), {.dim = 32, .num_heads = 4, .window_size = {5, 4}, .shift_size = {2, 1}});
    const HaloAttention halo(weights(dtype), {.dim = 32, .num_heads = 4, .block_size = 5, .halo_size = 1});
    const auto check = [&](const auto& layer, const Tensor& map) {
      const Tensor expected = with_threads(1, [&] { return layer(map); });
      CHECK(test::same_bits(with_threads(5, [&] { return layer(map); }), expected));
      CHECK(difference(layer(map.slice(0, 1, 2)), expected.slice(0, 1, 2), tolerance_of(dtype)) == "");
    };
    check(window, x);
    check(v2, x);
    check(VariedWindowAttention(weights(dtype), {.dim = 32, .num_heads = 4, .window_size = {5, 4}}), x);
    check(halo, x.slice(1, 0, 10).contiguous());
  }
}

TEST_CASE("attention in windows refuses what does not fit, in one line") {
  const Weights w = weights();
  const Tensor x = Tensor::zeros({1, 6, 6, 32});
  CHECK_THROWS_WITH(WindowAttention(w, {.dim = 32, .num_heads = 0}), contains("dim 32 is not a multiple of 0 heads"));
  CHECK_THROWS_WITH(WindowAttention(w, {.dim = 32, .num_heads = 5}), contains("dim 32 is not a multiple of 5 heads"));
  CHECK_THROWS_WITH(WindowAttentionV2(w, {.dim = 0}), contains("dim is 0"));
  CHECK_THROWS_WITH(WindowAttention(w, {.dim = 32, .window_size = {0, 7}}), contains("window_size is 0"));
  CHECK_THROWS_WITH(WindowAttention(w, {.dim = 32, .shift_size = {0, -1}}), contains("shift_size is -1"));
  CHECK_THROWS_WITH(WindowAttention(w, {.dim = 32, .num_heads = 2})(Tensor::zeros({1, 6, 6, 31})),
                    contains("x is [1, 6, 6, 31], expected [B, H, W, 32]"));
  CHECK_THROWS_WITH(WindowAttention(w, {.dim = 32, .num_heads = 2})(x.select(0, 0)), contains("x is [6, 6, 32]"));
  CHECK_THROWS_WITH(partition_windows(0, 5, {2, 2}), contains("the map is 0x5"));
  CHECK_THROWS_WITH(partition_windows(1 << 20, 1 << 20, {2, 2}), contains("the map is 1048576x1048576"));
  CHECK_THROWS_WITH(partition_windows(5, 5, {2, 0}), contains("size is 2x0"));
  CHECK_THROWS_WITH(partition_windows(5, 5, {2, 2}, {-1, 0}), contains("shift is -1x0"));
  CHECK_THROWS_WITH(partition_grid(6, 6, {4, 3}), contains("the map is 6x6, expected multiples of 4x3"));
  CHECK_THROWS_WITH(relative_position_bias(Tensor::zeros({8, 2}), {2, 2}),
                    contains("the table is [8, 2], expected f32 [9, heads]"));
  CHECK_THROWS_WITH(PartitionAttention(w, {.dim = 32, .head_dim = 5}), contains("dim 32 is not a multiple of head_dim 5"));
  CHECK_THROWS_WITH(PartitionAttention(w, {.dim = 32})(x), contains("the map is 6x6, expected multiples of 7x7"));
  CHECK_THROWS_WITH(PartitionAttention(w, {.dim = 32})(Tensor::zeros({1, 7, 7, 3})), contains("expected [B, H, W, 32]"));
  CHECK_THROWS_WITH(VariedWindowAttention(w, {.dim = 32, .num_heads = 3}), contains("dim 32 is not a multiple of 3 heads"));
  CHECK_THROWS_WITH(VariedWindowAttention(w, {.dim = 32, .window_size = {7, 0}}), contains("window_size is 0"));
  CHECK_THROWS_WITH(VariedWindowAttention(w, {.dim = 32})(x), contains("the map is 6x6, smaller than the window of 7x7"));
  CHECK_THROWS_WITH(VariedWindowAttention(w, {.dim = 32})(x.select(0, 0)), contains("x is [6, 6, 32]"));
  CHECK_THROWS_WITH(HaloAttention(w, {.dim = 0}), contains("dim is 0, expected 1 to"));
  CHECK_THROWS_WITH(HaloAttention(w, {.dim = 32, .halo_size = -1}), contains("halo_size is -1"));
  CHECK_THROWS_WITH(HaloAttention(w, {.dim = 32, .stride = 3}), contains("stride 3 does not divide block_size 8"));
  CHECK_THROWS_WITH(HaloAttention(w, {.dim = 32})(x), contains("the map is 6x6, expected multiples of block_size 8"));
  CHECK_THROWS_WITH(HaloAttention(w, {.dim = 32})(Tensor::zeros({1, 8, 8, 3})), contains("expected [B, H, W, 32]"));
}

}  // namespace
}  // namespace vitrine
