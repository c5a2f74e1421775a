// Attention by cuDNN: 16-bit types, any bias but that of distances, views whose heads lie on 16 bytes. The rest is our own
// kernel's: f32, masks, scales below zero (whose largest logit is that of the smallest product), heads that are no multiple of 8.
#include <algorithm>
#include <iterator>
#include <memory>
#include <string>

#include <vitrine/attention2d/cuda/ops.h>
#include <vitrine/layers/cuda/cudnn.h>
#include <vitrine/layers/cuda/runtime.h>
#include <vitrine/layers/error.h>
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

// The plan for a problem, or why there is none.
struct Prepared {
  std::shared_ptr<const cudnn::Plan> plan;
  std::string lacks;
};
Prepared prepare(const AttentionArgs& args) {
  const auto& [q, k, v, scale, is_causal, bias, distance_bias, mask, out] = args;
  if (q.dtype() == DType::f32) return {nullptr, "takes f16 and bf16"};
  if (distance_bias.defined() || mask.defined()) return {nullptr, "takes no mask and no bias of distances"};
  if (!(scale > 0)) return {nullptr, "takes positive scales"};
  if (k.size(1) == 0) return {nullptr, "takes no empty sequences"};
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
  if (!set_strides(q, a.q_strides) || !set_strides(k, a.k_strides) || !set_strides(v, a.v_strides))
    return {nullptr, "takes heads and strides of multiples of 8, on 16 bytes"};
  if (a.has_bias) {
    if (bias.stride(3) != 1 || reinterpret_cast<std::uintptr_t>(bias.raw()) % 16 != 0)
      return {nullptr, "takes biases with dense rows, on 16 bytes"};
    for (int axis = 0; axis < 3; ++axis) {
      a.bias_size[axis] = bias.size(axis);
      a.bias_strides[axis] = bias.stride(axis);
    }
  }
  if (!cudnn::why_none().empty()) return {nullptr, cudnn::why_none()};

  // Not destroyed: the driver may be gone before.
  static const auto& plans = *new detail::RecentCache<cudnn::Attention, cudnn::Plan, 64>;
  stream(a.device);  // which makes the device the thread's
  Prepared prepared{plans.get(a, [&] { return cudnn::Plan(a); }), {}};
  prepared.lacks = prepared.plan->why_none();
  return prepared;
}

}  // namespace

namespace ops {

std::string lacks_cudnn(const AttentionArgs& args) { return prepare(args).lacks; }

void attention_cudnn(const AttentionArgs& args) {
  const Prepared prepared = prepare(args);
  if (!prepared.lacks.empty()) throw Error("cuda: attention by cuDNN " + prepared.lacks);
  const auto& bias = args.bias;
  prepared.plan->run({args.q.raw(), args.k.raw(), args.v.raw(), args.out.raw(), bias.defined() ? bias.raw() : nullptr},
                     stream(args.q.device().index));
}

}  // namespace ops

}  // namespace vitrine::cuda
