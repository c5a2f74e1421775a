// What the ops check of their arguments, in the words of their messages. Not part of the public headers' surface.
#pragma once

#include <string_view>

#include <fmt/format.h>

#include <vitrine/layers/tensor.h>

namespace vitrine::detail {

inline void check_defined(std::string_view op, const Tensor& x) {
  if (!x.defined()) throw Error(fmt::format("{}: an empty tensor was passed", op));
  if (x.device().type != DeviceType::cpu)
    throw Error(fmt::format("{}: the tensor is on device cuda:{}, this build has the cpu only", op, x.device().index));
}

inline void check_floating(std::string_view op, const Tensor& x) {
  check_defined(op, x);
  if (!is_floating_point(x.dtype()))
    throw Error(fmt::format("{}: dtype is {}, expected f32, bf16 or f16", op, name_of(x.dtype())));
}

inline void check_rank(std::string_view op, const Tensor& x, int rank, std::string_view expected) {
  if (x.rank() != rank) throw Error(fmt::format("{}: the tensor is {}, expected {}", op, x.shape().to_string(), expected));
}

inline int checked_axis(std::string_view op, const Tensor& x, int axis) {
  const int a = axis < 0 ? axis + x.rank() : axis;
  if (a < 0 || a >= x.rank()) throw Error(fmt::format("{}: axis {} of a tensor {}", op, axis, x.shape().to_string()));
  return a;
}

// Per-channel parameters: f32 [channels], or undefined.
inline void check_channels(std::string_view op, std::string_view name, const Tensor& parameter, std::int64_t channels) {
  if (!parameter.defined()) return;
  if (parameter.dtype() != DType::f32 || parameter.shape() != Shape{channels} || !parameter.is_contiguous())
    throw Error(fmt::format("{}: {} is {} {}, expected f32 [{}]", op, name, name_of(parameter.dtype()),
                            parameter.shape().to_string(), channels));
}

}  // namespace vitrine::detail
