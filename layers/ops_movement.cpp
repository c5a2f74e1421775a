// Casts, copies and everything else that only moves values.
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>
#include <vector>

#include <vitrine/layers/checks.h>
#include <vitrine/layers/cpu/copy.h>
#include <vitrine/layers/cpu/loops.h>
#include <vitrine/layers/cuda/backend.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

using cpu::bytes_of;
using cpu::index_of;
using detail::check_defined;

void convert(const Tensor& from, Tensor& to) {
  if (cuda::is_on_gpu(to)) return cuda::backend().ops.copy(from, from.strides(), to);
  const auto kernel = cpu::copy_kernels(cpu::isa()).convert[index_of(from.dtype())][index_of(to.dtype())];
  const cpu::Blocks<2> blocks(from.shape(), {from.strides(), to.strides()}, {bytes_of(from), bytes_of(to)});
  const auto* source = static_cast<const std::byte*>(from.raw());
  auto* target = static_cast<std::byte*>(to.raw());
  blocks.run([&](auto offset, std::int64_t rows, std::int64_t columns, auto step) {
    kernel(source + offset[0], target + offset[1], rows, columns, step[0], step[1]);
  });
}

}  // namespace

Tensor cast(const Tensor& x, DType dtype) {
  check_defined("cast", x);
  Tensor y = Tensor::empty(x.shape(), dtype, x.device());
  convert(x, y);
  return y;
}

void copy_(Tensor& to, const Tensor& from) {
  check_defined("copy_", to);
  check_defined("copy_", from);
  detail::check_same_device("copy_", to, from);
  if (to.shape() != from.shape())
    throw Error(fmt::format("copy_: from {} to {}, expected the same shape", from.shape().to_string(), to.shape().to_string()));
  convert(from, to);
}

Tensor concat(std::span<const Tensor> parts, int axis) {
  if (parts.empty()) throw Error("concat: no tensors were passed");
  for (const Tensor& part : parts) {
    check_defined("concat", part);
    detail::check_same_device("concat", parts.front(), part);
  }
  const Tensor& first = parts.front();
  const int a = detail::checked_axis("concat", first, axis);
  Shape shape = first.shape();
  for (const Tensor& part : parts.subspan(1)) {
    Shape expected = first.shape();
    if (part.rank() == first.rank()) expected[a] = part.size(a);
    if (part.shape() != expected || part.dtype() != first.dtype())
      throw Error(fmt::format("concat: {} {} beside {} {} along axis {}", name_of(part.dtype()), part.shape().to_string(),
                              name_of(first.dtype()), first.shape().to_string(), axis));
    shape[a] += part.size(a);
  }
  Tensor y = Tensor::empty(shape, first.dtype(), first.device());
  std::int64_t at = 0;
  for (const Tensor& part : parts) {
    Tensor place = y.slice(a, at, at + part.size(a));
    convert(part, place);
    at += part.size(a);
  }
  return y;
}

