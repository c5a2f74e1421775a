#include <vitrine/backbones/tokens.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>

namespace vitrine::detail {

std::size_t parse_choice(std::string_view model, std::string_view argument, std::string_view value,
                         std::span<const std::string_view> choices) {
  const auto found = std::find(choices.begin(), choices.end(), value);
  if (found != choices.end()) return static_cast<std::size_t>(found - choices.begin());
  const std::vector<std::string> names(choices.begin(), choices.end());
  throw Error(fmt::format("{}: argument {} is '{}', expected one of '{}'{}", model, argument, value, fmt::join(names, "', '"),
                          suggest_names(value, names, 1)));
}

void require(bool right, std::string_view model, std::string_view what) {
  if (!right) throw Error(fmt::format("{}: {}", model, what));
}

void require_size(std::string_view model, std::string_view argument, std::int64_t value, std::int64_t most, std::int64_t least) {
  if (value < least || value > most)
    throw Error(fmt::format("{}: {} is {}, expected {} to {}", model, argument, value, least, most));
}

Tensor sum(Tensor x, const Tensor& y) {
  if (!x.is_unique()) return add(x, y);
  add_(x, y);
  return x;
}

// --- norm --------------------------------------------------------------------------------------------------------

NormConfig parse_norm(std::string_view model, std::string_view argument, std::string_view name, double eps) {
  const std::size_t choice = parse_choice(model, argument, name,
                                          {"layernorm", "LayerNorm", "layernorm2d", "LayerNorm2d", "rmsnorm", "RmsNorm",
                                           "rmsnorm2d", "RmsNorm2d", "simplenorm", "SimpleNorm", "simplenorm2d", "SimpleNorm2d"});
  require(eps >= 0 && eps < 1, model, "norm_eps is out of range");
  return {static_cast<NormKind>(choice / 4), eps};
}

Norm::Norm(const Weights& w, std::int64_t dim, const NormConfig& norm_config)
    : weight(w.on_device("weight", {dim})),
      bias(norm_config.kind != NormKind::layer ? Tensor() : w.on_device("bias", {dim})),
      config(norm_config) {}

Tensor Norm::operator()(const Tensor& x) const {
  if (!defined()) return x;
  switch (config.kind) {
    case NormKind::layer:
      return layer_norm(x, weight, bias, config.eps);
    case NormKind::rms:
      return rms_norm(x, weight, config.eps);
    case NormKind::simple:
      break;
  }
  return simple_norm(x, weight, config.eps);
}

// --- feed-forward ------------------------------------------------------------------------------------------------

FeedForward::FeedForward(const Weights& w, const FeedForwardConfig& feed_forward, const Tensor& layer_scale)
    : config(feed_forward) {
  const std::int64_t dim = config.dim, hidden = config.hidden;
  const bool one_matrix = config.kind == MlpKind::glu || config.kind == MlpKind::packed;
  const std::int64_t inner = one_matrix ? hidden / 2 : hidden;
  if (config.kind == MlpKind::plain || config.kind == MlpKind::packed) {
    fc1 = Linear(w / "fc1", dim, hidden, {.bias = config.bias, .scale = {}});
  } else {
    fc1 = config.kind == MlpKind::glu ? gate_first(w / "fc1", dim, inner, config.bias)
                                      : stack_rows(w, {"fc1_g", "fc1_x"}, dim, hidden, config.bias);
  }
  if (config.norm) norm = Norm(w / "norm", inner, *config.norm);
  fc2 = Linear(w / "fc2", inner, dim, {.bias = config.bias, .scale = layer_scale});
}

Tensor FeedForward::operator()(const Tensor& x, Tensor residual) const {
  const bool plain = config.kind == MlpKind::plain;
  Tensor y = fc1(x, {.activation = plain ? config.activation : Activation::none, .residual = {}});  // [..., hidden]
  if (!plain) y = gated_activation(y, config.activation);
  return fc2(norm(y), {.activation = Activation::none, .residual = std::move(residual)});
}

// --- attention ---------------------------------------------------------------------------------------------------

Linear stack_rows(const Weights& w, std::span<const LinearPart> parts) {
  std::vector<Tensor> weights, biases;
  bool any_bias = false;
  for (const LinearPart& part : parts) {
    weights.push_back(part.weight);
    biases.push_back(part.bias.defined() ? part.bias : Tensor::zeros({part.weight.size(0)}));
    any_bias = any_bias || part.bias.defined();
  }
  return Linear(concat(weights, 0), any_bias ? concat(biases, 0) : Tensor(), w.options());
}

Linear stack_rows(const Weights& w, std::initializer_list<std::string_view> names, std::int64_t in, std::int64_t out, bool bias) {
  std::vector<LinearPart> parts;
  for (const std::string_view name : names)
    parts.push_back({read_matrix(w / name, in, out), bias ? (w / name).get("bias", {out}) : Tensor()});
  Linear linear = stack_rows(w, parts);
  for (const std::string_view name : names) (w / name).release("weight");
  return linear;
}

Linear gate_first(const Weights& w, std::int64_t in, std::int64_t hidden, bool with_bias) {
  const Tensor weight = w.get("weight", {2 * hidden, in}), bias = with_bias ? w.get("bias", {2 * hidden}) : Tensor();
  std::vector<LinearPart> parts;
  for (const std::int64_t begin : {hidden, std::int64_t{0}})
    parts.push_back({weight.slice(0, begin, begin + hidden), with_bias ? bias.slice(0, begin, begin + hidden) : Tensor()});
  Linear linear = stack_rows(w, parts);
  w.release("weight");
  return linear;
}

SelfAttention::SelfAttention(const Weights& w, const SelfAttentionConfig& config, const Tensor& layer_scale) : config_(config) {
  SelfAttentionConfig& c = config_;
  if (c.num_kv_heads == 0) c.num_kv_heads = c.num_heads;
  const std::int64_t head_dim = c.dim / c.num_heads, kv_dim = c.num_kv_heads * head_dim;
  if (c.qkv_fused && (c.k_bias || !c.qkv_bias)) {
    qkv_ = Linear(w / "qkv", c.dim, 3 * c.dim, {.bias = c.qkv_bias, .scale = {}});
  } else if (c.qkv_fused) {
    const Tensor biases[] = {w.get("q_bias", {c.dim}), Tensor::zeros({c.dim}), w.get("v_bias", {c.dim})};
    const Weights qkv = w / "qkv";
    qkv_ = Linear(qkv.get("weight", {3 * c.dim, c.dim}), concat(biases, 0), w.options());
    qkv.release("weight");
  } else {
    std::vector<LinearPart> parts;
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
      const Weights part = w / name;
      const std::int64_t rows = parts.empty() ? c.dim : kv_dim;
      const bool bias = c.qkv_bias && (c.k_bias || parts.size() != 1);
      parts.push_back({part.get("weight", {rows, c.dim}), bias ? part.get("bias", {rows}) : Tensor()});
    }
    qkv_ = stack_rows(w, parts);
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) (w / name).release("weight");
  }
  if (c.qk_norm) {
    q_norm_ = Norm(w / "q_norm", head_dim, c.norm);
    k_norm_ = Norm(w / "k_norm", head_dim, c.norm);
  }
  if (c.inner_norm) norm_ = Norm(w / "norm", c.dim, c.norm);
  proj_ = Linear(w / "proj", c.dim, c.dim, {.bias = c.proj_bias, .scale = layer_scale});
}

