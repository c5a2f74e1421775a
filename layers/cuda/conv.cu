// Convolutions as products with the patches of a map; depth-wise ones, which have nothing to multiply matrices with, one value a
// thread.
#include <vitrine/layers/cuda/conv.h>
#include <vitrine/layers/cuda/gemm.h>
#include <vitrine/layers/cuda/ops.h>

namespace vitrine::cuda {

namespace {

// weight [taps][out]: a thread's neighbours are the next channels, in the map as in the weights.
template <typename T>
VITRINE_KERNEL(256)
void depthwise_kernel(Patches<T> patches, Output o, detail::MapStrides y_strides, detail::MapStrides residual_strides,
                      std::int64_t multiplier, const T* weight, const T* residual, T* y) {
  const std::int64_t i = std::int64_t{block_index().x} * 256 + thread_index();
  if (i >= o.rows * o.columns) return;
  const std::int64_t m = i / o.columns, n = i - m * o.columns;
  const auto row = patches.row(m, static_cast<int>(n / multiplier));
  float sum = o.bias ? o.bias[n] : 0.0f;
  for (int tap = 0; tap < patches.taps; ++tap) {
    const T* x = patches.element(row, tap);
    if (x) sum += to_float(*x) * to_float(weight[tap * o.columns + n]);
  }
  const std::int64_t line = m / patches.out_width, w = m - line * patches.out_width, b = line / patches.out_height;
  const std::int64_t h = line - b * patches.out_height;
  const auto at = [&](const detail::MapStrides& s) { return b * s.image + h * s.row + w * s.column + n; };
  const float added = o.has_residual ? to_float(residual[at(residual_strides)]) : 0.0f;
  sum = o.activate_sum ? activated(sum + added, o.activation) : activated(sum, o.activation) + added;
  y[at(y_strides)] = from_float<T>(sum);
}

bool is_contiguous(const detail::MapStrides& s, std::int64_t height, std::int64_t width, std::int64_t channels) {
  return s.column == channels && s.row == width * channels && s.image == height * width * channels;
}

class OwnConv final : public detail::PackedConv {
 public:
  OwnConv(const detail::ConvShape& shape, const Tensor& weight, const Tensor& bias, DType dtype, Device device)
      : shape_(shape), weight_(order_conv_weight(shape, weight).to(dtype).to(device)), bias_(bias.to(device)) {}

  DType dtype() const override { return weight_.dtype(); }
  bool takes_views() const override { return is_depthwise(shape_); }
  void run(const detail::ConvCall& call) const override { run_own_conv(shape_, weight_, bias_, call); }

 private:
  detail::ConvShape shape_;
  Tensor weight_, bias_;
};

}  // namespace

bool is_depthwise(const detail::ConvShape& shape) { return shape.in == shape.options.groups; }

Tensor order_conv_weight(const detail::ConvShape& s, const Tensor& weight) {
  const std::int64_t groups = s.options.groups, in = s.in / groups, out = s.out / groups, taps = s.kernel_h * s.kernel_w;
  Tensor ordered = Tensor::empty({s.out, taps * in});
  const float* from = weight.data<float>();
  float* to = ordered.data<float>();
  for (std::int64_t g = 0; g < groups; ++g)
    for (std::int64_t o = 0; o < out; ++o)
      for (std::int64_t i = 0; i < in; ++i)
        for (std::int64_t t = 0; t < taps; ++t) {
          const float value =
              s.transposed ? from[((g * in + i) * out + o) * taps + t] : from[((g * out + o) * in + i) * taps + t];
          if (is_depthwise(s))
            to[t * s.out + g * out + o] = value;
          else
            to[((g * out + o) * taps + t) * in + i] = value;
        }
  return ordered;
}

void run_own_conv(const detail::ConvShape& shape, const Tensor& weight, const Tensor& bias, const detail::ConvCall& call) {
  const Conv2dOptions& options = shape.options;
  const bool depthwise = is_depthwise(shape);
  const std::int64_t groups = options.groups, in = shape.in / groups, out = shape.out / groups;
  const auto taps = static_cast<int>(shape.kernel_h * shape.kernel_w);
  const std::int64_t rows = call.batch * call.out_height * call.out_width;
  const Output o{.rows = rows,
                 .columns = depthwise ? shape.out : out,
                 .y_stride = call.y_strides.column,
                 .residual_stride = call.residual_strides.column,
                 .bias = data_or_null<float>(bias),
                 .activation = call.activation,
                 .activate_sum = call.activate_sum,
                 .has_residual = call.residual != nullptr};
  if (!depthwise && (!is_contiguous(call.y_strides, call.out_height, call.out_width, shape.out) ||
                     (call.residual && !is_contiguous(call.residual_strides, call.out_height, call.out_width, shape.out))))
    throw Error("cuda: conv2d: y or the residual is a view");
  with_float_type(weight.dtype(), [&](auto type) {
    using T = decltype(type);
    const auto& s = call.x_strides;
    const Patches<T> x{.x = static_cast<const T*>(call.x),
                       .batch = call.batch,
                       .height = call.height,
                       .width = call.width,
                       .out_height = call.out_height,
                       .out_width = call.out_width,
                       .image = s.image,
                       .line = s.row,
                       .column = s.column,
                       .channels = in,
                       .kernel_w = static_cast<int>(shape.kernel_w),
                       .taps = taps,
                       .stride_h = static_cast<int>(options.stride_h),
                       .stride_w = static_cast<int>(options.stride_w),
                       .pad_h = static_cast<int>(options.pad_h),
                       .pad_w = static_cast<int>(options.pad_w),
                       .dilation_h = static_cast<int>(options.dilation_h),
                       .dilation_w = static_cast<int>(options.dilation_w),
                       .is_transposed = shape.transposed,
                       .is_aligned = is_aligned_16(call.x) && (s.image | s.row | s.column | in) % 8 == 0};
    const auto* residual = static_cast<const T*>(call.residual);
    auto* y = static_cast<T*>(call.y);
    if (depthwise)
      launch({.op = "depthwise_conv2d", .x = weight, .grid = blocks_for(rows * shape.out, 256), .threads = 256},
             depthwise_kernel<T>, x, o, call.y_strides, call.residual_strides, out, data_of<T>(weight), residual, y);
    else
      gemm<T>(shape.transposed ? "conv_transpose2d" : "conv2d", weight, x,
              MatrixRows<T>{data_of<T>(weight), shape.out, taps * in, taps * in, (taps * in) % 8 == 0}, taps * in, o, groups,
              residual, y);
  });
}

namespace ops {

std::unique_ptr<const detail::PackedConv> pack_conv(const detail::ConvShape& shape, const Tensor& weight, const Tensor& bias,
                                                    DType dtype, Device device) {
  return std::make_unique<OwnConv>(shape, weight, bias, dtype, device);
}

}  // namespace ops

}  // namespace vitrine::cuda
