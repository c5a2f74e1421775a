// Linear as oneDNN's matmul, weights in the blocked layout that it prefers.
#include <tuple>

#include <vitrine/layers/cpu/dnnl.h>
#include <vitrine/layers/cpu/linear.h>

namespace vitrine::cpu {

namespace {

using Tag = dnnl::memory::format_tag;

// What the primitive depends on besides the layer.
struct MatmulKey {
  std::int64_t rows, x_stride, y_stride;
  Activation activation;
  bool residual, in_place, activate_sum;
  int threads;

  friend bool operator==(const MatmulKey&, const MatmulKey&) = default;
};

struct Matmul {
  dnnl::matmul primitive;
  dnnl::memory::desc x, y, scratchpad;
};

class DnnlLinear final : public PackedLinear {
 public:
  DnnlLinear(const Tensor& weight, const Tensor& bias, DType dtype)
      : in_(weight.size(1)), out_(weight.size(0)), dtype_(dtype), bias_(bias) {
    // The layout is that of some hundred rows; every other number of rows is made to take it.
    constexpr std::int64_t kNominalRows = 197;
    weight_desc_ = dnnl_desc({in_, out_}, dtype_, Tag::any);
    const auto pd = descriptor({kNominalRows, in_, out_, Activation::none, false, false, false, 1});
    weight_ = reordered(weight.raw(), dnnl_desc({in_, out_}, DType::f32, Tag::ba), pd.weights_desc());
    weight_desc_ = weight_.desc();
  }

  std::string_view name() const override { return "onednn"; }
  DType dtype() const override { return dtype_; }
  bool takes_gate() const override { return false; }

  void run(const LinearCall& call) const override {
    const DnnlThreads threads(call.threads);
    const bool in_place = call.residual == call.y;
    const MatmulKey key{call.rows, call.x_stride,     call.y_stride, call.activation, call.residual != nullptr,
                        in_place,  call.activate_sum, call.threads};
    const auto matmul = cache_.get(key, [&] {
      const auto pd = descriptor(key);
      return Matmul{dnnl::matmul(pd), pd.src_desc(), pd.dst_desc(), pd.scratchpad_desc()};
    });
    const DnnlBuffer scratchpad(matmul->scratchpad);
    std::unordered_map<int, dnnl::memory> arguments{{DNNL_ARG_SRC, dnnl_memory(matmul->x, call.x)},
                                                    {DNNL_ARG_WEIGHTS, weight_.memory()},
                                                    {DNNL_ARG_DST, dnnl_memory(matmul->y, call.y)},
                                                    {DNNL_ARG_SCRATCHPAD, scratchpad.memory()}};
    if (bias_.defined()) arguments.emplace(DNNL_ARG_BIAS, dnnl_memory(bias_desc(), bias_.raw()));
    if (call.residual && !in_place) {
      const int index = call.activation == Activation::none || call.activate_sum ? 0 : 1;
      arguments.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(index) | DNNL_ARG_SRC_1, dnnl_memory(matmul->y, call.residual));
    }
    matmul->primitive.execute(dnnl_stream(), arguments);
    dnnl_stream().wait();
  }

 private:
  dnnl::memory::desc bias_desc() const { return dnnl_desc({1, out_}, DType::f32, Tag::ab); }

  dnnl::matmul::primitive_desc descriptor(const MatmulKey& key) const {
    const dnnl::memory::desc x({key.rows, in_}, dnnl_type(dtype_), dnnl::memory::dims{key.x_stride, 1});
    const dnnl::memory::desc y({key.rows, out_}, dnnl_type(dtype_), dnnl::memory::dims{key.y_stride, 1});
    dnnl::post_ops ops;
    if (!key.activate_sum) append_activation(ops, key.activation);
    if (key.residual && key.in_place) ops.append_sum(1.0f);
    if (key.residual && !key.in_place) ops.append_binary(dnnl::algorithm::binary_add, y);
    if (key.activate_sum) append_activation(ops, key.activation);
    dnnl::primitive_attr attributes;
    attributes.set_post_ops(ops);
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (bias_.defined()) return {dnnl_engine(), x, weight_desc_, bias_desc(), y, attributes};
    return {dnnl_engine(), x, weight_desc_, y, attributes};
  }

  std::int64_t in_, out_;
  DType dtype_;
  Tensor bias_;
  dnnl::memory::desc weight_desc_;
  DnnlBuffer weight_;
  detail::RecentCache<MatmulKey, Matmul> cache_;
};

}  // namespace

std::unique_ptr<const PackedLinear> pack_linear_dnnl(const Tensor& weight, const Tensor& bias, DType dtype) {
  return std::make_unique<DnnlLinear>(weight, bias, dtype);
}

}  // namespace vitrine::cpu
