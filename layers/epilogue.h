// Where a layer with a residual writes: shared by Linear and Conv2d.
#pragma once

#include <utility>

#include <vitrine/layers/tensor.h>

namespace vitrine::detail {

struct Placed {
  Tensor y;
  const void* added;  // what is added to y, may be y's own memory; null: nothing
  Tensor keeps;       // the residual that `added` points into, where it is not y
};

// The sum is made in the residual's memory where nobody else looks at it.
inline Placed place_output(const Shape& shape, DType dtype, Device device, Tensor residual) {
  if (!residual.defined()) return {Tensor::empty(shape, dtype, device), nullptr, {}};
  if (residual.dtype() != dtype) residual = residual.to(dtype);
  if (residual.is_unique() && residual.is_contiguous()) {
    Tensor y = std::move(residual);
    const void* added = y.raw();
    return {std::move(y), added, {}};
  }
  Tensor keeps = residual.contiguous();
  Tensor y = Tensor::empty(shape, dtype, device);
  const void* added = keeps.raw();
  return {std::move(y), added, std::move(keeps)};
}

}  // namespace vitrine::detail
