#include <vitrine/attention2d/agent.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/token_merge.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

namespace {

constexpr std::int64_t kBiasSide = 7;  // of an_bias and na_bias, whatever the map

void validate_map(const Tensor& t, std::string_view name, const Shape& expected) {
  if (!t.defined() || t.shape() != expected)
    throw Error(fmt::format("agent_attention: {} is {}, expected {}", name, t.defined() ? t.shape().to_string() : "undefined",
                            expected.to_string()));
}

void validate_bias(const Tensor& t, std::string_view name, std::int64_t batch, std::int64_t heads, std::int64_t rows,
                   std::int64_t columns) {
  if (!t.defined()) return;
  if (t.dtype() != DType::f32 || t.rank() != 4 || (t.size(0) != 1 && t.size(0) != batch) ||
      (t.size(1) != 1 && t.size(1) != heads) || t.size(2) != rows || t.size(3) != columns)
    throw Error(fmt::format("agent_attention: {} is {} {}, expected f32 [1 or {}, 1 or {}, {}, {}]", name, name_of(t.dtype()),
                            t.shape().to_string(), batch, heads, rows, columns));
}

// Attention itself checks the types; shapes are checked here, before the first of two products is made.
void validate(const Tensor& q, const Tensor& agents, const Tensor& k, const Tensor& v, const AgentOptions& options) {
  for (const auto& [t, name] : {std::pair(&q, "q"), std::pair(&agents, "agents"), std::pair(&v, "v")})
    if (!t->defined() || t->rank() != 4)
      throw Error(fmt::format("agent_attention: {} is {}, expected [B, tokens, heads, head_dim]", name,
                              t->defined() ? t->shape().to_string() : "undefined"));
  const std::int64_t batch = q.size(0), heads = q.size(2), dim = q.size(3);
  validate_map(agents, "agents", {batch, agents.size(1), heads, dim});
  validate_map(v, "v", {batch, v.size(1), heads, v.size(3)});
  validate_map(k, "k", {batch, v.size(1), heads, dim});
  if (agents.size(1) == 0) throw Error("agent_attention: there are no agents");
  if (agents.dtype() != q.dtype() || k.dtype() != q.dtype() || v.dtype() != q.dtype())
    throw Error(fmt::format("agent_attention: q is {}, agents {}, k {}, v {}; expected one type", name_of(q.dtype()),
                            name_of(agents.dtype()), name_of(k.dtype()), name_of(v.dtype())));
  validate_bias(options.gather_bias, "gather_bias", batch, heads, agents.size(1), k.size(1));
  validate_bias(options.spread_bias, "spread_bias", batch, heads, q.size(1), agents.size(1));
}

std::int64_t side_of(std::int64_t agent_num) {
  return static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(agent_num))));
}

void validate(const Weights& w, const AgentAttentionConfig& c) {
  const std::string where = detail::module_name("agent_attention", w);
  const auto fail = [&](const std::string& what) { throw Error(fmt::format("{}: {}", where, what)); };
  detail::check_num_heads(where, c.dim, c.num_heads);
  detail::check_size(where, "agent_num", c.agent_num);
  if (side_of(c.agent_num) * side_of(c.agent_num) != c.agent_num) fail(fmt::format("agent_num {} is not a square", c.agent_num));
  detail::check_size(where, "height", c.height);
  detail::check_size(where, "width", c.width);
  if (c.sr_ratio < 1 || c.sr_ratio > c.height || c.sr_ratio > c.width)
    fail(fmt::format("sr_ratio {} on a map of {}x{}", c.sr_ratio, c.height, c.width));
}

struct Biases {
  Tensor gather, spread;
};

// The parts of both biases, resized to the maps of keys (rows x columns) and of queries (the layer's) and summed.
Biases read_biases(const Weights& w, const AgentAttentionConfig& c, std::int64_t rows, std::int64_t columns) {
  const std::int64_t heads = c.num_heads, agents = c.agent_num;
  const auto resized = [&](const char* name, std::int64_t height, std::int64_t width) {  // [heads, height, width, agents]
    const int channels_last[] = {0, 2, 3, 1};
    return resize(permute(w.get(name, {heads, agents, kBiasSide, kBiasSide}), channels_last), height, width);
  };
  const int agents_first[] = {0, 3, 1, 2};
  Tensor gather = permute(resized("an_bias", rows, columns), agents_first);  // [heads, agents, rows, columns]
  add_(gather, w.get("ah_bias", {1, heads, agents, rows, 1}).select(0, 0));
  add_(gather, w.get("aw_bias", {1, heads, agents, 1, columns}).select(0, 0));
  Tensor spread = resized("na_bias", c.height, c.width);
  add_(spread, w.get("ha_bias", {1, heads, c.height, 1, agents}).select(0, 0));
  add_(spread, w.get("wa_bias", {1, heads, 1, c.width, agents}).select(0, 0));
  Biases b{gather.view({1, heads, agents, rows * columns}), spread.view({1, heads, c.height * c.width, agents})};
  if (c.class_token) {
    const Tensor to_agents[] = {w.get("ac_bias", {1, heads, agents, 1}), b.gather};
    const Tensor from_agents[] = {w.get("ca_bias", {1, heads, 1, agents}), b.spread};
    b = {concat(to_agents, 3), concat(from_agents, 2)};
  }
  return {b.gather.to(w.device()), b.spread.to(w.device())};
}

