// A map [H, W] in groups of tokens that attend among themselves: windows, shifted and padded, and grids.
//
// Groups are lists of token indices, row-major, for grouped_attention. Windows: arXiv:2103.14030; blocks and grids of MaxViT:
// arXiv:2204.01697. Cost of the attention: H W N (D + Dv) multiply-adds a head, N = tokens of a group, so linear in the map.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include <vitrine/layers/export.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/size_cache.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine {

// Which comes first where a shifted map is not a multiple of the window. roll_then_pad: timm; pad_then_roll: Swin's detection
// and segmentation code, torchvision, transformers.
enum class WindowPad : std::uint8_t { roll_then_pad, pad_then_roll };

struct Partition {
  Tensor tokens;   // i32 [1, G, N]; -1: padding
  Tensor pattern;  // i32 [G]: the row of `regions` that a group has; undefined where there is no shift
  Tensor regions;  // i32 [P, N]: tokens of a group see each other where they are of one region
  bool is_padded = false;

  // What attention reads, on a device; `regions` stay, biases are made of them on the CPU.
  Partition to(Device device) const { return {tokens.to(device), pattern.to(device), regions, is_padded}; }
};

// The map is padded at the bottom and right to a multiple of `size`, and rolled up and left by `shift`.
VITRINE_API Partition partition_windows(std::int64_t height, std::int64_t width, const std::array<std::int64_t, 2>& size,
                                        const std::array<std::int64_t, 2>& shift = {0, 0},
                                        WindowPad pad = WindowPad::roll_then_pad);
// Group (a, b) has the tokens (a + i height / size, b + j width / size); height and width are multiples of size.
VITRINE_API Partition partition_grid(std::int64_t height, std::int64_t width, const std::array<std::int64_t, 2>& size);

// table [(2 sh - 1)(2 sw - 1), heads] -> f32 [1, heads, N, N]: of query (yq, xq) and key (yk, xk), row
// (yq - yk + sh - 1)(2 sw - 1) + xq - xk + sw - 1.
VITRINE_API Tensor relative_position_bias(const Tensor& table, const std::array<std::int64_t, 2>& size);
// A table for windows of another size: f32 [2 sh - 1, 2 sw - 1, heads], contiguous, -> [height, width, heads]. Offsets near the
// center keep their values, those outside spread geometrically, linear in between (timm's resize_rel_pos_bias_table).
VITRINE_API Tensor resample_relative_positions(const Tensor& table, std::int64_t height, std::int64_t width);
// w.relative_position_bias_table [(2 sh - 1)(2 sw - 1), heads], resampled from a stored one of another, square size.
VITRINE_API Tensor read_relative_position_table(const Weights& w, const std::array<std::int64_t, 2>& size, std::int64_t heads);
// bias [1, heads, N, N] or undefined -> f32 [P, heads or 1, N, N], -100 added between tokens of different regions.
VITRINE_API Tensor shifted_bias(const Tensor& bias, const Tensor& regions);

// [B, H, W, C] -> [B (H / h) (W / w), h w, C], for mechanisms that take windows of tokens: the map rolled up and left by `shift`,
// then cut into windows of h x w = size, which divides it. join_windows is the way back. Copies, unless there is one window.
VITRINE_API Tensor cut_windows(const Tensor& map, const std::array<std::int64_t, 2>& size,
                               const std::array<std::int64_t, 2>& shift = {0, 0});
VITRINE_API Tensor join_windows(const Tensor& windows, std::int64_t height, std::int64_t width,
                                const std::array<std::int64_t, 2>& size, const std::array<std::int64_t, 2>& shift = {0, 0});

// MaxViT's block or grid attention: qkv, attention in each group with relative position bias, proj.
enum class PartitionKind : std::uint8_t { block, grid };
// Of the checkpoints: table_by_head is [heads, 2 sh - 1, 2 sw - 1], by key - query (converted from TensorFlow).
// mlp: two layers of a network give the bias of each offset d from (sign(d) log(1 + |d|)) along both axes.
enum class RelativePosition : std::uint8_t { table, table_by_head, mlp, none };

struct PartitionAttentionConfig {
  std::int64_t dim = 0, head_dim = 32;
  std::int64_t attn_dim = 0, dim_out = 0;  // of all heads, of the projection; 0: dim
  PartitionKind partition = PartitionKind::block;
  std::array<std::int64_t, 2> size{7, 7};
  bool head_first = true;  // qkv's outputs are [heads, (q | k | v), head_dim], else [(q | k | v), heads, head_dim]
  bool qkv_bias = true;
  RelativePosition rel_pos = RelativePosition::table;
  std::int64_t rel_pos_hidden = 512;  // of mlp
};

// x [B, H, W, dim] -> [B, H, W, dim_out], H and W multiples of size; a size of the whole map is plain attention.
struct VITRINE_API PartitionAttention {
  PartitionAttention() = default;
  // w.qkv, w.rel_pos.relative_position_bias_table or w.rel_pos.mlp.fc1, .fc2, w.proj; `proj_options` may carry a layer scale. A
  // stored table of another, square size is resampled.
  PartitionAttention(const Weights& w, const PartitionAttentionConfig& config, const LinearOptions& proj_options = {});
  Tensor operator()(const Tensor& x, Tensor residual = {}) const;

  PartitionAttentionConfig config;
  Linear qkv, proj;
  Tensor bias;  // [1, heads, N, N]
  detail::SizeCache<Partition> partitions;
};

}  // namespace vitrine
