// Normalizations of rows, softmax, and the statistics of columns behind group norm, global response norm and means.
//
// Rows: a warp a row, which it reads up to three times, from L1 after the first; bound by memory. Columns: statistics of chunks
// of rows first, one channel a thread, so that reading is in lines; then a block an image (and group) puts them together in f64;
// then one pass writes. The order of sums depends on the shape alone.
#include <vitrine/layers/cuda/launch.h>
#include <vitrine/layers/cuda/math.h>
#include <vitrine/layers/cuda/ops.h>

namespace vitrine::cuda {

namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;

struct RowsArgs {
  Walk<2> walk;  // of x and y
  std::int64_t rows, columns;
};

RowsArgs rows_of(const Tensor& x, const Tensor& y) {
  const detail::Axes<2> axes(x.shape(), x.rank() - 1, {x.strides(), y.strides()}, {1, 1});
  return {walk_of(axes), x.size(-1) == 0 ? 0 : axes.numel(), x.size(-1)};
}

// The row of this warp; false behind the last.
VITRINE_DEVICE bool row_at(const RowsArgs& args, std::int64_t* row, std::int64_t (&at)[2]) {
  *row = std::int64_t{block_index().x} * kWarps + warp_index();
  if (*row >= args.rows) return false;
  offsets_at(args.walk, *row, at);
  return true;
}

// Per image: a row's result times (1 + scale) plus shift.
struct Modulation {
  const float *scale, *shift;  // [images, columns] or null
  std::int64_t rows_of_image;
};

template <typename T>
VITRINE_KERNEL(kThreads)
void row_norm_kernel(RowsArgs args, RowNorm kind, float eps, const float* weight, const float* bias, Modulation m, const T* x,
                     T* y) {
  std::int64_t row, at[2];
  if (!row_at(args, &row, at)) return;
  x += at[0];
  y += at[1];
  const std::int64_t C = args.columns;
  const auto columns = static_cast<float>(C);
  float mean = 0, squares = 0;
  if (kind == RowNorm::layer_norm || kind == RowNorm::simple_norm) {
    for (std::int64_t c = lane_index(); c < C; c += kWarp) mean += to_float(x[c]);
    mean = warp_sum(mean) / columns;
  }
  for (std::int64_t c = lane_index(); c < C; c += kWarp) {
    const float d = to_float(x[c]) - mean;
    squares += d * d;
  }
  squares = warp_sum(squares);
  float factor = 0;
  switch (kind) {
    case RowNorm::layer_norm:
    case RowNorm::rms_norm:
      factor = 1.0f / sqrt_of(squares / columns + eps);
      break;
    case RowNorm::simple_norm:
      factor = 1.0f / sqrt_of(squares / (columns - 1.0f) + eps);
      break;
    case RowNorm::l2_normalize: {
      const float length = sqrt_of(squares);
      factor = 1.0f / (length > eps || length != length ? length : eps);
      break;
    }
  }
  // The mean enters the variance of the simple norm only.
  const float center = kind == RowNorm::layer_norm ? mean : 0.0f;
  const std::int64_t image = m.scale || m.shift ? row / m.rows_of_image * C : 0;
  for (std::int64_t c = lane_index(); c < C; c += kWarp) {
    float gain = weight ? weight[c] : 1.0f, offset = bias ? bias[c] : 0.0f;
    if (m.scale) {
      const float scale = 1.0f + m.scale[image + c];
      gain *= scale;
      offset *= scale;
    }
    if (m.shift) offset += m.shift[image + c];
    y[c] = from_float<T>((to_float(x[c]) - center) * factor * gain + offset);
  }
}

template <typename T>
VITRINE_KERNEL(kThreads)
void softmax_kernel(RowsArgs args, const T* x, T* y) {
  std::int64_t row, at[2];
  if (!row_at(args, &row, at)) return;
  x += at[0];
  y += at[1];
  float largest = -infinity(), sum = 0;
  for (std::int64_t c = lane_index(); c < args.columns; c += kWarp) largest = larger(to_float(x[c]), largest);
  largest = warp_max(largest);
  for (std::int64_t c = lane_index(); c < args.columns; c += kWarp) sum += exp_of(to_float(x[c]) - largest);
  const float factor = 1.0f / warp_sum(sum);
  for (std::int64_t c = lane_index(); c < args.columns; c += kWarp)
    y[c] = from_float<T>(exp_of(to_float(x[c]) - largest) * factor);
}

// --- columns -----------------------------------------------------------------------------------------------------------------

constexpr std::int64_t kChunk = 128;  // rows
constexpr int kColumnThreads = 128;

// x [B, P, C]: the mean over a chunk's rows, and the sum of squares about it or, with raw, about zero. [B, chunks, C] each.
template <typename T>
VITRINE_KERNEL(kColumnThreads)
void column_moments_kernel(std::int64_t P, std::int64_t C, bool raw, const T* x, float* means, float* squares) {
  const std::int64_t c = std::int64_t{block_index().x} * kColumnThreads + thread_index();
  if (c >= C) return;
  const std::int64_t chunk = block_index().y, chunks = grid_size().y, image = block_index().z;
  const std::int64_t first = chunk * kChunk, count = P - first < kChunk ? P - first : kChunk;
  x += (image * P + first) * C + c;
  float sum = 0, square = 0;
  for (std::int64_t p = 0; p < count; ++p) sum += to_float(x[p * C]);
  const float mean = sum / static_cast<float>(count), center = raw ? 0.0f : mean;
  for (std::int64_t p = 0; p < count; ++p) {
    const float d = to_float(x[p * C]) - center;
    square += d * d;
  }
  const std::int64_t at = (image * chunks + chunk) * C + c;
  means[at] = mean;
  squares[at] = square;
}

// The sum over the block of a value each; shared has a place for each warp. All threads get it.
VITRINE_DEVICE double block_sum(double value, double* shared) {
  value = warp_sum(value);
  barrier();  // the places may be in use for the sum before
  if (lane_index() == 0) shared[warp_index()] = value;
  barrier();
  double sum = 0;
  for (int w = 0; w < block_size() / kWarp; ++w) sum += shared[w];
  return sum;
}

struct GroupArgs {
  std::int64_t P, C, chunks, groups;
  double eps;
  const float *means, *squares;                      // [B, chunks, C]
  const float *weight, *bias, *add, *scale, *shift;  // or null; add, scale, shift [B, C]
  float *gain, *offset;                              // [B, C]
};

// A block an image and group. What is added to a channel moves its mean only.
VITRINE_KERNEL(kColumnThreads)
void group_gain_kernel(GroupArgs p) {
  auto* const shared = reinterpret_cast<double*>(shared_memory());
  const std::int64_t group = block_index().x, image = block_index().y, width = p.C / p.groups, first = group * width;
  const auto rows_of = [&](std::int64_t i) { return static_cast<double>(p.P - i * kChunk < kChunk ? p.P - i * kChunk : kChunk); };
  const std::int64_t places = p.chunks * width;
  double sum = 0;
  for (std::int64_t i = thread_index(); i < places; i += block_size()) {
    const std::int64_t chunk = i / width, c = first + i - chunk * width;
    const double added = p.add ? p.add[image * p.C + c] : 0.0f;
    sum += rows_of(chunk) * (p.means[(image * p.chunks + chunk) * p.C + c] + added);
  }
  const auto count = static_cast<double>(p.P) * static_cast<double>(width);
  const double mean = block_sum(sum, shared) / count;
  double squares = 0;
  for (std::int64_t i = thread_index(); i < places; i += block_size()) {
    const std::int64_t chunk = i / width, c = first + i - chunk * width, at = (image * p.chunks + chunk) * p.C + c;
    const double d = p.means[at] + static_cast<double>(p.add ? p.add[image * p.C + c] : 0.0f) - mean;
    squares += p.squares[at] + rows_of(chunk) * d * d;
  }
  const double factor = 1.0 / sqrt_of(block_sum(squares, shared) / count + p.eps);
  for (std::int64_t c = first + thread_index(); c < first + width; c += block_size()) {
    const std::int64_t at = image * p.C + c;
    const double weight = p.weight ? p.weight[c] : 1.0f, bias = p.bias ? p.bias[c] : 0.0f;
    const double added = p.add ? p.add[at] : 0.0f, scale = 1.0 + static_cast<double>(p.scale ? p.scale[at] : 0.0f);
    p.gain[at] = static_cast<float>(factor * weight * scale);
    p.offset[at] =
        static_cast<float>(((added - mean) * factor * weight + bias) * scale + static_cast<double>(p.shift ? p.shift[at] : 0.0f));
  }
}

// A block an image: gain = 1 + weight n / (mean of n + eps), n the norms of the channels.
VITRINE_KERNEL(kColumnThreads)
void response_gain_kernel(GroupArgs p) {
  auto* const shared = reinterpret_cast<double*>(shared_memory());
  const std::int64_t image = block_index().x;
  const auto norm_of = [&](std::int64_t c) {
    double squares = 0;
    for (std::int64_t chunk = 0; chunk < p.chunks; ++chunk) squares += p.squares[(image * p.chunks + chunk) * p.C + c];
    return sqrt_of(squares);
  };
  double sum = 0;
  for (std::int64_t c = thread_index(); c < p.C; c += block_size()) sum += norm_of(c);
  const double average = block_sum(sum, shared) / static_cast<double>(p.C);
  for (std::int64_t c = thread_index(); c < p.C; c += block_size()) {
    p.gain[image * p.C + c] = static_cast<float>(1.0 + p.weight[c] * norm_of(c) / (average + p.eps));
    p.offset[image * p.C + c] = p.bias[c];
  }
}

// y [B, C] = the mean over P.
template <typename T>
VITRINE_KERNEL(kColumnThreads)
void mean_kernel(std::int64_t P, std::int64_t C, std::int64_t chunks, const float* means, T* y) {
  const std::int64_t c = std::int64_t{block_index().x} * kColumnThreads + thread_index(), image = block_index().y;
  if (c >= C) return;
  double sum = 0;
  for (std::int64_t i = 0; i < chunks; ++i) {
    const std::int64_t rows = P - i * kChunk < kChunk ? P - i * kChunk : kChunk;
    sum += static_cast<double>(rows) * means[(image * chunks + i) * C + c];
  }
  y[image * C + c] = from_float<T>(static_cast<float>(sum / static_cast<double>(P)));
}

// y = act(x gain + offset) by image and channel; x and y [B, P, C], contiguous.
template <typename T>
VITRINE_KERNEL(256)
void column_affine_kernel(std::int64_t n, std::int64_t image_size, std::int64_t C, Activation activation, const float* gain,
                          const float* offset, const T* x, T* y) {
  const std::int64_t i = std::int64_t{block_index().x} * 256 + thread_index();
  if (i >= n) return;
  const std::int64_t at = i / image_size * C + i % C;
  y[i] = from_float<T>(activated(to_float(x[i]) * gain[at] + offset[at], activation));
}

struct Partials {
  std::int64_t chunks;
  Tensor means, squares;
};

Partials column_partials(const char* op, const Tensor& x, bool raw) {
  const std::int64_t B = x.size(0), P = x.size(1), C = x.size(2), chunks = blocks_for(P, kChunk);
  Partials partials{chunks, Tensor::empty({B, chunks, C}, DType::f32, x.device()),
                    Tensor::empty({B, chunks, C}, DType::f32, x.device())};
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = op, .x = x, .grid = blocks_for(C, kColumnThreads), .grid_y = chunks, .grid_z = B, .threads = kColumnThreads},
           column_moments_kernel<T>, P, C, raw, data_of<T>(x), data_of<float>(partials.means), data_of<float>(partials.squares));
  });
  return partials;
}

