// Attention inside groups of tokens: windows, grids, blocks with a halo, routed regions.
//
//   out[t] = softmax(scale q[t] k^T + biases, over the keys of t's group) v
//
// Groups are lists of token indices: partition, shift, padding, halo and routing are index arithmetic inside the tiled kernel
// of attention.h; no window is ever gathered, rolled or padded in memory.
// Source: what windows (arXiv:2103.14030), grids (arXiv:2204.01697), halos (arXiv:2103.12731) and routed regions
// (arXiv:2303.08810) have in common. Cost: Nq Nk (D + Dv) Hq multiply-adds a group.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

struct GroupedOptions {
  std::optional<float> scale{};  // default: D ** -0.5
  // i32 [1 or B, G, Nq] and [1 or B, G, Nk]: indices into the token axes of q, and of k and v. Queries: -1, nothing to compute;
  // keys: -1, a padding token.
  Tensor queries{}, keys{};
  // [Hk, D] and [Hk, Dv] in q's type: what key index -1 stands for; undefined: zeros. Padding keys take part in the softmax.
  Tensor pad_key{}, pad_value{};
  Tensor bias{};     // f32 [P, 1 or Hq, Nq, Nk], added to the scaled logits; undefined: none
  Tensor pattern{};  // i32 [G]: which of the P tables of `bias` a group takes; undefined: table 0
  // Instead of `keys`: keys between the tokens of a map of map[0] x map[1], those of a group and head on a grid. f32
  // [B, G, Hk, 4] of (top, left, row step, column step): key r box_keys[1] + c is at (top + r row step, left + c column step),
  // r < box_keys[0], where k and v are bilinear, with zeros around the map.
  Tensor boxes{};
  std::array<std::int64_t, 2> map{}, box_keys{};
  // f32 [1 or B, Lq, Hq, R] and [1 or B, Lq, Hq, C] with Nk = R C: key r C + c of query token t gets row_bias[t, h, r] +
  // column_bias[t, h, c]. Both or neither.
  Tensor row_bias{}, column_bias{};
  Tensor head_scale{};     // f32 [Hq]: a further factor of a head's logits; undefined: none
  bool is_cosine = false;  // logits are of q / max(|q|, 1e-12) and k / max(|k|, 1e-12)
  // Lists on a GPU are not looked at on the way there: indices that are out of range count as -1, and tokens in two groups are
  // not noticed. Without this promise that every query token is in a group the result begins as zeros there, which costs a pass.
  bool covers_all = false;
  std::string_view impl{};  // a candidate's name; empty: the best that can run
};

// q [B, Lq, Hq, D], k [B, Lk, Hk, D], v [B, Lk, Hk, Dv], Hq a multiple of Hk; views with any leading strides.
// -> [B, Lq, Hq, Dv], contiguous, in q's dtype. No query token may be in two groups; those in none give zeros.
VITRINE_API Tensor grouped_attention(const Tensor& q, const Tensor& k, const Tensor& v, const GroupedOptions& options);

}  // namespace vitrine
