// Ops that reduce: normalizations, softmax, the mean.
#include <algorithm>
#include <cmath>
#include <vector>

#include <vitrine/layers/checks.h>
#include <vitrine/layers/cpu/loops.h>
#include <vitrine/layers/cpu/norm.h>
#include <vitrine/layers/cuda/backend.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

using cpu::bytes_of;
using cpu::index_of;
using cpu::norm_kernels;
using cuda::RowNorm;
using detail::check_channels;
using detail::check_floating;

const float* data_or_null(const Tensor& t) { return t.defined() ? t.data<float>() : nullptr; }

// Of the last axis, on x's device.
void check_parameter(std::string_view op, std::string_view name, const Tensor& x, const Tensor& parameter) {
  check_channels(op, name, parameter, x.size(-1));
  detail::check_same_device(op, x, parameter);
}
void check_parameters(std::string_view op, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_parameter(op, "weight", x, weight);
  check_parameter(op, "bias", x, bias);
}

std::int64_t channels_of(std::string_view op, const Tensor& x) {
  check_floating(op, x);
  if (x.rank() == 0) throw Error(fmt::format("{}: the tensor has no axes", op));
  return x.size(-1);
}

// Calls run(args, first) on runs of rows at a constant stride; `first` is the number of the first.
template <typename Run>
void for_row_runs(const Tensor& x, Tensor& y, const Run& run) {
  const cpu::Axes<2> leading(x.shape(), x.rank() - 1, {x.strides(), y.strides()}, {bytes_of(x), bytes_of(y)});
  const auto* source = static_cast<const std::byte*>(x.raw());
  auto* target = static_cast<std::byte*>(y.raw());
  cpu::for_rows(leading, x.size(-1), [&](auto offset, std::int64_t count, auto step, std::int64_t first) {
    run(cpu::RowsArgs{source + offset[0], target + offset[1], count, x.size(-1), step[0], step[1]}, first);
  });
}

// Per-image vectors, as adaLN has them: f32 [B, C], contiguous; where there is none zeros, or nothing on a GPU.
Tensor modulation(std::string_view op, std::string_view name, const Tensor& t, std::int64_t B, std::int64_t C, const Tensor& x) {
  if (!t.defined()) return cuda::is_on_gpu(x) ? Tensor() : Tensor::zeros({B, C});
  check_floating(op, t);
  detail::check_same_device(op, x, t);
  if (t.shape() != Shape{B, C})
    throw Error(fmt::format("{}: {} is {}, expected [{}, {}]", op, name, t.shape().to_string(), B, C));
  return t.to(DType::f32).contiguous();
}

// x [B, P, C], contiguous: the sums over P of x, or of (x - center)^2 with center [B, C], as [B, C]. Summed in f32 over
// blocks of rows whose number depends on the shape alone, and in f64 over the blocks: any number of threads gives the
// same, and long sums do not drift (in f32 alone, three million times 0.1 is off by 1e-4).
std::vector<double> column_sums(const Tensor& x, const float* center) {
  const std::int64_t B = x.size(0), P = x.size(1), C = x.size(2);
  constexpr std::int64_t kRows = 64;
  const std::int64_t blocks = (P + kRows - 1) / kRows;
  Tensor partial = Tensor::empty({B, blocks, C});
  const auto kernel = norm_kernels(cpu::isa()).column_sums[index_of(x.dtype())];
  const std::int64_t bytes = bytes_of(x);
  const auto* source = static_cast<const std::byte*>(x.raw());
  float* sums = partial.data<float>();
  const std::int64_t grain = std::max<std::int64_t>(1, cpu::kGrain / std::max<std::int64_t>(1, std::min(kRows, P) * C));
  cpu::parallel_for(B * blocks, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t b = i / blocks, p = i % blocks * kRows;
      kernel(source + (b * P + p) * C * bytes, std::min(kRows, P - p), C, C * bytes, center ? center + b * C : nullptr,
             sums + i * C);
    }
  });
  std::vector<double> total(static_cast<std::size_t>(B * C));
  for (std::int64_t i = 0; i < B * blocks; ++i)
    for (std::int64_t c = 0; c < C; ++c) total[static_cast<std::size_t>(i / blocks * C + c)] += sums[i * C + c];
  return total;
}

