// The op set: each operation declared once, implemented once a backend (layers/cpu). Dispatch is by the device of the
// tensors. All take views with any leading strides and give contiguous results, unless said otherwise. Floating
// tensors are f32, bf16 or f16; arithmetic and statistics are f32. Wrong shapes throw Error.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <vitrine/layers/activation.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

VITRINE_API Activation parse_activation(std::string_view name);  // timm's names; throws Error

// --- elementwise -----------------------------------------------------------------------------------------------
// b broadcasts to a: axes are aligned at the end, sizes of b are equal or 1. The result has a's shape and dtype.
VITRINE_API Tensor add(const Tensor& a, const Tensor& b);
VITRINE_API Tensor multiply(const Tensor& a, const Tensor& b);
VITRINE_API void add_(Tensor& a, const Tensor& b);  // in place; a may be a view
VITRINE_API void multiply_(Tensor& a, const Tensor& b);
VITRINE_API Tensor affine(const Tensor& x, float scale, float shift);  // scale x + shift
VITRINE_API Tensor exp(const Tensor& x);
VITRINE_API Tensor clamp(const Tensor& x, float low, float high);  // NaN stays
VITRINE_API Tensor activate(const Tensor& x, Activation activation);
VITRINE_API void activate_(Tensor& x, Activation activation);
// act(x[..., :C]) * x[..., C:], the gate of SwiGLU and GEGLU: [..., 2C] -> [..., C]
VITRINE_API Tensor gated_activation(const Tensor& x, Activation activation);

// --- data movement ---------------------------------------------------------------------------------------------
VITRINE_API Tensor cast(const Tensor& x, DType dtype);   // converts; floating to integer truncates
VITRINE_API void copy_(Tensor& to, const Tensor& from);  // same shape, any strides and dtypes
VITRINE_API Tensor concat(std::span<const Tensor> parts, int axis);
VITRINE_API Tensor permute(const Tensor& x, std::span<const int> axes);  // a contiguous copy with the axes reordered
// table [R, C], index i64/i32 [...] -> [..., C]. An index on the host is checked, whatever the table's device is; of one on a
// GPU, which nobody waits for, rows that do not exist come out with all bits set (NaN).
VITRINE_API Tensor gather_rows(const Tensor& table, const Tensor& index);
// table [R, C], index i32 [N] -> [R, N]: column index[n] of each row (position biases). The index is on the table's device and
// is not checked.
VITRINE_API Tensor gather_columns(const Tensor& table, const Tensor& index);
// The k largest values of the last axis and their indices (i64), in falling order; ties by the lower index.
VITRINE_API std::pair<Tensor, Tensor> top_k(const Tensor& x, std::int64_t k);
// [B, H, W, C] -> [B, (H / p_h) (W / p_w), p_h p_w C], a patch flattened row by row, channels innermost.
VITRINE_API Tensor patchify(const Tensor& images, std::int64_t patch_h, std::int64_t patch_w);
// [B, H, W, C] with zeros at the bottom and right, [B, height, width, C]; x itself where it has that size.
VITRINE_API Tensor pad_to(const Tensor& x, std::int64_t height, std::int64_t width);

// --- normalization ---------------------------------------------------------------------------------------------
// Over the last axis: (x - mean) / sqrt(var + eps) * weight + bias, statistics in f32. weight and bias f32 [C] or
// undefined. `scale`, `shift` (adaLN), if defined, [B, C] with x [B, ..., C]: the result times (1 + scale) plus shift.
VITRINE_API Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps, const Tensor& scale = {},
                              const Tensor& shift = {});
