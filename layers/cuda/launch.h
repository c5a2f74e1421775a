// Starts a kernel on the stream of the calling thread's context. Included by sources with kernels only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <vitrine/layers/axes.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cuda/device.h>
#include <vitrine/layers/cuda/launch_args.h>
#include <vitrine/layers/cuda/runtime.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::cuda {

template <typename... Parameters, typename... Arguments>
void launch(const Launch& l, void (*kernel)(Parameters...), const Arguments&... arguments) {
  if (l.grid == 0 || l.grid_y == 0 || l.grid_z == 0 || Context::current().dry_run()) return;
  check_size(l);
#if defined(__CUDACC__)
  if (l.shared_bytes > (48u << 10))
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(l.shared_bytes)),
          describe(l));
  const dim3 grid(static_cast<unsigned>(l.grid), static_cast<unsigned>(l.grid_y), static_cast<unsigned>(l.grid_z));
  kernel<<<grid, static_cast<unsigned>(l.threads), l.shared_bytes, stream(l.x.device().index)>>>(arguments...);
  check(cudaGetLastError(), describe(l));
#else
  const emulation::Grid grid{
      {static_cast<int>(l.grid), static_cast<int>(l.grid_y), static_cast<int>(l.grid_z)}, l.threads, l.shared_bytes};
  emulation::launch(stream(l.x.device().index), describe(l), l.op, name_of(l.x.dtype()), grid, [=] { kernel(arguments...); });
#endif
}

inline std::int64_t blocks_for(std::int64_t n, std::int64_t a_block) { return (n + a_block - 1) / a_block; }

// The axes that remain after merging, for kernels; strides in elements of each operand.
template <int kOperands>
struct Walk {
  int rank = 0;
  std::int64_t size[Shape::kMaxRank + 1];
  std::int64_t stride[Shape::kMaxRank + 1][kOperands];
};

template <int kOperands>
Walk<kOperands> walk_of(const detail::Axes<kOperands>& axes) {
  Walk<kOperands> w;
  w.rank = axes.rank;
  for (int i = 0; i < axes.rank; ++i) {
    w.size[i] = axes.size[i];
    for (int t = 0; t < kOperands; ++t) w.stride[i][t] = axes.stride[i][t];
  }
  return w;
}

// The offsets of position i of the walk, which is consumed from the innermost axis on.
template <int kOperands>
VITRINE_DEVICE void offsets_at(const Walk<kOperands>& w, std::int64_t i, std::int64_t (&at)[kOperands]) {
  for (int t = 0; t < kOperands; ++t) at[t] = 0;
  for (int axis = w.rank - 1; axis >= 0; --axis) {
    const std::int64_t size = w.size[axis];
    // Divisions of 32 bits take a fraction of the time of those of 64.
    const std::int64_t next = (i | size) >> 31 == 0 ? static_cast<std::uint32_t>(i) / static_cast<std::uint32_t>(size) : i / size;
    const std::int64_t here = i - next * size;
    for (int t = 0; t < kOperands; ++t) at[t] += here * w.stride[axis][t];
    i = next;
  }
}

// Calls body(T{}) with the storage type of a floating dtype.
template <typename Body>
void with_float_type(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f32:
      return body(float{});
    case DType::f16:
      return body(half_bits{});
    case DType::bf16:
      return body(bfloat_bits{});
    default:
      refuse_type(dtype);
  }
}

template <typename T>
T* data_of(Tensor& t) {
  return static_cast<T*>(t.raw());
}
template <typename T>
const T* data_of(const Tensor& t) {
  return static_cast<const T*>(t.raw());
}
template <typename T>
const T* data_or_null(const Tensor& t) {
  return t.defined() ? data_of<T>(t) : nullptr;
}

}  // namespace vitrine::cuda