Tensor SelfAttention::operator()(const Tensor& x, const Positions& positions, Tensor residual) const {
  Tensor y = attend(qkv_(x), config_.num_heads, config_.num_kv_heads, q_norm_, k_norm_, positions);  // [B, N, dim]
  return proj_(norm_(y), {.activation = Activation::none, .residual = std::move(residual)});
}

namespace {

// Rotates the patches of q or k [B, prefix + N, heads, D], in place.
void rotate(Tensor& x, const Positions& p) {
  Tensor patches = x.slice(1, p.prefix, x.size(1));
  if (p.sin.rank() == 2) {
    rotary_(patches, p.sin, p.cos, p.layout);
    return;
  }
  for (std::int64_t h = 0; h < patches.size(2); ++h) {
    Tensor head = patches.slice(2, h, h + 1);
    rotary_(head, p.sin.select(0, h), p.cos.select(0, h), p.layout);
  }
}

}  // namespace

Tensor attend(const Tensor& qkv, std::int64_t num_heads, std::int64_t num_kv_heads, const Norm& q_norm, const Norm& k_norm,
              const Positions& positions) {
  const std::int64_t head_dim = qkv.size(2) / (num_heads + 2 * num_kv_heads);
  const std::int64_t dim = num_heads * head_dim, kv_dim = num_kv_heads * head_dim;
  Tensor q = qkv.slice(2, 0, dim).unflatten(2, {num_heads, head_dim});  // [B, N, heads, D]
  Tensor k = qkv.slice(2, dim, dim + kv_dim).unflatten(2, {num_kv_heads, head_dim});
  const Tensor v = qkv.slice(2, dim + kv_dim, dim + 2 * kv_dim).unflatten(2, {num_kv_heads, head_dim});
  q = q_norm(q);
  k = k_norm(k);
  if (positions.sin.defined()) {
    rotate(q, positions);
    rotate(k, positions);
  }
  AttentionOptions options;
  options.bias = positions.bias;
  return attention(q, k, v, options).flatten(2, 3);  // [B, N, dim]
}

