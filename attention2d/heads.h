// What the modules of token attentions share: checks of heads, and the views of a fused projection.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include <vitrine/attention2d/cpu/linear_attention.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/tensor.h>
#include <vitrine/layers/weights.h>

namespace vitrine::detail {

// x, called `name`, is defined, of q's floating type, on its device, and has from `least` to `most` axes, `axes` in words; else
// Error.
void check_beside(std::string_view op, const Tensor& q, std::string_view name, const Tensor& x, std::string_view axes,
                  int least = 4, int most = 4);
// The same of q, k and v.
void check_qkv(std::string_view op, const Tensor& q, const Tensor& k, const Tensor& v, std::string_view axes, int least = 4,
               int most = 4);
// q [..., Hq, D] and k [..., Hk, D] have channels, and Hk heads of which each serves as many of q's; else Error.
void check_head_groups(std::string_view op, const Tensor& q, const Tensor& k);
// q [B, Lq, H, D], k [B, Lk, H, D], v [B, Lk, H, Dv] of one floating type on one device, with heads, keys and
// channels; else Error.
void check_heads(std::string_view op, const Tensor& q, const Tensor& k, const Tensor& v);
// What messages call a module: "agent_attention blocks.0.attn".
std::string module_name(std::string_view mechanism, const Weights& w);

// `where` is a module's name. A size that is not `least` to 2^20 is an Error: above it, products of sizes could overflow, and
// before that the memory asked for would be beyond any machine's.
void check_size(std::string_view where, std::string_view name, std::int64_t size, std::int64_t least = 1);
// At least one head, and as many as divide dim.
void check_num_heads(std::string_view where, std::int64_t dim, std::int64_t num_heads);

// x is [B, N, dim]; else Error.
void check_tokens(std::string_view op, const Tensor& x, std::int64_t dim, std::string_view name = "x");

// x is [B, H, W, dim]; else Error.
void check_map(std::string_view op, const Tensor& x, std::int64_t dim);

// What a kernel reads of x [B, L, heads, D].
cpu::HeadsView heads_view(const Tensor& x);

// q, k, v [B, N, heads, head_dim]: views of the fused projection of x [B, N, C].
std::array<Tensor, 3> split_qkv(std::string_view op, const Linear& qkv, const Tensor& x, std::int64_t num_heads);

// The layer [3 dim, dim] of w.qkv, or with `separate_kv` of w.q and w.kv (PVT's names) over one another.
Linear fused_qkv(const Weights& w, std::int64_t dim, bool bias, bool separate_kv);

}  // namespace vitrine::detail