// q averaged over a grid of side x side: map [B, H, W, C] -> [B, agents, heads, head_dim]
Tensor agents_of(const Tensor& map, const AgentAttentionConfig& c) {
  const std::int64_t side = side_of(c.agent_num);
  return adaptive_avg_pool2d(map, side, side).view({map.size(0), c.agent_num, c.num_heads, c.dim / c.num_heads});
}

void check_tokens(const Tensor& x, std::int64_t tokens, std::int64_t dim) {
  if (x.rank() != 3 || x.size(1) != tokens || x.size(2) != dim)
    throw Error(fmt::format("agent_attention: x is {}, expected [B, {}, {}]", x.shape().to_string(), tokens, dim));
}

constexpr Conv2dOptions depthwise(std::int64_t channels) { return {.pad_h = 1, .pad_w = 1, .groups = channels}; }

}  // namespace

Tensor agent_attention(const Tensor& q, const Tensor& agents, const Tensor& k, const Tensor& v, const AgentOptions& options) {
  validate(q, agents, k, v, options);
  const Tensor agent_v = attention(agents, k, v, {.scale = options.scale, .bias = options.gather_bias});  // [B, A, H, Dv]
  return attention(q, agents, agent_v,
                   {.scale = options.spread_scale ? options.spread_scale : options.scale, .bias = options.spread_bias});
}