// x [B, P, C], contiguous: by image and channel the mean over P, and the sum of the squares about it, as [B, C]. Reads x
// once: blocks of rows, whose size is the shape's alone, are summed in f32 about a mean of their own and put together in f64.
struct Moments {
  std::vector<double> mean, squares;
};
Moments column_moments(const Tensor& x) {
  const std::int64_t B = x.size(0), P = x.size(1), C = x.size(2);
  constexpr std::int64_t kRows = 128, kColumns = 256;
  const std::int64_t blocks = (P + kRows - 1) / kRows, strips = (C + kColumns - 1) / kColumns;
  Tensor means = Tensor::empty({B, blocks, C}), squares = Tensor::empty({B, blocks, C});
  const auto kernel = norm_kernels(cpu::isa()).column_moments[index_of(x.dtype())];
  const std::int64_t bytes = bytes_of(x);
  const auto* source = static_cast<const std::byte*>(x.raw());
  float *mean = means.data<float>(), *square = squares.data<float>();
  const std::int64_t grain = std::max<std::int64_t>(1, cpu::kGrain / (std::min(kRows, P) * std::min(kColumns, C)));
  cpu::parallel_for(B * blocks * strips, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t block = i / strips, c = i % strips * kColumns, p = block % blocks * kRows;
      kernel(source + ((block / blocks * P + p) * C + c) * bytes, std::min(kRows, P - p), std::min(kColumns, C - c), C * bytes,
             mean + block * C + c, square + block * C + c);
    }
  });
  Moments m{std::vector<double>(static_cast<std::size_t>(B * C)), std::vector<double>(static_cast<std::size_t>(B * C))};
  cpu::parallel_for(B * C, std::max<std::int64_t>(1, cpu::kGrain / blocks), [&](std::int64_t begin, std::int64_t end) {
    while (begin < end) {  // one image at a time: block by block, so that memory is read in order
      const std::int64_t b = begin / C, c0 = begin % C, count = std::min(end - begin, C - c0);
      double *total = m.mean.data() + begin, *about = m.squares.data() + begin;
      const float *of_mean = mean + b * blocks * C + c0, *of_square = square + b * blocks * C + c0;
      const auto rows_of = [&](std::int64_t i) { return static_cast<double>(std::min(kRows, P - i * kRows)); };
      for (std::int64_t i = 0; i < blocks; ++i)
        for (std::int64_t c = 0; c < count; ++c) total[c] += rows_of(i) / static_cast<double>(P) * of_mean[i * C + c];
      for (std::int64_t i = 0; i < blocks; ++i)
        for (std::int64_t c = 0; c < count; ++c) {
          const double d = of_mean[i * C + c] - total[c];
          about[c] += of_square[i * C + c] + rows_of(i) * d * d;
        }
      begin += count;
    }
  });
  return m;
}

// y = act(x gain + offset) for x [B, P, C], contiguous, with gain and offset [B, C].
void affine_by_image(const Tensor& x, Tensor& y, const std::vector<float>& gain, const std::vector<float>& offset,
                     Activation activation = Activation::none) {
  const std::int64_t B = x.size(0), P = x.size(1), C = x.size(2);
  const auto kernel = norm_kernels(cpu::isa()).column_affine[index_of(x.dtype())][static_cast<int>(activation)];
  const std::int64_t row = C * bytes_of(x);
  const auto* source = static_cast<const std::byte*>(x.raw());
  auto* target = static_cast<std::byte*>(y.raw());
  cpu::parallel_for(B * P, std::max<std::int64_t>(1, cpu::kGrain / C), [&](std::int64_t begin, std::int64_t end) {
    while (begin < end) {
      const std::int64_t image = begin / P, n = std::min(end, (image + 1) * P) - begin;
      kernel({source + begin * row, target + begin * row, n, C, row, row}, gain.data() + image * C, offset.data() + image * C);
      begin += n;
    }
  });
}

