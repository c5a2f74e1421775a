// Convolutions of nhwc maps, weights packed once: depth-wise ones on own kernels, the others on oneDNN with primitives kept by
// shape.
#pragma once

#include <cstdint>
#include <memory>

#include <vitrine/layers/conv.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::cpu {

// A convolution's geometry; sizes of the maps come with the call.
struct ConvShape {
  bool transposed = false;
  std::int64_t in = 0, out = 0, kernel_h = 1, kernel_w = 1;
  Conv2dOptions options;  // pad_end_* resolved
};

// Distances of images, rows and columns, in elements.
struct MapStrides {
  std::int64_t image = 0, row = 0, column = 0;
};

struct ConvCall {
  const void* x = nullptr;  // [B, H, W, in] in the packed type
  MapStrides x_strides;
  std::int64_t batch = 0, height = 0, width = 0;
  void* y = nullptr;  // [B, out_height, out_width, out], same type
  MapStrides y_strides;
  std::int64_t out_height = 0, out_width = 0;
  const void* residual = nullptr;  // as y, may be y itself; null: none
  MapStrides residual_strides;
  Activation activation = Activation::none;
  bool activate_sum = false;  // the activation after the residual
  int threads = 1;
};

class PackedConv {
 public:
  virtual ~PackedConv() = default;
  virtual DType dtype() const = 0;       // of x, y and residual: the wanted one, or f32 where there is no arithmetic in it
  virtual bool takes_views() const = 0;  // of any strides; otherwise x, y and residual must be contiguous
  virtual void run(const ConvCall& call) const = 0;  // thread-safe
};

// weight f32 [out, in / groups, kernel_h, kernel_w], transposed [in, out / groups, kernel_h, kernel_w]; bias f32 [out] or
// undefined.
std::unique_ptr<const PackedConv> pack_conv(const ConvShape& shape, const Tensor& weight, const Tensor& bias, DType dtype);

}  // namespace vitrine::cpu
