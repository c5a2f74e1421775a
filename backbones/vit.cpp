#include <vitrine/backbones/vit.h>

#include <cmath>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/backbones/attention_arguments.h>
#include <vitrine/backbones/family.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using namespace detail;

// --- blocks ------------------------------------------------------------------------------------------------------

namespace {

Tensor layer_scale(const Weights& w, const VitConfig& c) { return w.get("gamma", {c.embed_dim}); }

std::int64_t hidden_features(const VitConfig& c) {
  return static_cast<std::int64_t>(static_cast<double>(c.embed_dim) * c.mlp_ratio);
}

// Differential attention (arXiv:2410.05258): two attentions with heads of half the width, and values of the whole width;
// the second, weighted by lambda, is subtracted.
struct Difference {
  Difference(const Weights& w, const VitConfig& c, std::int64_t block) : num_heads(c.num_heads) {
    const std::int64_t half = c.embed_dim / c.num_heads / 2;
    const double lambda_init = 0.8 - 0.6 * std::exp(-0.3 * static_cast<double>(block));
    double lambdas[2];
    for (int i = 0; i < 2; ++i) {
      const Tensor q = w.get(fmt::format("lambda_q{}", i + 1), {half}), k = w.get(fmt::format("lambda_k{}", i + 1), {half});
      float dot = 0;
      for (std::int64_t d = 0; d < half; ++d) dot += q.data<float>()[d] * k.data<float>()[d];
      lambdas[i] = std::exp(static_cast<double>(dot));
    }
    lambda = static_cast<float>(lambdas[0] - lambdas[1] + lambda_init);
    if (c.qk_norm) {
      q_norm = Norm(w / "q_norm", half, c.norm);
      k_norm = Norm(w / "k_norm", half, c.norm);
    }
    // The factor 1 - lambda_init that follows the norm is folded into its weight.
    sub_norm = affine((w / "sub_norm").on_device("weight", {2 * half}), static_cast<float>(1 - lambda_init), 0.0f);
  }

  Tensor operator()(const Tensor& qkv) const {  // [B, N, 3 dim] -> [B, N, dim]
    const std::int64_t dim = qkv.size(2) / 3, width = dim / num_heads;
    const auto pairs = [&](std::int64_t begin, const Norm& norm) {  // [B, N, heads, 2, D / 2]
      return norm(qkv.slice(2, begin, begin + dim).unflatten(2, {num_heads, 2, width / 2}));
    };
    const Tensor q = pairs(0, q_norm), k = pairs(dim, k_norm),
                 v = qkv.slice(2, 2 * dim, 3 * dim).unflatten(2, {num_heads, width});
    Tensor y = attention(q.select(3, 0), k.select(3, 0), v);  // [B, N, heads, D]
    add_(y, affine(attention(q.select(3, 1), k.select(3, 1), v), -lambda, 0.0f));
    return rms_norm(y, sub_norm, 1e-5).flatten(2, 3);
  }

  std::int64_t num_heads;
  float lambda = 0;
  Norm q_norm, k_norm;
  Tensor sub_norm;
};

class DiffAttention final : public TokenMixer {
 public:
  DiffAttention(const Weights& w, const VitConfig& c, std::int64_t block, const Tensor& scale)
      : qkv_(w / "qkv", c.embed_dim, 3 * c.embed_dim, {.bias = c.qkv_bias, .scale = {}}), difference_(w, c, block) {
    if (c.scale_attn_norm) norm_ = Norm(w / "norm", c.embed_dim, c.norm);
    proj_ = Linear(w / "proj", c.embed_dim, c.embed_dim, {.bias = c.proj_bias, .scale = scale});
  }
  Tensor operator()(const Tensor& x, const Positions&, Tensor residual) const override {
    return proj_(norm_(difference_(qkv_(x))), {.activation = Activation::none, .residual = std::move(residual)});
  }