// y = the norm of x's rows by one of the kernels; y may be x.
void norm_rows(std::string_view op, cuda::RowNorm kind, const Tensor& x, const Tensor& weight, const Tensor& bias, double eps,
               Tensor& y) {
  channels_of(op, x);
  check_parameters(op, x, weight, bias);
  if (cuda::is_on_gpu(x)) return cuda::backend().ops.row_norm(kind, x, weight, bias, static_cast<float>(eps), y);
  const cpu::NormKernels& kernels = norm_kernels(cpu::isa());
  const auto& table = kind == RowNorm::layer_norm ? kernels.layer_norm
                      : kind == RowNorm::rms_norm ? kernels.rms_norm
                                                  : kernels.simple_norm;
  const auto kernel = table[index_of(x.dtype())];
  for_row_runs(x, y, [&](const cpu::RowsArgs& rows, std::int64_t) {
    kernel(rows, data_or_null(weight), data_or_null(bias), static_cast<float>(eps));
  });
}

void normalize_rows(const Tensor& x, double eps, Tensor& y) {
  if (cuda::is_on_gpu(x)) return cuda::backend().ops.row_norm(RowNorm::l2_normalize, x, {}, {}, static_cast<float>(eps), y);
  const auto kernel = norm_kernels(cpu::isa()).l2_normalize[index_of(x.dtype())];
  for_row_runs(x, y, [&](const cpu::RowsArgs& rows, std::int64_t) { kernel(rows, static_cast<float>(eps)); });
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps, const Tensor& scale,
                  const Tensor& shift) {
  const std::int64_t C = channels_of("layer_norm", x);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  const auto epsilon = static_cast<float>(eps);
  if (!scale.defined() && !shift.defined()) {
    norm_rows("layer_norm", RowNorm::layer_norm, x, weight, bias, eps, y);
    return y;
  }
  check_parameters("layer_norm", x, weight, bias);
  const auto kernel = norm_kernels(cpu::isa()).layer_norm[index_of(x.dtype())];
  // (n w + b) (1 + s) + t = n (w (1 + s)) + (b (1 + s) + t): one gain and one offset an image
  if (x.rank() < 2) throw Error(fmt::format("layer_norm: with scale or shift x is [B, ..., C], got {}", x.shape().to_string()));
  const std::int64_t B = x.size(0);
  const Tensor s = modulation("layer_norm", "scale", scale, B, C, x), t = modulation("layer_norm", "shift", shift, B, C, x);
  if (cuda::is_on_gpu(x)) {
    cuda::backend().ops.modulated_layer_norm(x, weight, bias, epsilon, s, t, y);
    return y;
  }
  Tensor gains = Tensor::empty({B, C}), offsets = Tensor::empty({B, C});
  const float *w = data_or_null(weight), *b = data_or_null(bias);
  for (std::int64_t i = 0; i < B * C; ++i) {
    const float factor = 1.0f + s.data<float>()[i];
    gains.data<float>()[i] = (w ? w[i % C] : 1.0f) * factor;
    offsets.data<float>()[i] = (b ? b[i % C] * factor : 0.0f) + t.data<float>()[i];
  }
  const std::int64_t rows_per_image = C == 0 || B == 0 ? 1 : x.numel() / C / B;
  for_row_runs(x, y, [&](cpu::RowsArgs rows, std::int64_t first) {
    for (std::int64_t left = rows.rows; left > 0; left -= rows.rows) {
      const std::int64_t image = first / rows_per_image;
      rows.rows = std::min(left, (image + 1) * rows_per_image - first);
      kernel(rows, gains.data<float>() + image * C, offsets.data<float>() + image * C, epsilon);
      rows.x = static_cast<const std::byte*>(rows.x) + rows.rows * rows.x_row;
      rows.y = static_cast<std::byte*>(rows.y) + rows.rows * rows.y_row;
      first += rows.rows;
    }
  });
  return y;
}

