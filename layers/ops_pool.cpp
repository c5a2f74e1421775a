// Pooling over windows of channels-last maps.
#include <algorithm>
#include <vector>

#include <vitrine/layers/checks.h>
#include <vitrine/layers/cpu/loops.h>
#include <vitrine/layers/cpu/pool.h>
#include <vitrine/layers/cuda/backend.h>
#include <vitrine/layers/map_axis.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

using cpu::bytes_of;
using cpu::index_of;

using detail::PoolAxis;

PoolAxis sliding_axis(std::string_view op, std::int64_t size, std::int64_t kernel, std::int64_t stride, std::int64_t pad,
                      std::int64_t given_end, const Pool2d& pool) {
  const std::int64_t pad_end = given_end < 0 ? pad : given_end;
  if (kernel <= 0 || stride <= 0 || pad < 0 || 2 * std::max(pad, pad_end) > kernel)
    throw Error(
        fmt::format("{}: kernel {}, stride {}, padding {} and {}; expected positive ones and at most half a kernel of padding",
                    op, kernel, stride, pad, pad_end));
  const std::int64_t room = size + pad + pad_end - kernel;
  if (room < 0) throw Error(fmt::format("{}: a kernel of {} on a padded axis of {}", op, kernel, size + pad + pad_end));
  std::int64_t outputs = (room + (pool.ceil_mode ? stride - 1 : 0)) / stride + 1;
  // The last window has to start inside the axis or its leading padding.
  if (pool.ceil_mode && (outputs - 1) * stride >= size + pad) --outputs;
  return {size, outputs, false, kernel, stride, pad, pad_end, pool.count_include_pad};
}

PoolAxis adaptive_axis(std::int64_t size, std::int64_t outputs) {
  return {.size = size, .outputs = outputs, .is_adaptive = true};
}

// The windows of all outputs.
struct Windows {
  explicit Windows(const PoolAxis& axis) {
    for (std::int64_t i = 0; i < axis.outputs; ++i) {
      const detail::PoolWindow window = detail::window_at(axis, i);
      begin.push_back(window.begin);
      end.push_back(window.end);
      count.push_back(window.count);
    }
  }

  std::vector<std::int64_t> begin, end, count;
};

void check_map(std::string_view op, const Tensor& x) {
  detail::check_floating(op, x);
  detail::check_rank(op, x, 4, "[B, H, W, C]");
}

enum class Reduction { average, maximum };

Tensor pool_windows(const Tensor& x, const PoolAxis& row_axis, const PoolAxis& column_axis, Reduction reduction) {
  const std::int64_t B = x.size(0), C = x.size(3), height = row_axis.outputs, width = column_axis.outputs;
  Tensor y = Tensor::empty({B, height, width, C}, x.dtype(), x.device());
  if (cuda::is_on_gpu(x)) {
    cuda::backend().ops.pool(x, row_axis, column_axis, reduction == Reduction::maximum, y);
    return y;
  }
  const Windows rows(row_axis), columns(column_axis);
  const cpu::PoolKernels& table = cpu::pool_kernels(cpu::isa());
  const auto& kernels = reduction == Reduction::maximum ? table.maximum : table.average;
  const auto bytes = bytes_of(x);
  const auto kernel = kernels[index_of(x.dtype())];
  std::vector<float> divisors(static_cast<std::size_t>(height * width));
  for (std::size_t i = 0; i < divisors.size(); ++i)
    divisors[i] =
        static_cast<float>(rows.count[i / static_cast<std::size_t>(width)] * columns.count[i % static_cast<std::size_t>(width)]);
  const auto* source = static_cast<const std::byte*>(x.raw());
  auto* target = static_cast<std::byte*>(y.raw());
  const std::int64_t window = height && width ? (rows.end[0] - rows.begin[0]) * (columns.end[0] - columns.begin[0]) : 1;
  const std::int64_t grain = std::max<std::int64_t>(1, cpu::kGrain / std::max<std::int64_t>(1, width * C * window));
  cpu::parallel_for(B * height, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto row = static_cast<std::size_t>(i % height);
      kernel({source + (i / height * x.stride(0) + rows.begin[row] * x.stride(1)) * bytes, target + i * width * C * bytes,
              rows.end[row] - rows.begin[row], width, C, x.stride(1) * bytes, x.stride(2) * bytes, columns.begin.data(),
              columns.end.data(), divisors.data() + static_cast<std::int64_t>(row) * width});
    }
  });
  return y;
}

}  // namespace

Tensor avg_pool2d(const Tensor& x, const Pool2d& pool) {
  check_map("avg_pool2d", x);
  return pool_windows(x, sliding_axis("avg_pool2d", x.size(1), pool.kernel_h, pool.stride_h, pool.pad_h, pool.pad_end_h, pool),
                      sliding_axis("avg_pool2d", x.size(2), pool.kernel_w, pool.stride_w, pool.pad_w, pool.pad_end_w, pool),
                      Reduction::average);
}

Tensor max_pool2d(const Tensor& x, const Pool2d& pool) {
  check_map("max_pool2d", x);
  return pool_windows(x, sliding_axis("max_pool2d", x.size(1), pool.kernel_h, pool.stride_h, pool.pad_h, pool.pad_end_h, pool),
                      sliding_axis("max_pool2d", x.size(2), pool.kernel_w, pool.stride_w, pool.pad_w, pool.pad_end_w, pool),
                      Reduction::maximum);
}

Tensor blur_pool2d(const Tensor& x, std::int64_t stride) {
  check_map("blur_pool2d", x);
  const std::int64_t B = x.size(0), H = x.size(1), W = x.size(2);
  if (H < 2 || W < 2 || stride < 1)
    throw Error(fmt::format(
        "blur_pool2d: a map of {}x{} with stride {}; expected sides from 2 on, to mirror, and a stride from 1", H, W, stride));
  Tensor wide = Tensor::empty({B, H + 2, W + 2, x.size(3)}, x.dtype(), x.device());
  Tensor middle = wide.slice(1, 1, H + 1);
  const auto fill = [](Tensor to, const Tensor& from) { copy_(to, from); };
  fill(middle.slice(2, 1, W + 1), x);
  fill(middle.slice(2, 0, 1), x.slice(2, 1, 2));
  fill(middle.slice(2, W + 1, W + 2), x.slice(2, W - 2, W - 1));
  fill(wide.slice(1, 0, 1), wide.slice(1, 2, 3));
  fill(wide.slice(1, H + 1, H + 2), wide.slice(1, H - 1, H));
  // (1, 2, 1) / 4 is the mean of two neighbors, twice.
  const Tensor once = avg_pool2d(wide, {.kernel_h = 2, .kernel_w = 2, .stride_h = 1, .stride_w = 1});
  return avg_pool2d(once, {.kernel_h = 2, .kernel_w = 2, .stride_h = stride, .stride_w = stride});
}

Tensor adaptive_avg_pool2d(const Tensor& x, std::int64_t height, std::int64_t width) {
  check_map("adaptive_avg_pool2d", x);
  if (height < 0 || width < 0 || ((x.size(1) == 0 || x.size(2) == 0) && height * width > 0))
    throw Error(fmt::format("adaptive_avg_pool2d: {} to {}x{}", x.shape().to_string(), height, width));
  return pool_windows(x, adaptive_axis(x.size(1), height), adaptive_axis(x.size(2), width), Reduction::average);
}

}  // namespace vitrine
