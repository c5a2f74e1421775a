// F.interpolate on channels-last maps: taps and weights per axis as PyTorch computes them, in f32 as it does, so that
// borders and roundings fall alike.
//
// An output row first blends its input rows into one line of the input's width, then blends columns of that line:
//
//   rows y0 .. yk  --blend_rows-->  line [W, C] in f32  --blend_columns-->  output row [W', C]
//
// so that rows are independent, for the threads, and no map of intermediate size exists.
#include <algorithm>
#include <cstring>
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

// Output i is the sum over k < taps of weight[i * taps + k] times input index[i * taps + k].
struct Taps {
  std::int64_t taps = 0;
  std::vector<std::int64_t> index;
  std::vector<float> weight;
};

Taps all_taps(const detail::ResizeAxis& axis) {
  Taps t;
  t.taps = detail::taps_of(axis);
  for (std::int64_t i = 0; i < axis.out; ++i) {
    const detail::ResizeTaps output = detail::taps_at(axis, i);
    for (std::int64_t k = 0; k < t.taps; ++k) {
      t.index.push_back(output.index(k));
      t.weight.push_back(output.weight(k));
    }
  }
  return t;
}

std::vector<std::int64_t> nearest_index(std::int64_t in, std::int64_t out) {
  std::vector<std::int64_t> index(static_cast<std::size_t>(out));
  for (std::int64_t i = 0; i < out; ++i) index[static_cast<std::size_t>(i)] = detail::nearest_at(in, out, i);
  return index;
}

Tensor resize_nearest(const Tensor& x, std::int64_t height, std::int64_t width) {
  const std::int64_t B = x.size(0), C = x.size(3);
  Tensor y = Tensor::empty({B, height, width, C}, x.dtype(), x.device());
  if (cuda::is_on_gpu(x)) {
    cuda::backend().ops.resize_nearest(x, y);
    return y;
  }
  const std::vector<std::int64_t> rows = nearest_index(x.size(1), height), columns = nearest_index(x.size(2), width);
  const auto bytes = bytes_of(x), pixel = C * bytes;
  const auto* source = static_cast<const std::byte*>(x.raw());
  auto* target = static_cast<std::byte*>(y.raw());
  cpu::parallel_for(B * height, std::max<std::int64_t>(1, cpu::kGrain / std::max<std::int64_t>(1, width * C)),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t i = begin; i < end; ++i) {
                        const std::int64_t row = rows[static_cast<std::size_t>(i % height)];
                        const std::byte* from = source + (i / height * x.stride(0) + row * x.stride(1)) * bytes;
                        for (std::int64_t k = 0; k < width; ++k)
                          std::memcpy(target + (i * width + k) * pixel,
                                      from + columns[static_cast<std::size_t>(k)] * x.stride(2) * bytes,
                                      static_cast<std::size_t>(pixel));
                      }
                    });
  return y;
}

}  // namespace

Tensor resize(const Tensor& images, std::int64_t height, std::int64_t width, const Resize& options) {
  detail::check_floating("resize", images);
  detail::check_rank("resize", images, 4, "[B, H, W, C]");
  const std::int64_t B = images.size(0), H = images.size(1), W = images.size(2), C = images.size(3);
  if (H <= 0 || W <= 0 || height <= 0 || width <= 0)
    throw Error(fmt::format("resize: {} to {}x{}, expected sizes above 0", images.shape().to_string(), height, width));
  if (options.mode == ResizeMode::nearest) {
    if (options.antialias || options.align_corners) throw Error("resize: nearest takes neither antialias nor align_corners");
    return resize_nearest(images, height, width);
  }
  static constexpr detail::TapKind kKinds[2][2] = {{detail::TapKind::linear, detail::TapKind::antialias_linear},
                                                   {detail::TapKind::cubic, detail::TapKind::antialias_cubic}};
  const detail::TapKind kind = kKinds[options.mode == ResizeMode::bicubic][options.antialias];
  const detail::ResizeAxis row_axis{H, height, kind, options.align_corners}, column_axis{W, width, kind, options.align_corners};
  Tensor y = Tensor::empty({B, height, width, C}, images.dtype(), images.device());
  if (cuda::is_on_gpu(images)) {
    cuda::backend().ops.resize(images, row_axis, column_axis, y);
    return y;
  }
  const bool lines = W == 1 || images.stride(2) == C;
  const Tensor x = lines ? images : images.contiguous();  // rows may be strided, pixels of a row are adjacent
  const Taps vertical = all_taps(row_axis), horizontal = all_taps(column_axis);
  const auto& kernels = cpu::pool_kernels(cpu::isa());
  const auto blend_rows = kernels.blend_rows[index_of(x.dtype())];
  const auto blend_columns = kernels.blend_columns[index_of(x.dtype())];
  const auto bytes = bytes_of(x);
  const std::int64_t line_size = (W * C + 31) / 16 * 16;
  Tensor workspace = Tensor::empty({Context::current().threads(), line_size});
  std::vector<const void*> pointers(static_cast<std::size_t>(Context::current().threads() * vertical.taps));
  const bool inside = omp_in_parallel();
  const auto* source = static_cast<const std::byte*>(x.raw());
  auto* target = static_cast<std::byte*>(y.raw());
  float* const lines_of_threads = workspace.data<float>();
  const std::int64_t work = W * C * vertical.taps + width * C * horizontal.taps;
  cpu::parallel_for(B * height, std::max<std::int64_t>(1, cpu::kGrain / std::max<std::int64_t>(1, work)),
                    [&](std::int64_t begin, std::int64_t end) {
                      const int thread = inside ? 0 : omp_get_thread_num();
                      float* line = lines_of_threads + thread * line_size;
                      const void** rows = pointers.data() + thread * vertical.taps;
                      for (std::int64_t i = begin; i < end; ++i) {
                        const std::int64_t b = i / height, first = i % height * vertical.taps;
                        for (std::int64_t k = 0; k < vertical.taps; ++k)
                          rows[k] = source +
                                    (b * x.stride(0) + vertical.index[static_cast<std::size_t>(first + k)] * x.stride(1)) * bytes;
                        blend_rows(rows, vertical.weight.data() + first, vertical.taps, W * C, line);
                        blend_columns(line, horizontal.index.data(), horizontal.weight.data(), horizontal.taps, width, C,
                                      target + i * width * C * bytes);
                      }
                    });
  return y;
}

}  // namespace vitrine