 private:
  Linear qkv_, proj_;
  Difference difference_;
  Norm norm_;
};

// A mechanism of attention2d's table in the place of global attention.
class OtherAttention final : public TokenMixer {
 public:
  explicit OtherAttention(std::unique_ptr<const Mixer> mixer) : mixer_(std::move(mixer)) {}
  Tensor operator()(const Tensor& x, const Positions& p, Tensor residual) const override {
    return (*mixer_)(x, {p.prefix, p.height, p.width}, std::move(residual));
  }

 private:
  std::unique_ptr<const Mixer> mixer_;
};

std::unique_ptr<TokenMixer> make_other_attention(const Weights& w, const VitConfig& c, std::int64_t block, const Tensor& scale) {
  MixerConfig mixer;
  mixer.dim = c.embed_dim;
  mixer.num_heads = c.num_heads;
  mixer.block = block;
  mixer.tokens.prefix = (c.class_token ? 1 : 0) + (c.distilled ? 1 : 0) + c.reg_tokens;
  mixer.tokens.height = (c.img_size[0] + (c.dynamic_img_pad ? c.patch_size[0] - 1 : 0)) / c.patch_size[0];
  mixer.tokens.width = (c.img_size[1] + (c.dynamic_img_pad ? c.patch_size[1] - 1 : 0)) / c.patch_size[1];
  mixer.qkv_bias = c.qkv_bias;
  mixer.proj = {.bias = c.proj_bias, .scale = scale};
  mixer.values = c.attention_options;
  try {
    return std::make_unique<OtherAttention>(make_mixer(*c.attention, w, mixer));
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", c.name, error.what()));
  }
}

std::unique_ptr<TokenMixer> make_attention(const Weights& w, const VitConfig& c, std::int64_t block, const Tensor& scale = {}) {
  if (c.attention != nullptr) return make_other_attention(w, c, block, scale);
  if (c.diff_attention) return std::make_unique<DiffAttention>(w, c, block, scale);
  SelfAttentionConfig attention;
  attention.dim = c.embed_dim;
  attention.num_heads = c.num_heads;
  attention.qkv_bias = c.qkv_bias;
  attention.proj_bias = c.proj_bias;
  attention.qk_norm = c.qk_norm;
  attention.inner_norm = c.scale_attn_norm;
  attention.norm = c.norm;
  return std::make_unique<SelfAttention>(w, attention, scale);
}

FeedForward make_mlp(const Weights& w, const VitConfig& c, const Tensor& scale = {}) {
  FeedForwardConfig mlp;
  mlp.dim = c.embed_dim;
  mlp.hidden = hidden_features(c);
  mlp.kind = c.mlp;
  mlp.activation = c.activation;
  mlp.bias = c.proj_bias;
  if (c.scale_mlp_norm) mlp.norm = c.norm;
  return FeedForward(w, mlp, scale);
}

}  // namespace

class Vit::Block {
 public:
  virtual ~Block() = default;
  virtual Tensor operator()(Tensor x, const Positions& positions) const = 0;  // [B, N, dim] -> the same
};

namespace {

class PreNormBlock final : public Vit::Block {
 public:
  PreNormBlock(const Weights& w, const VitConfig& c, std::int64_t block)
      : norm1_(w / "norm1", c.embed_dim, c.norm), norm2_(w / "norm2", c.embed_dim, c.norm) {
    const bool scaled = c.init_values.value_or(0) != 0;
    attn_ = make_attention(w / "attn", c, block, scaled ? layer_scale(w / "ls1", c) : Tensor());
    mlp_ = make_mlp(w / "mlp", c, scaled ? layer_scale(w / "ls2", c) : Tensor());
  }
  Tensor operator()(Tensor x, const Positions& positions) const override {
    const Tensor y = norm1_(x);
    x = (*attn_)(y, positions, std::move(x));
    const Tensor z = norm2_(x);
    return mlp_(z, std::move(x));
  }

