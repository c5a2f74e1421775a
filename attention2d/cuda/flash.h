// Attention of all tokens and of groups of them: a launch's problem, where a part's rows lie, what is done to logits.
//
// Rows of a tile are found through the lists of tokens: windows, grids, halos and routed regions are read where they lie. What
// bounds it: long sequences the tensor cores (4 n^2 d operations), and before them the exponentials, one for every 4 d
// operations; windows, whose keys are one step, reading q, k, v and writing out once. Fewer queries than 64 take fewer warps,
// fewer keys fewer columns of 16: a window of 4 x 4 tokens costs a sixteenth of a whole tile.
#pragma once

#include <vitrine/attention2d/cuda/tiles.h>

namespace vitrine::cuda::flash {

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
// A row between tokens.
template <typename T>
struct Blend {
  Taps taps;
  const T* map;
  std::int64_t token;  // stride

  explicit VITRINE_DEVICE operator bool() const { return true; }
  VITRINE_DEVICE float operator[](int channel) const {
    float sum = 0;
    for (int tap = 0; tap < 4; ++tap)
      if (taps.share[tap] != 0.0f) sum += taps.share[tap] * to_float(map[taps.token[tap] * token + channel]);
    return sum;
  }
};

// What else a kernel looks at beside products: nothing, all that changes logits, and that with keys from boxes.
enum class Extras { none, logits, boxes };

// Key j's row of k or v.
template <typename T, Extras kExtras>
VITRINE_DEVICE auto key_of(const Problem& p, const Part& part, int j) {
  if constexpr (kExtras == Extras::boxes)
    return Blend<T>{taps_of(p, part, j), row_at<T>(p.k, part.image, part.key_head, 0), p.k.axis[2]};
  else
    return key_row<T>(p, part, p.k, p.pad_key, p.pad_key_head, j);
}
template <typename T, Extras kExtras>
VITRINE_DEVICE auto value_of(const Problem& p, const Part& part, int j) {
  if constexpr (kExtras == Extras::boxes)
    return Blend<T>{taps_of(p, part, j), row_at<T>(p.v, part.image, part.key_head, 0), p.v.axis[2]};
  else
    return key_row<T>(p, part, p.v, p.pad_value, p.pad_value_head, j);
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
  if (token < 0) {  // a row that can be read: what comes of it is dropped
    i = 0;
    token = 0;
  }
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
// Products of a query and key j become logits: each(change) calls change(x, row, j) for all of a thread's. One change of all
// after the other, as each has its question whether it is to be made.
template <typename Each>
VITRINE_DEVICE void make_logits(const Problem& p, const Each& each) {
  each([](float& x, const LogitRow& row, int) { x *= row.scale; });
  if (p.bias) each([](float& x, const LogitRow& row, int j) { x += row.bias[j]; });
  if (p.row_bias.data)
    each([&p](float& x, const LogitRow& row, int j) {
      const int at = j / p.columns;
      x += row.row_bias[at] + row.column_bias[j - at * p.columns];
    });
  if (p.mask)
    each([](float& x, const LogitRow& row, int j) {
      if (!row.mask[j]) x = -infinity();
    });
}
VITRINE_DEVICE float logit(const Problem& p, const LogitRow& row, int j, float product) {
  make_logits(p, [&](const auto& change) { change(product, row, j); });
  return product;
}

// A tile of queries of a part, as tiles.h has it; kRows: of a thread.
template <typename Element, Extras kExtras, int kRows>
class Block {
 public:
  using Problem = flash::Problem;
  using T = Element;
  static constexpr bool kIsFull = false, kIsShort = true;
  static constexpr std::size_t bytes(int rows) { return static_cast<std::size_t>(rows + kTile) * sizeof(float); }

  VITRINE_DEVICE Block(const Problem& p, int rows, std::byte* memory)
      : p_(p), q_norm_(reinterpret_cast<float*>(memory)), k_norm_(q_norm_ + rows) {
    const int tiles = (p.queries + rows - 1) / rows;
    const std::int64_t part = std::int64_t{block_index().x} / tiles;
    const int turn = static_cast<int>(block_index().x - part * tiles);
    part_ = part_of(p, part);
    first_query_ = (p.is_causal ? tiles - 1 - turn : turn) * rows;  // the longest first
    end_ = p.is_causal ? least(least(first_query_ + rows, p.queries), p.keys) : p.keys;
  }
  VITRINE_DEVICE bool is_there() const { return true; }

  VITRINE_DEVICE const T* query(int r) const { return row(p_.q, r); }
  VITRINE_DEVICE T* out(int r) const { return const_cast<T*>(row(p_.out, r)); }

  VITRINE_DEVICE bool go_on() {
    first_ += kTile;
    return first_ < end_;
  }
  VITRINE_DEVICE int keys() const { return least(end_ - first_, kTile); }
  VITRINE_DEVICE auto key(int j) const {
    return [this, j](int more) { return key_of<T, kExtras>(p_, part_, first_ + j + more); };
  }
  VITRINE_DEVICE auto value(int j) const {
    return [this, j](int more) { return value_of<T, kExtras>(p_, part_, first_ + j + more); };
  }

  VITRINE_DEVICE void keys_are_coming() const {}
  VITRINE_DEVICE void queries_are_there(const T* tile, int rows, int pitch) const { make_norms(tile, rows, pitch, q_norm_); }
  VITRINE_DEVICE void take_row(int r, int of_tile) {
    const int i = query_[r] = first_query_ + of_tile;
    if constexpr (kExtras != Extras::none) {
      row_[r] = logit_row(p_, part_, i, query_token(p_, part_, i));
      if (p_.is_cosine) row_[r].scale *= q_norm_[of_tile];
    }
  }
  VITRINE_DEVICE void keys_are_there(const T* tile, int pitch) const { make_norms(tile, round_up<16>(keys()), pitch, k_norm_); }

  VITRINE_DEVICE bool is_at_work() const { return true; }
  VITRINE_DEVICE float unit() const { return kExtras == Extras::none ? p_.scale * kLog2e : kLog2e; }
  VITRINE_DEVICE bool has_logits() const {
    return kExtras != Extras::none || first_ + kTile > (p_.is_causal ? least(first_query_ + 1, end_) : end_);
  }
  template <int kBlocks>
  VITRINE_DEVICE void make_logits(float (&s)[kBlocks][4]) const {
    if constexpr (kExtras != Extras::none) {
      if (p_.is_cosine) each_sum(s, [&](float& x, int, int j) { x *= k_norm_[j]; });
      flash::make_logits(p_, [&](const auto& change) {
        each_sum(s, [&](float& x, int r, int j) {
          if (first_ + j < end_) change(x, row_[r], first_ + j);
        });
      });
    }
    each_sum(s, [&](float& x, int r, int j) {
      if (!sees(r, first_ + j)) x = -infinity();
    });
  }
  VITRINE_DEVICE float logit(int r, int j, float product) const {
    const int key = first_ + j;
    if (!sees(r, key)) return -infinity();
    if constexpr (kExtras == Extras::none) return product;
    return flash::logit(p_, row_[r], key, p_.is_cosine ? product * k_norm_[j] : product);
  }

 private:
  VITRINE_DEVICE bool sees(int r, int key) const { return key < (p_.is_causal ? least(query_[r] + 1, end_) : end_); }
  VITRINE_DEVICE const T* row(const View& view, int r) const {
    const std::int64_t token = query_token(p_, part_, first_query_ + r);
    return token < 0 ? nullptr : row_at<T>(view, part_.image, part_.head, token);
  }
  VITRINE_DEVICE void make_norms(const T* tile, int rows, int pitch, float* norms) const {
    if constexpr (kExtras == Extras::none) return;
    if (!p_.is_cosine) return;
    row_norms(tile, rows, pitch, p_.dim, norms);
    barrier();
  }

  const Problem& p_;
  float *q_norm_, *k_norm_;
  Part part_;
  int first_query_, end_, first_ = -kTile, query_[kRows];
  LogitRow row_[kRows];
};

}  // namespace vitrine::cuda::flash
