#include <vitrine/layers/cpu/conv.h>

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <unordered_map>

#include <fmt/format.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/depthwise.h>
#include <vitrine/layers/cpu/dnnl.h>
#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/cpu/loops.h>
#include <vitrine/layers/ops.h>

namespace vitrine::cpu {

namespace {

using Tag = dnnl::memory::format_tag;
using Dims = dnnl::memory::dims;

// What the primitive depends on besides the layer.
struct ConvKey {
  std::int64_t batch, height, width, out_height, out_width;
  Activation activation;
  bool residual, in_place, activate_sum;
  int threads;

  friend bool operator==(const ConvKey&, const ConvKey&) = default;
};

struct Primitive {
  dnnl::primitive primitive;
  dnnl::memory::desc x, y, scratchpad;
  DnnlBuffer weight;  // in a layout of its own, or the layer's
};

// Both kinds differ only in the primitive's class and in the order of the weight's axes.
template <typename Operation>
class DnnlConv final : public PackedConv {
 public:
  DnnlConv(const ConvShape& shape, const Tensor& weight, const Tensor& bias, DType dtype)
      : shape_(shape), dtype_(dtype), bias_(bias), separate_(shape.transposed && dtype == DType::f32) {
    const std::int64_t groups = shape_.options.groups;
    Dims dims{shape_.out / groups, shape_.in / groups, shape_.kernel_h, shape_.kernel_w};
    if (groups > 1) dims.insert(dims.begin(), groups);
    const Tag stored = groups > 1 ? (shape_.transposed ? Tag::giohw : Tag::goihw) : (shape_.transposed ? Tag::iohw : Tag::oihw);
    weight_desc_ = {dims, dnnl_type(dtype_), Tag::any};
    // The layout is that of a middling map; every other size is made to take it.
    const std::int64_t h = 56 + shape_.kernel_h * shape_.options.dilation_h, w = 56 + shape_.kernel_w * shape_.options.dilation_w;
    const auto pd =
        descriptor({1, h, w, out_size(h, true), out_size(w, false), Activation::none, false, false, false, 1}, weight_desc_);
    weight_ = reordered(weight.raw(), {dims, dnnl_type(DType::f32), stored}, pd.weights_desc());
  }

  DType dtype() const override { return dtype_; }
  bool takes_views() const override { return false; }

  void run(const ConvCall& call) const override {
    const DnnlThreads threads(call.threads);
    const bool in_place = call.residual == call.y;
    const ConvKey key{
        call.batch, call.height,       call.width,  call.out_height, call.out_width, call.activation, call.residual != nullptr,
        in_place,   call.activate_sum, call.threads};
    const auto op = cache_.get(key, [&] { return make_primitive(key); });
    const DnnlBuffer scratchpad(op->scratchpad);
    std::unordered_map<int, dnnl::memory> arguments{{DNNL_ARG_SRC, dnnl_memory(op->x, call.x)},
                                                    {DNNL_ARG_WEIGHTS, op->weight.memory()},
                                                    {DNNL_ARG_DST, dnnl_memory(op->y, call.y)},
                                                    {DNNL_ARG_SCRATCHPAD, scratchpad.memory()}};
    if (bias_.defined() && !separate_) arguments.emplace(DNNL_ARG_BIAS, dnnl_memory(bias_desc(), bias_.raw()));
    if (call.residual && !in_place) {
      const int index = call.activation == Activation::none || call.activate_sum ? 0 : 1;
      arguments.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(index) | DNNL_ARG_SRC_1, dnnl_memory(op->y, call.residual));
    }
    op->primitive.execute(dnnl_stream(), arguments);
    dnnl_stream().wait();
    if (!separate_) return;
    Tensor y = Tensor::wrap(call.y, {call.batch, call.out_height, call.out_width, shape_.out}, dtype_);
    if (bias_.defined()) add_(y, bias_);
    if (call.activation != Activation::none) activate_(y, call.activation);
  }