 private:
  Norm norm1_, norm2_;
  std::unique_ptr<TokenMixer> attn_;
  FeedForward mlp_;
};

class ResPostBlock final : public Vit::Block {
 public:
  ResPostBlock(const Weights& w, const VitConfig& c, std::int64_t block)
      : norm1_(w / "norm1", c.embed_dim, c.norm),
        norm2_(w / "norm2", c.embed_dim, c.norm),
        attn_(make_attention(w / "attn", c, block)),
        mlp_(make_mlp(w / "mlp", c)) {}
  Tensor operator()(Tensor x, const Positions& positions) const override {
    const Tensor y = norm1_((*attn_)(x, positions));
    x = sum(std::move(x), y);
    const Tensor z = norm2_(mlp_(x));
    return sum(std::move(x), z);
  }

 private:
  Norm norm1_, norm2_;
  std::unique_ptr<TokenMixer> attn_;
  FeedForward mlp_;
};

// in_proj has the rows of the MLP's first layer, then those of q, k and v; here they are two layers, so that the
// activation is fused into the first. With differential attention the outputs share one matrix, split by columns.
class ParallelScalingBlock final : public Vit::Block {
 public:
  ParallelScalingBlock(const Weights& w, const VitConfig& c, std::int64_t block)
      : activation_(c.activation), num_heads_(c.num_heads), in_norm_(w / "in_norm", c.embed_dim, c.norm) {
    const std::int64_t dim = c.embed_dim, hidden = hidden_features(c), rows = hidden + 3 * dim;
    const Weights in = w / "in_proj", out = w / "out_proj";
    const Tensor weight = in.get("weight", {rows, dim});
    const Tensor bias = c.qkv_bias ? in.get("bias", {rows}) : Tensor();
    fc1_ = Linear(weight.slice(0, 0, hidden), c.qkv_bias ? bias.slice(0, 0, hidden) : w.get("mlp_bias", {hidden}), w.options());
    qkv_ = Linear(weight.slice(0, hidden, rows), c.qkv_bias ? bias.slice(0, hidden, rows) : Tensor(), w.options());
    in.release("weight");
    const Tensor scale = c.init_values ? layer_scale(w / "ls", c) : Tensor();
    if (c.block == VitBlock::parallel_scaling) {
      if (c.qk_norm) {
        q_norm_ = Norm(w / "q_norm", dim / c.num_heads, c.norm);
        k_norm_ = Norm(w / "k_norm", dim / c.num_heads, c.norm);
      }
      attn_out_ = Linear(w / "attn_out_proj", dim, dim, {.bias = c.proj_bias, .scale = scale});
      fc2_ = Linear(w / "mlp_out_proj", hidden, dim, {.bias = c.proj_bias, .scale = scale});
      return;
    }
    difference_.emplace(w, c, block);
    Tensor both = out.get("weight", {dim, dim + hidden}), out_bias = c.proj_bias ? out.get("bias", {dim}) : Tensor();
    if (scale.defined()) {
      both = multiply(both, scale.view({dim, 1}));
      if (out_bias.defined()) out_bias = multiply(out_bias, scale);
    }
    attn_out_ = Linear(both.slice(1, 0, dim).contiguous(), out_bias, w.options());
    fc2_ = Linear(both.slice(1, dim, dim + hidden).contiguous(), Tensor(), w.options());
    out.release("weight");
  }

  Tensor operator()(Tensor x, const Positions& positions) const override {
    const Tensor y = in_norm_(x);
    const Tensor qkv = qkv_(y);
    const Tensor a = difference_ ? (*difference_)(qkv) : attend(qkv, num_heads_, num_heads_, q_norm_, k_norm_, positions);
    x = attn_out_(a, {.activation = Activation::none, .residual = std::move(x)});
    return fc2_(fc1_(y, {.activation = activation_, .residual = {}}), {.activation = Activation::none, .residual = std::move(x)});
  }