Tensor permute(const Tensor& x, std::span<const int> axes) {
  check_defined("permute", x);
  const int rank = x.rank();
  Shape shape = x.shape(), strides = x.strides();
  unsigned seen = 0;
  bool valid = static_cast<int>(axes.size()) == rank;
  for (int i = 0; i < rank && valid; ++i) {
    valid = axes[i] >= 0 && axes[i] < rank && !(seen & (1u << axes[i]));
    if (!valid) break;
    seen |= 1u << axes[i];
    shape[i] = x.size(axes[i]);
    strides[i] = x.stride(axes[i]);
  }
  if (!valid) throw Error(fmt::format("permute: the axes are not an order of those of a tensor {}", x.shape().to_string()));

  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  if (cuda::is_on_gpu(x)) {
    cuda::backend().ops.copy(x, strides, y);
    return y;
  }
  const std::int64_t bytes = bytes_of(x);
  const auto* source = static_cast<const std::byte*>(x.raw());
  auto* target = static_cast<std::byte*>(y.raw());
  const cpu::CopyKernels& kernels = cpu::copy_kernels(cpu::isa());
  cpu::Axes<2> merged(shape, rank, {strides, y.strides()}, {bytes, bytes});
  const int last = merged.rank - 1;
  // The axis that is adjacent in the source; where it is the last one in the result too, rows are copied.
  int adjacent = -1;
  for (int i = 0; i < merged.rank; ++i)
    if (merged.stride[i][0] == bytes) adjacent = i;
  if (adjacent < 0 || adjacent == last) {
    const auto kernel = kernels.convert[index_of(x.dtype())][index_of(x.dtype())];
    const cpu::Blocks<2> blocks(shape, {strides, y.strides()}, {bytes, bytes});
    blocks.run([&](auto offset, std::int64_t rows, std::int64_t columns, auto step) {
      kernel(source + offset[0], target + offset[1], rows, columns, step[0], step[1]);
    });
    return y;
  }
  // Else planes are transposed: rows along the result's last axis, columns along the source's. Work is split along the
  // columns as well, in stretches of a cache line and more.
  const std::int64_t rows = merged.size[last], columns = merged.size[adjacent];
  const auto kernel = kernels.transpose[std::countr_zero(static_cast<std::uint64_t>(bytes))];
  const std::int64_t stretch = std::max<std::int64_t>(64, cpu::kGrain / std::max<std::int64_t>(rows, 1));
  const std::int64_t pieces = (columns + stretch - 1) / stretch;
  const std::int64_t from_row = merged.stride[last][0], to_row = merged.stride[adjacent][1];
  cpu::Axes<2> outer = merged;
  outer.rank = 0;
  for (int i = 0; i < last; ++i)
    if (i != adjacent) outer.push(merged.size[i], merged.stride[i]);
  const std::int64_t grain =
      std::max<std::int64_t>(1, cpu::kGrain / std::max<std::int64_t>(1, rows * std::min(columns, stretch)));
  cpu::parallel_for(outer.numel() * pieces, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      outer.walk(i / pieces, i / pieces + 1, [&](auto offset, std::int64_t, auto, std::int64_t) {
        const std::int64_t first = i % pieces * stretch;
        kernel(source + offset[0] + first * bytes, target + offset[1] + first * to_row, rows, std::min(stretch, columns - first),
               from_row, to_row);
      });
  });
  return y;
}

Tensor gather_rows(const Tensor& table, const Tensor& index) {
  check_defined("gather_rows", table);
  check_defined("gather_rows", index);
  detail::check_rank("gather_rows", table, 2, "[R, C]");
  if (index.dtype() != DType::i64 && index.dtype() != DType::i32)
    throw Error(fmt::format("gather_rows: the index is {}, expected i64 or i32", name_of(index.dtype())));
  const bool on_host = index.device().type == DeviceType::cpu;
  if (!on_host) detail::check_same_device("gather_rows", table, index);
  const Tensor rows = index.contiguous().to(DType::i64);
  const std::int64_t R = table.size(0), C = table.size(1), n = rows.numel();
  const std::int64_t* row = on_host ? rows.data<std::int64_t>() : nullptr;
  for (std::int64_t i = 0; on_host && i < n; ++i)
    if (row[i] < 0 || row[i] >= R)
      throw Error(fmt::format("gather_rows: index {} of a table {}", row[i], table.shape().to_string()));
  Shape shape = index.shape();
  shape.push_back(C);
  Tensor y = Tensor::empty(shape, table.dtype(), table.device());
  if (cuda::is_on_gpu(table)) {
    cuda::backend().ops.gather_rows(table, rows.to(table.device()), y);
    return y;
  }
  const std::int64_t stride = table.stride(0) * bytes_of(table), bytes = C * bytes_of(table);
  const auto* source = static_cast<const std::byte*>(table.raw());
  auto* target = static_cast<std::byte*>(y.raw());
  cpu::parallel_for(n, std::max<std::int64_t>(1, cpu::kGrain / std::max<std::int64_t>(C, 1)),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t i = begin; i < end; ++i)
                        std::memcpy(target + i * bytes, source + row[i] * stride, static_cast<std::size_t>(bytes));
                    });
  return y;
}

Tensor gather_columns(const Tensor& table, const Tensor& index) {
  check_defined("gather_columns", table);
  check_defined("gather_columns", index);
  detail::check_rank("gather_columns", table, 2, "[R, C]");
  detail::check_rank("gather_columns", index, 1, "[N]");
  detail::check_same_device("gather_columns", table, index);
  if (table.dtype() != DType::f32 || index.dtype() != DType::i32)
    throw Error(fmt::format("gather_columns: a table of {} and an index of {}, expected f32 and i32", name_of(table.dtype()),
                            name_of(index.dtype())));
  const std::int64_t R = table.size(0), N = index.size(0);
  Tensor y = Tensor::empty({R, N}, DType::f32, table.device());
  if (cuda::is_on_gpu(table)) {
    if (y.numel() > 0) cuda::backend().ops.gather_columns(table, index.contiguous(), y);
    return y;
  }
  constexpr std::int64_t kPiece = 4096;
  const Tensor columns = index.contiguous();
  const std::int64_t pieces = (N + kPiece - 1) / kPiece;
  cpu::parallel_for(R * pieces, cpu::kGrain / kPiece, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i % pieces * kPiece, count = std::min(kPiece, N - first);
      const float* from = table.data<float>() + i / pieces * table.stride(0);
      const std::int32_t* column = columns.data<std::int32_t>() + first;
      float* to = y.data<float>() + i / pieces * N + first;
      for (std::int64_t n = 0; n < count; ++n) to[n] = from[column[n]];
    }
  });
  return y;
}

