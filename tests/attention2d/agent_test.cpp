#include <vitrine/attention2d/agent.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <attention2d/compare.h>
#include <catch.h>
#include <fmt/format.h>
#include <layers/random.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

using test::contains;
using test::difference;
using test::Random;
using test::tolerance_of;

// Rows of one head in double.
std::vector<double> head_of(const Tensor& x, std::int64_t b, std::int64_t h) {
  const Tensor one = x.select(0, b).select(1, h).contiguous().to(DType::f32);
  return {one.data<float>(), one.data<float>() + one.numel()};
}

// softmax(scale a b^T + bias) c, [rows, columns] of one head; bias f32 [rows, columns] or null.
std::vector<double> attend(const std::vector<double>& a, const std::vector<double>& b, const std::vector<double>& c,
                           std::int64_t dim, double scale, const float* bias) {
  const auto rows = static_cast<std::int64_t>(a.size()) / dim, keys = static_cast<std::int64_t>(b.size()) / dim;
  const auto value_dim = static_cast<std::int64_t>(c.size()) / keys;
  std::vector<double> out(static_cast<std::size_t>(rows * value_dim)), weight(static_cast<std::size_t>(keys));
  for (std::int64_t i = 0; i < rows; ++i) {
    double total = 0;
    for (std::int64_t j = 0; j < keys; ++j) {
      double logit = 0;
      for (std::int64_t d = 0; d < dim; ++d) logit += a[i * dim + d] * b[j * dim + d];
      weight[j] = std::exp(logit * scale + (bias ? bias[i * keys + j] : 0));
      total += weight[j];
    }
    for (std::int64_t j = 0; j < keys; ++j)
      for (std::int64_t d = 0; d < value_dim; ++d) out[i * value_dim + d] += weight[j] / total * c[j * value_dim + d];
  }
  return out;
}

// The definition by brute force.
Tensor by_definition(const Tensor& q, const Tensor& agents, const Tensor& k, const Tensor& v, const AgentOptions& o) {
  const std::int64_t B = q.size(0), N = q.size(1), H = q.size(2), D = q.size(3), A = agents.size(1), M = k.size(1),
                     Dv = v.size(3);
  const double scale = o.scale ? *o.scale : 1 / std::sqrt(static_cast<double>(D));
  const double spread = o.spread_scale ? *o.spread_scale : scale;
  const auto table = [](const Tensor& t, std::int64_t b, std::int64_t h, std::int64_t size) -> const float* {
    if (!t.defined()) return nullptr;
    return t.data<float>() + ((t.size(0) > 1 ? b : 0) * t.size(1) + (t.size(1) > 1 ? h : 0)) * size;
  };
  Tensor out = Tensor::empty({B, N, H, Dv});
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t h = 0; h < H; ++h) {
      const auto a = head_of(agents, b, h);
      const auto agent_v = attend(a, head_of(k, b, h), head_of(v, b, h), D, scale, table(o.gather_bias, b, h, A * M));
      const auto y = attend(head_of(q, b, h), a, agent_v, D, spread, table(o.spread_bias, b, h, N * A));
      for (std::int64_t n = 0; n < N; ++n)
        for (std::int64_t d = 0; d < Dv; ++d)
          out.data<float>()[((b * N + n) * H + h) * Dv + d] = static_cast<float>(y[n * Dv + d]);
    }
  return out;
}

TEST_CASE("agent attention is its formula on random problems") {
  Random random(1);
  for (int round = 0; round < 40; ++round) {
    const DType dtype = round % 4 == 1 ? DType::bf16 : round % 4 == 3 ? DType::f16 : DType::f32;
    const std::int64_t B = random.integer(1, 2), H = random.integer(1, 3), N = random.integer(1, 70), M = random.integer(1, 70),
                       A = random.integer(1, 50), D = random.integer(1, 40), Dv = random.integer(1, 40);
    INFO(fmt::format("round {}: {} B {} H {} N {} M {} A {} D {} Dv {}", round, name_of(dtype), B, H, N, M, A, D, Dv));
    AgentOptions options;
    if (round % 3) options.gather_bias = random.tensor({round % 3, H, A, M}).slice(0, 0, 1);
    if (round % 5) options.spread_bias = random.tensor({B, round % 2 ? H : 1, N, A});
    if (round % 7 == 0) options.scale = 0.3f;
    if (round % 6 == 0) options.spread_scale = 0.7f;
    const Tensor q = random.tensor({B, N, H, D}).to(dtype), agents = random.tensor({B, A, H, D}).to(dtype);
    const Tensor k = random.tensor({B, M, H, D}).to(dtype), v = random.tensor({B, M, H, Dv}).to(dtype);
    CHECK(difference(agent_attention(q, agents, k, v, options), by_definition(q, agents, k, v, options), tolerance_of(dtype)) ==
          "");
  }
}