 private:
  Activation activation_;
  std::int64_t num_heads_;
  Norm in_norm_, q_norm_, k_norm_;
  Linear fc1_, qkv_, attn_out_, fc2_;
  std::optional<Difference> difference_;
};

class ParallelThingsBlock final : public Vit::Block {
 public:
  ParallelThingsBlock(const Weights& w, const VitConfig& c, std::int64_t block) {
    const bool scaled = c.init_values.value_or(0) != 0;
    for (std::int64_t i = 0; i < kParallel; ++i) {
      const Weights a = w / "attns" / i, f = w / "ffns" / i;
      attns_.emplace_back(Norm(a / "norm", c.embed_dim, c.norm),
                          make_attention(a / "attn", c, block, scaled ? layer_scale(a / "ls", c) : Tensor()));
      ffns_.emplace_back(Norm(f / "norm", c.embed_dim, c.norm),
                         make_mlp(f / "mlp", c, scaled ? layer_scale(f / "ls", c) : Tensor()));
    }
  }
  Tensor operator()(Tensor x, const Positions& positions) const override {
    Tensor y = x;
    for (const auto& [norm, attn] : attns_) y = (*attn)(norm(x), positions, std::move(y));
    x = y;
    for (const auto& [norm, mlp] : ffns_) y = mlp(norm(x), std::move(y));
    return y;
  }

 private:
  static constexpr std::int64_t kParallel = 2;
  std::vector<std::pair<Norm, std::unique_ptr<TokenMixer>>> attns_;
  std::vector<std::pair<Norm, FeedForward>> ffns_;
};

std::unique_ptr<const Vit::Block> make_block(const Weights& w, const VitConfig& c, std::int64_t block) {
  switch (c.block) {
    case VitBlock::pre_norm:
      break;
    case VitBlock::res_post_norm:
      return std::make_unique<ResPostBlock>(w, c, block);
    case VitBlock::parallel_things:
      return std::make_unique<ParallelThingsBlock>(w, c, block);
    case VitBlock::parallel_scaling:
    case VitBlock::diff_parallel_scaling:
      return std::make_unique<ParallelScalingBlock>(w, c, block);
  }
  return std::make_unique<PreNormBlock>(w, c, block);
}

void validate(const VitConfig& c) {
  constexpr std::int64_t kMost = 1 << 20;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  require(sane(c.embed_dim) && sane(c.num_heads) && c.embed_dim % c.num_heads == 0, c.name,
          "embed_dim must be a multiple of num_heads");
  require(sane(c.in_chans) && c.depth >= 0 && c.depth <= 1000, c.name, "in_chans or depth is out of range");
  require(c.mlp_ratio > 0 && c.mlp_ratio <= 64 && hidden_features(c) > 0, c.name, "mlp_ratio is out of range");
  require(c.num_classes >= 0 && c.num_classes <= 1 << 24 && c.reg_tokens >= 0 && c.reg_tokens <= 1 << 16, c.name,
          "num_classes or reg_tokens is out of range");
  require(c.class_token || c.global_pool != Pooling::token, c.name, "global_pool 'token' needs class_token");
  require((c.mlp != MlpKind::glu && c.mlp != MlpKind::packed) || hidden_features(c) % 2 == 0, c.name,
          "embed_dim * mlp_ratio must be even for a gated mlp_layer");
  const bool difference = c.diff_attention || c.block == VitBlock::diff_parallel_scaling;
  require(!difference || c.embed_dim / c.num_heads % 2 == 0, c.name, "differential attention needs heads of even width");
  const bool parallel = c.block == VitBlock::parallel_scaling || c.block == VitBlock::diff_parallel_scaling;
  require(!parallel || (!c.scale_attn_norm && !c.scale_mlp_norm), c.name,
          "scale_attn_norm and scale_mlp_norm do not exist in parallel scaling blocks");
  require(c.attention == nullptr || (!difference && !parallel), c.name,
          "attention needs block_fn Block, ResPostBlock or ParallelThingsBlock, and no attn_layer");
  require(c.attention == nullptr || (!c.qk_norm && !c.scale_attn_norm), c.name,
          "qk_norm and scale_attn_norm do not exist with another attention");
  require(!c.distilled || (c.class_token && !c.no_embed_class && c.reg_tokens == 0 && c.global_pool == Pooling::token), c.name,
          "a distilled model has class_token, global_pool 'token', and neither no_embed_class nor reg_tokens");
}

}  // namespace

// --- model -------------------------------------------------------------------------------------------------------

