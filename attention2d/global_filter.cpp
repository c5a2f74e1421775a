#include <vitrine/attention2d/global_filter.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include <fmt/format.h>

#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/loops.h>
#include <vitrine/layers/mix_rows.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

// matrix[r][c] = factor(r, c) f(2 pi r c / period), the angle reduced exactly before it is rounded.
template <typename Function, typename Factor>
Tensor waves(std::int64_t rows, std::int64_t columns, std::int64_t period, Function f, Factor factor) {
  Tensor t = Tensor::empty({rows, columns});
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c) {
      const double angle = 2 * std::numbers::pi * static_cast<double>(r * c % period) / static_cast<double>(period);
      t.data<float>()[r * columns + c] = static_cast<float>(factor(r, c) * f(angle));
    }
  return t;
}

double cosine(double angle) { return std::cos(angle); }
double sine(double angle) { return std::sin(angle); }

// [[a, b], [-b, a]] of a = cos, b = sign sin: the transform (sign 1) or its inverse (-1) of stacked real and imaginary parts.
Tensor complex_waves(std::int64_t size, double sign) {
  Tensor t = Tensor::empty({2 * size, 2 * size});
  for (std::int64_t r = 0; r < size; ++r)
    for (std::int64_t c = 0; c < size; ++c) {
      const double angle = 2 * std::numbers::pi * static_cast<double>(r * c % size) / static_cast<double>(size);
      const auto a = static_cast<float>(std::cos(angle)), b = static_cast<float>(sign * std::sin(angle));
      float* p = t.data<float>() + r * 2 * size + c;
      p[0] = a;
      p[size] = b;
      p[2 * size * size] = -b;
      p[2 * size * size + size] = a;
    }
  return t;
}

// rows of [a_0, b_0, a_1, b_1, ...]; Element has the values' size.
template <typename Element>
void interleave_rows(const Tensor& a, const Tensor& b, Tensor& y) {
  const std::int64_t half = a.size(-1), rows = a.numel() / half;
  const auto *from_a = static_cast<const Element*>(a.raw()), *from_b = static_cast<const Element*>(b.raw());
  auto* to = static_cast<Element*>(y.raw());
  cpu::parallel_for(rows, std::max<std::int64_t>(1, cpu::kGrain / half), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * half; i < end * half; ++i) {
      to[2 * i] = from_a[i];
      to[2 * i + 1] = from_b[i];
    }
  });
}

// a, b [B, H, W, C], contiguous and of one type -> [B, H, W, 2 C], channel by channel.
Tensor interleaved(const Tensor& a, const Tensor& b) {
  Tensor y = Tensor::empty({a.size(0), a.size(1), a.size(2), 2 * a.size(3)}, a.dtype(), a.device());
  if (cuda::is_on_gpu(a)) {
    if (y.numel() > 0) cuda::attention_ops().interleave(a, b, y);
    return y;
  }
  a.dtype() == DType::f32 ? interleave_rows<std::uint32_t>(a, b, y) : interleave_rows<std::uint16_t>(a, b, y);
  return y;
}

}  // namespace

GlobalFilter::GlobalFilter(const Weights& w, std::int64_t channels, std::int64_t height, std::int64_t width) {
  constexpr std::int64_t kMost = 1 << 12;
  if (channels < 1 || height < 1 || width < 1 || height > kMost || width > kMost)
    throw Error(fmt::format("global_filter {}: {} channels of {} x {} frequencies", w.path(), channels, height, width));
  const int parts_first[] = {3, 1, 2, 0};
  weight = permute(w.get("complex_weight", {channels, height, width, 2}), parts_first);
  w.release("complex_weight");
}

