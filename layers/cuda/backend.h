// What libvitrine_cuda.so offers the op set. The ops of layers/ops.h check their arguments and make their results; for tensors on
// a GPU they then call this table. The library is loaded when a CUDA device is first asked for, so that nothing else of Vitrine
// needs CUDA's libraries; the tests put a table of their own here, whose kernels run on the host (tests/cuda_host).
//
// No function waits for the GPU: work is queued on the stream of the calling thread's context.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include <vitrine/layers/devices.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/map_axis.h>
#include <vitrine/layers/memory.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/packed.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::cuda {

enum class Binary : std::uint8_t { add, multiply };
enum class RowNorm : std::uint8_t { layer_norm, rms_norm, simple_norm, l2_normalize };

struct GroupNormArgs {
  std::int64_t groups;
  const Tensor &weight, &bias;  // f32 [C] or undefined
  double eps;
  const Tensor &add, &scale, &shift;  // f32 [B, C], contiguous, or undefined
  Activation activation;
};

// Memory and devices.
struct Runtime {
  CudaDevices (*devices)();
  // Throws Error, which says how much was asked for and is free, where there is no more.
  std::shared_ptr<void> (*allocate)(std::size_t bytes, Device device);
  // Between the host and a device, or on one. Where the host is the target, the bytes are there on return.
  void (*copy)(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes);
  void (*set_zero)(void* to, std::size_t bytes, Device device);
  void (*synchronize)(Device device);  // waits for the context's stream
  MemoryStats (*memory)(Device device);
  void (*reset_peak_memory)(Device device);
  // Recording, for layers/repeated_pass.h. The stream of the calling thread's context, which replays are queued on; whoever holds
  // it keeps it from being made again at the same address.
  std::shared_ptr<const void> (*stream)(Device device);
  // From here to end_recording what the calling thread gives the stream is not done but recorded. Tensors that are made meanwhile
  // must go before the end; those from before that go meanwhile are given back at the end. What waits throws Error.
  void (*begin_recording)(Device device);
  // What was recorded, or null where it is not kept. Throws Error where something could not be recorded; the recording has ended
  // in each case, and the stream works as before.
  std::shared_ptr<void> (*end_recording)(Device device, bool keeps);
  void (*replay)(void* recorded, Device device);  // on the stream of the calling thread's context
};

// op(name, arguments): each is void name(arguments). Tensors are on one device, shapes are right; x may be a view unless it says
// otherwise, y is what the op has made or was given.
#define VITRINE_CUDA_OPS(op)                                                                                                     \
  op(binary, (Binary kind, const Tensor& a, const Tensor& b, const Shape& b_strides, Tensor& y))                                 \
      op(affine, (const Tensor& x, float scale, float shift, Tensor& y))                                                         \
          op(activate, (const Tensor& x, Activation activation, Tensor& y)) op(exp, (const Tensor& x, Tensor& y))                \
              op(clamp, (const Tensor& x, float low, float high, Tensor& y))                                                     \
                  op(sinusoids, (const Tensor& t, float log_base, float divisor, bool cosines_first, Tensor& y))                 \
                      op(gated_activation, (const Tensor& gate, const Tensor& value, Activation activation, Tensor& y))          \
                          op(rotary, (Tensor & x, const Tensor& sin, const Tensor& cos,                                          \
                                      RotaryLayout layout)) /* any dtypes; from has its own strides, whose last need not be 1 */ \
      op(copy, (const Tensor& from, const Shape& from_strides, Tensor& to))                                                      \
          op(gather_rows, (const Tensor& table, const Tensor& index, Tensor& y)) /* index i64, contiguous */ op(                 \
              gather_columns, (const Tensor& table, const Tensor& index, Tensor& y))                                             \
              op(top_k, (const Tensor& x, std::int64_t k, Tensor& values, Tensor& index)) /* x f32 [rows, n], contiguous */      \
      op(row_norm, (RowNorm kind, const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, Tensor& y))              \
          op(modulated_layer_norm, (const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, const Tensor& scale,   \
                                    const Tensor& shift, Tensor& y)) /* scale, shift f32 [B, C], contiguous, or undefined */     \
      op(softmax, (const Tensor& x, Tensor& y)) op(mean, (const Tensor& x, Tensor& y)) /* x [B, P, C], contiguous, y [B, C] */   \
      op(group_norm, (const Tensor& x, const GroupNormArgs& args, Tensor& y))          /* x [B, P, C], contiguous; y may be x */ \
      op(global_response_norm, (const Tensor& x, const Tensor& weight, const Tensor& bias, double eps, Tensor& y)) /* as x */    \
      op(pool, (const Tensor& x, const detail::PoolAxis& rows, const detail::PoolAxis& columns, bool is_max, Tensor& y))         \
          op(resize, (const Tensor& x, const detail::ResizeAxis& rows, const detail::ResizeAxis& columns, Tensor& y))            \
              op(resize_nearest, (const Tensor& x, Tensor& y))                                                                   \
                  op(mix_rows, (Tensor & y, const Tensor& matrix, const Tensor& x, bool adds))

#define VITRINE_CUDA_DECLARE(name, arguments) void name arguments;
#define VITRINE_CUDA_POINTER(name, arguments) void(*name) arguments;

struct Ops {
  VITRINE_CUDA_OPS(VITRINE_CUDA_POINTER)
  // Weights on the host, f32; what comes back holds them on the device.
  std::unique_ptr<const detail::PackedLinear> (*pack_linear)(const Tensor& weight, const Tensor& bias, DType dtype,
                                                             Device device);
  std::unique_ptr<const detail::PackedConv> (*pack_conv)(const detail::ConvShape& shape, const Tensor& weight, const Tensor& bias,
                                                         DType dtype, Device device);
};

struct Backend {
  std::string_view version;  // of Vitrine, which must be the loader's
  const Runtime& runtime;
  const Ops& ops;
};

// The backend in force; loads the library at the first call. Throws Error with the reason where there is none.
VITRINE_API const Backend& backend();
VITRINE_API std::string_view why_no_backend();         // empty: there is one
VITRINE_API void set_backend(const Backend* backend);  // for tests; null: the library's own

// A further table of the same library (attention2d/cuda/backend.h): its function `name`, or null where the library has none.
VITRINE_API void* library_symbol(const char* name);

inline bool is_on_gpu(const Tensor& x) { return x.device().type == DeviceType::cuda; }

}  // namespace vitrine::cuda

// Its symbol: const vitrine::cuda::Backend* vitrine_cuda_backend().
