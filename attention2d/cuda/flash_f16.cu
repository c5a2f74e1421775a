// Attention in f16: see flash_mma.h.
#include <vitrine/attention2d/cuda/flash_mma.h>

namespace vitrine::cuda::flash {

void attend_f16(const Problem& p, const Tensor& shown) { attend_mma<half_bits>(p, shown); }

}  // namespace vitrine::cuda::flash
