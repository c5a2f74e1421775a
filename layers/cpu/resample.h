// The two passes of Pillow's resampling over 8-bit pixels, once an instruction set.
#pragma once

#include <cstdint>

namespace vitrine::cpu {

inline constexpr int kResamplePrecisionBits = 32 - 8 - 2;  // 8 bits of pixel, 2 of overshoot: sums stay within an int32
inline constexpr int kResampleRowPadding = 16;             // readable bytes that `horizontal` wants after a row

// Which source pixels each of `size` outputs takes and how much of them: weights[x * stride + k] of pixel first[x] + k for
// k < count[x]; zero from there to the stride, a multiple of 16.
struct ResampleTaps {
  std::int64_t size, stride;
  const std::int32_t *first, *count, *weights;
};

struct ResampleKernels {
  // One row: out[x * channels + c], x < taps.size.
  void (*horizontal)(const std::uint8_t* row, std::int64_t channels, const ResampleTaps& taps, std::uint8_t* out);
  // One output row from `count` rows that are `bytes` apart and long.
  void (*vertical)(const std::uint8_t* rows, std::int64_t bytes, const std::int32_t* weights, std::int64_t count,
                   std::uint8_t* out);
};

namespace scalar {
const ResampleKernels& resample_kernels();
}
#ifdef VITRINE_X86
namespace avx2 {
const ResampleKernels& resample_kernels();
}
namespace avx512 {
const ResampleKernels& resample_kernels();
}
#endif

}  // namespace vitrine::cpu
