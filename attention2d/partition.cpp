#include <vitrine/attention2d/partition.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/grouped.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/layers/checks.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

using Size = std::array<std::int64_t, 2>;

void validate_map(const char* op, std::int64_t height, std::int64_t width, const Size& size) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (size[0] < 1 || size[1] < 1 || size[0] > kMost / size[1])
    throw Error(fmt::format("{}: size is {}x{}, expected positive numbers", op, size[0], size[1]));
  if (height < 1 || width < 1 || height > kMost / width)
    throw Error(fmt::format("{}: the map is {}x{}, expected 1 to {} tokens", op, height, width, kMost));
}

// One axis of a map in windows.
struct WindowAxis {
  std::int64_t windows, size;
  std::vector<std::int64_t> source;        // of each position of the padded, rolled axis; -1: padding
  std::vector<std::int64_t> pattern;       // of each window: a row of `regions`
  std::vector<std::vector<char>> regions;  // of the positions of a window, numbered from 0
};

// Where a shift brings both ends of an axis together it is cut: positions from length - size on, and those from
// length - shift on, are regions apart.
char band_of(std::int64_t position, std::int64_t length, std::int64_t size, std::int64_t shift) {
  if (shift == 0 || position >= length - shift) return 2;
  return position >= length - size ? 1 : 0;
}

WindowAxis window_axis(std::int64_t length, std::int64_t size, std::int64_t shift, WindowPad pad) {
  WindowAxis axis{(length + size - 1) / size, size, {}, {}, {}};
  const std::int64_t padded = axis.windows * size, rolled = pad == WindowPad::pad_then_roll ? padded : length;
  for (std::int64_t i = 0; i < padded; ++i) {
    const std::int64_t from = i < rolled ? (i + shift) % rolled : length;
    axis.source.push_back(from < length ? from : -1);
  }
  for (std::int64_t w = 0; w < axis.windows; ++w) {
    std::vector<char> regions(static_cast<std::size_t>(size));
    for (std::int64_t i = 0; i < size; ++i)
      regions[static_cast<std::size_t>(i)] =
          static_cast<char>(band_of(w * size + i, padded, size, shift) - band_of(w * size, padded, size, shift));
    const auto found = std::find(axis.regions.begin(), axis.regions.end(), regions);
    axis.pattern.push_back(found - axis.regions.begin());
    if (found == axis.regions.end()) axis.regions.push_back(regions);
  }
  return axis;
}

Tensor integers(const Shape& shape) { return Tensor::empty(shape, DType::i32); }

}  // namespace

Partition partition_windows(std::int64_t height, std::int64_t width, const Size& size, const Size& shift, WindowPad pad) {
  validate_map("partition_windows", height, width, size);
  if (shift[0] < 0 || shift[1] < 0)
    throw Error(fmt::format("partition_windows: shift is {}x{}, expected 0 or more", shift[0], shift[1]));
  const WindowAxis rows = window_axis(height, size[0], shift[0], pad), columns = window_axis(width, size[1], shift[1], pad);
  const std::int64_t groups = rows.windows * columns.windows, tokens = size[0] * size[1];
  const auto column_patterns = static_cast<std::int64_t>(columns.regions.size());
  Partition p{integers({1, groups, tokens}), {}, {}, height % size[0] != 0 || width % size[1] != 0};
  std::int32_t* token = p.tokens.data<std::int32_t>();
  // no division: layers whose maps vary make this for every image
  for (std::int64_t top = 0; top < rows.windows * size[0]; top += size[0])
    for (std::int64_t left = 0; left < columns.windows * size[1]; left += size[1])
      for (std::int64_t i = top; i < top + size[0]; ++i)
        for (std::int64_t j = left; j < left + size[1]; ++j) {
          const std::int64_t y = rows.source[i], x = columns.source[j];
          *token++ = y < 0 || x < 0 ? -1 : static_cast<std::int32_t>(y * width + x);
        }
  if (shift[0] == 0 && shift[1] == 0) return p;
  p.pattern = integers({groups});
  for (std::int64_t g = 0; g < groups; ++g)
    p.pattern.data<std::int32_t>()[g] =
        static_cast<std::int32_t>(rows.pattern[g / columns.windows] * column_patterns + columns.pattern[g % columns.windows]);
  p.regions = integers({static_cast<std::int64_t>(rows.regions.size()) * column_patterns, tokens});
  std::int32_t* region = p.regions.data<std::int32_t>();
  for (const auto& row : rows.regions)
    for (const auto& column : columns.regions)
      for (std::int64_t i = 0; i < tokens; ++i) *region++ = row[i / size[1]] * 3 + column[i % size[1]];
  return p;
}

