// The candidates for y = gate act(x W^T + b) + residual, or act(x W^T + b + residual), on the CPU. Each packs the weights its own
// way, once.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/dtype.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::cpu {

struct LinearCall {
  const void* x = nullptr;  // [rows, in] in the packed type, rows `x_stride` elements apart
  std::int64_t rows = 0, x_stride = 0;
  void* y = nullptr;               // [rows, out], same type, rows `y_stride` elements apart
  const void* residual = nullptr;  // as y, of its strides, may be y itself; null: none
  std::int64_t y_stride = 0;
  Activation activation = Activation::none;
  bool activate_sum = false;  // the activation after the residual; without a gate
  // A factor for each channel of an image's rows: image i, rows [i gate_rows, (i + 1) gate_rows), has those at
  // gate + i gate_stride. The first row of x is number first_row. Null: none.
  const float* gate = nullptr;
  std::int64_t gate_rows = 1, gate_stride = 0, first_row = 0;
  int threads = 1;
};

class PackedLinear {
 public:
  virtual ~PackedLinear() = default;
  virtual std::string_view name() const = 0;
  virtual DType dtype() const = 0;  // of x, y and residual: the wanted one, or f32 where there is no arithmetic in it
  virtual bool takes_gate() const = 0;
  virtual void run(const LinearCall& call) const = 0;  // thread-safe
};

// weight f32 [out, in], bias f32 [out] or undefined. `candidate` is "tiled" (own kernels), "onednn" or "reference" (the own
// kernels' scalar target); empty: the best that can run. Throws Error where the named one cannot, with the reason.
// `int8`: weights are kept as int8 with a scale each output, which the own kernels do.
VITRINE_API std::unique_ptr<const PackedLinear> pack_linear(const Tensor& weight, const Tensor& bias, DType dtype,
                                                            std::string_view candidate = {}, bool int8 = false);

VITRINE_API std::unique_ptr<const PackedLinear> pack_linear_tiled(const Tensor& weight, const Tensor& bias, DType dtype, Isa isa,
                                                                  bool int8 = false);
VITRINE_API std::unique_ptr<const PackedLinear> pack_linear_dnnl(const Tensor& weight, const Tensor& bias, DType dtype);

}  // namespace vitrine::cpu
