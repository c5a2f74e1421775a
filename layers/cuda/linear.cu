#include <vitrine/layers/cuda/gemm.h>
#include <vitrine/layers/cuda/linear.h>
#include <vitrine/layers/cuda/ops.h>

namespace vitrine::cuda {

namespace {

Output output_of(const Tensor& weight, const Tensor& bias, const detail::LinearCall& call) {
  return {.rows = call.rows,
          .columns = weight.size(0),
          .y_stride = call.y_stride,
          .residual_stride = call.y_stride,
          .bias = data_or_null<float>(bias),
          .activation = call.activation,
          .activate_sum = call.activate_sum,
          .gate = call.gate,
          .gate_rows = call.gate_rows,
          .gate_stride = call.gate_stride,
          .first_row = call.first_row,
          .has_residual = call.residual != nullptr};
}

template <typename T>
VITRINE_KERNEL(256)
void finish_kernel(Output o, const T* product, std::int64_t stride, const T* residual, T* y) {
  const std::int64_t i = std::int64_t{block_index().x} * 256 + thread_index();
  if (i >= o.rows * o.columns) return;
  const std::int64_t m = i / o.columns, n = i - m * o.columns;
  finish(o, 0, y, residual, m, n, to_float(product[m * stride + n]));
}

class OwnLinear final : public detail::PackedLinear {
 public:
  OwnLinear(const Tensor& weight, const Tensor& bias, DType dtype, Device device)
      : weight_(weight.to(dtype).to(device)), bias_(bias.to(device)) {}

  std::string_view name() const override { return "own"; }
  DType dtype() const override { return weight_.dtype(); }
  bool takes_gate() const override { return true; }
  void run(const detail::LinearCall& call) const override { run_own_linear(weight_, bias_, call); }

 private:
  Tensor weight_, bias_;
};

}  // namespace

void run_own_linear(const Tensor& weight, const Tensor& bias, const detail::LinearCall& call) {
  if (call.rows == 0) return;
  const std::int64_t in = weight.size(1), out = weight.size(0);
  with_float_type(weight.dtype(), [&](auto type) {
    using T = decltype(type);
    const MatrixRows<T> x{static_cast<const T*>(call.x), call.rows, call.x_stride, in,
                          is_aligned_16(call.x) && call.x_stride % 8 == 0 && in % 8 == 0};
    const MatrixRows<T> w{data_of<T>(weight), out, in, in, in % 8 == 0};
    gemm<T>("linear", weight, x, w, in, output_of(weight, bias, call), 1, static_cast<const T*>(call.residual),
            static_cast<T*>(call.y));
  });
}

void finish_linear(const Tensor& weight, const Tensor& bias, const detail::LinearCall& call, const void* product,
                   std::int64_t stride) {
  const Output o = output_of(weight, bias, call);
  with_float_type(weight.dtype(), [&](auto type) {
    using T = decltype(type);
    launch({.op = "linear_epilogue", .x = weight, .grid = blocks_for(o.rows * o.columns, 256), .threads = 256}, finish_kernel<T>,
           o, static_cast<const T*>(product), stride, static_cast<const T*>(call.residual), static_cast<T*>(call.y));
  });
}

namespace ops {

std::unique_ptr<const detail::PackedLinear> pack_linear(const Tensor& weight, const Tensor& bias, DType dtype, Device device) {
  return std::make_unique<OwnLinear>(weight, bias, dtype, device);
}

}  // namespace ops

}  // namespace vitrine::cuda
