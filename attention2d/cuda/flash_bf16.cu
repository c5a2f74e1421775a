// Attention in bf16: see flash_mma.h.
#include <vitrine/attention2d/cuda/flash_mma.h>

namespace vitrine::cuda::flash {

void attend_bf16(const Problem& p, const Tensor& shown) { attend_mma<bfloat_bits>(p, shown); }

}  // namespace vitrine::cuda::flash