Vit::Vit(const Weights& w, VitConfig config) : config_(std::move(config)) {
  const VitConfig& c = config_;
  validate(c);
  EmbeddingConfig embedding;
  embedding.img_size = c.img_size;
  embedding.patch_size = c.patch_size;
  embedding.in_chans = c.in_chans;
  embedding.dim = c.embed_dim;
  embedding.bias = !c.pre_norm;
  embedding.patch_norm = c.embed_norm;
  if (c.class_token) embedding.prefix.emplace_back("cls_token");
  if (c.distilled) embedding.prefix.emplace_back("dist_token");
  if (c.reg_tokens > 0) embedding.prefix.emplace_back("reg_token");
  embedding.reg_tokens = c.reg_tokens;
  embedding.pos_embed = c.pos_embed;
  embedding.pos_embed_prefix = !c.no_embed_class;  // DeiT III and most models with registers: positions of patches only
  embedding.pad = c.dynamic_img_pad;
  embedding.interpolation = c.interpolation;
  embed_ = Embedding(w, embedding, c.name);
  if (c.pre_norm) norm_pre_ = Norm(w / "norm_pre", c.embed_dim, c.norm);
  for (std::int64_t i = 0; i < c.depth; ++i) blocks_.push_back(make_block(w / "blocks" / i, c, i));

  const bool pools_patches = c.global_pool == Pooling::avg || c.global_pool == Pooling::avgmax || c.global_pool == Pooling::max;
  const bool fc_norm = c.fc_norm.value_or(pools_patches);
  if (c.final_norm && !fc_norm) norm_ = Norm(w / "norm", c.embed_dim, c.norm);
  HeadConfig head;
  head.dim = c.embed_dim;
  head.num_classes = c.num_classes;
  head.prefix_tokens = embed_.prefix_tokens();
  head.num_heads = c.num_heads;
  head.pooling = c.global_pool;
  head.include_prefix = c.pool_include_prefix;
  head.class_token = c.class_token;
  head_ = Head(w, head, c.final_norm && fc_norm ? std::optional(c.norm) : std::nullopt);
  if (c.global_pool == Pooling::map)
    head_.attn_pool = AttentionPool(w / "attn_pool", c.embed_dim, c.num_heads, c.mlp_ratio, c.norm, c.activation);
  if (c.distilled && c.num_classes > 0) head_dist_ = Linear(w / "head_dist", c.embed_dim, c.num_classes);
  w.ignore("mask_token");  // of the pretraining, in official files of DINOv2
  dtype_ = w.dtype();
  info_.num_classes = c.num_classes;
  info_.num_features = c.embed_dim;
}

Vit::~Vit() = default;

Tensor Vit::run_block(std::int64_t index, Tensor x, const Positions& positions) const {
  return (*blocks_[static_cast<std::size_t>(index)])(std::move(x), positions);
}

Tensor Vit::classify(const Tensor& tokens, bool pre_logits) const {
  if (!config_.distilled) return TokenBackbone::classify(tokens, pre_logits);
  // The mean of two heads: one on the class token, one on the distillation token.
  const Tensor first = tokens.select(1, 0), second = tokens.select(1, 1);  // [B, dim]
  if (pre_logits || !head_dist_.defined()) return affine(add(first, second), 0.5f, 0.0f).to(DType::f32);
  return affine(add(head_.head(first).to(DType::f32), head_dist_(second).to(DType::f32)), 0.5f, 0.0f);
}

// --- arguments ---------------------------------------------------------------------------------------------------

