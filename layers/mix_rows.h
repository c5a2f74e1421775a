// A small matrix over the rows of a map or sequence, channels staying where they are: what Linear is for channels.
#pragma once

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

// y = or += matrix x in the last two axes: matrix f32 [M, N], contiguous; x f32 [A, B, N, C], y f32 [A, B, M, C], views with any
// leading strides. Throws Error for other shapes.
VITRINE_API void mix_rows(Tensor& y, const Tensor& matrix, const Tensor& x, bool adds = false);

}  // namespace vitrine
