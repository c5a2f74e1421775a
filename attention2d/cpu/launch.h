// Host side of the attention kernels: the target's kernel, threads and workspaces.
#pragma once

#include <cstdint>

#include <vitrine/attention2d/cpu/aggregated.h>
#include <vitrine/attention2d/cpu/attention.h>
#include <vitrine/attention2d/cpu/focal.h>
#include <vitrine/attention2d/cpu/local.h>
#include <vitrine/attention2d/cpu/neighborhood.h>
#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/dtype.h>

namespace vitrine::cpu {

FloatType float_type(DType dtype);  // of f32, bf16, f16

void aggregated_attention(Isa isa, const AggregatedProblem& problem);
void flash_attention(Isa isa, const FlashProblem& problem);
void local_attention(Isa isa, const LocalProblem& problem);
void gather_focal_levels(Isa isa, const FocalProblem& problem);
void neighborhood_attention(Isa isa, const NeighborhoodProblem& problem);

}  // namespace vitrine::cpu