std::pair<Tensor, Tensor> top_k(const Tensor& x, std::int64_t k) {
  detail::check_floating("top_k", x);
  if (x.rank() == 0 || k < 0 || k > x.size(-1))
    throw Error(fmt::format("top_k: k is {}, the tensor {}", k, x.shape().to_string()));
  const Tensor values = x.contiguous().to(DType::f32);
  Shape shape = x.shape();
  shape[x.rank() - 1] = k;
  Tensor best = Tensor::empty(shape, DType::f32, x.device()), where = Tensor::empty(shape, DType::i64, x.device());
  const std::int64_t n = x.size(-1), rows = n == 0 ? 0 : values.numel() / n;
  if (cuda::is_on_gpu(x)) {
    const Tensor table = values.view({rows, n});
    Tensor best_rows = best.view({rows, k}), where_rows = where.view({rows, k});
    if (best.numel() > 0) cuda::backend().ops.top_k(table, k, best_rows, where_rows);
    return {best.to(x.dtype()), where};
  }
  const float* source = values.data<float>();
  float* best_value = best.data<float>();
  std::int64_t* best_index = where.data<std::int64_t>();
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* row = source + r * n;
    for (std::int64_t i = 0; i < n; ++i) order[static_cast<std::size_t>(i)] = i;
    // NaN counts as the largest, as in PyTorch, so that the order is a total one.
    const auto before = [row](std::int64_t a, std::int64_t b) {
      const bool a_nan = row[a] != row[a], b_nan = row[b] != row[b];
      if (a_nan != b_nan) return a_nan;
      if (!a_nan && row[a] != row[b]) return row[a] > row[b];
      return a < b;
    };
    std::partial_sort(order.begin(), order.begin() + k, order.end(), before);
    for (std::int64_t i = 0; i < k; ++i) {
      best_index[r * k + i] = order[static_cast<std::size_t>(i)];
      best_value[r * k + i] = row[order[static_cast<std::size_t>(i)]];
    }
  }
  return {best.to(x.dtype()), where};
}

Tensor patchify(const Tensor& images, std::int64_t patch_h, std::int64_t patch_w) {
  check_defined("patchify", images);
  detail::check_rank("patchify", images, 4, "[B, H, W, C]");
  const std::int64_t B = images.size(0), H = images.size(1), W = images.size(2), C = images.size(3);
  if (patch_h <= 0 || patch_w <= 0 || H % patch_h != 0 || W % patch_w != 0)
    throw Error(
        fmt::format("patchify: images {} are not a multiple of the patch {}x{}", images.shape().to_string(), patch_h, patch_w));
  const std::int64_t rows = H / patch_h, columns = W / patch_w;
  // [B, rows, p_h, columns, p_w, C] -> [B, rows, columns, p_h, p_w, C]; p_w C values are adjacent in both
  const Tensor patches = images.unflatten(2, {columns, patch_w}).unflatten(1, {rows, patch_h}).transpose(2, 3);
  Tensor y = Tensor::empty(patches.shape(), images.dtype(), images.device());
  convert(patches, y);
  return y.view({B, rows * columns, patch_h * patch_w * C});
}

Tensor pad_to(const Tensor& x, std::int64_t height, std::int64_t width) {
  check_defined("pad_to", x);
  detail::check_rank("pad_to", x, 4, "[B, H, W, C]");
  const std::int64_t H = x.size(1), W = x.size(2);
  if (height < H || width < W) throw Error(fmt::format("pad_to: {}x{} is smaller than {}", height, width, x.shape().to_string()));
  if (height == H && width == W) return x;
  Tensor padded = Tensor::zeros({x.size(0), height, width, x.size(3)}, x.dtype(), x.device());
  Tensor inside = padded.slice(1, 0, H).slice(2, 0, W);
  convert(x, inside);
  return padded;
}

}  // namespace vitrine
