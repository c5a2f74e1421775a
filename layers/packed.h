// Layers whose weights were packed for a device once: what Linear and Conv2d call, and the backends implement.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include <vitrine/layers/activation.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/dtype.h>
#include <vitrine/layers/export.h>

namespace vitrine::detail {

// y = gate act(x W^T + b) + residual, or act(x W^T + b + residual).
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

}  // namespace vitrine::detail