AgentAttention::AgentAttention(const Weights& w, const AgentAttentionConfig& c, const LinearOptions& proj_options) : config(c) {
  validate(w, c);
  if (c.sr_ratio != 1)
    throw Error(fmt::format("{}: sr_ratio is for AgentAttentionPvt", detail::module_name("agent_attention", w)));
  if (!c.mix_only) qkv = Linear(w / "qkv", c.dim, 3 * c.dim, {.bias = c.qkv_bias});
  dwc = Conv2d(w / (c.mix_only ? "get_v" : "dwc"), c.dim, c.dim, 3, 3, depthwise(c.dim));
  Biases biases = read_biases(w, c, c.height, c.width);
  gather_bias = std::move(biases.gather);
  spread_bias = std::move(biases.spread);
  if (!c.mix_only) proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

Tensor AgentAttention::operator()(const Tensor& x, Tensor residual) const {
  check_tokens(x, (config.class_token ? 1 : 0) + config.height * config.width, config.dim);
  const Tensor parts = qkv(x).unflatten(2, {3, config.dim});  // [B, N, 3, C]
  return proj(mix(parts.select(2, 0), parts.select(2, 1), parts.select(2, 2)), {.residual = std::move(residual)});
}

Tensor AgentAttention::mix(const Tensor& q, const Tensor& k, const Tensor& v) const {
  const std::int64_t first = config.class_token ? 1 : 0, tokens = first + config.height * config.width;
  for (const Tensor* t : {&q, &k, &v}) check_tokens(*t, tokens, config.dim);
  const auto map = [&](const Tensor& t) { return t.slice(1, first, tokens).unflatten(1, {config.height, config.width}); };
  const auto heads = [&](const Tensor& t) { return t.unflatten(2, {config.num_heads, config.dim / config.num_heads}); };
  Tensor y = agent_attention(heads(q), agents_of(map(q), config), heads(k), heads(v),
                             {.gather_bias = gather_bias, .spread_bias = spread_bias})
                 .flatten(2, 3);  // [B, N, C]
  Tensor image = map(y);
  dwc.add_to(image, map(v));
  return y;
}

AgentAttentionPvt::AgentAttentionPvt(const Weights& w, const AgentAttentionConfig& c, const LinearOptions& proj_options)
    : config(c) {
  validate(w, c);
  if (c.class_token) throw Error(fmt::format("{}: Agent-PVT has no class token", detail::module_name("agent_attention", w)));
  q = Linear(w / "q", c.dim, c.dim, {.bias = c.qkv_bias});
  kv = Linear(w / "kv", c.dim, 2 * c.dim, {.bias = c.qkv_bias});
  if (c.sr_ratio > 1) {
    sr = PatchEmbed(w / "sr", c.dim, c.dim, c.sr_ratio, c.sr_ratio);
    norm = LayerNorm(w / "norm", c.dim, 1e-5);
  }
  dwc = Conv2d(w / "dwc", c.dim, c.dim, 3, 3, depthwise(c.dim));
  Biases biases = read_biases(w, c, c.height / c.sr_ratio, c.width / c.sr_ratio);
  gather_bias = std::move(biases.gather);
  spread_bias = std::move(biases.spread);
  proj = Linear(w / "proj", c.dim, c.dim, proj_options);
}

Tensor AgentAttentionPvt::operator()(const Tensor& x, Tensor residual) const {
  const std::int64_t height = config.height, width = config.width, ratio = config.sr_ratio, dim = config.dim;
  check_tokens(x, height * width, dim);
  const std::int64_t B = x.size(0), rows = height / ratio, columns = width / ratio;
  const auto heads = [&](const Tensor& t) { return t.unflatten(2, {config.num_heads, dim / config.num_heads}); };
  const Tensor queries = q(x);  // [B, N, C]
  Tensor source = x;
  if (ratio > 1) {  // rows and columns that a cell of the reduction does not fill are left out, as by a strided convolution
    const Tensor map = x.unflatten(1, {height, width}).slice(1, 0, rows * ratio).slice(2, 0, columns * ratio);
    source = norm(sr(map)).view({B, rows * columns, dim});
  }
  const Tensor parts = kv(source).unflatten(2, {2, dim});  // [B, M, 2, C]
  const Tensor k = parts.select(2, 0), v = parts.select(2, 1);
  Tensor y = agent_attention(heads(queries), agents_of(queries.unflatten(1, {height, width}), config), heads(k), heads(v),
                             {.gather_bias = gather_bias, .spread_bias = spread_bias})
                 .flatten(2, 3);
  Tensor values = v.unflatten(1, {rows, columns});
  if (ratio > 1) values = resize(values, height, width);
  Tensor image = y.unflatten(1, {height, width});
  dwc.add_to(image, values);
  return proj(y, {.residual = std::move(residual)});
}

AgentAttentionSd::AgentAttentionSd(const Weights& w, const AgentAttentionSdConfig& c) : config(c) {
  const std::string where = detail::module_name("agent_attention_sd", w);
  for (const auto& [size, name] :
       {std::pair(c.dim, "dim"), std::pair(c.num_heads, "num_heads"), std::pair(c.head_dim, "head_dim")})
    detail::check_size(where, name, size);
  const std::int64_t inner = c.num_heads * c.head_dim;
  const Tensor weights[] = {(w / "to_q").get("weight", {inner, c.dim}), (w / "to_k").get("weight", {inner, c.dim}),
                            (w / "to_v").get("weight", {inner, c.dim})};
  qkv = Linear(concat(weights, 0), {}, w.options());
  to_q = Linear(w / "to_q", c.dim, inner, {.bias = false});
  to_out = Linear(w / "to_out" / "0", inner, c.dim);
}

Tensor AgentAttentionSd::operator()(const Tensor& x, const Tensor& agents, Tensor residual) const {
  for (const auto& [t, name] : {std::pair(&x, "x"), std::pair(&agents, "agents")})
    if (!t->defined() || t->rank() != 3 || t->size(2) != config.dim || t->size(0) != x.size(0))
      throw Error(fmt::format("agent_attention_sd: {} is {}, expected [B, tokens, {}]", name,
                              t->defined() ? t->shape().to_string() : "undefined", config.dim));
  const auto heads = [&](const Tensor& t) { return t.unflatten(2, {config.num_heads, config.head_dim}); };
  const Tensor parts = qkv(x).unflatten(2, {3, config.num_heads, config.head_dim});  // [B, N, 3, heads, head_dim]
  const Tensor q = parts.select(2, 0), k = parts.select(2, 1), v = parts.select(2, 2);
  Tensor y;
  if (2 * agents.size(1) < x.size(1)) {
    const double scale = 1 / std::sqrt(static_cast<double>(config.head_dim));
    y = agent_attention(
        q, heads(to_q(agents)), k, v,
        {.scale = static_cast<float>(scale), .spread_scale = static_cast<float>(std::pow(scale, config.k_scale2))});
    if (config.k_shortcut != 0) add_(y, affine(v, static_cast<float>(config.k_shortcut), 0));
  } else {
    y = attention(q, k, v);
  }
  return to_out(y.flatten(2, 3), {.residual = std::move(residual)});
}

Tensor AgentAttentionSd::merged(const Tensor& x, const AgentMergeConfig& merge, const Tensor& features) const {
  if (x.rank() != 3 || x.size(2) != config.dim)
    throw Error(fmt::format("agent_attention_sd: x is {}, expected [B, tokens, {}]", x.shape().to_string(), config.dim));
  for (const double ratio : {merge.ratio, merge.agent_ratio})
    if (!(ratio >= 0 && ratio <= 1)) throw Error(fmt::format("agent_attention_sd: a ratio of {}, expected 0 to 1", ratio));
  const TokenMatches matches =
      match_tokens(features.defined() ? features : x, {merge.height, merge.width, merge.cell_height, merge.cell_width});
  const std::int64_t tokens = x.size(1), sources = matches.sources.size(1);
  const auto merged_away = [&](double ratio) {
    return std::min(sources, static_cast<std::int64_t>(static_cast<double>(tokens) * ratio));
  };
  const MergedTokens kept = merge_tokens(x, matches, merged_away(merge.ratio));
  const std::int64_t harder = merged_away(merge.agent_ratio);
  const bool agents_pay = 2 * (tokens - harder) < kept.tokens.size(1);
  const Tensor agents = agents_pay ? merge_tokens(x, matches, harder).tokens : kept.tokens;
  return unmerge_tokens((*this)(kept.tokens, agents), kept.origin);
}

}  // namespace vitrine
