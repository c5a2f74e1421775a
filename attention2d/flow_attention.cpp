#include <vitrine/attention2d/flow_attention.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/linear_attention.h>
#include <vitrine/layers/cpu/parallel.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

constexpr double kEps = 1e-6;

using cuda::FlowShare;

float share_of(float flow, FlowShare share) {
  switch (share) {
    case FlowShare::inverse:
      return 1.0f / flow;
    case FlowShare::sigmoid:
      return 1.0f / (1.0f + std::exp(-flow));
    case FlowShare::clamped:
      return std::clamp(flow, -1.0f, 1.0f);
  }
  return flow;
}

// The share of (x_j + e).(total + e) + e of the tokens j: f32 [B, H, N]. x is sigmoid'ed by the way.
Tensor flow(const Tensor& x, const Tensor& total, FlowShare share) {
  Tensor flows = feature_dots(x, FeatureMap::sigmoid, affine(total, 1.0f, static_cast<float>(kEps)));
  if (cuda::is_on_gpu(x)) {
    cuda::attention_ops().flow_shares(flows, total, share);
    return flows;
  }
  const std::int64_t tokens = flows.size(2), dim = total.size(2);
  cpu::parallel_for(flows.size(0) * flows.size(1), std::max<std::int64_t>(1, 4096 / tokens),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t row = begin; row < end; ++row) {
                        double rest = kEps;  // what e, added to x, gives
                        for (std::int64_t d = 0; d < dim; ++d) rest += kEps * (total.data<float>()[row * dim + d] + kEps);
                        float* values = flows.data<float>() + row * tokens;
                        for (std::int64_t j = 0; j < tokens; ++j)
                          values[j] = share_of(values[j] + static_cast<float>(rest), share);
                      }
                    });
  return flows;
}

}  // namespace

Tensor flow_attention(const Tensor& q, const Tensor& k, const Tensor& v) {
  detail::check_heads("flow_attention", q, k, v);
  if (q.size(1) != k.size(1))
    throw Error(fmt::format("flow_attention: {} queries and {} keys, expected the same tokens", q.size(1), k.size(1)));
  constexpr FeatureMap kMap = FeatureMap::sigmoid;
  Tensor incoming = flow(q, feature_sums(k, kMap), FlowShare::inverse);
  const Tensor outgoing = flow(k, feature_sums(q, kMap), FlowShare::inverse);
  const Tensor sink = flow(q, feature_sums(k, kMap, outgoing), FlowShare::sigmoid);
  const Tensor source = flow(k, feature_sums(q, kMap, incoming), FlowShare::clamped);
  multiply_(incoming, sink);
  return linear_attention(q, k, v,
                          {.query_map = kMap,
                           .key_map = kMap,
                           .normalizer = LinearNormalizer::none,
                           .scale = static_cast<float>(q.size(1)),
                           .key_weights = softmax(source),
                           .query_weights = incoming});
}

FlowAttention::FlowAttention(const Weights& w, const FlowAttentionConfig& c, const LinearOptions& proj_options) : config(c) {
  const std::string where = detail::module_name("flow_attention", w);
  detail::check_num_heads(where, c.dim, c.num_heads);
  qkv = Linear(w / "qkv", c.dim, 3 * c.dim, {.bias = c.qkv_bias});
  proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

Tensor FlowAttention::operator()(const Tensor& x, Tensor residual) const {
  const auto [q, k, v] = detail::split_qkv("flow_attention", qkv, x, config.num_heads);  // [B, N, heads, head_dim]
  return proj(flow_attention(q, k, v).flatten(2, 3), {.residual = std::move(residual)});
}

}  // namespace vitrine
