// The choice of each kernel family's table, and what the scalar target takes from the library proper.
#include <bit>

#include <vitrine/layers/cpu/copy.h>
#include <vitrine/layers/cpu/depthwise.h>
#include <vitrine/layers/cpu/elementwise.h>
#include <vitrine/layers/cpu/linear_kernels.h>
#include <vitrine/layers/cpu/mix.h>
#include <vitrine/layers/cpu/norm.h>
#include <vitrine/layers/cpu/pool.h>
#include <vitrine/layers/dtype.h>

namespace vitrine::cpu {

VITRINE_DEFINE_KERNEL_TABLE(CopyKernels, copy_kernels)
VITRINE_DEFINE_KERNEL_TABLE(DepthwiseKernels, depthwise_kernels)
VITRINE_DEFINE_KERNEL_TABLE(ElementwiseKernels, elementwise_kernels)
VITRINE_DEFINE_KERNEL_TABLE(LinearKernels, linear_kernels)
VITRINE_DEFINE_KERNEL_TABLE(MixKernels, mix_kernels)
VITRINE_DEFINE_KERNEL_TABLE(NormKernels, norm_kernels)
VITRINE_DEFINE_KERNEL_TABLE(PoolKernels, pool_kernels)

namespace scalar {

float f16_to_float(std::uint16_t h) { return static_cast<float>(std::bit_cast<float16>(h)); }
std::uint16_t float_to_f16(float f) { return float16(f).bits; }

}  // namespace scalar

}  // namespace vitrine::cpu