// With A agents the N x M matrix that is applied to v has rank A: v in its null space gives nothing, and the outputs of any
// v lie in a space of A dimensions. For one agent: every output is the same row.
TEST_CASE("one agent gives every query the same output") {
  Random random(2);
  const Tensor q = random.tensor({1, 20, 2, 8}), k = random.tensor({1, 30, 2, 8}), v = random.tensor({1, 30, 2, 8});
  const Tensor agent = random.tensor({1, 1, 2, 8});
  const Tensor y = agent_attention(q, agent, k, v), expected = attention(agent, k, v);
  for (std::int64_t n = 0; n < 20; ++n) CHECK(difference(y.slice(1, n, n + 1), expected, 1e-6) == "");
}

// The layer's formula from ops: biases resized per table, pooling, convolution, each on its own.
Tensor layer_by_definition(const Weights& w, const AgentAttentionConfig& c, const Tensor& x) {
  const std::int64_t B = x.size(0), prefix = c.class_token, dim = c.dim, H = c.num_heads, A = c.agent_num, D = dim / H,
                     N = x.size(1), L = c.height * c.width, side = std::llround(std::sqrt(static_cast<double>(A)));
  const Tensor qkv = Linear(w / "qkv", dim, 3 * dim, {.bias = c.qkv_bias})(x);
  const auto part = [&](int i) { return qkv.slice(2, i * dim, (i + 1) * dim).contiguous(); };
  const auto map = [&](const Tensor& t) { return t.slice(1, prefix, N).contiguous().view({B, c.height, c.width, dim}); };
  const Tensor agents = adaptive_avg_pool2d(map(part(0)), side, side).view({B, A, H, D});
  Tensor gather = Tensor::zeros({1, H, A, N}), spread = Tensor::zeros({1, H, N, A});
  for (std::int64_t h = 0; h < H; ++h)
    for (std::int64_t a = 0; a < A; ++a) {
      const auto table = [&](const char* name) {
        return resize(w.get(name, {H, A, 7, 7}).select(0, h).select(0, a).contiguous().view({1, 7, 7, 1}), c.height, c.width);
      };
      const auto at = [&](const char* name, const Shape& shape, std::int64_t i) { return w.get(name, shape).data<float>()[i]; };
      const Tensor an = table("an_bias"), na = table("na_bias");
      if (prefix) {
        gather.data<float>()[(h * A + a) * N] = at("ac_bias", {1, H, A, 1}, h * A + a);
        spread.data<float>()[h * N * A + a] = at("ca_bias", {1, H, 1, A}, h * A + a);
      }
      for (std::int64_t l = 0; l < L; ++l) {
        const std::int64_t row = l / c.width, column = l % c.width;
        gather.data<float>()[(h * A + a) * N + prefix + l] = an.data<float>()[l] +
                                                             at("ah_bias", {1, H, A, c.height, 1}, (h * A + a) * c.height + row) +
                                                             at("aw_bias", {1, H, A, 1, c.width}, (h * A + a) * c.width + column);
        spread.data<float>()[(h * N + prefix + l) * A + a] = na.data<float>()[l] +
                                                             at("ha_bias", {1, H, c.height, 1, A}, (h * c.height + row) * A + a) +
                                                             at("wa_bias", {1, H, 1, c.width, A}, (h * c.width + column) * A + a);
      }
    }
  const auto heads = [&](int i) { return part(i).view({B, N, H, D}); };
  Tensor y =
      by_definition(heads(0), agents, heads(1), heads(2), {.gather_bias = gather, .spread_bias = spread}).view({B, N, dim});
  const Tensor local = Conv2d(w / "dwc", dim, dim, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = dim})(map(part(2)));
  Tensor image = y.slice(1, prefix, N);
  add_(image, local.view({B, L, dim}));
  return Linear(w / "proj", dim, dim)(y);
}