void column_affine(const char* op, const Tensor& x, const Tensor& gain, const Tensor& offset, Activation activation, Tensor& y) {
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = op, .x = x, .grid = blocks_for(x.numel(), 256), .threads = 256}, column_affine_kernel<T>, x.numel(),
           x.size(1) * x.size(2), x.size(2), activation, data_of<float>(gain), data_of<float>(offset), data_of<T>(x),
           data_of<T>(y));
  });
}

constexpr std::size_t kSumBytes = sizeof(double) * (kColumnThreads / kWarp);

}  // namespace

namespace ops {

void modulated_layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, const Tensor& scale,
                          const Tensor& shift, Tensor& y) {
  const RowsArgs args = rows_of(x, y);
  const std::int64_t rows_of_image = x.rank() > 1 && x.size(0) > 0 ? args.rows / x.size(0) : args.rows;
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "modulated_layer_norm", .x = x, .grid = blocks_for(args.rows, kWarps), .threads = kThreads}, row_norm_kernel<T>,
           args, RowNorm::layer_norm, eps, data_or_null<float>(weight), data_or_null<float>(bias),
           Modulation{data_or_null<float>(scale), data_or_null<float>(shift), rows_of_image}, data_of<T>(x), data_of<T>(y));
  });
}

void row_norm(RowNorm kind, const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, Tensor& y) {
  const RowsArgs args = rows_of(x, y);
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "row_norm", .x = x, .grid = blocks_for(args.rows, kWarps), .threads = kThreads}, row_norm_kernel<T>, args, kind,
           eps, data_or_null<float>(weight), data_or_null<float>(bias), Modulation{}, data_of<T>(x), data_of<T>(y));
  });
}

