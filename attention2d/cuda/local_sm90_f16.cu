#include <vitrine/attention2d/cuda/local_sm90.h>

namespace vitrine::cuda::local {

void attend_sm90_f16(const Problem& p, const Sm90Maps& maps, const Tensor& shown) {
  sm90::launch_attention<half_bits>(p, maps, shown);
}

}  // namespace vitrine::cuda::local
