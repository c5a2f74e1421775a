// What the tests of kernels share: the same work on the CPU and on the emulated device.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "../layers/support.h"
#include "cuda_host/backend.h"
#include "cuda_host/emulation.h"

namespace vitrine::test {

inline const Device kGpu{DeviceType::cuda, 0};

// How far attention on the device may be from the CPU's, which rounds weights elsewhere.
inline double attention_bound(DType dtype) { return 8 * rounding(dtype) + 4e-6; }

// [..., heads, dim]
inline Shape with_heads(Shape shape, std::int64_t heads, std::int64_t dim) {
  shape.push_back(heads);
  shape.push_back(dim);
  return shape;
}

// What `op` makes of tensors on the CPU and on the device is the same up to a rounding of the type, in both orders of threads.
inline void check_same(const char* what, DType dtype, const std::vector<Tensor>& inputs,
                       const std::function<Tensor(std::vector<Tensor>)>& op, double bound = 0) {
  INFO(what << " " << name_of(dtype));
  std::vector<Tensor> copies;
  for (const Tensor& t : inputs) copies.push_back(t.defined() ? t.clone() : t);
  const std::vector<float> on_cpu = values(op(copies));
  const std::vector<double> expected(on_cpu.begin(), on_cpu.end());
  for (const auto order : {cuda::emulation::Order::forward, cuda::emulation::Order::backward}) {
    cuda::emulation::set_order(order);
    std::vector<Tensor> there;
    for (const Tensor& t : inputs) there.push_back(t.defined() ? strided(t.to(kGpu)) : t);
    const std::int64_t before = cuda::emulation::launches();
    const Tensor got = op(there);
    CHECK(got.device() == kGpu);
    CHECK((got.numel() == 0 || cuda::emulation::launches() > before));
    check_close(values(got.to(Device{})), expected, bound > 0 ? bound : std::max(4 * rounding(dtype), 2e-6));
  }
  cuda::emulation::set_order(cuda::emulation::Order::forward);
}

}  // namespace vitrine::test