Partition partition_grid(std::int64_t height, std::int64_t width, const Size& size) {
  validate_map("partition_grid", height, width, size);
  if (height % size[0] != 0 || width % size[1] != 0)
    throw Error(fmt::format("partition_grid: the map is {}x{}, expected multiples of {}x{}", height, width, size[0], size[1]));
  const std::int64_t rows = height / size[0], columns = width / size[1];
  Partition p{integers({1, rows * columns, size[0] * size[1]}), {}, {}, false};
  std::int32_t* token = p.tokens.data<std::int32_t>();
  for (std::int64_t g = 0; g < rows * columns; ++g)
    for (std::int64_t i = 0; i < size[0] * size[1]; ++i)
      *token++ = static_cast<std::int32_t>((g / columns + i / size[1] * rows) * width + g % columns + i % size[1] * columns);
  return p;
}

Tensor relative_position_bias(const Tensor& table, const Size& size) {
  const std::int64_t rows = 2 * size[0] - 1, columns = 2 * size[1] - 1, tokens = size[0] * size[1];
  if (!table.defined() || table.dtype() != DType::f32 || table.rank() != 2 || table.size(0) != rows * columns)
    throw Error(fmt::format("relative_position_bias: the table is {}, expected f32 [{}, heads]",
                            table.defined() ? table.shape().to_string() : "undefined", rows * columns));
  const std::int64_t heads = table.size(1);
  Tensor bias = Tensor::empty({1, heads, tokens, tokens});
  cpu::parallel_for(heads * tokens, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t head = row / tokens, q = row % tokens;
      for (std::int64_t k = 0; k < tokens; ++k) {
        const std::int64_t y = q / size[1] - k / size[1] + size[0] - 1, x = q % size[1] - k % size[1] + size[1] - 1;
        bias.data<float>()[row * tokens + k] = table.data<float>()[(y * columns + x) * table.stride(0) + head];
      }
    }
  });
  return bias;
}

Tensor read_relative_position_table(const Weights& w, const Size& size, std::int64_t heads) {
  constexpr std::string_view kName = "relative_position_bias_table";
  const std::int64_t height = 2 * size[0] - 1, width = 2 * size[1] - 1;
  const auto stored = w.shape_of(kName);
  if (!stored || stored->rank() != 2 || (*stored)[1] != heads || (*stored)[0] == height * width)
    return w.get(kName, {height * width, heads});
  const auto side = static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>((*stored)[0]))));
  if (side % 2 == 0 || side * side != (*stored)[0]) return w.get(kName, {height * width, heads});
  const Tensor table = w.get(kName, {side * side, heads}).view({side, side, heads});
  return resample_relative_positions(table, height, width).view({height * width, heads});
}

