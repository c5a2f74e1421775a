#include <vitrine/attention2d/cpu/launch.h>

#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/memory.h>

namespace vitrine::cpu {

namespace {

FlashKernel flash_kernel_of([[maybe_unused]] Isa isa) {
#if defined(VITRINE_X86)
  if (isa >= Isa::avx512_bf16) return avx512_bf16::flash_kernel();
  if (isa == Isa::avx512) return avx512::flash_kernel();
  if (isa == Isa::avx2) return avx2::flash_kernel();
#endif
  return scalar::flash_kernel();
}

}  // namespace

FloatType float_type(DType dtype) {
  return dtype == DType::bf16 ? FloatType::bf16 : dtype == DType::f16 ? FloatType::f16 : FloatType::f32;
}

void flash_attention(Isa isa, const FlashProblem& problem) {
  const FlashKernel kernel = flash_kernel_of(isa);
  const auto bytes = static_cast<std::size_t>(kernel.workspace_bytes(problem));
  parallel_for(kernel.items(problem), 1, [&](std::int64_t begin, std::int64_t end) {
    const auto workspace = allocate(bytes);
    kernel.run(problem, begin, end, workspace.get());
  });
}

}  // namespace vitrine::cpu
