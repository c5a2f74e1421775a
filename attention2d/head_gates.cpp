#include <vitrine/attention2d/head_gates.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/routing_trace.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

HeadGates::HeadGates(const Weights& w, const HeadGatesConfig& c) : config(c) {
  const std::int64_t routed = c.num_heads - c.shared_head;
  if (c.dim < 1 || c.num_heads < 1 || c.shared_head < 0 || c.routed_head < 0 || c.routed_head > routed)
    throw Error(
        fmt::format("head_gates {}: {} shared and {} routed of {} heads", w.path(), c.shared_head, c.routed_head, c.num_heads));
  if (c.routed_head == 0 && (routed != 0 || c.shared_head < 2))
    throw Error(
        fmt::format("head_gates {}: without routed heads all {} heads, at least two, must be shared", w.path(), c.num_heads));
  std::vector<Tensor> rows;
  if (c.shared_head > 1) rows.push_back((w / "wg_1").get("weight", {c.shared_head, c.dim}));
  if (c.routed_head > 0) rows.push_back((w / "wg").get("weight", {routed, c.dim}));
  if (c.routed_head > 0 && c.shared_head > 0) rows.push_back((w / "wg_0").get("weight", {2, c.dim}));
  logits = Linear(concat(rows, 0), {}, DType::f32, w.device());
}

namespace {

// x / sum(x), where the sum is not nothing.
void normalize(float* x, std::int64_t count) {
  float sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += x[i];
  sum = std::max(sum, std::numeric_limits<float>::epsilon());
  for (std::int64_t i = 0; i < count; ++i) x[i] /= sum;
}

void scale(float* x, std::int64_t count, float factor) {
  for (std::int64_t i = 0; i < count; ++i) x[i] *= factor;
}

}  // namespace

Tensor HeadGates::operator()(const Tensor& x) const {
  const std::int64_t shared = config.shared_head, routed = config.num_heads - shared, chosen = config.routed_head;
  const std::int64_t first = shared > 1 ? shared : 0;                                            // where wg's logits begin
  const Tensor flat = x.contiguous().view({-1, config.dim}).to(DType::f32), all = logits(flat);  // [N, ...]
  const std::int64_t N = flat.size(0);
  Tensor gates = affine(Tensor::zeros({N, config.num_heads}, DType::f32, x.device()), 0.0f, 1.0f);
  if (shared > 1) {
    Tensor part = gates.slice(1, 0, shared);
    copy_(part, softmax(all.slice(1, 0, shared)));
  }
  Tensor groups, choice;
  if (chosen > 0) {
    Tensor part = gates.slice(1, shared, config.num_heads);
    copy_(part, softmax(all.slice(1, first, first + routed)));
    choice = traced_choice(top_k(part, chosen).second);
    if (shared > 0) groups = softmax(all.slice(1, first + routed, first + routed + 2));
  }
  Shape shape = x.shape();
  shape[shape.rank() - 1] = config.num_heads;
  if (cuda::is_on_gpu(x)) {
    if (N > 0) cuda::attention_ops().head_gates(shared, choice, groups, gates);
    return gates.view(shape);
  }
  std::vector<float> kept(static_cast<std::size_t>(routed));
  for (std::int64_t n = 0; n < N; ++n) {
    float* gate = gates.data<float>() + n * config.num_heads;
    if (chosen > 0) {
      std::fill(kept.begin(), kept.end(), 0.0f);
      for (std::int64_t i = 0; i < chosen; ++i) {
        const auto head = choice.data<std::int64_t>()[n * chosen + i];
        kept[static_cast<std::size_t>(head)] = gate[shared + head];
      }
      std::copy(kept.begin(), kept.end(), gate + shared);
      normalize(gate + shared, routed);
    }
    const float* group = groups.defined() ? groups.data<float>() + 2 * n : nullptr;
    scale(gate, shared, static_cast<float>(shared) * (group ? 2 * group[0] : 1.0f));
    scale(gate + shared, routed, static_cast<float>(chosen) * (group ? 2 * group[1] : 1.0f));
  }
  return gates.view(shape);
}

}  // namespace vitrine