TEST_CASE("the layer of Agent-DeiT and Agent-Swin is its formula, on rectangular maps as well") {
  Random random(3);
  for (const bool class_token : {false, true})
    for (const auto& [height, width, agents] :
         {std::tuple(7, 7, 9), std::tuple(5, 9, 4), std::tuple(3, 14, 25), std::tuple(1, 1, 1)}) {
      INFO(fmt::format("class token {}, {}x{}, {} agents", class_token, height, width, agents));
      const AgentAttentionConfig config{.dim = 24,
                                        .num_heads = 3,
                                        .agent_num = agents,
                                        .height = height,
                                        .width = width,
                                        .class_token = class_token,
                                        .qkv_bias = agents != 9};
      const Weights w(synthetic_weights());
      const AgentAttention layer(w, config);
      const Tensor x = random.tensor({2, class_token + height * width, 24});
      const Tensor expected = layer_by_definition(w, config, x);
      CHECK(difference(layer(x), expected, 1e-5) == "");
      CHECK(difference(layer(x, x), add(expected, x), 1e-5) == "");
    }
}

TEST_CASE("Agent-PVT without reduction is Agent-Swin with q and kv apart") {
  Random random(4);
  const AgentAttentionConfig config{.dim = 32, .num_heads = 2, .agent_num = 9, .height = 6, .width = 8};
  const Weights w(synthetic_weights());
  const AgentAttentionPvt pvt(w, config);
  const Tensor weights[] = {w.get("q.weight", {32, 32}), w.get("kv.weight", {64, 32})},
               biases[] = {w.get("q.bias", {32}), w.get("kv.bias", {64})};
  AgentAttention swin(w, config);
  swin.qkv = Linear(concat(weights, 0), concat(biases, 0), DType::f32);
  const Tensor x = random.tensor({2, 48, 32});
  CHECK(difference(pvt(x), swin(x), 1e-5) == "");
}

TEST_CASE("Agent-PVT leaves out what a cell of the reduction does not fill") {
  Random random(5);
  const AgentAttentionConfig config{.dim = 16, .num_heads = 2, .agent_num = 4, .height = 7, .width = 9, .sr_ratio = 2};
  const AgentAttentionPvt layer(Weights(synthetic_weights()), config);
  const Tensor x = random.tensor({1, 63, 16});
  CHECK(layer.gather_bias.shape() == Shape{1, 2, 4, 12});
  CHECK(layer.spread_bias.shape() == Shape{1, 2, 63, 4});
  CHECK(layer(x).shape() == x.shape());
}

TEST_CASE("agent attention does not depend on the order of a batch nor on the number of threads") {
  Random random(6);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Weights w(synthetic_weights(), {.dtype = dtype, .device = {}});
    const AgentAttention layer(w, {.dim = 32, .num_heads = 2, .agent_num = 9, .height = 9, .width = 11, .class_token = true});
    const Tensor x = random.tensor({3, 100, 32}).to(dtype);
    const auto under = [&](int threads) {
      Context context({.threads = threads, .device = {}});
      const ContextScope scope(context);
      return layer(x);
    };
    const Tensor expected = under(1);
    CHECK(test::same_bits(under(5), expected));
    for (std::int64_t b = 0; b < 3; ++b) CHECK(difference(layer(x.slice(0, b, b + 1)), expected.slice(0, b, b + 1), 1e-6) == "");
  }
}

TEST_CASE("AgentSD: few agents, and plain attention where they are not few") {
  Random random(7);
  const Weights w(synthetic_weights());
  const AgentAttentionSdConfig config{.dim = 24, .num_heads = 2, .head_dim = 16, .k_scale2 = 0.5, .k_shortcut = 0.2};
  const AgentAttentionSd layer(w, config);
  const auto project = [&](const char* name, const Tensor& t) {
    return Linear(w / name, 24, 32, {.bias = false})(t).unflatten(2, {2, 16});
  };
  const Linear out(w / "to_out" / "0", 32, 24);
  const Tensor x = random.tensor({2, 21, 24}), few = random.tensor({2, 10, 24}), many = random.tensor({2, 11, 24});
  const Tensor q = project("to_q", x), k = project("to_k", x), v = project("to_v", x);
  Tensor y = by_definition(q, project("to_q", few), k, v, {.scale = 0.25f, .spread_scale = 0.5f});
  add_(y, affine(v, 0.2f, 0));
  CHECK(difference(layer(x, few), out(y.flatten(2, 3)), 1e-5) == "");
  CHECK(difference(layer(x, many), out(attention(q, k, v).flatten(2, 3)), 1e-5) == "");
  CHECK(difference(layer(x, many, x), add(layer(x, many), x), 1e-6) == "");
}

