// What the kernels of attention share: a launch's problem, where a part's rows lie, what is done to logits.
#pragma once

#include <vitrine/layers/cuda/launch.h>
#include <vitrine/layers/cuda/math.h>

namespace vitrine::cuda::flash {

// Strides in elements of [image, token, head, channels]. Rows may be copied by 16 bytes where they are aligned.
struct View {
  const void* data;
  std::int64_t image, token, head;
  bool is_aligned;
};

// A bias that is a vector a token and head.
struct AxisBias {
  const float* data;
  std::int64_t image, token, head;
};

// As cpu/attention.h has it: queries and keys are those of a group; without lists there is one group, of all tokens in order.
struct Problem {
  const char* op;  // for messages of the launch
  std::int64_t images, groups, heads, key_heads;
  std::int64_t tokens, key_tokens;  // of q, and of k and v
  int queries, keys, dim, value_dim;
  View q, k, v, out;
  float scale;
  bool is_causal;
  const float* bias;
  std::int64_t bias_image, bias_head, bias_row, bias_pattern;
  const std::int32_t* pattern;
  const std::uint8_t* mask;
  std::int64_t mask_image, mask_head, mask_row;
  const std::int32_t *query_index, *key_index;
  std::int64_t query_index_image, key_index_image;
  const void *pad_key, *pad_value;  // null: zeros
  std::int64_t pad_key_head, pad_value_head;
  AxisBias row_bias, column_bias;
  int columns;
  const float* boxes;
  int box_columns, map_height, map_width;
  const float* head_scale;
  bool is_cosine;