void layer_norm_(Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  check_floating("layer_norm_", x);
  norm_rows("layer_norm_", RowNorm::layer_norm, x, weight, bias, eps, x);
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  check_floating("rms_norm", x);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  norm_rows("rms_norm", RowNorm::rms_norm, x, weight, {}, eps, y);
  return y;
}

void rms_norm_(Tensor& x, const Tensor& weight, double eps) {
  check_floating("rms_norm_", x);
  norm_rows("rms_norm_", RowNorm::rms_norm, x, weight, {}, eps, x);
}

Tensor simple_norm(const Tensor& x, const Tensor& weight, double eps) {
  check_floating("simple_norm", x);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  norm_rows("simple_norm", RowNorm::simple_norm, x, weight, {}, eps, y);
  return y;
}

Tensor group_norm(Tensor x, std::int64_t groups, const Tensor& weight, const Tensor& bias, double eps,
                  const GroupNormOptions& options) {
  const std::int64_t C = channels_of("group_norm", x);
  if (x.rank() < 2 || groups <= 0 || C % groups != 0)
    throw Error(fmt::format("group_norm: {} groups of a tensor {}, expected [B, ..., C] with C a multiple of the groups", groups,
                            x.shape().to_string()));
  check_parameters("group_norm", x, weight, bias);
  const std::int64_t B = x.size(0), width = C / groups;
  const Tensor added = modulation("group_norm", "add", options.add, B, C, x);
  const Tensor scale = modulation("group_norm", "scale", options.scale, B, C, x);
  const Tensor shift = modulation("group_norm", "shift", options.shift, B, C, x);
  if (x.numel() == 0) return x;
  Tensor y = x.is_unique() && x.is_contiguous() ? x : Tensor::empty(x.shape(), x.dtype(), x.device());
  const std::int64_t P = x.numel() / B / C;
  const auto positions = static_cast<double>(P), count = static_cast<double>(P * width);
  const Tensor rows = x.contiguous().view({B, P, C});
  if (cuda::is_on_gpu(x)) {
    Tensor result = y.view({B, P, C});
    cuda::backend().ops.group_norm(rows, {groups, weight, bias, eps, added, scale, shift, options.activation}, result);
    return y;
  }

  // From each channel's moments those of its group; then one gain and one offset a channel: what is added to a channel moves
  // its mean only.
  const Moments moments = column_moments(rows);
  std::vector<float> gain(static_cast<std::size_t>(B * C)), offset(gain.size());
  const float *w = data_or_null(weight), *b = data_or_null(bias);
  const float *add = added.data<float>(), *s = scale.data<float>(), *t = shift.data<float>();
  for (std::int64_t first = 0; first < B * C; first += width) {
    const auto center = [&](std::int64_t c) { return moments.mean[static_cast<std::size_t>(c)] + static_cast<double>(add[c]); };
    double mean = 0, squares = 0;
    for (std::int64_t c = first; c < first + width; ++c) mean += center(c) / static_cast<double>(width);
    for (std::int64_t c = first; c < first + width; ++c) {
      const double d = center(c) - mean;
      squares += moments.squares[static_cast<std::size_t>(c)] + positions * d * d;
    }
    const double factor = 1.0 / std::sqrt(squares / count + eps);
    for (std::int64_t c = first; c < first + width; ++c) {
      const double of_weight = w ? w[c % C] : 1.0f, of_bias = b ? b[c % C] : 0.0f, modulated = 1.0 + s[c];
      gain[static_cast<std::size_t>(c)] = static_cast<float>(factor * of_weight * modulated);
      offset[static_cast<std::size_t>(c)] =
          static_cast<float>(((add[c] - mean) * factor * of_weight + of_bias) * modulated + static_cast<double>(t[c]));
    }
  }
  affine_by_image(rows, y, gain, offset, options.activation);
  return y;
}

