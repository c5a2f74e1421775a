#include <vitrine/attention2d/focused_linear_attention.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/cpu/launch.h>
#include <vitrine/attention2d/cpu/linear_attention.h>
#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/depthwise.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/linear_attention.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/memory.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

// u <- |u| u^f / |u^f| of u = (relu(x + added) + 1e-6) inverse_scale, in the place of x [B, N, C], a view.
void focus(Tensor& x, const Tensor& added, const Tensor& inverse_scale, double power) {
  if (cuda::is_on_gpu(x)) return cuda::attention_ops().focus(x, added, inverse_scale, static_cast<float>(power));
  const std::int64_t tokens = x.size(1), channels = x.size(2), bytes = static_cast<std::int64_t>(size_of(x.dtype()));
  const auto kernel = cpu::linear_attention_kernels(cpu::isa()).focus;
  cpu::parallel_for(x.size(0) * tokens, std::max<std::int64_t>(1, 8192 / channels), [&](std::int64_t begin, std::int64_t end) {
    const auto workspace = allocate(static_cast<std::size_t>(channels) * sizeof(float));
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t b = row / tokens, n = row % tokens;
      kernel(static_cast<std::byte*>(x.raw()) + (b * x.stride(0) + n * x.stride(1)) * bytes, cpu::float_type(x.dtype()), channels,
             added.defined() ? added.data<float>() + n * channels : nullptr, inverse_scale.data<float>(),
             static_cast<float>(power), static_cast<float*>(workspace.get()));
    }
  });
}

}  // namespace

FocusedLinearAttention::FocusedLinearAttention(const Weights& w, const FocusedLinearAttentionConfig& c,
                                               const LinearOptions& proj_options)
    : config(c) {
  const std::string where = detail::module_name("focused_linear_attention", w);
  detail::check_num_heads(where, c.dim, c.num_heads);
  for (const std::int64_t size : c.window_size) detail::check_size(where, "window_size", size);
  if (!(c.focusing_factor > 0))
    throw Error(fmt::format("{}: focusing_factor {}, expected a positive one", where, c.focusing_factor));
  constexpr std::int64_t kMostKernel = 1 << 10;
  if (c.kernel_size < 1 || c.kernel_size > kMostKernel || c.kernel_size % 2 == 0)
    throw Error(fmt::format("{}: kernel_size {}, expected an odd one below {}", where, c.kernel_size, kMostKernel));
  if (c.sr_ratio < 1 || c.window_size[0] % c.sr_ratio != 0 || c.window_size[1] % c.sr_ratio != 0 ||
      ((c.sr_ratio > 1 || c.linear) && !c.separate_kv))
    throw Error(fmt::format("{}: sr_ratio {} on a map of {}x{}", where, c.sr_ratio, c.window_size[0], c.window_size[1]));
  const std::int64_t tokens = c.window_size[0] * c.window_size[1] / (c.sr_ratio * c.sr_ratio);
  if (constexpr std::int64_t kLinear = KeyReduction::kSide * KeyReduction::kSide; c.linear && tokens != kLinear)
    throw Error(fmt::format("{}: a map of {}x{} with sr_ratio {} has {} keys, expected {} where linear", where, c.window_size[0],
                            c.window_size[1], c.sr_ratio, tokens, kLinear));
  const std::int64_t d = c.dim / c.num_heads, k = c.kernel_size;
  if (c.mix_only) {
    get_v = Conv2d(w / "get_v", c.dim, c.dim, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = c.dim});
  } else if (c.sr_ratio == 1 && !c.linear) {
    qkv = detail::fused_qkv(w, c.dim, c.qkv_bias, c.separate_kv);
  } else {
    q = Linear(w / "q", c.dim, c.dim, {.bias = c.qkv_bias});
    kv = Linear(w / "kv", c.dim, 2 * c.dim, {.bias = c.qkv_bias});
    reduce = KeyReduction(w, c.dim, c.sr_ratio, c.linear);
  }
  if (!c.mix_only) proj = Linear(w / "proj", c.dim, c.dim, proj_options);
  positional_encoding = w.on_device("positional_encoding", {1, tokens, c.dim}).view({tokens, c.dim});
  inverse_scale = w.get("scale", {1, 1, c.dim}).view({c.dim}).clone();
  float* scale = inverse_scale.data<float>();
  std::transform(scale, scale + c.dim, scale, [](float s) {  // log(1 + e^s) without overflow
    return static_cast<float>(1 / (std::max<double>(s, 0) + std::log1p(std::exp(-std::abs(static_cast<double>(s))))));
  });
  const Tensor weight = (w / "dwc").get("weight", {d, 1, k, k}), head_bias = (w / "dwc").get("bias", {d});
  kernels = Tensor::empty({1, k, k, c.dim});
  bias = Tensor::empty({c.dim});
  for (std::int64_t i = 0; i < c.dim; ++i) {
    bias.data<float>()[i] = head_bias.data<float>()[i % d];
    for (std::int64_t tap = 0; tap < k * k; ++tap)
      kernels.data<float>()[tap * c.dim + i] = weight.data<float>()[i % d * k * k + tap];
  }
  for (Tensor* t : {&inverse_scale, &kernels, &bias}) *t = t->to(w.device());
}

