// Channels are the vector. A tile of neighbouring outputs stays in registers; where stride and dilation are 1, a vector of x
// is loaded once for all outputs of the tile that it reaches:
//
//   x columns   0 1 2 3 4 5 6 7 8 9        kTaps + kTile - 1 loads and kTaps weights for kTaps * kTile multiply-adds
//   outputs     a a a                      a kernel row at a time
//                 b b b
//                   ...     h h h
#include <vitrine/layers/cpu/depthwise.h>

#include <vitrine/layers/cpu/activations.h>
#include <vitrine/layers/cpu/vectors.h>

namespace vitrine::cpu::VITRINE_TARGET {

namespace {

inline bool is_inside(i64 at, i64 size) { return static_cast<std::uint64_t>(at) < static_cast<std::uint64_t>(size); }

Vf activated(Vf x, Activation activation) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return Relu::apply(x);
    case Activation::gelu:
      return Gelu::apply(x);
    case Activation::gelu_tanh:
      return GeluTanh::apply(x);
    case Activation::quick_gelu:
      return QuickGelu::apply(x);
    case Activation::silu:
      return Silu::apply(x);
    case Activation::sigmoid:
      return Sigmoid::apply(x);
    case Activation::tanh:
      return Tanh::apply(x);
    case Activation::hardswish:
      return HardSwish::apply(x);
    case Activation::leaky_relu:
      return LeakyRelu::apply(x);
  }
  return x;
}

template <typename T, int kTile>
inline void finish(const DepthwiseRow& a, i64 output, i64 channel, int lanes, Vf (&sum)[kTile]) {
  const bool before = a.residual && a.activate_sum, after = a.residual && !a.activate_sum;
  if (before)
    for (int t = 0; t < kTile; ++t)
      if (output + t < a.outputs)
        sum[t] = add(sum[t], load_lanes(at<T>(a.residual, (output + t) * a.residual_column) + channel, lanes));
  if (a.activation != Activation::none)
    for (int t = 0; t < kTile; ++t) sum[t] = activated(sum[t], a.activation);
#pragma GCC unroll 8
  for (int t = 0; t < kTile; ++t) {
    if (output + t >= a.outputs) break;
    Vf y = sum[t];
    if (after) y = add(y, load_lanes(at<T>(a.residual, (output + t) * a.residual_column) + channel, lanes));
    store_lanes(at<T>(a.y, (output + t) * a.y_column) + channel, y, lanes);
  }
}

// Stride and dilation 1, a kernel of kTaps columns.
template <typename T, int kTaps, int kTile>
inline void dense_tile(const DepthwiseRow& a, i64 output, i64 channel, int lanes) {
  const Vf start = a.bias ? load_lanes(a.bias + channel, lanes) : zero();
  Vf sum[kTile];
#pragma GCC unroll 8
  for (int t = 0; t < kTile; ++t) sum[t] = start;
  const i64 first = a.first_column + output;
  for (i64 u = 0; u < a.kernel_h; ++u) {
    if (!is_inside(a.first_row + u, a.height)) continue;
    const void* row = at<char>(a.x, (a.first_row + u) * a.x_row);
    const float* weight = a.weight + u * kTaps * a.channels + channel;
    Vf w[kTaps];
#pragma GCC unroll 8
    for (int k = 0; k < kTaps; ++k) w[k] = load_lanes(weight + k * a.channels, lanes);
#pragma GCC unroll 16
    for (int j = 0; j < kTaps + kTile - 1; ++j) {
      if (!is_inside(first + j, a.width)) continue;
      const Vf x = load_lanes(at<T>(row, (first + j) * a.x_column) + channel, lanes);
#pragma GCC unroll 8
      for (int k = 0; k < kTaps; ++k)
        if (j >= k && j - k < kTile) sum[j - k] = fma(w[k], x, sum[j - k]);
    }
  }
  finish<T, kTile>(a, output, channel, lanes, sum);
}

template <typename T, int kTile>
inline void any_tile(const DepthwiseRow& a, i64 output, i64 channel, int lanes) {
  const Vf start = a.bias ? load_lanes(a.bias + channel, lanes) : zero();
  Vf sum[kTile];
#pragma GCC unroll 8
  for (int t = 0; t < kTile; ++t) sum[t] = start;
  for (i64 u = 0; u < a.kernel_h; ++u) {
    const i64 y = a.first_row + u * a.dilation_h;
    if (!is_inside(y, a.height)) continue;
    const void* row = at<char>(a.x, y * a.x_row);
    for (i64 k = 0; k < a.kernel_w; ++k) {
      const Vf w = load_lanes(a.weight + (u * a.kernel_w + k) * a.channels + channel, lanes);
#pragma GCC unroll 8
      for (int t = 0; t < kTile; ++t) {
        const i64 x = a.first_column + (output + t) * a.stride_w + k * a.dilation_w;
        if (is_inside(x, a.width)) sum[t] = fma(w, load_lanes(at<T>(row, x * a.x_column) + channel, lanes), sum[t]);
      }
    }
  }
  finish<T, kTile>(a, output, channel, lanes, sum);
}

template <typename T, int kTaps, int kTile>
void dense_row(const DepthwiseRow& a) {
  for (i64 output = 0; output < a.outputs; output += kTile)
    for_vectors(a.channels, [&](i64 channel, int lanes) { dense_tile<T, kTaps, kTile>(a, output, channel, lanes); });
}

// Tiles of 8, or of 7 where the row, 14 or 28 wide, then takes no more tiles than it must.
template <typename T, int kTaps>
void dense_row(const DepthwiseRow& a) {
  return a.outputs % 7 == 0 && a.outputs % 8 != 0 ? dense_row<T, kTaps, 7>(a) : dense_row<T, kTaps, 8>(a);
}

template <typename T>
void row(const DepthwiseRow& a) {
  if (a.stride_w == 1 && a.dilation_h == 1 && a.dilation_w == 1) {
    if (a.kernel_w == 3) return dense_row<T, 3>(a);
    if (a.kernel_w == 5) return dense_row<T, 5>(a);
    if (a.kernel_w == 7) return dense_row<T, 7>(a);
  }
  constexpr int kTile = 4;
  for (i64 output = 0; output < a.outputs; output += kTile)
    for_vectors(a.channels, [&](i64 channel, int lanes) { any_tile<T, kTile>(a, output, channel, lanes); });
}

}  // namespace

const DepthwiseKernels& depthwise_kernels() {
  static constexpr DepthwiseKernels kTable = {kTargetName, {row<float>, row<F16>, row<Bf16>}};
  return kTable;
}

}  // namespace vitrine::cpu::VITRINE_TARGET
