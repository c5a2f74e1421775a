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

// Queries of a grid that see a part of it around them. q, k, v, out [B, 1 to 3 axes, heads, channels]; what is seen follows from
// positions, so that no table of windows is ever made.
struct LocalAxis {
  enum class Window : std::uint8_t {
    slides,  // kernel keys of the query's residue class of the dilation, the group's of `stride` queries; inside of the axis
    causal,  // the same, but none behind the query
    reach,   // up to kernel - 1 positions to both sides
  };
  Window window = Window::slides;
  std::int64_t kernel = 1, dilation = 1, stride = 1;
};
struct LocalArgs {
  const Tensor &q, &k, &v;
  const LocalAxis (&axes)[3];  // as many as the tensors have, slowest first
  std::int64_t radius;         // > 0: only keys with dy^2 + dx^2 < radius^2 on the last two axes
  float scale;
  const Tensor& rpb;                // f32 [heads, 2 kernel - 1, 2 kernel - 1] of the last two axes, or undefined
  const Tensor &extra_k, &extra_v;  // [B, N, key heads, channels], which all queries see, or undefined
  Tensor& out;
};

constexpr std::int64_t kLocalTilesDim = 128, kLocalDim = 512;  // the largest heads of either kernel

#define VITRINE_CUDA_ATTENTION(op)                                                                                              \
  op(attention, (const AttentionArgs& args)) /* heads up to kLocalTilesDim, and up to kLocalDim */                              \
      op(local_attention_tiles, (const LocalArgs& args))                                                                        \
          op(local_attention, (const LocalArgs& args)) /* x [B, H W, heads, D] -> y [B, (H / f) (W / f), heads, D], blocks of f \
                                                          x f weighted and summed; weight f32 [f f] */                          \
      op(sum_blocks, (const Tensor& x, std::int64_t width, std::int64_t factor, const Tensor& weight, Tensor& y))

struct AttentionOps {
  VITRINE_CUDA_ATTENTION(VITRINE_CUDA_POINTER)
};

VITRINE_API const AttentionOps& attention_ops();              // throws Error where there is no backend
VITRINE_API void set_attention_ops(const AttentionOps* ops);  // for tests; null: the library's own

}  // namespace vitrine::cuda

// The library's symbol: const vitrine::cuda::AttentionOps* vitrine_cuda_attention().
