// Convolutions by cuDNN, where it has one; depth-wise ones stay our own.
//
//   what follows the convolution            how
//   residual, bias, relu, in this order     in its own kernel, also where the residual lies in y
//   bias, then anything else                bias in its kernel, then a pass of our own over y (finish_linear)
//   transposed: anything                    that pass
//
// A shape's plan is cuDNN's first choice, asked for once and kept. f32 is exact, or rounded with VITRINE_TF32=1.
#include <cstdint>

#include <vitrine/layers/cuda/conv.h>
#include <vitrine/layers/cuda/cudnn.h>
#include <vitrine/layers/cuda/linear.h>
#include <vitrine/layers/cuda/ops.h>
#include <vitrine/layers/cuda/runtime.h>
#include <vitrine/layers/recent_cache.h>

namespace vitrine::cuda {

namespace {

// [in, out / groups, taps] -> [in, taps, out / groups]
Tensor order_transposed(const detail::ConvShape& s, const Tensor& weight) {
  const int axes[] = {0, 2, 1};
  return permute(weight.view({s.in, s.out / s.options.groups, s.kernel_h * s.kernel_w}), axes);
}

// To find a plan takes cuDNN 10 ms, and layers of a network are much alike. Not destroyed: the driver may be gone before.
const auto& shared_plans() {
  static const auto* const plans = new detail::RecentCache<cudnn::Conv, cudnn::Plan, 128>;
  return *plans;
}

class CudnnConv final : public detail::PackedConv {
 public:
  CudnnConv(const detail::ConvShape& shape, const Tensor& weight, const Tensor& bias, DType dtype, Device device)
      : shape_(shape), weight_(order_conv_weight(shape, weight).to(dtype).to(device)), bias_(bias.to(device)) {
    filter_ = shape.transposed ? order_transposed(shape, weight).to(dtype).to(device) : weight_;
    if (bias.defined()) fused_bias_ = bias.to(dtype).to(device);
  }

  DType dtype() const override { return weight_.dtype(); }
  bool takes_views() const override { return false; }

  void run(const detail::ConvCall& call) const override {
    const bool ends_in_relu = call.activation == Activation::relu && (!call.residual || call.activate_sum);
    cudnn::Conv conv = described(call);
    conv.has_bias = !shape_.transposed && fused_bias_.defined();
    conv.has_relu = !shape_.transposed && ends_in_relu;
    conv.has_residual = !shape_.transposed && call.residual && (ends_in_relu || call.activation == Activation::none);

    const Device device = weight_.device();
    const cudaStream_t on = stream(device.index);
    const auto plan = plans_.get(conv, [&] { return *shared_plans().get(conv, [&] { return cudnn::Plan(conv); }); });
    const auto all = reinterpret_cast<std::uintptr_t>(call.x) | reinterpret_cast<std::uintptr_t>(call.y) |
                     reinterpret_cast<std::uintptr_t>(call.residual);
    if (!plan->why_none().empty() || all % 16 != 0) return run_own_conv(shape_, weight_, bias_, call);

    detail::LinearCall rest;  // what is left to do in a pass of its own
    rest.rows = call.batch * call.out_height * call.out_width;
    rest.y = call.y;
    rest.y_stride = shape_.out;
    rest.residual = conv.has_residual ? nullptr : call.residual;
    rest.activation = conv.has_relu ? Activation::none : call.activation;
    rest.activate_sum = call.activate_sum;
    const Tensor rest_bias = conv.has_bias ? Tensor() : bias_;
    // The residual may lie in y, where the convolution must not come then.
    const Tensor apart = rest.residual ? Tensor::empty({rest.rows, shape_.out}, dtype(), device) : Tensor();
    void* const y = apart.defined() ? const_cast<void*>(apart.raw()) : call.y;
    plan->run(
        {call.x, filter_.raw(), y, conv.has_residual ? call.residual : nullptr, conv.has_bias ? fused_bias_.raw() : nullptr}, on);
    if (rest.residual || rest.activation != Activation::none || rest_bias.defined())
      finish_linear(weight_, rest_bias, rest, y, shape_.out);
  }

 private:
  cudnn::Conv described(const detail::ConvCall& call) const {
    const Conv2dOptions& o = shape_.options;
    return {.device = weight_.device().index,
            .dtype = dtype(),
            .rounds_f32 = rounds_f32(),
            .is_transposed = shape_.transposed,
            .batch = call.batch,
            .in = shape_.in,
            .out = shape_.out,
            .groups = o.groups,
            .size = {call.height, call.width},
            .out_size = {call.out_height, call.out_width},
            .kernel = {shape_.kernel_h, shape_.kernel_w},
            .stride = {o.stride_h, o.stride_w},
            .pad = {o.pad_h, o.pad_w},
            .pad_end = {o.pad_end_h, o.pad_end_w},
            .dilation = {o.dilation_h, o.dilation_w}};
  }

  detail::ConvShape shape_;
  Tensor weight_, bias_;        // as the own kernel has them
  Tensor filter_, fused_bias_;  // as cuDNN has them; the bias is of y's type
  detail::RecentCache<cudnn::Conv, cudnn::Plan> plans_;
};

}  // namespace

std::unique_ptr<const detail::PackedConv> pack_conv_cudnn(const detail::ConvShape& shape, const Tensor& weight,
                                                          const Tensor& bias, DType dtype, Device device) {
  if (is_depthwise(shape) || !cudnn::why_none().empty()) return ops::pack_conv(shape, weight, bias, dtype, device);
  return std::make_unique<CudnnConv>(shape, weight, bias, dtype, device);
}

}  // namespace vitrine::cuda
