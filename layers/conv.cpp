#include <vitrine/layers/conv.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/layers/checks.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/conv.h>
#include <vitrine/layers/cuda/backend.h>
#include <vitrine/layers/epilogue.h>

namespace vitrine {

namespace {

// A layer that was built: weights packed, the geometry checked.
struct BuiltConv {
  detail::ConvShape shape;
  std::string where;  // the cursor's path, for messages
  Linear pointwise;   // set where the convolution is one matrix product
  Device device;
  std::unique_ptr<const detail::PackedConv> packed;
};

const char* name_of_kind(bool transposed) { return transposed ? "conv_transpose2d" : "conv2d"; }

// weight and bias of the convolution followed by the norm: both scaled by gamma / sqrt(var + eps), in copies.
void fold_batch_norm(Tensor& weight, Tensor& bias, const Weights& bn, double eps, const detail::ConvShape& shape) {
  const std::int64_t out = shape.out;
  const Tensor gamma = bn.get("weight", {out}), beta = bn.get("bias", {out});
  const Tensor mean = bn.get("running_mean", {out}), var = bn.get("running_var", {out});
  if (bn.has("num_batches_tracked")) bn.ignore("num_batches_tracked");
  if (Context::current().dry_run()) return;
  std::vector<float> scale(static_cast<std::size_t>(out));
  Tensor b = Tensor::empty({out});
  for (std::int64_t o = 0; o < out; ++o) {
    const double s = gamma.data<float>()[o] / std::sqrt(static_cast<double>(var.data<float>()[o]) + eps);
    const double before = bias.defined() ? bias.data<float>()[o] : 0.0f;
    scale[static_cast<std::size_t>(o)] = static_cast<float>(s);
    b.data<float>()[o] = static_cast<float>((before - mean.data<float>()[o]) * s + beta.data<float>()[o]);
  }
  bias = std::move(b);
  // [out, ...], or transposed [groups, in / groups, out / groups, ...]
  const std::int64_t groups = shape.options.groups, taps = shape.kernel_h * shape.kernel_w;
  Tensor w = weight.clone();
  float* p = w.data<float>();
  const std::int64_t outer = shape.transposed ? shape.in : out, inner = shape.transposed ? out / groups : shape.in / groups;
  for (std::int64_t i = 0; i < outer; ++i) {
    for (std::int64_t j = 0; j < inner; ++j) {
      const std::int64_t o = shape.transposed ? i / (shape.in / groups) * inner + j : i;
      for (std::int64_t k = 0; k < taps; ++k) *p++ *= scale[static_cast<std::size_t>(o)];
    }
  }
  weight = std::move(w);
}

// The geometry, checked.
BuiltConv checked(bool transposed, std::string where, std::int64_t in, std::int64_t out, std::int64_t kernel_h,
                  std::int64_t kernel_w, Conv2dOptions o) {
  BuiltConv built;
  built.where = std::move(where);
  const auto fail = [&](const std::string& what) {
    throw Error(fmt::format("{} {}: {}", name_of_kind(transposed), built.where, what));
  };
  if (o.pad_end_h < 0) o.pad_end_h = o.pad_h;
  if (o.pad_end_w < 0) o.pad_end_w = o.pad_w;
  if (in < 1 || out < 1 || kernel_h < 1 || kernel_w < 1)
    fail(fmt::format("{} to {} channels by a kernel of {}x{}", in, out, kernel_h, kernel_w));
  if (o.groups < 1 || in % o.groups != 0 || out % o.groups != 0)
    fail(fmt::format("{} groups do not divide {} to {} channels", o.groups, in, out));
  if (o.stride_h < 1 || o.stride_w < 1 || o.dilation_h < 1 || o.dilation_w < 1 || o.pad_h < 0 || o.pad_w < 0)
    fail("strides and dilations are at least 1, paddings at least 0");
  if (!transposed && (o.output_pad_h != 0 || o.output_pad_w != 0)) fail("output_pad is for transposed convolutions");
  built.shape = {transposed, in, out, kernel_h, kernel_w, o};
  return built;
}

void pack(BuiltConv& built, const Tensor& weight, const Tensor& bias, const WeightsOptions& options) {
  built.device = options.device;
  const auto& [transposed, in, out, kernel_h, kernel_w, o] = built.shape;
  const bool pointwise = !transposed && kernel_h == 1 && kernel_w == 1 && o.stride_h == 1 && o.stride_w == 1 && o.groups == 1 &&
                         o.pad_h == 0 && o.pad_w == 0 && o.pad_end_h == 0 && o.pad_end_w == 0;
  if (pointwise)
    built.pointwise = Linear(weight.view({out, in}), bias, options);
  else if (options.device.type == DeviceType::cuda && !Context::current().dry_run())
    built.packed = cuda::backend().ops.pack_conv(built.shape, weight.contiguous(), bias, options.dtype, options.device);
  else
    built.packed = cpu::pack_conv(built.shape, weight, bias, options.dtype);
}

BuiltConv build(bool transposed, const Weights& w, std::int64_t in, std::int64_t out, std::int64_t kernel_h,
                std::int64_t kernel_w, const Conv2dOptions& options, const Weights* bn) {
  BuiltConv built = checked(transposed, w.path(), in, out, kernel_h, kernel_w, options);
  const std::int64_t groups = options.groups;
  const Shape stored = transposed ? Shape{in, out / groups, kernel_h, kernel_w} : Shape{out, in / groups, kernel_h, kernel_w};
  Tensor weight = w.get("weight", stored);
  Tensor bias = options.bias ? w.get("bias", {out}).clone() : Tensor();
  if (bn && options.bn_eps > 0) fold_batch_norm(weight, bias, *bn, options.bn_eps, built.shape);
  pack(built, weight, bias, w.options());
  w.release("weight");
  return built;
}

BuiltConv build_transposed(const Tensor& weight, const Tensor& bias, DType dtype, Device device, const Conv2dOptions& options,
                           std::string where) {
  if (weight.rank() != 4 || weight.dtype() != DType::f32)
    throw Error(fmt::format("conv_transpose2d {}: weight is {} {}, expected f32 [in, out / groups, kernel_h, kernel_w]", where,
                            name_of(weight.dtype()), weight.shape().to_string()));
  const std::int64_t out = weight.size(1) * options.groups;
  if (bias.defined() && (bias.dtype() != DType::f32 || bias.shape() != Shape{out}))
    throw Error(fmt::format("conv_transpose2d {}: bias is {} {}, expected f32 [{}]", where, name_of(bias.dtype()),
                            bias.shape().to_string(), out));
  BuiltConv built = checked(true, std::move(where), weight.size(0), out, weight.size(2), weight.size(3), options);
  pack(built, weight.contiguous(), bias.defined() ? bias.clone() : bias, {.dtype = dtype, .device = device});
  return built;
}

std::int64_t out_size(const BuiltConv& conv, std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t dilation,
                      std::int64_t pads, std::int64_t output_pad) {
  const std::int64_t reach = dilation * (kernel - 1);
  const std::int64_t size =
      conv.shape.transposed ? (in - 1) * stride - pads + reach + output_pad + 1 : (in + pads - reach - 1) / stride + 1;
  if (in < 1 || size < 1 || (!conv.shape.transposed && in + pads <= reach))
    throw Error(fmt::format("{} {}: a side of {} is too small for a kernel that reaches over {} with {} of padding",
                            name_of_kind(conv.shape.transposed), conv.where, in, reach + 1, pads));
  return size;
}

// The output's shape for this x, or an Error.
Shape checked_shape(const BuiltConv& conv, const Tensor& x) {
  const detail::ConvShape& s = conv.shape;
  const Conv2dOptions& o = s.options;
  if (x.rank() != 4 || x.size(3) != s.in || !is_floating_point(x.dtype()))
    throw Error(fmt::format("{} {}: x is {} {}, expected a floating [B, H, W, {}]", name_of_kind(s.transposed), conv.where,
                            name_of(x.dtype()), x.shape().to_string(), s.in));
  if (x.device() != conv.device)
    throw Error(fmt::format("{} {}: x is on {}, the weights are on {}", name_of_kind(s.transposed), conv.where,
                            detail::name_of(x.device()), detail::name_of(conv.device)));
  if (conv.pointwise.defined()) return {x.size(0), x.size(1), x.size(2), s.out};
  return {x.size(0), out_size(conv, x.size(1), s.kernel_h, o.stride_h, o.dilation_h, o.pad_h + o.pad_end_h, o.output_pad_h),
          out_size(conv, x.size(2), s.kernel_w, o.stride_w, o.dilation_w, o.pad_w + o.pad_end_w, o.output_pad_w), s.out};
}

detail::MapStrides strides_of(const Tensor& map) { return {map.stride(0), map.stride(1), map.stride(2)}; }

// y = act(conv(x)) + residual or, with `activate_sum`, act(conv(x) + residual), all in the packed type and of the right shapes;
// `added` null: no residual.
void run_packed(const BuiltConv& conv, const Tensor& x, Tensor& y, const void* added, const detail::MapStrides& added_strides,
                Activation activation, bool activate_sum = false) {
  const detail::ConvShape& s = conv.shape;
  Context& context = Context::current();
  if (y.numel() > 0)
    conv.packed->run({.x = x.raw(),
                      .x_strides = strides_of(x),
                      .batch = x.size(0),
                      .height = x.size(1),
                      .width = x.size(2),
                      .y = y.raw(),
                      .y_strides = strides_of(y),
                      .out_height = y.size(1),
                      .out_width = y.size(2),
                      .residual = added,
                      .residual_strides = added_strides,
                      .activation = activation,
                      .activate_sum = activate_sum,
                      .threads = context.threads()});
  const std::int64_t positions = s.transposed ? x.size(1) * x.size(2) : y.size(1) * y.size(2);
  context.add_macs(x.size(0) * positions * s.out * (s.in / s.options.groups) * s.kernel_h * s.kernel_w);
}

Tensor run(const BuiltConv& conv, const Tensor& input, Epilogue epilogue) {
  const Shape shape = checked_shape(conv, input);
  if (conv.pointwise.defined()) return conv.pointwise(input, std::move(epilogue));
  Tensor residual = std::move(epilogue.residual);
  if (residual.defined() && residual.shape() != shape)
    throw Error(fmt::format("{} {}: residual is {}, expected {}", name_of_kind(conv.shape.transposed), conv.where,
                            residual.shape().to_string(), shape.to_string()));
  const DType computed = conv.packed->dtype();
  Tensor x = input.to(computed);
  if (!conv.packed->takes_views()) x = x.contiguous();
  detail::Placed placed = detail::place_output(shape, computed, input.device(), std::move(residual));
  run_packed(conv, x, placed.y, placed.added, strides_of(placed.y), epilogue.activation, epilogue.activate_sum);
  return placed.y.to(input.dtype());
}

}  // namespace

struct Conv2d::Impl : BuiltConv {};
struct ConvTranspose2d::Impl : BuiltConv {};

Conv2d::Conv2d(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t kernel_h, std::int64_t kernel_w,
               const Conv2dOptions& options, const Weights* bn)
    : impl_(std::make_shared<const Impl>(Impl{build(false, w, in, out, kernel_h, kernel_w, options, bn)})) {}

Tensor Conv2d::operator()(const Tensor& x, Epilogue epilogue) const {
  if (!impl_) throw Error("conv2d: an empty layer was called");
  return run(*impl_, x, std::move(epilogue));
}

void Conv2d::add_to(Tensor& y, const Tensor& x) const {
  if (!impl_) throw Error("conv2d: an empty layer was called");
  const Shape shape = checked_shape(*impl_, x);
  if (y.shape() != shape || y.dtype() != x.dtype())
    throw Error(fmt::format("conv2d {}: y is {} {}, expected {} {}", impl_->where, name_of(y.dtype()), y.shape().to_string(),
                            name_of(x.dtype()), shape.to_string()));
  if (!impl_->packed || !impl_->packed->takes_views() || impl_->packed->dtype() != x.dtype()) return add_(y, run(*impl_, x, {}));
  run_packed(*impl_, x, y, y.raw(), strides_of(y), Activation::none);
}

ConvTranspose2d::ConvTranspose2d(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t kernel_h,
                                 std::int64_t kernel_w, const Conv2dOptions& options, const Weights* bn)
    : impl_(std::make_shared<const Impl>(Impl{build(true, w, in, out, kernel_h, kernel_w, options, bn)})) {}

ConvTranspose2d::ConvTranspose2d(const Tensor& weight, const Tensor& bias, DType dtype, Device device,
                                 const Conv2dOptions& options, std::string where)
    : impl_(std::make_shared<const Impl>(Impl{build_transposed(weight, bias, dtype, device, options, std::move(where))})) {}

Tensor ConvTranspose2d::operator()(const Tensor& x, Activation activation) const {
  if (!impl_) throw Error("conv_transpose2d: an empty layer was called");
  return run(*impl_, x, {.activation = activation, .residual = {}});
}

}  // namespace vitrine
