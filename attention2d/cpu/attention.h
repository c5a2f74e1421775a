// The tiled attention kernel: what one run of it needs, as raw pointers and strides (in elements), and its targets.
#pragma once

#include <cstdint>

namespace vitrine::cpu {

enum class FloatType : std::uint8_t { f32, bf16, f16 };

// Token n of head h of image i of a tensor is the row of elements at
//   data + image_offset[i] + h * head + (n / columns) * row + (n % columns) * column.
struct TokenView {
  const void* data = nullptr;
  const std::int64_t* image_offset = nullptr;
  std::int64_t head = 0, row = 0, column = 0, columns = 1;
};

// A bias of a query's logits that is a vector: at data + image * .. + token * .. + head * ...
struct AxisBias {
  const float* data = nullptr;
  std::int64_t image = 0, token = 0, head = 0;
};

struct FlashProblem {
  TokenView q, k, v, out;
  FloatType type = FloatType::f32;  // of all four
  std::int64_t images = 0, heads = 0, key_heads = 0, queries = 0, keys = 0, dim = 0, value_dim = 0;
  float scale = 1;
  bool is_causal = false;
  // Added to the scaled logits; a byte per key, 0: not seen. Either may be null; steps of broadcast axes are 0.
  const float* bias = nullptr;
  std::int64_t bias_image = 0, bias_head = 0, bias_row = 0;
  const std::uint8_t* mask = nullptr;
  std::int64_t mask_image = 0, mask_head = 0, mask_row = 0;

  // Groups: `queries` and `keys` are those of one group, given by lists of token indices, the token axis of the views being
  // their columns. Without lists there is one group, of all tokens in order.
  std::int64_t groups = 1;
  const std::int32_t* query_index = nullptr;  // [images][groups][queries], negative: nothing to compute
  const std::int32_t* key_index = nullptr;    // [images][groups][keys], negative: the padding key
  std::int64_t query_index_image = 0, key_index_image = 0;
  const void *pad_key = nullptr, *pad_value = nullptr;  // rows of dim and value_dim elements a head
  std::int64_t pad_key_head = 0, pad_value_head = 0;
  const std::int32_t* pattern = nullptr;  // [groups]: which table of `bias`; null: the first
  std::int64_t bias_pattern = 0;
  AxisBias row_bias, column_bias;  // of key r * columns + c: element r of one, c of the other; both or neither
  std::int64_t columns = 1;

  // Instead of key_index: keys that lie between the tokens of a map, on a grid. Key r * box_columns + c of a group and key head
  // is at (top + r * row step, left + c * column step), k and v are bilinear there, with zeros around the map.
  const float* boxes = nullptr;  // [images][groups][key_heads] x (top, left, row step, column step)
  std::int64_t box_columns = 1, map_height = 0, map_width = 0;

  const float* head_scale = nullptr;  // [heads], a further factor of the logits; may be null
  bool is_cosine = false;             // logits are of q / max(|q|, 1e-12) and k / max(|k|, 1e-12)
};

constexpr std::int64_t kFlashMaxDim = 512;

// A kernel whose work is split into items: any thread may run any range of them, and results do not depend on the split.
template <typename Problem>
struct ItemKernel {
  std::int64_t (*items)(const Problem&);
  std::int64_t (*workspace_bytes)(const Problem&);  // of one thread, 64-byte aligned
  void (*run)(const Problem&, std::int64_t begin, std::int64_t end, void* workspace);
};

// Each target's version of it.
#define VITRINE_ITEM_KERNEL(Kernel, function) \
  namespace scalar {                          \
  Kernel function();                          \
  }                                           \
  namespace avx2 {                            \
  Kernel function();                          \
  }                                           \
  namespace avx512 {                          \
  Kernel function();                          \
  }                                           \
  namespace avx512_bf16 {                     \
  Kernel function();                          \
  }

// Items: (image, group, head, tile of queries), in this order.
using FlashKernel = ItemKernel<FlashProblem>;
VITRINE_ITEM_KERNEL(FlashKernel, flash_kernel)

}  // namespace vitrine::cpu
