// Parts of linear layers that the table does not show.
#include <catch.h>

#include <vitrine/layers/cuda/linear.h>

#include "cuda_host/support.h"

namespace vitrine {

using test::kGpu;

TEST_CASE("what follows another library's product on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats) {
    const std::int64_t rows = 21, in = 16, out = 13;
    const Tensor weight = test::random({out, in}, DType::f32, 1, 0.3f).to(dtype).to(kGpu), bias = test::random({out}).to(kGpu);
    const Tensor x = test::random({rows, in}, dtype, 3).to(kGpu), residual = test::random({rows, out}, dtype, 4).to(kGpu);
    const Tensor gate = test::random({3, out}, DType::f32, 5).to(kGpu);
    Tensor fused = Tensor::empty({rows, out}, dtype, kGpu), product = fused.clone(), y = fused.clone();
    detail::LinearCall call{
        .x = x.raw(), .rows = rows, .x_stride = in, .y = fused.raw(), .residual = residual.raw(), .y_stride = out};
    call.activation = Activation::silu;
    call.gate = static_cast<const float*>(gate.raw());
    call.gate_rows = 7;
    call.gate_stride = out;
    cuda::run_own_linear(weight, bias, call);
    cuda::run_own_linear(weight, {}, {.x = x.raw(), .rows = rows, .x_stride = in, .y = product.raw(), .y_stride = out});
    call.y = y.raw();
    cuda::finish_linear(weight, bias, call, product.raw(), out);
    const auto expected = test::values(fused.to(Device{}));
    test::check_close(y.to(Device{}), {expected.begin(), expected.end()}, 8 * test::rounding(dtype) + 1e-6);
  }
}

}  // namespace vitrine