namespace {

// [heads, 2 sh - 1, 2 sw - 1] by key - query, which is the other table read backward.
Tensor read_table_by_head(const Weights& w, const Size& size, std::int64_t heads) {
  constexpr std::string_view kName = "relative_position_bias_table";
  const std::int64_t height = 2 * size[0] - 1, width = 2 * size[1] - 1;
  const auto found = w.shape_of(kName);
  const bool other = found && found->rank() == 3 && (*found)[0] == heads && (*found)[1] % 2 == 1 && (*found)[2] % 2 == 1;
  const Shape shape = other ? *found : Shape{heads, height, width};
  const int axes[] = {1, 2, 0};
  Tensor by_offset = permute(w.get(kName, shape), axes);
  if (shape[1] != height || shape[2] != width) by_offset = resample_relative_positions(by_offset, height, width);
  Tensor table = Tensor::empty({height * width, heads});
  for (std::int64_t i = 0; i < height * width; ++i)
    std::copy_n(by_offset.data<float>() + (height * width - 1 - i) * heads, heads, table.data<float>() + i * heads);
  return table;
}

// timm's RelPosMlp in mode "cr".
Tensor mlp_table(const Weights& w, const Size& size, std::int64_t heads, std::int64_t hidden) {
  const Tensor first = w.get("fc1.weight", {hidden, 2}), first_bias = w.get("fc1.bias", {hidden});
  const Tensor second = w.get("fc2.weight", {heads, hidden}), second_bias = w.get("fc2.bias", {heads});
  const std::int64_t rows = 2 * size[0] - 1, columns = 2 * size[1] - 1;
  const auto place = [](std::int64_t offset) {
    return std::copysign(std::log1p(std::abs(static_cast<double>(offset))), static_cast<double>(offset));
  };
  Tensor table = Tensor::empty({rows * columns, heads});
  cpu::parallel_for(rows * columns, 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> units(static_cast<std::size_t>(hidden));
    for (std::int64_t i = begin; i < end; ++i) {
      const double y = place(i / columns - size[0] + 1), x = place(i % columns - size[1] + 1);
      for (std::int64_t u = 0; u < hidden; ++u) {
        const float* weight = first.data<float>() + 2 * u;
        units[static_cast<std::size_t>(u)] = std::max(weight[0] * y + weight[1] * x + first_bias.data<float>()[u], 0.0);
      }
      for (std::int64_t h = 0; h < heads; ++h) {
        double sum = second_bias.data<float>()[h];
        for (std::int64_t u = 0; u < hidden; ++u)
          sum += second.data<float>()[h * hidden + u] * units[static_cast<std::size_t>(u)];
        table.data<float>()[i * heads + h] = static_cast<float>(sum);
      }
    }
  });
  return table;
}

Tensor position_table(const Weights& w, const PartitionAttentionConfig& c, std::int64_t heads) {
  if (c.rel_pos == RelativePosition::mlp) return mlp_table(w / "mlp", c.size, heads, c.rel_pos_hidden);
  return c.rel_pos == RelativePosition::table ? read_relative_position_table(w, c.size, heads)
                                              : read_table_by_head(w, c.size, heads);
}

}  // namespace

Tensor shifted_bias(const Tensor& bias, const Tensor& regions) {
  const std::int64_t patterns = regions.size(0), tokens = regions.size(1), heads = bias.defined() ? bias.size(1) : 1;
  Tensor shifted = Tensor::empty({patterns, heads, tokens, tokens});
  cpu::parallel_for(patterns * heads * tokens, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int32_t* region = regions.data<std::int32_t>() + row / (heads * tokens) * tokens;
      const std::int32_t own = region[row % tokens];
      const float* from = bias.defined() ? bias.data<float>() + row % (heads * tokens) * tokens : nullptr;
      float* to = shifted.data<float>() + row * tokens;
      for (std::int64_t k = 0; k < tokens; ++k) to[k] = (from ? from[k] : 0.0f) + (region[k] == own ? 0.0f : -100.0f);
    }
  });
  return shifted;
}

namespace {

// Element i of the axis comes from i + shift, around the end.
Tensor rolled(const Tensor& x, int axis, std::int64_t shift) {
  const std::int64_t size = x.size(axis), first = ((shift % size) + size) % size;
  if (first == 0) return x;
  const Tensor parts[] = {x.slice(axis, first, size), x.slice(axis, 0, first)};
  return concat(parts, axis);
}

void check_windows(const char* op, std::int64_t height, std::int64_t width, const std::array<std::int64_t, 2>& size) {
  if (size[0] < 1 || size[1] < 1 || height % size[0] != 0 || width % size[1] != 0)
    throw Error(fmt::format("{}: windows of {}x{} do not divide a map of {}x{}", op, size[0], size[1], height, width));
}

}  // namespace

Tensor cut_windows(const Tensor& map, const std::array<std::int64_t, 2>& size, const std::array<std::int64_t, 2>& shift) {
  detail::check_rank("cut_windows", map, 4, "[B, H, W, C]");
  const std::int64_t B = map.size(0), H = map.size(1), W = map.size(2), C = map.size(3), rows = size[0], columns = size[1];
  check_windows("cut_windows", H, W, size);
  const Tensor x = rolled(rolled(map, 1, shift[0]), 2, shift[1]);
  if (rows == H && columns == W) return x.flatten(1, 2);
  const int windows_first[] = {0, 1, 3, 2, 4, 5};
  return permute(x.unflatten(2, {W / columns, columns}).unflatten(1, {H / rows, rows}), windows_first)
      .view({B * (H / rows) * (W / columns), rows * columns, C});
}

