// Bi-level routing and what else compares rows with rows: means of regions, products, lists of the chosen regions' tokens.
#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/layers/cuda/gemm.h>

namespace vitrine::cuda {

namespace {

constexpr int kThreads = 128;

struct Map {
  std::int64_t height, width, columns;  // columns: regions on a line
  std::int64_t image, line, pixel;      // strides
  std::int64_t channels;
};

// A block a region; threads have channels, so that a pixel's are read in lines. Bound by reading x.
template <typename T>
VITRINE_KERNEL(kThreads)
void region_means_kernel(Map map, std::int64_t regions, std::int64_t region_height, std::int64_t region_width,
                         bool counts_padding, const T* x, float* means) {
  const std::int64_t item = block_index().x, image = item / regions, region = item - image * regions;
  const std::int64_t top = region / map.columns * region_height, left = region % map.columns * region_width;
  const std::int64_t bottom = top + region_height < map.height ? top + region_height : map.height;
  const std::int64_t right = left + region_width < map.width ? left + region_width : map.width;
  const std::int64_t count = counts_padding ? region_height * region_width : (bottom - top) * (right - left);
  const float factor = 1.0f / static_cast<float>(count);
  for (std::int64_t c = thread_index(); c < map.channels; c += block_size()) {
    float sum = 0;
    for (std::int64_t y = top; y < bottom; ++y)
      for (std::int64_t at = left; at < right; ++at) sum += to_float(x[image * map.image + y * map.line + at * map.pixel + c]);
    means[item * map.channels + c] = sum * factor;
  }
}

VITRINE_KERNEL(kThreads)
void routed_tokens_kernel(std::int64_t n, std::int64_t regions, std::int64_t size, const std::int32_t* tokens,
                          const std::int32_t* routes, std::int32_t* keys) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
  if (i >= n) return;
  const std::int64_t choice = i / size;
  const std::int32_t region = routes[choice];
  keys[i] = region < 0 || region >= regions ? -1 : tokens[region * size + i - choice * size];
}

}  // namespace

namespace ops {

void region_means(const RegionMeansArgs& a) {
  const Map map{a.x.size(1),   a.x.size(2), (a.x.size(2) + a.region_width - 1) / a.region_width, a.x.stride(0), a.x.stride(1),
                a.x.stride(2), a.x.size(3)};
  with_float_type(a.x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "region_means", .x = a.x, .grid = a.means.size(0) * a.means.size(1), .threads = kThreads},
           region_means_kernel<T>, map, a.means.size(1), a.region_height, a.region_width, a.counts_padding, data_of<T>(a.x),
           data_of<float>(a.means));
  });
}

void products(const Tensor& a, const Tensor& b, Tensor& y) {
  const std::int64_t rows = a.size(0), columns = b.size(0), channels = a.size(1);
  const Output o{.rows = rows, .columns = columns, .y_stride = y.stride(0)};
  const MatrixRows<float> x{data_of<float>(a), rows, a.stride(0), channels, false};
  const MatrixRows<float> w{data_of<float>(b), columns, b.stride(0), channels, false};
  gemm<float>("products", a, x, w, channels, o, 1, static_cast<const float*>(nullptr), data_of<float>(y));
}

void routed_tokens(const Tensor& tokens, const Tensor& routes, Tensor& keys) {
  const std::int64_t n = keys.numel();
  launch({.op = "routed_tokens", .x = routes, .grid = blocks_for(n, kThreads), .threads = kThreads}, routed_tokens_kernel, n,
         tokens.size(1), tokens.size(2), data_of<std::int32_t>(tokens), data_of<std::int32_t>(routes),
         data_of<std::int32_t>(keys));
}

}  // namespace ops

}  // namespace vitrine::cuda