TEST_CASE("AgentSD that merges nothing is plain attention; tokens merged into one share its output") {
  Random random(8);
  const AgentAttentionSd layer(Weights(synthetic_weights()), {.dim = 24, .num_heads = 2, .head_dim = 8});
  const Tensor x = random.tensor({2, 24, 24});
  CHECK(difference(layer.merged(x, {.height = 4, .width = 6, .ratio = 0, .agent_ratio = 0}), layer(x, x), 1e-5) == "");
  const Tensor y = layer.merged(x, {.height = 4, .width = 6, .ratio = 1, .agent_ratio = 1});
  std::vector<float> first;  // one of each distinct output of the first image
  for (std::int64_t n = 0; n < 24; ++n) first.push_back(y.data<float>()[n * 24]);
  std::sort(first.begin(), first.end());
  CHECK(std::unique(first.begin(), first.end()) - first.begin() == 6);  // 2 x 3 cells
}

TEST_CASE("agent attention refuses what does not fit, in one line") {
  const Tensor q = Tensor::zeros({2, 9, 2, 8}), a = Tensor::zeros({2, 4, 2, 8}), k = Tensor::zeros({2, 7, 2, 8});
  CHECK_THROWS_WITH(agent_attention(q, a, k, q), contains("k is [2, 7, 2, 8], expected [2, 9, 2, 8]"));
  CHECK_THROWS_WITH(agent_attention(q, Tensor::zeros({2, 4, 1, 8}), k, k), contains("agents is [2, 4, 1, 8], expected"));
  CHECK_THROWS_WITH(agent_attention(q, Tensor(), k, k), contains("agents is undefined"));
  CHECK_THROWS_WITH(agent_attention(q, Tensor::zeros({2, 0, 2, 8}), k, k), contains("there are no agents"));
  CHECK_THROWS_WITH(agent_attention(q, a.to(DType::bf16), k, k), contains("q is f32, agents bf16"));
  CHECK_THROWS_WITH(agent_attention(q, a, k, k, {.gather_bias = Tensor::zeros({1, 2, 4, 9})}),
                    contains("gather_bias is f32 [1, 2, 4, 9], expected f32 [1 or 2, 1 or 2, 4, 7]"));
  CHECK_THROWS_WITH(agent_attention(q, a, k, k, {.spread_bias = Tensor::zeros({1, 2, 9, 3})}), contains("spread_bias"));

  const Weights w(synthetic_weights());
  const auto build = [&](AgentAttentionConfig config) { return AgentAttention(w / "attn", config); };
  CHECK_THROWS_WITH(build({.dim = 24, .num_heads = 0}), contains("attn: dim 24 is not a multiple of 0 heads"));
  CHECK_THROWS_WITH(build({.dim = 24, .num_heads = 5}), contains("24 is not a multiple of 5 heads"));
  CHECK_THROWS_WITH(build({.dim = 24, .agent_num = 8}), contains("agent_num 8 is not a square"));
  CHECK_THROWS_WITH(build({.dim = 24, .agent_num = -4}), contains("agent_num is -4, expected 1 to"));
  CHECK_THROWS_WITH(build({.dim = 24, .height = 0}), contains("height is 0, expected 1 to"));
  CHECK_THROWS_WITH(build({.dim = 24, .sr_ratio = 2}), contains("sr_ratio is for AgentAttentionPvt"));
  CHECK_THROWS_WITH(AgentAttentionPvt(w, {.dim = 24, .height = 4, .width = 9, .sr_ratio = 5}),
                    contains("sr_ratio 5 on a map of 4x9"));
  CHECK_THROWS_WITH(AgentAttentionPvt(w, {.dim = 24, .class_token = true}), contains("has no class token"));
  CHECK_THROWS_WITH(build({.dim = 24})(Tensor::zeros({1, 197, 24})), contains("x is [1, 197, 24], expected [B, 196, 24]"));
  CHECK_THROWS_WITH(AgentAttentionSd(w, {.dim = 24, .num_heads = 2, .head_dim = 0}), contains("head_dim is 0, expected 1 to"));
  const AgentAttentionSd sd(w, {.dim = 24, .num_heads = 2, .head_dim = 8});
  CHECK_THROWS_WITH(sd(Tensor::zeros({1, 9, 24}), Tensor::zeros({2, 3, 24})), contains("agents is [2, 3, 24]"));
  CHECK_THROWS_WITH(sd.merged(Tensor::zeros({1, 9, 24}), {.height = 3, .width = 3, .ratio = 1.5}), contains("a ratio of 1.5"));
}

}  // namespace
}  // namespace vitrine