GlobalFilter::Transforms GlobalFilter::make(std::int64_t H, std::int64_t W, Device device) const {
  const std::int64_t K = W / 2 + 1;
  const double scale = 1.0 / (static_cast<double>(H) * static_cast<double>(W));  // of both transforms together
  const auto one = [](std::int64_t, std::int64_t) { return 1.0; };
  // Frequencies between zero and the middle stand for their mirror images, too.
  const auto back = [&](double sign) {
    return [=](std::int64_t, std::int64_t k) { return sign * scale * (k == 0 || 2 * k == W ? 1 : 2); };
  };
  Transforms t;
  t.row_cos = waves(K, W, W, cosine, one);
  t.row_sin = waves(K, W, W, sine, [](std::int64_t, std::int64_t) { return -1.0; });
  t.columns = complex_waves(H, 1);
  t.columns_back = complex_waves(H, -1);
  t.row_cos_back = waves(W, K, W, cosine, back(1));
  t.row_sin_back = waves(W, K, W, sine, back(-1));
  // The imaginary parts of the frequencies zero and W / 2 do not count.
  for (std::int64_t w = 0; w < W; ++w) {
    t.row_sin_back.data<float>()[w * K] = 0;
    if (W % 2 == 0) t.row_sin_back.data<float>()[w * K + K - 1] = 0;
  }
  const bool fits = weight.size(1) == H && weight.size(2) == K;
  const Tensor sized = fits ? weight : resize(weight, H, K, {.mode = ResizeMode::bilinear, .align_corners = true});
  t.real = sized.select(0, 0);
  t.imaginary = sized.select(0, 1);
  for (Tensor* part :
       {&t.row_cos, &t.row_sin, &t.columns, &t.columns_back, &t.row_cos_back, &t.row_sin_back, &t.real, &t.imaginary})
    *part = part->to(device);
  return t;
}

Tensor GlobalFilter::operator()(const Tensor& x) const {
  const std::int64_t channels = weight.size(3);
  if (x.rank() != 4 || x.size(3) != channels || !is_floating_point(x.dtype()) || x.numel() == 0)
    throw Error(fmt::format("global_filter: x is {}, expected a floating [B, H, W, {}]", x.shape().to_string(), channels));
  const std::int64_t B = x.size(0), H = x.size(1), W = x.size(2), K = W / 2 + 1;
  const Transforms t = cache.get(H, W, [&] { return make(H, W, x.device()); });
  const Tensor map = x.to(DType::f32);
  // Along the rows: [B, H, W, C] -> [B, 2, H, K, C]
  Tensor spectrum = Tensor::empty({B, 2, H, K, channels}, DType::f32, x.device()),
         turned = Tensor::empty({B, 2, H, K, channels}, DType::f32, x.device());
  Tensor real = spectrum.select(1, 0), imaginary = spectrum.select(1, 1);
  mix_rows(real, t.row_cos, map);
  mix_rows(imaginary, t.row_sin, map);
  // Along the columns, real and imaginary parts one above the other: [B, 1, 2 H, K C]
  Tensor stacked = spectrum.view({B, 1, 2 * H, K * channels}), stacked_turned = turned.view({B, 1, 2 * H, K * channels});
  mix_rows(stacked_turned, t.columns, stacked);
  // (a + i b) (u + i v) = (a u - b v) + i (a v + b u)
  const Tensor a = turned.select(1, 0), b = turned.select(1, 1);
  copy_(real, multiply(a, t.real));
  add_(real, affine(multiply(b, t.imaginary), -1, 0));
  copy_(imaginary, multiply(a, t.imaginary));
  add_(imaginary, multiply(b, t.real));
  mix_rows(stacked_turned, t.columns_back, stacked);
  Tensor y = Tensor::empty({B, H, W, channels}, DType::f32, x.device());
  mix_rows(y, t.row_cos_back, a);
  mix_rows(y, t.row_sin_back, b, true);
  return y.to(x.dtype());
}

GlobalLocalFilter::GlobalLocalFilter(const Weights& w, std::int64_t dim, std::int64_t height, std::int64_t width) {
  constexpr double kEps = 1e-6;
  if (dim < 2 || dim % 2 != 0) throw Error(fmt::format("global_local_filter {}: dim {}, expected an even one", w.path(), dim));
  const std::int64_t half = dim / 2;
  pre_norm = LayerNorm(w / "pre_norm", dim, kEps);
  post_norm = LayerNorm(w / "post_norm", dim, kEps);
  dw = Conv2d(w / "dw", half, half, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = half, .bias = false});
  filter = GlobalFilter(w, half, height, width);
}

Tensor GlobalLocalFilter::operator()(const Tensor& x) const {
  const Tensor y = pre_norm(x);
  const std::int64_t half = y.size(3) / 2;
  const Tensor local = dw(y.slice(3, 0, half)), global = filter(y.slice(3, half, 2 * half));
  return post_norm(interleaved(local, global));
}

}  // namespace vitrine
