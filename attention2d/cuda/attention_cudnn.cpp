// Attention by cuDNN: 16-bit types, any bias but that of distances, views whose heads lie on 16 bytes. The rest is our own
// kernel's: f32, masks, scales below zero (whose largest logit is that of the smallest product), heads that are no multiple of 8.
#include <vitrine/attention2d/cuda/attention_cudnn.h>

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/cuda/cudnn.h>
#include <vitrine/layers/cuda/runtime.h>
#include <vitrine/layers/recent_cache.h>

namespace vitrine::cuda {

namespace {

// Strides of images, tokens, heads. False: cuDNN cannot read the view.
bool set_strides(const Tensor& t, std::int64_t (&strides)[3]) {
  for (int axis = 0; axis < 3; ++axis) strides[axis] = t.stride(axis);
  const auto is_even = [](std::int64_t n) { return n % 8 == 0; };
  return is_even(t.size(3)) && t.stride(3) == 1 && std::all_of(std::begin(strides), std::end(strides), is_even) &&
         reinterpret_cast<std::uintptr_t>(t.raw()) % 16 == 0;
}

}  // namespace

bool attention_cudnn(const AttentionArgs& args) {
  const auto& [q, k, v, scale, is_causal, bias, distance_bias, mask, out] = args;
  if (q.dtype() == DType::f32 || distance_bias.defined() || mask.defined() || !(scale > 0) || k.size(1) == 0) return false;
  cudnn::Attention a{.dtype = q.dtype(),
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

  struct Key {
    cudnn::Attention attention;
    int device;
    bool operator==(const Key&) const = default;
  };
  static const auto& plans = *new detail::RecentCache<Key, cudnn::Plan, 64>;  // not destroyed: the driver may be gone before
  const Device device = q.device();
  const cudaStream_t on = stream(device.index);
  const auto plan = plans.get(Key{a, device.index}, [&] {
    cudnn::Plan made(a);
    cpu::log_dispatch(fmt::format("attention q {} k {} v {} {} on the GPU: {}", q.shape().to_string(), k.shape().to_string(),
                                  v.shape().to_string(), name_of(q.dtype()),
                                  made.why_none().empty() ? "cudnn" : "own; " + made.why_none()));
    return made;
  });
  if (!plan->why_none().empty()) return false;
  const Tensor workspace = plan->workspace() > 0 ? Tensor::empty({plan->workspace()}, DType::u8, device) : Tensor();
  plan->run({q.raw(), k.raw(), v.raw(), out.raw(), a.has_bias ? bias.raw() : nullptr},
            workspace.defined() ? const_cast<void*>(workspace.raw()) : nullptr, device.index, on);
  return true;
}

}  // namespace vitrine::cuda
