#include <vitrine/attention2d/cuda/local_mma.h>

namespace vitrine::cuda::local {

void attend_f16(const Problem& p, const Tensor& shown) { attend_mma<half_bits>(p, shown); }

}  // namespace vitrine::cuda::local
