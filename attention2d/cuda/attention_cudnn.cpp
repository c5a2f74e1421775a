// Attention by cuDNN: 16-bit types, any bias but that of distances, views whose heads lie on 16 bytes. The rest is our own
// kernel's: f32, masks, scales below zero (whose largest logit is that of the smallest product), heads that are no multiple of 8.
#include <vitrine/attention2d/cuda/attention_cudnn.h>

#include <algorithm>
#include <iterator>

#include <vitrine/layers/cuda/cudnn.h>
#include <vitrine/layers/cuda/runtime.h>
#include <vitrine/layers/recent_cache.h>

namespace vitrine::cuda {

namespace {

// Strides of images, tokens, heads. False: cuDNN cannot read the view.
bool set_strides(const Tensor& t, std::int64_t (&strides)[3]) {
  for (int axis = 0; axis < 3; ++axis) strides[axis] = t.stride(axis);
  const auto fits = [](std::int64_t n) { return n > 0 && n % 8 == 0; };
  return fits(t.size(3)) && t.stride(3) == 1 && std::all_of(std::begin(strides), std::end(strides), fits) &&
         reinterpret_cast<std::uintptr_t>(t.raw()) % 16 == 0;
}

}  // namespace

bool attention_cudnn(const AttentionArgs& args) {
  const auto& [q, k, v, scale, is_causal, bias, distance_bias, mask, out] = args;
  if (q.dtype() == DType::f32 || distance_bias.defined() || mask.defined() || !(scale > 0) || k.size(1) == 0) return false;
  cudnn::Attention a{.device = q.device().index,
                     .dtype = q.dtype(),
                     .batch = q.size(0),
                     .queries = q.size(1),
                     .keys = k.size(1),
                     .heads = q.size(2),
                     .key_heads = k.size(2),
                     .dim = q.size(3),
                     .value_dim = v.size(3),
                     .has_bias = bias.defined(),
                     .is_causal = is_causal,
                     .scale = scale};
  if (!set_strides(q, a.q_strides) || !set_strides(k, a.k_strides) || !set_strides(v, a.v_strides)) return false;
  if (a.has_bias) {
    if (bias.stride(3) != 1 || reinterpret_cast<std::uintptr_t>(bias.raw()) % 16 != 0) return false;
    for (int axis = 0; axis < 3; ++axis) {
      a.bias_size[axis] = bias.size(axis);
      a.bias_strides[axis] = bias.stride(axis);
    }
  }
  if (!cudnn::why_none().empty()) return false;

  // Not destroyed: the driver may be gone before.
  static const auto& plans = *new detail::RecentCache<cudnn::Attention, cudnn::Plan, 64>;
  const cudaStream_t on = stream(a.device);
  const auto plan = plans.get(a, [&] { return cudnn::Plan(a); });
  if (!plan->why_none().empty()) return false;
  plan->run({q.raw(), k.raw(), v.raw(), out.raw(), a.has_bias ? bias.raw() : nullptr}, on);
  return true;
}

}  // namespace vitrine::cuda
