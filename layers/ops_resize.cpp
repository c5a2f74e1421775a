// F.interpolate on channels-last maps: taps and weights per axis as PyTorch computes them, in f32 as it does, so that
// borders and roundings fall alike.
//
// An output row first blends its input rows into one line of the input's width, then blends columns of that line:
//
//   rows y0 .. yk  --blend_rows-->  line [W, C] in f32  --blend_columns-->  output row [W', C]
//
// so that rows are independent, for the threads, and no map of intermediate size exists.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <vitrine/layers/checks.h>
#include <vitrine/layers/cpu/loops.h>
#include <vitrine/layers/cpu/pool.h>
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

float scale_of(std::int64_t in, std::int64_t out, bool align_corners) {
  if (align_corners) return out > 1 ? static_cast<float>(in - 1) / static_cast<float>(out - 1) : 0.0f;
  return static_cast<float>(in) / static_cast<float>(out);
}

float cubic(float x, float a) {  // Keys' kernel
  x = std::fabs(x);
  if (x < 1.0f) return ((a + 2.0f) * x - (a + 3.0f)) * x * x + 1.0f;
  if (x < 2.0f) return (((x - 5.0f) * x + 8.0f) * x - 4.0f) * a;
  return 0.0f;
}

float triangle(float x) { return std::max(0.0f, 1.0f - std::fabs(x)); }

Taps plain_taps(std::int64_t in, std::int64_t out, const Resize& options) {
  const float scale = scale_of(in, out, options.align_corners);
  const bool is_cubic = options.mode == ResizeMode::bicubic;
  Taps t;
  t.taps = is_cubic ? 4 : 2;
  for (std::int64_t i = 0; i < out; ++i) {
    float at = options.align_corners ? scale * static_cast<float>(i) : scale * (static_cast<float>(i) + 0.5f) - 0.5f;
    if (!is_cubic) at = std::max(at, 0.0f);
    const auto left = std::min(static_cast<std::int64_t>(std::floor(at)), in - 1);
    const float fraction = std::clamp(at - static_cast<float>(left), 0.0f, 1.0f);
    for (std::int64_t k = 0; k < t.taps; ++k) {
      const std::int64_t offset = is_cubic ? k - 1 : k;
      t.index.push_back(std::clamp<std::int64_t>(left + offset, 0, in - 1));
      const float distance = fraction - static_cast<float>(offset);
      t.weight.push_back(is_cubic ? cubic(distance, -0.75f) : triangle(distance));
    }
  }
  return t;
}

// The kernel is stretched over the reduction, as Pillow does.
Taps antialias_taps(std::int64_t in, std::int64_t out, const Resize& options) {
  const float scale = scale_of(in, out, options.align_corners), stretch = std::max(scale, 1.0f);
  const bool is_cubic = options.mode == ResizeMode::bicubic;
  const float support = (is_cubic ? 2.0f : 1.0f) * stretch;
  Taps t;
  t.taps = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
  for (std::int64_t i = 0; i < out; ++i) {
    const float center = scale * (static_cast<float>(i) + 0.5f);
    const std::int64_t first = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5f), 0);
    const std::int64_t last = std::min(static_cast<std::int64_t>(center + support + 0.5f), in);
    const std::int64_t count = std::clamp<std::int64_t>(last - first, 0, t.taps);
    const std::size_t at = t.weight.size();
    float total = 0.0f;
    for (std::int64_t k = 0; k < t.taps; ++k) {
      const float x = (static_cast<float>(k + first) - center + 0.5f) / stretch;
      const float w = k < count ? (is_cubic ? cubic(x, -0.5f) : triangle(x)) : 0.0f;
      total += w;
      t.weight.push_back(w);
      t.index.push_back(std::clamp<std::int64_t>(first + std::min(k, count - 1), 0, in - 1));
    }
    if (total != 0.0f)
      for (std::size_t k = at; k < t.weight.size(); ++k) t.weight[k] /= total;
  }
  return t;
}

std::vector<std::int64_t> nearest_index(std::int64_t in, std::int64_t out) {
  const float scale = scale_of(in, out, false);
  std::vector<std::int64_t> index(static_cast<std::size_t>(out));
  for (std::int64_t i = 0; i < out; ++i)
    index[static_cast<std::size_t>(i)] = std::min(static_cast<std::int64_t>(std::floor(static_cast<float>(i) * scale)), in - 1);
  return index;
}

Tensor resize_nearest(const Tensor& x, std::int64_t height, std::int64_t width) {
  const std::int64_t B = x.size(0), C = x.size(3);
  Tensor y = Tensor::empty({B, height, width, C}, x.dtype(), x.device());
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
  const bool lines = W == 1 || images.stride(2) == C;
  const Tensor x = lines ? images : images.contiguous();  // rows may be strided, pixels of a row are adjacent
  Tensor y = Tensor::empty({B, height, width, C}, x.dtype(), x.device());
  const auto taps_of = options.antialias ? antialias_taps : plain_taps;
  const Taps vertical = taps_of(H, height, options), horizontal = taps_of(W, width, options);
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