Tensor join_windows(const Tensor& windows, std::int64_t height, std::int64_t width, const std::array<std::int64_t, 2>& size,
                    const std::array<std::int64_t, 2>& shift) {
  detail::check_rank("join_windows", windows, 3, "[B windows, tokens, C]");
  check_windows("join_windows", height, width, size);
  const std::int64_t down = height / size[0], across = width / size[1], C = windows.size(2);
  if (windows.size(0) % (down * across) != 0 || windows.size(1) != size[0] * size[1])
    throw Error(fmt::format("join_windows: windows are {}, expected [B {}, {}, C]", windows.shape().to_string(), down * across,
                            size[0] * size[1]));
  const std::int64_t B = windows.size(0) / (down * across);
  Tensor x = windows.view({B, height, width, C});
  if (down * across > 1) {
    const int rows_first[] = {0, 1, 3, 2, 4, 5};
    x = permute(windows.view({B, down, across, size[0], size[1], C}), rows_first).view({B, height, width, C});
  }
  return rolled(rolled(x, 1, -shift[0]), 2, -shift[1]);
}

PartitionAttention::PartitionAttention(const Weights& w, const PartitionAttentionConfig& given, const LinearOptions& proj_options)
    : config(given) {
  PartitionAttentionConfig& c = config;
  if (c.attn_dim == 0) c.attn_dim = c.dim;
  if (c.dim_out == 0) c.dim_out = c.dim;
  const std::string where = detail::module_name("partition_attention", w);
  detail::check_size(where, "dim", c.dim);
  detail::check_size(where, "attn_dim", c.attn_dim);
  detail::check_size(where, "dim_out", c.dim_out);
  if (c.head_dim < 1 || c.attn_dim % c.head_dim != 0)
    throw Error(fmt::format("{}: dim {} is not a multiple of head_dim {}", where, c.attn_dim, c.head_dim));
  for (const std::int64_t size : c.size)
    if (size < 1 || size > 4096) throw Error(fmt::format("{}: size is {}, expected 1 to 4096", where, size));
  qkv = Linear(w / "qkv", c.dim, 3 * c.attn_dim, {.bias = c.qkv_bias});
  if (c.rel_pos != RelativePosition::none)
    bias = relative_position_bias(position_table(w / "rel_pos", c, c.attn_dim / c.head_dim), c.size).to(w.device());
  proj = Linear(w / "proj", c.attn_dim, c.dim_out, proj_options);
}

Tensor PartitionAttention::operator()(const Tensor& x, Tensor residual) const {  // [B, H, W, C]
  detail::check_map("partition_attention", x, config.dim);
  const std::int64_t H = x.size(1), W = x.size(2), heads = config.attn_dim / config.head_dim;
  if (H % config.size[0] != 0 || W % config.size[1] != 0)
    throw Error(
        fmt::format("partition_attention: the map is {}x{}, expected multiples of {}x{}", H, W, config.size[0], config.size[1]));
  if (x.numel() == 0) return proj(x, {.residual = std::move(residual)});
  const Partition p = partitions.get(H, W, [&] {
    const bool is_grid = config.partition == PartitionKind::grid;
    return (is_grid ? partition_grid(H, W, config.size) : partition_windows(H, W, config.size)).to(x.device());
  });
  const Tensor tokens = qkv(x).flatten(1, 2);
  const Tensor parts = config.head_first ? tokens.unflatten(2, {heads, 3, config.head_dim}).transpose(2, 3)
                                         : tokens.unflatten(2, {3, heads, config.head_dim});
  const Tensor y = grouped_attention(parts.select(2, 0), parts.select(2, 1), parts.select(2, 2),
                                     {.queries = p.tokens, .keys = p.tokens, .bias = bias, .covers_all = true});
  return proj(y.view({x.size(0), H, W, config.attn_dim}), {.residual = std::move(residual)});
}

}  // namespace vitrine
