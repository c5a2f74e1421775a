// What the ops check of their arguments, in the words of their messages. Not part of the public headers' surface.
#pragma once

#include <string>
#include <string_view>

#include <fmt/format.h>

#include <vitrine/layers/tensor.h>

namespace vitrine::detail {

inline void check_defined(std::string_view op, const Tensor& x) {
  if (!x.defined()) throw Error(fmt::format("{}: an empty tensor was passed", op));
}

inline std::string name_of(Device device) {
  return device.type == DeviceType::cpu ? std::string("cpu") : fmt::format("cuda:{}", device.index);
}

// Nothing is brought to another device in silence.
inline void check_same_device(std::string_view op, const Tensor& x, const Tensor& other) {
  if (other.defined() && other.device() != x.device())
    throw Error(fmt::format("{}: tensors are on {} and {}, expected one device; Tensor::to(device) copies", op,
                            name_of(x.device()), name_of(other.device())));
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
