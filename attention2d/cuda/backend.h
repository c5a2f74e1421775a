// What libvitrine_cuda.so offers the mechanisms, as layers/cuda/backend.h does for the ops: a mechanism's NAME.cpp validates,
// makes the output, and lists a candidate `cuda` that calls this table.
#pragma once

#include <cstdint>

#include <vitrine/layers/cuda/backend.h>
#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::cuda {

// attention(): see AttentionOptions for what the tensors are; those that are not given are undefined.
struct AttentionArgs {
  const Tensor &q, &k, &v;
  float scale;
  bool is_causal;
  const Tensor &bias, &distance_bias, &mask;
  Tensor& out;
};

#define VITRINE_CUDA_ATTENTION(op) op(attention, (const AttentionArgs& args))

struct AttentionOps {
  VITRINE_CUDA_ATTENTION(VITRINE_CUDA_POINTER)
};

VITRINE_API const AttentionOps& attention_ops();              // throws Error where there is no backend
VITRINE_API void set_attention_ops(const AttentionOps* ops);  // for tests; null: the library's own

}  // namespace vitrine::cuda

// The library's symbol: const vitrine::cuda::AttentionOps* vitrine_cuda_attention().