VITRINE_API Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);
// In place; x may be a view (the heads of q in a fused projection).
VITRINE_API void layer_norm_(Tensor& x, const Tensor& weight, const Tensor& bias, double eps);
VITRINE_API void rms_norm_(Tensor& x, const Tensor& weight, double eps);
VITRINE_API void l2_normalize_(Tensor& x, double eps = 1e-12);
// x / sqrt(var + eps) * weight with the variance about the mean, of which there are C - 1 degrees of freedom (timm's SimpleNorm)
VITRINE_API Tensor simple_norm(const Tensor& x, const Tensor& weight, double eps);
// x [B, ..., C]: statistics of each image over C / groups channels and all positions; then, if given, a modulation by image
// and channel (diffusion), then the activation. In x's memory where nobody else holds it: a result is passed on, or moved.
struct GroupNormOptions {
  Activation activation = Activation::none;
  Tensor add{};             // [B, C]: added to x before the statistics
  Tensor scale{}, shift{};  // [B, C]: the normalized result times (1 + scale) plus shift
};
VITRINE_API Tensor group_norm(Tensor x, std::int64_t groups, const Tensor& weight, const Tensor& bias, double eps,
                              const GroupNormOptions& options = {});
// x [B, ..., C]: x + bias + weight x n with n the norm of each channel over the positions, divided by the channels' mean of these
// norms + eps (ConvNeXt V2). weight and bias f32 [C].
VITRINE_API Tensor global_response_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps = 1e-6);
VITRINE_API Tensor l2_normalize(const Tensor& x, double eps = 1e-12);  // x / max(|x|, eps) over the last axis
VITRINE_API Tensor softmax(const Tensor& x);                           // over the last axis

// --- pooling and resizing, channels-last -----------------------------------------------------------------------
VITRINE_API Tensor mean(const Tensor& x, int first, int last);  // over axes first..last, which must not be the last axis
struct Pool2d {
  std::int64_t kernel_h = 2, kernel_w = 2, stride_h = 2, stride_w = 2, pad_h = 0, pad_w = 0;
  bool count_include_pad = true;  // average pooling only
  bool ceil_mode = false;
  std::int64_t pad_end_h = -1, pad_end_w = -1;  // below zero: as pad_h, pad_w
};
VITRINE_API Tensor avg_pool2d(const Tensor& x, const Pool2d& pool);  // [B, H, W, C]
VITRINE_API Tensor max_pool2d(const Tensor& x, const Pool2d& pool);
// Means weighted by (1, 2, 1) x (1, 2, 1) around every stride-th position, the border mirrored without its edge (timm's
// BlurPool2d): [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), C]; H and W from 2.
VITRINE_API Tensor blur_pool2d(const Tensor& x, std::int64_t stride);
VITRINE_API Tensor adaptive_avg_pool2d(const Tensor& x, std::int64_t height, std::int64_t width);
// PyTorch's F.interpolate on [B, H, W, C]. bicubic is a = -0.75 (a = -0.5 with antialias, as in Pillow).
enum class ResizeMode : std::uint8_t { nearest, bilinear, bicubic };
struct Resize {
  ResizeMode mode = ResizeMode::bilinear;
  bool antialias = false;
  bool align_corners = false;
};
VITRINE_API Tensor resize(const Tensor& x, std::int64_t height, std::int64_t width, const Resize& options = {});

// --- sinusoids and rotary positions ----------------------------------------------------------------------------
// Times as sinusoids (diffusion): t floating [B] -> f32 [B, dim], cos(t f_k), then sin(t f_k), or the other way round, with f_k =
// exp(-ln(10000) k / divisor) for k < dim / 2; an odd dim ends in a zero. Rounded to f32 where published code does; its exp may
// differ in the last bit, which moves the angle of t = 1000 by 6e-5.
VITRINE_API Tensor sinusoids(const Tensor& t, std::int64_t dim, double divisor, bool cosines_first = true);
// x [B, N, heads, D] in place; sin, cos f32 [N, D]. x = x cos + rotate(x) sin with rotate either of neighboring pairs
// (x0, x1) -> (-x1, x0), or of halves (a, b) -> (-b, a).
enum class RotaryLayout : std::uint8_t { pairs, halves };
VITRINE_API void rotary_(Tensor& x, const Tensor& sin, const Tensor& cos, RotaryLayout layout);

}  // namespace vitrine
