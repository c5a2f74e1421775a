// What libvitrine_cuda.so offers the mechanisms, as layers/cuda/backend.h does for the ops: a mechanism's NAME.cpp validates,
// makes the output, and lists a candidate `cuda` that calls this table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <vitrine/attention2d/feature_map.h>
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

// linear_attention() and channel_attention(): as cpu/linear_attention.h. Weights f32 [B, heads, tokens], sin and cos [tokens, D],
// contiguous, or undefined.
struct LinearArgs {
  const Tensor &q, &k, &v;
  FeatureMap query_map, key_map;
  float feature_scale;
  StateRule rule;
  float numerator, denominator, eps;
  const Tensor &key_weights, &query_weights, &sin, &cos;
  Tensor& out;
};

// What Flowformer makes of a flow, the sum x of sums over tokens.
enum class FlowShare : std::uint8_t { inverse, sigmoid, clamped };

// aggregated_attention(): the tables of its options, f32, contiguous.
struct AggregatedArgs {
  const Tensor &q, &k, &v, &pooled_k, &pooled_v;
  std::int64_t window;
  const Tensor &query_embedding, &temperature, &local_bias, &pool_bias, &learnable_tokens, &learnable_bias;
  Tensor& out;
};
constexpr std::int64_t kAggregatedDim = 512;  // the largest head
constexpr std::size_t kMostFocalLevels = 64;

// clang-format off: one op a line
#define VITRINE_CUDA_ATTENTION(op)                                                                                               \
  op(attention, (const AttentionArgs& args)) op(grouped_attention, (const GroupedArgs& args))                                    \
      op(region_means, (const RegionMeansArgs& args))                                                                            \
          op(products, (const Tensor& a, const Tensor& b, Tensor& y)) /* f32, [M, C] and [N, C] -> [M, N] */                     \
      op(routed_tokens,                                                                                                          \
         (const Tensor& tokens, const Tensor& routes, Tensor& keys)) /* i32 [1, R, N], [B, R, k] -> [B, R, k N] */               \
      op(halo_bias, (const Tensor& q, const Tensor& rel, bool is_of_rows, std::int64_t block, Tensor& bias)) /* as halo.cpp */   \
      op(window_boxes, (const WindowBoxesArgs& args)) op(                                                                        \
          head_gates, (std::int64_t shared, const Tensor& choice, const Tensor& groups, Tensor& gates)) /* as head_gates.cpp */  \
      op(merge_pairs,                                                                                                            \
         (const Tensor& sources, const Tensor& target, const Tensor& order, Tensor& pairs)) /* as token_merge.cpp */             \
      op(merge_tokens, (const MergeTokensArgs& args)) op(unmerge_tokens, (const Tensor& y, const Tensor& origin, Tensor& out))   \
          op(local_attention_tiles, (const LocalArgs& args)) /* heads up to kLocalTilesDim */                                    \
      op(local_attention_sm90, (const LocalArgs& args))      /* where lacks_sm90 has nothing to say */                           \
      op(local_attention,                                                                                                        \
         (const LocalArgs& args)) /* up to kLocalDim */ /* x [B, H W, heads, D] -> y [B, (H / f) (W / f), heads, D], blocks of f \
                                                           x f weighted and summed; weight f32 [f f] */                          \
      op(sum_blocks, (const Tensor& x, std::int64_t width, std::int64_t factor, const Tensor& weight, Tensor& y)) op(            \
          linear_attention, (const LinearArgs& args))                                                                            \
          op(feature_sums, (const Tensor& x, FeatureMap map, const Tensor& weights, Tensor& y)) op(                              \
              feature_dots,                                                                                                      \
              (const Tensor& x, FeatureMap map, const Tensor& u,                                                                 \
               Tensor& y)) /* flows [B, heads, tokens] = x.(total + e) -> share((x + e).(total + e) + e); total [B, heads, D] */ \
      op(flow_shares, (Tensor & flows, const Tensor& total,                                                                      \
                       FlowShare share)) /* x [B, N, C] in place, as cpu/linear_attention.h; added [N, C] or undefined */        \
      op(focus, (Tensor & x, const Tensor& added, const Tensor& inverse_scale, float power))                                     \
          op(aggregated_attention, (const AggregatedArgs& args)) /* as cpu/focal.h; up to kMostFocalLevels levels */             \
      op(gather_focal_levels, (std::span<const Tensor> levels, const Tensor& gates, const Tensor& whole, float scale,            \
                               Tensor& y)) op(add_depthwise, (Tensor & y, const Tensor& x, const Tensor& kernels,                \
                                                              const Tensor& bias)) /* y += x * kernels + bias, as depthwise.h */ \
      op(interleave, (const Tensor& a, const Tensor& b, Tensor& y)) /* [..., C] -> [..., 2 C], channel by channel; contiguous */ \
      op(sample_taps, (const Tensor& x, const Tensor& offsets, Tensor& y))
// clang-format on

struct AttentionOps {
  VITRINE_CUDA_ATTENTION(VITRINE_CUDA_POINTER)
  // The same as attention, by cuDNN's fused kernel (attention_cudnn.cpp), and why not; empty: it can.
  void (*attention_cudnn)(const AttentionArgs& args);
  std::string (*lacks_cudnn)(const AttentionArgs& args);
  // Why local_attention_sm90 cannot run, or (where nobody asks for it by name) should not; empty: it can.
  std::string (*lacks_sm90)(const LocalArgs& args, bool is_asked_for);
  std::string (*lacks_tiles)(const LocalArgs& args);  // the same of local_attention_tiles
};

VITRINE_API const AttentionOps& attention_ops();              // throws Error where there is no backend
VITRINE_API void set_attention_ops(const AttentionOps* ops);  // for tests; null: the library's own

}  // namespace vitrine::cuda

// The library's symbol: const vitrine::cuda::AttentionOps* vitrine_cuda_attention().
