#include <vitrine/attention2d/cpu/launch.h>

#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/memory.h>

namespace vitrine::cpu {

namespace {

// The target's version of a function that each target's namespace has.
#if defined(VITRINE_X86)
#define VITRINE_PICK(isa, function)                    \
  ((isa) >= Isa::avx512_bf16 ? avx512_bf16::function() \
   : (isa) == Isa::avx512    ? avx512::function()      \
   : (isa) == Isa::avx2      ? avx2::function()        \
                             : scalar::function())
#else
#define VITRINE_PICK(isa, function) (static_cast<void>(isa), scalar::function())
#endif

template <typename Kernel, typename Problem>
void launch(const Kernel& kernel, const Problem& problem) {
  const auto bytes = static_cast<std::size_t>(kernel.workspace_bytes(problem));
  parallel_for(kernel.items(problem), 1, [&](std::int64_t begin, std::int64_t end) {
    const auto workspace = allocate(bytes);
    kernel.run(problem, begin, end, workspace.get());
  });
}

}  // namespace

FloatType float_type(DType dtype) {
  return dtype == DType::bf16 ? FloatType::bf16 : dtype == DType::f16 ? FloatType::f16 : FloatType::f32;
}

void aggregated_attention(Isa isa, const AggregatedProblem& problem) { launch(VITRINE_PICK(isa, aggregated_kernel), problem); }

void flash_attention(Isa isa, const FlashProblem& problem) { launch(VITRINE_PICK(isa, flash_kernel), problem); }

void local_attention(Isa isa, const LocalProblem& problem) { launch(VITRINE_PICK(isa, local_kernel), problem); }

void gather_focal_levels(Isa isa, const FocalProblem& problem) { launch(VITRINE_PICK(isa, focal_kernel), problem); }

void neighborhood_attention(Isa isa, const NeighborhoodProblem& problem) {
  launch(VITRINE_PICK(isa, neighborhood_kernel), problem);
}

}  // namespace vitrine::cpu