 private:
  dnnl::memory::desc bias_desc() const { return dnnl_desc({shape_.out}, DType::f32, Tag::a); }

  std::int64_t out_size(std::int64_t in, bool rows) const {
    const Conv2dOptions& o = shape_.options;
    const std::int64_t stride = rows ? o.stride_h : o.stride_w, dilation = rows ? o.dilation_h : o.dilation_w;
    const std::int64_t pads = rows ? o.pad_h + o.pad_end_h : o.pad_w + o.pad_end_w;
    const std::int64_t reach = dilation * ((rows ? shape_.kernel_h : shape_.kernel_w) - 1);
    if (shape_.transposed) return (in - 1) * stride - pads + reach + (rows ? o.output_pad_h : o.output_pad_w) + 1;
    return (in + pads - reach - 1) / stride + 1;
  }

  // A small map (10x10 with stride 2) may have only the reference primitive in the layer's layout, hundreds of times slower,
  // but a fast one in another: it gets a copy of the weights.
  Primitive make_primitive(const ConvKey& key) const {
    const auto is_reference = [](const auto& pd) { return std::string_view(pd.impl_info_str()).starts_with("ref"); };
    auto pd = descriptor(key, weight_.desc());
    DnnlBuffer weight = weight_;
    if (is_reference(pd)) {
      const auto free = descriptor(key, weight_desc_);
      if (!is_reference(free)) {
        pd = free;
        weight = reordered(weight_.memory().get_data_handle(), weight_.desc(), pd.weights_desc());
      }
    }
    return {Operation(pd), pd.src_desc(), pd.dst_desc(), pd.scratchpad_desc(), weight};
  }

  typename Operation::primitive_desc descriptor(const ConvKey& key, const dnnl::memory::desc& weight) const {
    const Conv2dOptions& o = shape_.options;
    const auto x = dnnl_desc({key.batch, shape_.in, key.height, key.width}, dtype_, Tag::nhwc);
    const auto y = dnnl_desc({key.batch, shape_.out, key.out_height, key.out_width}, dtype_, Tag::nhwc);
    const Dims strides{o.stride_h, o.stride_w}, dilations{o.dilation_h - 1, o.dilation_w - 1}, pad_begin{o.pad_h, o.pad_w};
    const Dims pad_end{o.pad_end_h - o.output_pad_h, o.pad_end_w - o.output_pad_w};
    dnnl::post_ops ops;
    if (!separate_ && !key.activate_sum) append_activation(ops, key.activation);
    if (key.residual && key.in_place) ops.append_sum(1.0f);
    if (key.residual && !key.in_place) ops.append_binary(dnnl::algorithm::binary_add, y);
    if (!separate_ && key.activate_sum) append_activation(ops, key.activation);
    dnnl::primitive_attr attributes;
    attributes.set_post_ops(ops);
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    constexpr auto kInference = dnnl::prop_kind::forward_inference;
    const auto algorithm = shape_.transposed ? dnnl::algorithm::deconvolution_direct : dnnl::algorithm::convolution_direct;
    if (bias_.defined() && !separate_)
      return {dnnl_engine(), kInference, algorithm, x,       weight,    bias_desc(), y,
              strides,       dilations,  pad_begin, pad_end, attributes};
    return {dnnl_engine(), kInference, algorithm, x, weight, y, strides, dilations, pad_begin, pad_end, attributes};
  }

  ConvShape shape_;
  DType dtype_;
  Tensor bias_;
  // oneDNN 3.2's f32 transposed convolution (AVX-512) adds the bias and applies the activation once for each block of input
  // channels, from 256 channels on: there they follow on their own.
  bool separate_;
  dnnl::memory::desc weight_desc_;  // leaves the layout to oneDNN
  DnnlBuffer weight_;
  detail::RecentCache<ConvKey, Primitive> cache_;
};

class DepthwiseConv final : public PackedConv {
 public:
  DepthwiseConv(const ConvShape& shape, const Tensor& weight, const Tensor& bias, DType dtype)
      : shape_(shape), dtype_(dtype), bias_(bias) {
    const int taps_first[] = {1, 2, 3, 0};
    weight_ = permute(weight, taps_first);  // [1, kernel_h, kernel_w, channels]
  }

