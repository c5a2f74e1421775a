#include <vitrine/attention2d/heads.h>

#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/checks.h>
#include <vitrine/layers/ops.h>

namespace vitrine::detail {

void check_beside(std::string_view op, const Tensor& q, std::string_view name, const Tensor& x, std::string_view axes, int least,
                  int most) {
  if (!x.defined() || x.rank() < least || x.rank() > most)
    throw Error(fmt::format("{}: {} is {}, expected {}", op, name, x.defined() ? x.shape().to_string() : "undefined", axes));
  if (!is_floating_point(x.dtype()) || x.dtype() != q.dtype())
    throw Error(fmt::format("{}: {} is {}, expected q's type, one of f32, bf16, f16 (q is {})", op, name, name_of(x.dtype()),
                            name_of(q.dtype())));
  check_same_device(op, q, x);
}

void check_qkv(std::string_view op, const Tensor& q, const Tensor& k, const Tensor& v, std::string_view axes, int least,
               int most) {
  check_beside(op, q, "q", q, axes, least, most);
  check_beside(op, q, "k", k, axes, least, most);
  check_beside(op, q, "v", v, axes, least, most);
}

void check_head_groups(std::string_view op, const Tensor& q, const Tensor& k) {
  if (k.size(-2) == 0 || q.size(-2) % k.size(-2) != 0)
    throw Error(fmt::format("{}: {} query heads are not a multiple of {} key heads", op, q.size(-2), k.size(-2)));
  if (q.size(-1) == 0) throw Error(fmt::format("{}: head_dim is 0", op));
}

void check_heads(std::string_view op, const Tensor& q, const Tensor& k, const Tensor& v) {
  check_qkv(op, q, k, v, "[B, L, heads, head_dim]");
  if (k.size(0) != q.size(0) || v.size(0) != q.size(0) || k.size(1) != v.size(1) || k.size(2) != q.size(2) ||
      v.size(2) != q.size(2) || k.size(3) != q.size(3))
    throw Error(fmt::format("{}: q {}, k {}, v {} do not fit; expected [B, Lq, H, D], [B, Lk, H, D], [B, Lk, H, Dv]", op,
                            q.shape().to_string(), k.shape().to_string(), v.shape().to_string()));
  if (q.size(2) == 0) throw Error(fmt::format("{}: there are no heads", op));
  if (q.size(3) == 0) throw Error(fmt::format("{}: head_dim is 0", op));
  if (k.size(1) == 0) throw Error(fmt::format("{}: there are no keys", op));
}

std::string module_name(std::string_view mechanism, const Weights& w) {
  return w.path().empty() ? std::string(mechanism) : fmt::format("{} {}", mechanism, w.path());
}

void check_size(std::string_view where, std::string_view name, std::int64_t size, std::int64_t least) {
  constexpr std::int64_t kMost = 1 << 20;
  if (size < least || size > kMost) throw Error(fmt::format("{}: {} is {}, expected {} to {}", where, name, size, least, kMost));
}

void check_num_heads(std::string_view where, std::int64_t dim, std::int64_t num_heads) {
  check_size(where, "dim", dim);
  if (num_heads < 1 || dim % num_heads != 0)
    throw Error(fmt::format("{}: dim {} is not a multiple of {} heads", where, dim, num_heads));
}

void check_tokens(std::string_view op, const Tensor& x, std::int64_t dim, std::string_view name) {
  if (!x.defined() || x.rank() != 3 || x.size(2) != dim)
    throw Error(
        fmt::format("{}: {} is {}, expected [B, N, {}]", op, name, x.defined() ? x.shape().to_string() : "undefined", dim));
}

void check_map(std::string_view op, const Tensor& x, std::int64_t dim) {
  if (!x.defined() || x.rank() != 4 || x.size(3) != dim)
    throw Error(fmt::format("{}: x is {}, expected [B, H, W, {}]", op, x.defined() ? x.shape().to_string() : "undefined", dim));
}

cpu::HeadsView heads_view(const Tensor& x) { return {x.raw(), x.stride(0), x.stride(2), x.stride(1)}; }

std::array<Tensor, 3> split_qkv(std::string_view op, const Linear& qkv, const Tensor& x, std::int64_t num_heads) {
  check_tokens(op, x, qkv.in_features());
  const Tensor parts = qkv(x).unflatten(2, {3, num_heads, qkv.out_features() / 3 / num_heads});
  return {parts.select(2, 0), parts.select(2, 1), parts.select(2, 2)};
}

Linear fused_qkv(const Weights& w, std::int64_t dim, bool bias, bool separate_kv) {
  if (!separate_kv) return {w / "qkv", dim, 3 * dim, {.bias = bias}};
  const Weights q = w / "q", kv = w / "kv";
  const Tensor weights[] = {q.get("weight", {dim, dim}), kv.get("weight", {2 * dim, dim})};
  Tensor bias_rows;
  if (bias) {
    const Tensor biases[] = {q.get("bias", {dim}), kv.get("bias", {2 * dim})};
    bias_rows = concat(biases, 0);
  }
  return {concat(weights, 0), bias_rows, w.dtype(), w.device()};
}

}  // namespace vitrine::detail
