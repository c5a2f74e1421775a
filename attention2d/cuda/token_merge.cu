// Token merging: the order of the sources, merged tokens and where each token went. Lists are short (some thousand entries) and
// stay in the caches: threads look through them instead of sorting.
#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/layers/cuda/launch.h>

namespace vitrine::cuda {

namespace {

constexpr int kThreads = 128;

struct Merge {
  std::int64_t sources, destinations, count;  // count: sources that are merged, the first of the list

  VITRINE_DEVICE std::int64_t tokens() const { return sources + destinations; }
  VITRINE_DEVICE std::int64_t kept() const { return sources - count; }
};

// Source `order` and its destination, in the order of their likeness.
VITRINE_KERNEL(kThreads)
void merge_pairs_kernel(std::int64_t n, std::int64_t sources, const std::int32_t* source, const std::int64_t* target,
                        const std::int64_t* order, std::int32_t* pairs) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
  if (i >= n) return;
  const std::int64_t s = order[i];
  pairs[2 * i] = source[s];
  pairs[2 * i + 1] = static_cast<std::int32_t>(target[i / sources * sources + s]);
}

// The merged token that stands for each token: a thread a source or destination.
VITRINE_KERNEL(kThreads)
void merge_origin_kernel(std::int64_t n, Merge m, const std::int32_t* destinations, const std::int32_t* sources,
                         const std::int32_t* targets, std::int32_t* origin) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
  if (i >= n) return;
  const std::int64_t image = i / m.tokens(), at = i - image * m.tokens();
  sources += image * m.sources;
  origin += image * m.tokens();
  if (at >= m.sources) {
    origin[destinations[at - m.sources]] = static_cast<std::int32_t>(m.kept() + at - m.sources);
  } else if (at < m.count) {
    origin[sources[at]] = static_cast<std::int32_t>(m.kept()) + targets[image * m.sources + at];
  } else {  // those that are left keep their order in the map
    std::int32_t place = 0;
    for (std::int64_t j = m.count; j < m.sources; ++j) place += sources[j] < sources[at] ? 1 : 0;
    origin[sources[at]] = place;
  }
}

// A block a merged token.
template <typename T>
VITRINE_KERNEL(kThreads)
void merge_rows_kernel(Merge m, std::int64_t channels, std::int64_t image_stride, std::int64_t token_stride, const T* x,
                       const std::int32_t* destinations, const std::int32_t* sources, const std::int32_t* targets,
                       const std::int32_t* origin, T* y) {
  const std::int64_t rows = m.tokens() - m.count, image = block_index().x / rows, at = block_index().x - image * rows + m.count;
  sources += image * m.sources;
  targets += image * m.sources;
  x += image * image_stride;
  const std::int64_t destination = at - m.sources, token = destination < 0 ? sources[at] : destinations[destination];
  y += (image * rows + origin[image * m.tokens() + token]) * channels;
  for (std::int64_t c = thread_index(); c < channels; c += block_size()) {
    float sum = to_float(x[token * token_stride + c]);
    int members = 1;
    for (std::int64_t j = 0; j < m.count && destination >= 0; ++j) {
      if (targets[j] != destination) continue;
      sum += to_float(x[sources[j] * token_stride + c]);
      ++members;
    }
    y[c] = from_float<T>(sum / static_cast<float>(members));
  }
}

template <typename T>
VITRINE_KERNEL(kThreads)
void unmerge_kernel(std::int64_t n, std::int64_t tokens, std::int64_t merged, std::int64_t channels, const T* y,
                    const std::int32_t* origin, T* out) {
  const std::int64_t i = std::int64_t{block_index().x} * block_size() + thread_index();
  if (i >= n) return;
  const std::int64_t token = i / channels;
  out[i] = y[(token / tokens * merged + origin[token]) * channels + i - token * channels];
}

}  // namespace

namespace ops {

void merge_pairs(const Tensor& sources, const Tensor& target, const Tensor& order, Tensor& pairs) {
  const std::int64_t n = order.numel();
  launch({.op = "merge_pairs", .x = order, .grid = blocks_for(n, kThreads), .threads = kThreads}, merge_pairs_kernel, n,
         order.size(1), data_of<std::int32_t>(sources), data_of<std::int64_t>(target), data_of<std::int64_t>(order),
         data_of<std::int32_t>(pairs));
}

void merge_tokens(const MergeTokensArgs& a) {
  const Merge m{a.sources.size(1), a.destinations.size(0), a.count};
  const std::int64_t n = a.origin.numel(), channels = a.x.size(2);
  const auto *destinations = data_of<std::int32_t>(a.destinations), *sources = data_of<std::int32_t>(a.sources),
             *targets = data_of<std::int32_t>(a.targets);
  launch({.op = "merge_tokens", .x = a.x, .grid = blocks_for(n, kThreads), .threads = kThreads}, merge_origin_kernel, n, m,
         destinations, sources, targets, data_of<std::int32_t>(a.origin));
  with_float_type(a.x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "merge_tokens", .x = a.x, .grid = a.tokens.size(0) * a.tokens.size(1), .threads = kThreads},
           merge_rows_kernel<T>, m, channels, a.x.stride(0), a.x.stride(1), data_of<T>(a.x), destinations, sources, targets,
           static_cast<const std::int32_t*>(data_of<std::int32_t>(a.origin)), data_of<T>(a.tokens));
  });
}

void unmerge_tokens(const Tensor& y, const Tensor& origin, Tensor& out) {
  const std::int64_t n = out.numel();
  with_float_type(y.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "unmerge_tokens", .x = y, .grid = blocks_for(n, kThreads), .threads = kThreads}, unmerge_kernel<T>, n,
           out.size(1), y.size(1), out.size(2), data_of<T>(y), data_of<std::int32_t>(origin), data_of<T>(out));
  });
}

}  // namespace ops

}  // namespace vitrine::cuda