Tensor FocusedLinearAttention::operator()(const Tensor& x, Tensor residual) const {
  detail::check_tokens("focused_linear_attention", x, config.dim);
  const auto [rows, columns] = config.window_size;
  if (x.size(1) != rows * columns)
    throw Error(fmt::format("focused_linear_attention: x is {}, expected {} tokens of a window of {}x{}", x.shape().to_string(),
                            rows * columns, rows, columns));
  const std::int64_t C = config.dim;
  if (qkv.defined()) {
    const Tensor parts = qkv(x);  // [B, N, 3 C]
    return proj(mix(parts.slice(2, 0, C), parts.slice(2, C, 2 * C), parts.slice(2, 2 * C, 3 * C)),
                {.residual = std::move(residual)});
  }
  const Tensor parts = kv(reduce(x.unflatten(1, {rows, columns})).flatten(1, 2));
  return proj(mix(q(x), parts.slice(2, 0, C), parts.slice(2, C, 2 * C)), {.residual = std::move(residual)});
}

Tensor FocusedLinearAttention::mix(Tensor q, Tensor k, const Tensor& v) const {
  const std::int64_t B = q.size(0), C = config.dim;
  const auto [rows, columns] = config.window_size;
  if (q.size(1) != rows * columns || k.size(1) != positional_encoding.size(0))
    throw Error(fmt::format("focused_linear_attention: q is {}, expected {} tokens of a window of {}x{}", q.shape().to_string(),
                            rows * columns, rows, columns));
  focus(q, {}, inverse_scale, config.focusing_factor);
  focus(k, positional_encoding, inverse_scale, config.focusing_factor);
  const auto heads = [&](const Tensor& t) { return t.unflatten(2, {config.num_heads, C / config.num_heads}); };
  Tensor y = linear_attention(heads(q), heads(k), heads(v),
                              {.query_map = FeatureMap::identity,
                               .key_map = FeatureMap::identity,
                               .normalizer = LinearNormalizer::mean,
                               .eps = 1e-6f})
                 .view({B, rows, columns, C});
  const Tensor spread = config.sr_ratio > 1 || config.linear
                            ? resize(v.contiguous().unsqueeze(2), rows * columns, 1).view({B, rows * columns, C})
                            : v;
  detail::add_depthwise("focused_linear_attention", y, spread.unflatten(1, {rows, columns}), kernels, bias);
  if (get_v.defined()) get_v.add_to(y, v.unflatten(1, {rows, columns}));
  return y.view({B, rows * columns, C});
}

}  // namespace vitrine
