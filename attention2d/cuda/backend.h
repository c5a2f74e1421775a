// What libvitrine_cuda.so offers the mechanisms, as layers/cuda/backend.h does for the ops: a mechanism's NAME.cpp validates,
// makes the output, and lists a candidate `cuda` that calls this table.
#pragma once

#include <cstdint>

#include <vitrine/attention2d/grouped.h>
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

// grouped_attention(): lists of tokens are on the device, too.
struct GroupedArgs {
  const Tensor &q, &k, &v;
  float scale;
  const GroupedOptions& options;
  Tensor& out;  // zeros where a token may be in no group
};

struct RegionMeansArgs {
  const Tensor& x;  // [B, H, W, C]
  std::int64_t region_height, region_width;
  bool counts_padding;
  Tensor& means;  // f32 [B, regions, C]
};

// Of varied_window.h: f32 [B, windows, heads 2], (x, y) -> boxes f32 [B, windows, heads, 4].
struct WindowBoxesArgs {
  const Tensor &offset, &scale;
  std::int64_t height, width, window_height, window_width;
  Tensor& boxes;
};

// Of token_merge.h.
struct MergeTokensArgs {
  const Tensor &x, &destinations, &sources, &targets;
  std::int64_t count;
  Tensor &tokens, &origin;
};

// clang-format off
#define VITRINE_CUDA_ATTENTION(op) \
  op(attention, (const AttentionArgs& args)) \
  op(grouped_attention, (const GroupedArgs& args)) \
  op(region_means, (const RegionMeansArgs& args)) \
  op(products, (const Tensor& a, const Tensor& b, Tensor& y)) /* f32, [M, C] and [N, C] -> [M, N] */ \
  op(routed_tokens, (const Tensor& tokens, const Tensor& routes, Tensor& keys)) /* i32 [1, R, N], [B, R, k] -> [B, R, k N] */ \
  op(halo_bias, (const Tensor& q, const Tensor& rel, bool is_of_rows, std::int64_t block, Tensor& bias)) /* as halo.cpp */ \
  op(window_boxes, (const WindowBoxesArgs& args)) \
  op(head_gates, (std::int64_t shared, const Tensor& choice, const Tensor& groups, Tensor& gates)) /* as head_gates.cpp */ \
  op(merge_pairs, (const Tensor& sources, const Tensor& target, const Tensor& order, Tensor& pairs)) /* as token_merge.cpp */ \
  op(merge_tokens, (const MergeTokensArgs& args)) \
  op(unmerge_tokens, (const Tensor& y, const Tensor& origin, Tensor& out))
// clang-format on

struct AttentionOps {
  VITRINE_CUDA_ATTENTION(VITRINE_CUDA_POINTER)
};

VITRINE_API const AttentionOps& attention_ops();              // throws Error where there is no backend
VITRINE_API void set_attention_ops(const AttentionOps* ops);  // for tests; null: the library's own

}  // namespace vitrine::cuda

// The library's symbol: const vitrine::cuda::AttentionOps* vitrine_cuda_attention().