void softmax(const Tensor& x, Tensor& y) {
  const RowsArgs args = rows_of(x, y);
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "softmax", .x = x, .grid = blocks_for(args.rows, kWarps), .threads = kThreads}, softmax_kernel<T>, args,
           data_of<T>(x), data_of<T>(y));
  });
}

void mean(const Tensor& x, Tensor& y) {
  if (y.numel() == 0) return;
  const std::int64_t B = x.size(0), P = x.size(1), C = x.size(2);
  const Partials partials = column_partials("mean", x, false);
  with_float_type(y.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "mean", .x = x, .grid = blocks_for(C, kColumnThreads), .grid_y = B, .threads = kColumnThreads}, mean_kernel<T>,
           P, C, partials.chunks, data_of<float>(partials.means), data_of<T>(y));
  });
}

void group_norm(const Tensor& x, const GroupNormArgs& args, Tensor& y) {
  const std::int64_t B = x.size(0), P = x.size(1), C = x.size(2);
  const Partials partials = column_partials("group_norm", x, false);
  Tensor gain = Tensor::empty({B, C}, DType::f32, x.device()), offset = Tensor::empty({B, C}, DType::f32, x.device());
  launch(
      {.op = "group_norm", .x = x, .grid = args.groups, .grid_y = B, .threads = kColumnThreads, .shared_bytes = kSumBytes},
      group_gain_kernel,
      GroupArgs{P, C, partials.chunks, args.groups, args.eps, data_of<float>(partials.means), data_of<float>(partials.squares),
                data_or_null<float>(args.weight), data_or_null<float>(args.bias), data_or_null<float>(args.add),
                data_or_null<float>(args.scale), data_or_null<float>(args.shift), data_of<float>(gain), data_of<float>(offset)});
  column_affine("group_norm", x, gain, offset, args.activation, y);
}

void global_response_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps, Tensor& y) {
  const std::int64_t B = x.size(0), P = x.size(1), C = x.size(2);
  const Partials partials = column_partials("global_response_norm", x, true);
  Tensor gain = Tensor::empty({B, C}, DType::f32, x.device()), offset = Tensor::empty({B, C}, DType::f32, x.device());
  launch({.op = "global_response_norm", .x = x, .grid = B, .threads = kColumnThreads, .shared_bytes = kSumBytes},
         response_gain_kernel,
         GroupArgs{P, C, partials.chunks, 1, eps, data_of<float>(partials.means), data_of<float>(partials.squares),
                   data_of<float>(weight), data_of<float>(bias), nullptr, nullptr, nullptr, data_of<float>(gain),
                   data_of<float>(offset)});
  column_affine("global_response_norm", x, gain, offset, Activation::none, y);
}

}  // namespace ops

}  // namespace vitrine::cuda
