#include <vitrine/attention2d/attention.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/candidates.h>
#include <vitrine/attention2d/cpu/launch.h>
#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/rows.h>
#include <vitrine/layers/checks.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/parallel.h>

namespace vitrine {

namespace {

struct Problem {
  const Tensor &q, &k, &v;
  const AttentionOptions& options;
  float scale;
  Tensor& out;

  std::string describe() const {
    return fmt::format("q {} k {} v {} {}{}{}{}", q.shape().to_string(), k.shape().to_string(), v.shape().to_string(),
                       name_of(q.dtype()), options.bias.defined() || options.distance_bias.defined() ? " bias" : "",
                       options.mask.defined() ? " mask" : "", options.is_causal ? " causal" : "");
  }
};

void validate_logits_input(const Tensor& t, const char* name, DType dtype, const Tensor& q, const Tensor& k) {
  if (!t.defined()) return;
  const std::int64_t b = q.size(0), h = q.size(2), lq = q.size(1), lk = k.size(1);
  if (t.dtype() != dtype) throw Error(fmt::format("attention: {} is {}, expected {}", name, name_of(t.dtype()), name_of(dtype)));
  const auto fits = [&](int axis, std::int64_t size) { return t.size(axis) == 1 || t.size(axis) == size; };
  if (t.rank() != 4 || !fits(0, b) || !fits(1, h) || !fits(2, lq) || t.size(3) != lk)
    throw Error(
        fmt::format("attention: {} is {}, expected [1 or {}, 1 or {}, 1 or {}, {}]", name, t.shape().to_string(), b, h, lq, lk));
}

void validate(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  detail::check_qkv("attention", q, k, v, "[B, L, heads, head_dim]");
  if (k.size(0) != q.size(0) || v.size(0) != q.size(0) || k.size(1) != v.size(1) || k.size(2) != v.size(2) ||
      k.size(3) != q.size(3))
    throw Error(fmt::format("attention: q {}, k {}, v {} do not fit; expected [B, Lq, Hq, D], [B, Lk, Hk, D], [B, Lk, Hk, Dv]",
                            q.shape().to_string(), k.shape().to_string(), v.shape().to_string()));
  detail::check_head_groups("attention", q, k);
  validate_logits_input(options.bias, "bias", DType::f32, q, k);
  if (const Tensor& t = options.distance_bias; t.defined()) {
    if (options.bias.defined()) throw Error("attention: bias and distance_bias are given, expected one of them");
    if (t.dtype() != DType::f32 || t.shape() != Shape{q.size(2), q.size(1) + k.size(1) - 1})
      throw Error(fmt::format("attention: distance_bias is {} {}, expected f32 [{}, {}]", name_of(t.dtype()),
                              t.shape().to_string(), q.size(2), q.size(1) + k.size(1) - 1));
  }
  validate_logits_input(options.mask, "mask", DType::boolean, q, k);
  for (const Tensor* t : {&options.bias, &options.distance_bias, &options.mask}) detail::check_same_device("attention", q, *t);
}

// The definition, one query after another; what the kernels are compared with.
void run_reference(const Problem& p) {
  const std::int64_t heads = p.q.size(2), lq = p.q.size(1), lk = p.k.size(1), dim = p.q.size(3), value_dim = p.v.size(3);
  const std::int64_t group = heads / p.k.size(2);
  const Tensor &bias = p.options.bias, &distance_bias = p.options.distance_bias, &mask = p.options.mask;
  const auto row_of = [](const Tensor& t, std::int64_t b, std::int64_t h, std::int64_t i) {
    const auto step = [&](int axis) { return t.size(axis) == 1 ? 0 : t.stride(axis); };
    return b * step(0) + h * step(1) + i * step(2);
  };
  cpu::parallel_each(p.q.size(0) * heads, [&](std::int64_t item, int) {
    const std::int64_t b = item / heads, h = item % heads;
    const auto q = detail::read_head(p.q, b, h), k = detail::read_head(p.k, b, h / group),
               v = detail::read_head(p.v, b, h / group);
    std::vector<double> weights(static_cast<std::size_t>(lk));
    std::vector<double> sums(static_cast<std::size_t>(value_dim));
    std::vector<float> row(static_cast<std::size_t>(value_dim));
    for (std::int64_t i = 0; i < lq; ++i) {
      double largest = -std::numeric_limits<double>::infinity();
      for (std::int64_t j = 0; j < lk; ++j) {
        double logit = 0;
        for (std::int64_t d = 0; d < dim; ++d) logit += static_cast<double>(q[i * dim + d]) * k[j * dim + d];
        logit *= p.scale;
        if (bias.defined()) logit += bias.data<float>()[row_of(bias, b, h, i) + j];
        if (distance_bias.defined()) logit += distance_bias.data<float>()[h * distance_bias.stride(0) + j - i + lq - 1];
        const bool seen = (!mask.defined() || mask.data<bool>()[row_of(mask, b, h, i) + j]) && (!p.options.is_causal || j <= i);
        weights[j] = seen ? logit : -std::numeric_limits<double>::infinity();
        largest = weights[j] > largest || std::isnan(weights[j]) ? weights[j] : largest;
      }
      double total = 0;
      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::int64_t j = 0; j < lk; ++j) {
        if (weights[j] == -std::numeric_limits<double>::infinity()) continue;
        const double weight = std::exp(weights[j] - largest);
        total += weight;
        for (std::int64_t d = 0; d < value_dim; ++d) sums[d] += weight * v[j * value_dim + d];
      }
      for (std::int64_t d = 0; d < value_dim; ++d) row[d] = total == 0 ? 0.0f : static_cast<float>(sums[d] / total);
      detail::write_row(p.out, ((b * lq + i) * heads + h) * value_dim, row);
    }
  });
}

template <cpu::Isa kIsa>
std::string can_run_flash(const Problem& p) {
  if (std::string reason = detail::lacks(kIsa, p.q); !reason.empty()) return reason;
  if (p.q.size(3) > cpu::kFlashMaxDim) return fmt::format("head_dim {} is above {}", p.q.size(3), cpu::kFlashMaxDim);
  if (p.k.size(1) == 0) return "there are no keys";
  return {};
}

template <cpu::Isa kIsa>
void run_flash(const Problem& p) {
  const Tensor &bias = p.options.bias, &distance_bias = p.options.distance_bias, &mask = p.options.mask;
  std::vector<std::int64_t> offsets[4];
  const auto view = [&](const Tensor& t, std::vector<std::int64_t>& image_offset) {
    for (std::int64_t b = 0; b < t.size(0); ++b) image_offset.push_back(b * t.stride(0));
    return cpu::TokenView{t.raw(), image_offset.data(), t.stride(2), 0, t.stride(1), t.size(1)};
  };
  const auto step = [](const Tensor& t, int axis) { return t.defined() && t.size(axis) > 1 ? t.stride(axis) : 0; };
  cpu::FlashProblem f;
  f.q = view(p.q, offsets[0]);
  f.k = view(p.k, offsets[1]);
  f.v = view(p.v, offsets[2]);
  f.out = view(p.out, offsets[3]);
  f.type = cpu::float_type(p.q.dtype());
  f.images = p.q.size(0);
  f.heads = p.q.size(2);
  f.key_heads = p.k.size(2);
  f.queries = p.q.size(1);
  f.keys = p.k.size(1);
  f.dim = p.q.size(3);
  f.value_dim = p.v.size(3);
  f.scale = p.scale;
  f.is_causal = p.options.is_causal;
  f.bias = bias.defined() ? bias.data<float>() : nullptr;
  f.bias_image = step(bias, 0);
  f.bias_head = step(bias, 1);
  f.bias_row = step(bias, 2);
  if (distance_bias.defined()) {  // a query's row begins one before that of the query before it
    f.bias = distance_bias.data<float>() + f.queries - 1;
    f.bias_head = distance_bias.stride(0);
    f.bias_row = -1;
  }
  f.mask = mask.defined() ? static_cast<const std::uint8_t*>(mask.raw()) : nullptr;
  f.mask_image = step(mask, 0);
  f.mask_head = step(mask, 1);
  f.mask_row = step(mask, 2);
  cpu::flash_attention(kIsa, f);
}

std::string can_run_cuda(const Problem& p) { return detail::lacks_gpu(p.q, p.v, cpu::kFlashMaxDim); }
// As windows that are as long as the sequence. What call(arguments) returns.
template <typename Call>
auto with_window_args(const Problem& p, const Call& call) {
  using Window = cuda::LocalAxis::Window;
  const cuda::LocalAxis axes[3] = {{p.options.is_causal ? Window::causal : Window::slides, p.k.size(1), 1, 1}, {}, {}};
  const Tensor none;
  return call(cuda::LocalArgs{p.q, p.k, p.v, axes, 0, p.scale, none, none, none, p.out});
}
std::string can_run_sm90(const Problem& p) {
  if (std::string reason = can_run_cuda(p); !reason.empty()) return reason;
  const AttentionOptions& o = p.options;
  if (o.bias.defined() || o.distance_bias.defined() || o.mask.defined()) return "takes neither bias nor mask";
  if (p.q.size(1) != p.k.size(1)) return "takes as many keys as queries";
  return with_window_args(p, [&](const auto& args) { return cuda::attention_ops().lacks_sm90(args, !o.impl.empty()); });
}
void run_sm90(const Problem& p) { with_window_args(p, cuda::attention_ops().local_attention_sm90); }

cuda::AttentionArgs cuda_args(const Problem& p) {
  const AttentionOptions& o = p.options;
  return {p.q, p.k, p.v, p.scale, o.is_causal, o.bias, o.distance_bias, o.mask, p.out};
}
std::string can_run_cudnn(const Problem& p) {
  const std::string reason = detail::is_elsewhere(DeviceType::cuda, p.q);
  return reason.empty() ? cuda::attention_ops().lacks_cudnn(cuda_args(p)) : reason;
}
void run_cudnn(const Problem& p) { cuda::attention_ops().attention_cudnn(cuda_args(p)); }

void run_flash_cuda(const Problem& p) { cuda::attention_ops().attention(cuda_args(p)); }

constexpr detail::Candidate<Problem> kCandidates[] = {
    {"cuda_cudnn", can_run_cudnn, run_cudnn},
    {"cuda_sm90", can_run_sm90, run_sm90},
    {"cuda_flash", can_run_cuda, run_flash_cuda},
#if defined(VITRINE_X86)
    {"flash_avx512_bf16", can_run_flash<cpu::Isa::avx512_bf16>, run_flash<cpu::Isa::avx512_bf16>},
    {"flash_avx512", can_run_flash<cpu::Isa::avx512>, run_flash<cpu::Isa::avx512>},
    {"flash_avx2", can_run_flash<cpu::Isa::avx2>, run_flash<cpu::Isa::avx2>},
#endif
    {"flash_scalar", can_run_flash<cpu::Isa::scalar>, run_flash<cpu::Isa::scalar>},
    {"reference", [](const Problem& p) { return detail::is_elsewhere(DeviceType::cpu, p.q); }, run_reference},
};

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  validate(q, k, v, options);
  Tensor out = Tensor::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.dtype(), q.device());
  if (out.numel() == 0) return out;
  const float scale = options.scale.value_or(static_cast<float>(1.0 / std::sqrt(static_cast<double>(q.size(3)))));
  const Problem problem{q, k, v, options, scale, out};
  detail::choose<Problem>("attention", kCandidates, problem, options.impl).run(problem);
  Context::current().add_macs(q.size(0) * q.size(1) * q.size(2) * k.size(1) * (q.size(3) + v.size(3)));
  return out;
}

}  // namespace vitrine
