#include <vitrine/layers/cuda/gemm.h>
#include <vitrine/layers/cuda/ops.h>

namespace vitrine::cuda {

namespace {

class OwnLinear final : public detail::PackedLinear {
 public:
  OwnLinear(const Tensor& weight, const Tensor& bias, DType dtype, Device device)
      : weight_(weight.to(dtype).to(device)), bias_(bias.to(device)) {}

  std::string_view name() const override { return "own"; }
  DType dtype() const override { return weight_.dtype(); }
  bool takes_gate() const override { return true; }

  void run(const detail::LinearCall& call) const override {
    if (call.rows == 0) return;
    const std::int64_t in = weight_.size(1), out = weight_.size(0);
    const Output o{.rows = call.rows,
                   .columns = out,
                   .y_stride = call.y_stride,
                   .residual_stride = call.y_stride,
                   .bias = bias_.defined() ? data_of<float>(bias_) : nullptr,
                   .activation = call.activation,
                   .activate_sum = call.activate_sum,
                   .gate = call.gate,
                   .gate_rows = call.gate_rows,
                   .gate_stride = call.gate_stride,
                   .first_row = call.first_row,
                   .has_residual = call.residual != nullptr};
    with_float_type(weight_.dtype(), [&](auto type) {
      using T = decltype(type);
      const MatrixRows<T> x{static_cast<const T*>(call.x), call.rows, call.x_stride, in,
                            is_aligned_16(call.x) && call.x_stride % 8 == 0 && in % 8 == 0};
      const MatrixRows<T> w{data_of<T>(weight_), out, in, in, in % 8 == 0};
      gemm<T>("linear", weight_, x, w, in, o, 1, static_cast<const T*>(call.residual), static_cast<T*>(call.y));
    });
  }

 private:
  Tensor weight_, bias_;
};

}  // namespace

namespace ops {

std::unique_ptr<const detail::PackedLinear> pack_linear(const Tensor& weight, const Tensor& bias, DType dtype, Device device) {
  return std::make_unique<OwnLinear>(weight, bias, dtype, device);
}

}  // namespace ops

}  // namespace vitrine::cuda