namespace detail {

namespace {

// Mechanisms that know maps only: no class token, no registers, the patches' mean. What the variant's row says of these is
// not asked for by the user, who may say otherwise.
void prefer_maps(const Variant& variant, const Arguments& arguments, VitConfig& c, std::string& global_pool) {
  const Arguments row = parse_json_arguments(variant.arguments, variant.name);
  const auto is_wanted = [&](const std::string& name) {
    const auto given = arguments.find(name), own = row.find(name);
    return given != arguments.end() && (own == row.end() || own->second != given->second);
  };
  if (!is_wanted("class_token")) c.class_token = false;
  if (!is_wanted("reg_tokens")) c.reg_tokens = 0;
  if (!is_wanted("global_pool") && global_pool == "token") global_pool = "avg";
  require(
      !c.class_token && !c.distilled && c.reg_tokens == 0, c.name,
      fmt::format("attention '{}' works on maps only: there can be no class_token, reg_tokens or distilled", c.attention->name));
}

}  // namespace

std::unique_ptr<Backbone> build_vit(const Variant& variant, const Weights& w, const Arguments& arguments) {
  VitConfig c;
  c.name = variant.name;
  std::string global_pool = "token", pos_embed = "learn", norm_layer = "layernorm", embed_norm_layer, act_layer = "gelu",
              block_fn = "Block", mlp_layer = "Mlp", attn_layer, interpolation = "timm";
  double norm_eps = c.norm.eps;
  ArgumentReader reader(variant.name, arguments);
  c.attention = read_attention(reader, c.attention_options);
  reader.get("img_size", c.img_size)
      .get("patch_size", c.patch_size)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("global_pool", global_pool)
      .get("embed_dim", c.embed_dim)
      .get("depth", c.depth)
      .get("num_heads", c.num_heads)
      .get("mlp_ratio", c.mlp_ratio)
      .get("qkv_bias", c.qkv_bias)
      .get("qk_norm", c.qk_norm)
      .get("scale_attn_norm", c.scale_attn_norm)
      .get("scale_mlp_norm", c.scale_mlp_norm)
      .get("proj_bias", c.proj_bias)
      .get("init_values", c.init_values)
      .get("class_token", c.class_token)
      .get("pos_embed", pos_embed)
      .get("no_embed_class", c.no_embed_class)
      .get("reg_tokens", c.reg_tokens)
      .get("pre_norm", c.pre_norm)
      .get("final_norm", c.final_norm)
      .get("fc_norm", c.fc_norm)
      .get("pool_include_prefix", c.pool_include_prefix)
      .get("dynamic_img_pad", c.dynamic_img_pad)
      .get("norm_layer", norm_layer)
      .get("norm_eps", norm_eps)  // timm binds it into norm_layer
      .get("embed_norm_layer", embed_norm_layer)
      .get("act_layer", act_layer)
      .get("block_fn", block_fn)
      .get("mlp_layer", mlp_layer)
      .get("attn_layer", attn_layer)
      .get("distilled", c.distilled)
      .get("pos_embed_interpolation", interpolation)
      // Any size is accepted with and without dynamic_img_size; the others act in training only.
      .ignore({"dynamic_img_size", "weight_init", "fix_init", "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate",
               "attn_drop_rate", "drop_path_rate"})
      .finish();
  if (c.attention != nullptr && !c.attention->takes_prefix) prefer_maps(variant, arguments, c, global_pool);
  c.global_pool = parse_pooling(c.name, global_pool);
  c.pos_embed = parse_choice(c.name, "pos_embed", pos_embed, {"", "none", "learn"}) == 2;
  c.norm = parse_norm(c.name, "norm_layer", norm_layer, norm_eps);
  if (!embed_norm_layer.empty()) c.embed_norm = parse_norm(c.name, "embed_norm_layer", embed_norm_layer, norm_eps);
  c.activation = parse_activation(act_layer);
  c.block = static_cast<VitBlock>(
      parse_choice(c.name, "block_fn", block_fn,
                   {"Block", "ResPostBlock", "ParallelScalingBlock", "ParallelThingsBlock", "DiffParallelScalingBlock"}));
  c.mlp = static_cast<MlpKind>(parse_choice(c.name, "mlp_layer", mlp_layer, {"Mlp", "GluMlp", "SwiGLUPacked", "SwiGLU"}));
  c.diff_attention = parse_choice(c.name, "attn_layer", attn_layer, {"", "attn", "diff"}) == 2;
  c.interpolation = parse_interpolation(c.name, interpolation);
  return std::make_unique<Vit>(w, std::move(c));
}

}  // namespace detail
}  // namespace vitrine
