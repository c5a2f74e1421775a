#include <vitrine/attention2d/cuda/local_mma.h>

namespace vitrine::cuda::local {

void attend_bf16(const Problem& p, const Tensor& shown) { attend_mma<bfloat_bits>(p, shown); }

}  // namespace vitrine::cuda::local