  DType dtype() const override { return dtype_; }
  bool takes_views() const override { return true; }

  void run(const ConvCall& call) const override {
    const Conv2dOptions& o = shape_.options;
    const auto bytes = static_cast<std::int64_t>(size_of(dtype_));
    const auto kernel = depthwise_kernels(isa()).row[index_of(dtype_)];
    const std::int64_t work = call.out_width * shape_.in * shape_.kernel_h * shape_.kernel_w;
    const std::int64_t grain = std::max<std::int64_t>(1, 4 * kGrain / std::max<std::int64_t>(1, work));
    parallel_for(call.batch * call.out_height, grain, [&](std::int64_t begin, std::int64_t end) {
      DepthwiseRow row{.x = nullptr,
                       .x_row = call.x_strides.row * bytes,
                       .x_column = call.x_strides.column * bytes,
                       .height = call.height,
                       .width = call.width,
                       .channels = shape_.in,
                       .y = nullptr,
                       .residual = nullptr,
                       .y_column = call.y_strides.column * bytes,
                       .residual_column = call.residual_strides.column * bytes,
                       .outputs = call.out_width,
                       .weight = weight_.data<float>(),
                       .bias = bias_.defined() ? bias_.data<float>() : nullptr,
                       .kernel_h = shape_.kernel_h,
                       .kernel_w = shape_.kernel_w,
                       .stride_w = o.stride_w,
                       .dilation_h = o.dilation_h,
                       .dilation_w = o.dilation_w,
                       .first_row = 0,
                       .first_column = -o.pad_w,
                       .activation = call.activation,
                       .activate_sum = call.activate_sum};
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t image = i / call.out_height, y = i % call.out_height;
        const auto offset = [&](const MapStrides& s, std::int64_t at) { return (image * s.image + at * s.row) * bytes; };
        row.x = static_cast<const std::byte*>(call.x) + offset(call.x_strides, 0);
        row.y = static_cast<std::byte*>(call.y) + offset(call.y_strides, y);
        if (call.residual) row.residual = static_cast<const std::byte*>(call.residual) + offset(call.residual_strides, y);
        row.first_row = y * o.stride_h - o.pad_h;
        kernel(row);
      }
    });
  }

 private:
  ConvShape shape_;
  DType dtype_;
  Tensor weight_, bias_;
};

// In dry runs.
class NoConv final : public PackedConv {
 public:
  explicit NoConv(DType dtype) : dtype_(dtype) {}
  DType dtype() const override { return dtype_; }
  bool takes_views() const override { return true; }
  void run(const ConvCall&) const override {}

 private:
  DType dtype_;
};

}  // namespace

std::unique_ptr<const PackedConv> pack_conv(const ConvShape& shape, const Tensor& weight, const Tensor& bias, DType dtype) {
  if (Context::current().dry_run()) return std::make_unique<NoConv>(dtype);
  if (!shape.transposed && shape.options.groups == shape.in && shape.in == shape.out)
    return std::make_unique<DepthwiseConv>(shape, weight, bias, dtype);
  if (!dnnl_computes_in(dtype)) {
    log_dispatch(fmt::format("convolution: {} is stored, the arithmetic is f32: {} has none in {}", name_of(dtype),
                             name_of(isa()), name_of(dtype)));
    dtype = DType::f32;
  }
  if (shape.transposed) return std::make_unique<DnnlConv<dnnl::deconvolution_forward>>(shape, weight, bias, dtype);
  return std::make_unique<DnnlConv<dnnl::convolution_forward>>(shape, weight, bias, dtype);
}

}  // namespace vitrine::cpu