  // Whether logits are products times one positive factor.
  bool is_plain() const { return !bias && !mask && !row_bias.data && !head_scale && !is_cosine && scale > 0; }
  std::int64_t parts() const { return images * groups * heads; }
};

constexpr int kTiledDim = 128;  // the largest head of the tiled kernels

// The tiled kernels by type; `shown` is for messages.
void attend_f32(const Problem& p, const Tensor& shown);
void attend_f16(const Problem& p, const Tensor& shown);
void attend_bf16(const Problem& p, const Tensor& shown);

// A head of a group of an image.
struct Part {
  std::int64_t image, group, head, key_head;
};
VITRINE_DEVICE Part part_of(const Problem& p, std::int64_t i) {
  const std::int64_t groups = i / p.heads, head = i - groups * p.heads, image = groups / p.groups;
  return {image, groups - image * p.groups, head, head / (p.heads / p.key_heads)};
}

// The token of query i, below zero where there is nothing to compute. Lists on a GPU were not checked on the way here: what is no
// token is nothing, and for keys padding.
VITRINE_DEVICE std::int64_t query_token(const Problem& p, const Part& part, int i) {
  if (i >= p.queries) return -1;
  if (!p.query_index) return i;
  const std::int32_t token = p.query_index[part.image * p.query_index_image + part.group * p.queries + i];
  return token < p.tokens ? token : -1;
}

template <typename T>
VITRINE_DEVICE const T* row_at(const View& view, std::int64_t image, std::int64_t head, std::int64_t token) {
  return static_cast<const T*>(view.data) + image * view.image + head * view.head + token * view.token;
}

// The row of key j of k or v; null: zeros.
template <typename T>
VITRINE_DEVICE const T* key_row(const Problem& p, const Part& part, const View& view, const void* pad, std::int64_t pad_head,
                                int j) {
  if (j >= p.keys) return nullptr;
  std::int64_t token = j;
  if (p.key_index) token = p.key_index[part.image * p.key_index_image + part.group * p.keys + j];
  if (token >= 0 && token < p.key_tokens) return row_at<T>(view, part.image, part.key_head, token);
  return pad ? static_cast<const T*>(pad) + part.key_head * pad_head : nullptr;
}

// The four tokens around key j of a box, and their shares; shares of zero have no token.
struct Taps {
  std::int64_t token[4];
  float share[4];
};
VITRINE_DEVICE Taps taps_of(const Problem& p, const Part& part, int j) {
  Taps taps{};
  if (j >= p.keys) return taps;
  const float* box = p.boxes + ((part.image * p.groups + part.group) * p.key_heads + part.key_head) * 4;
  const int row = j / p.box_columns;
  const float y = box[0] + static_cast<float>(row) * box[2];
  const float x = box[1] + static_cast<float>(j - row * p.box_columns) * box[3];
  // written so that NaN is outside, too
  if (!(y > -1.0f && y < static_cast<float>(p.map_height) && x > -1.0f && x < static_cast<float>(p.map_width))) return taps;
  const int top = static_cast<int>(y + 1.0f) - 1, left = static_cast<int>(x + 1.0f) - 1;
  const float down = y - static_cast<float>(top), right = x - static_cast<float>(left);
  for (int tap = 0; tap < 4; ++tap) {
    const int ty = top + tap / 2, tx = left + tap % 2;
    if (ty < 0 || ty >= p.map_height || tx < 0 || tx >= p.map_width) continue;
    taps.token[tap] = std::int64_t{ty} * p.map_width + tx;
    taps.share[tap] = (tap / 2 ? down : 1.0f - down) * (tap % 2 ? right : 1.0f - right);
  }
  return taps;
}
template <typename T>
VITRINE_DEVICE float blend(const Taps& taps, const T* rows, std::int64_t token_stride, int channel) {
  float sum = 0;
  for (int tap = 0; tap < 4; ++tap)
    if (taps.share[tap] != 0.0f) sum += taps.share[tap] * to_float(rows[taps.token[tap] * token_stride + channel]);
  return sum;
}

// What the logits of one query are but for the product and the key's norm.
struct LogitRow {
  float scale;
  const float* bias;
  const std::uint8_t* mask;
  const float *row_bias, *column_bias;
};
VITRINE_DEVICE LogitRow logit_row(const Problem& p, const Part& part, int i, std::int64_t token) {
  LogitRow row{p.head_scale ? p.scale * p.head_scale[part.head] : p.scale, nullptr, nullptr, nullptr, nullptr};
  if (token < 0) return row;
  if (p.bias)
    row.bias = p.bias + part.image * p.bias_image + part.head * p.bias_head + i * p.bias_row +
               (p.pattern ? p.pattern[part.group] * p.bias_pattern : 0);
  if (p.mask) row.mask = p.mask + part.image * p.mask_image + part.head * p.mask_head + i * p.mask_row;
  if (p.row_bias.data) {
    const AxisBias &r = p.row_bias, &c = p.column_bias;
    row.row_bias = r.data + part.image * r.image + token * r.token + part.head * r.head;
    row.column_bias = c.data + part.image * c.image + token * c.token + part.head * c.head;
  }
  return row;
}
VITRINE_DEVICE float logit(const Problem& p, const LogitRow& row, int j, float product) {
  float value = product * row.scale;
  if (row.bias) value += row.bias[j];
  if (row.row_bias) {
    const int at = j / p.columns;
    value += row.row_bias[at] + row.column_bias[j - at * p.columns];
  }
  return row.mask && !row.mask[j] ? -infinity() : value;
}

VITRINE_DEVICE float inverse_norm(float sum_of_squares) {
  const float norm = sqrt_of(sum_of_squares);
  return 1.0f / (norm < 1e-12f ? 1e-12f : norm);
}

constexpr float kLog2e = 1.44269504088896341f;

// Maximum and sum of a row's weights so far; the weight of a logit l is 2^(unit l - base).
struct RowState {
  float largest, sum;  // begin at -infinity and 0

  struct Step {
    float base, fade;  // fade: what was summed before counts so much
  };
  VITRINE_DEVICE Step advance(float block_largest, float unit) {
    const float next = larger(block_largest, largest);
    const float base = next == -infinity() ? 0.0f : next * unit;  // nothing seen yet: all weights are zero
    const float fade = exp2_of(largest * unit - base);
    largest = next;
    sum *= fade;
    return {base, fade};
  }
  VITRINE_DEVICE float factor() const { return sum == 0.0f ? 0.0f : 1.0f / sum; }
};

}  // namespace vitrine::cuda::flash