Tensor global_response_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  const std::int64_t C = channels_of("global_response_norm", x);
  if (x.rank() < 2 || !weight.defined() || !bias.defined())
    throw Error(fmt::format("global_response_norm: x is {}, expected [B, ..., C], with weight and bias", x.shape().to_string()));
  check_parameters("global_response_norm", x, weight, bias);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (x.numel() == 0) return y;
  const std::int64_t B = x.size(0);
  const Tensor rows = x.contiguous().view({B, x.numel() / B / C, C});
  if (cuda::is_on_gpu(x)) {
    Tensor result = y.view(rows.shape());
    cuda::backend().ops.global_response_norm(rows, weight, bias, eps, result);
    return y;
  }
  const std::vector<float> zeros(static_cast<std::size_t>(B * C));
  const std::vector<double> squares = column_sums(rows, zeros.data());
  std::vector<float> gain(squares.size()), offset(squares.size());
  const float *w = weight.data<float>(), *b = bias.data<float>();
  for (std::int64_t image = 0; image < B; ++image) {
    const double* of_image = squares.data() + image * C;
    double average = 0;
    for (std::int64_t c = 0; c < C; ++c) average += std::sqrt(of_image[c]) / static_cast<double>(C);
    for (std::int64_t c = 0; c < C; ++c) {
      const auto i = static_cast<std::size_t>(image * C + c);
      gain[i] = static_cast<float>(1 + w[c] * std::sqrt(of_image[c]) / (average + eps));
      offset[i] = b[c];
    }
  }
  affine_by_image(rows, y, gain, offset);
  return y;
}

Tensor l2_normalize(const Tensor& x, double eps) {
  channels_of("l2_normalize", x);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  normalize_rows(x, eps, y);
  return y;
}

void l2_normalize_(Tensor& x, double eps) {
  channels_of("l2_normalize_", x);
  normalize_rows(x, eps, x);
}

Tensor softmax(const Tensor& x) {
  const std::int64_t C = channels_of("softmax", x);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (cuda::is_on_gpu(x)) {
    cuda::backend().ops.softmax(x, y);
    return y;
  }
  const auto kernel = norm_kernels(cpu::isa()).softmax[index_of(x.dtype())];
  // One row of exponentials a thread, padded to cache lines of its own.
  const std::int64_t line = (C + 31) / 16 * 16;
  Tensor workspace = Tensor::empty({Context::current().threads(), line});
  float* const exponentials = workspace.data<float>();
  const bool inside = omp_in_parallel();  // of a team that is not ours: the rows are done here, by one thread
  for_row_runs(x, y, [&](const cpu::RowsArgs& rows, std::int64_t) {
    kernel(rows, exponentials + (inside ? 0 : omp_get_thread_num()) * line);
  });
  return y;
}

Tensor mean(const Tensor& x, int first, int last) {
  check_floating("mean", x);
  const int f = detail::checked_axis("mean", x, first), l = detail::checked_axis("mean", x, last);
  if (f > l || l >= x.rank() - 1)
    throw Error(fmt::format("mean: axes {} to {} of a tensor {}; the last axis stays", first, last, x.shape().to_string()));
  Shape shape;
  std::int64_t outer = 1, positions = 1, inner = 1;
  for (int i = 0; i < x.rank(); ++i) {
    (i < f ? outer : i <= l ? positions : inner) *= x.size(i);
    if (i < f || i > l) shape.push_back(x.size(i));
  }
  const Tensor rows = x.contiguous().view({outer, positions, inner});
  if (cuda::is_on_gpu(x)) {
    Tensor y = Tensor::empty(shape, x.dtype(), x.device()), result = y.view({outer, inner});
    cuda::backend().ops.mean(rows, result);
    return y;
  }
  const std::vector<double> sums = column_sums(rows, nullptr);
  Tensor y = Tensor::empty(shape, DType::f32, x.device());
  float* values = y.data<float>();
  for (std::size_t i = 0; i < sums.size(); ++i) values[i] = static_cast<float>(sums[i] / static_cast<double>(positions));
  return y.to(x.dtype());
}

}  // namespace vitrine