// --- head --------------------------------------------------------------------------------------------------------

AttentionPool::AttentionPool(const Weights& w, std::int64_t dim, std::int64_t num_heads, double mlp_ratio, const NormConfig& norm,
                             Activation activation)
    : num_heads_(num_heads) {
  const Linear q(w / "q", dim, dim);
  query_ = q(w.on_device("latent", {1, 1, dim}, w.dtype()));
  kv_ = Linear(w / "kv", dim, 2 * dim);
  proj_ = Linear(w / "proj", dim, dim);
  norm_ = Norm(w / "norm", dim, norm);
  FeedForwardConfig mlp;
  mlp.dim = dim;
  mlp.hidden = static_cast<std::int64_t>(static_cast<double>(dim) * mlp_ratio);
  mlp.activation = activation;
  mlp_ = FeedForward(w / "mlp", mlp);
}

Tensor AttentionPool::operator()(const Tensor& x) const {  // [B, N, dim]
  const std::int64_t B = x.size(0), dim = x.size(2), head_dim = dim / num_heads_;
  const Tensor kv = kv_(x).unflatten(2, {2, num_heads_, head_dim});  // [B, N, 2, heads, D]
  const std::vector<Tensor> queries(static_cast<std::size_t>(B), query_);
  const Tensor q = concat(queries, 0).unflatten(2, {num_heads_, head_dim});  // [B, 1, heads, D]
  Tensor y = proj_(attention(q, kv.select(2, 0), kv.select(2, 1)).flatten(2, 3));
  const Tensor normed = norm_(y);
  return mlp_(normed, std::move(y)).select(1, 0);  // [B, dim]
}

Pooling parse_pooling(std::string_view model, std::string_view name) {
  return static_cast<Pooling>(parse_choice(model, "global_pool", name, {"", "avg", "avgmax", "max", "token", "map", "prr"}));
}

namespace {

Tensor max_over_tokens(const Tensor& x) {  // [B, N, C] -> [B, C]
  Pool2d all;
  all.kernel_h = all.stride_h = x.size(1);
  all.kernel_w = all.stride_w = 1;
  return max_pool2d(x.contiguous().unsqueeze(2), all).view({x.size(0), x.size(2)});
}

}  // namespace

Head::Head(const Weights& w, const HeadConfig& head_config, const std::optional<NormConfig>& norm) : config(head_config) {
  if (norm) fc_norm = Norm(w / "fc_norm", config.dim, *norm);
  if (config.num_classes > 0) head = Linear(w / "head", config.dim, config.num_classes);
}

Tensor Head::pool(const Tensor& tokens) const {
  const Tensor chosen = config.include_prefix ? tokens : tokens.slice(1, config.prefix_tokens, tokens.size(1));
  switch (config.pooling) {
    case Pooling::none:
      return tokens;
    case Pooling::token:
      return tokens.select(1, 0);
    case Pooling::avg:
      return mean(chosen, 1, 1);
    case Pooling::max:
      return max_over_tokens(chosen);
    case Pooling::avgmax:
      return affine(add(max_over_tokens(chosen), mean(chosen, 1, 1)), 0.5f, 0.0f);
    case Pooling::map:
      return attn_pool(chosen);
    case Pooling::prr:
      break;
  }
  const Tensor heads = tokens.unflatten(2, {config.num_heads, config.dim / config.num_heads});
  const Tensor refined = attention(heads, heads, heads).flatten(2, 3);  // [B, N, dim]
  return config.class_token ? refined.select(1, 0) : mean(refined, 1, 1);
}

Tensor Head::operator()(const Tensor& tokens, bool pre_logits) const {
  const Tensor x = fc_norm(pool(tokens));
  return (pre_logits || !head.defined() ? x : head(x)).to(DType::f32);
}

}  // namespace vitrine::detail
