#include <vitrine/backbones/patchconvnet.h>

#include <array>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/backbones/family.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::require;

namespace {

constexpr std::int64_t kStride = 16;

void validate(const PatchConvNetConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto check = [&](bool right, std::string_view what) { require(right, c.name, what); };
  check(sane(c.in_chans) && sane(c.embed_dim) && c.embed_dim % 8 == 0, "in_chans must be positive, embed_dim a multiple of 8");
  check(sane(c.depth) && sane(c.depth_token_only), "depth and depth_token_only must be positive");
  check(sane(c.num_heads) && c.embed_dim % c.num_heads == 0, "num_heads must divide embed_dim");
  check(c.num_classes >= (c.multiclass ? 1 : 0) && c.num_classes <= (c.multiclass ? kMost : 1 << 24),
        "num_classes is out of range");
  check(c.norm_eps >= 0 && c.norm_eps < 1, "norm_eps is out of range");
  check(c.mlp_ratio_clstk > 0 && c.mlp_ratio_clstk <= 64, "mlp_ratio_clstk is out of range");
}

}  // namespace

PatchConvNet::Block::Block(const Weights& w, const PatchConvNetConfig& c) : norm(w / "norm1", c.embed_dim, c.norm_eps) {
  const std::int64_t dim = c.embed_dim;
  const Weights layers = w / "attn" / "qkv_pos";
  first = Linear(layers / 0, dim, dim);
  dwconv = Conv2d(layers / 2, dim, dim, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = dim});
  const auto reduced = static_cast<std::int64_t>(std::nearbyint(static_cast<double>(dim) * 0.25));
  squeeze_excite = SqueezeExcite(layers / 4, dim, reduced, Activation::relu, "conv_reduce", "conv_expand");
  last = Linear(layers / 5, dim, dim, {.scale = w.get("gamma_1", {dim})});
}

Tensor PatchConvNet::Block::operator()(Tensor x) const {
  Tensor y = dwconv(first(norm(x), {.activation = Activation::gelu}), {.activation = Activation::gelu});
  multiply_(y, squeeze_excite.gates(y));
  return last(y, {.residual = std::move(x)});
}

PatchConvNet::TokenBlock::TokenBlock(const Weights& w, const PatchConvNetConfig& c)
    : norm1(w / "norm1", c.embed_dim, c.norm_eps),
      norm2(w / "norm2", c.embed_dim, c.norm_eps),
      num_heads(c.num_heads),
      patches_only(c.multiclass),
      scale(c.qk_scale) {
  const std::int64_t dim = c.embed_dim;
  const Weights attn = w / "attn", k = attn / "k", v = attn / "v";
  const LinearOptions bias{.bias = c.qkv_bias};
  q = Linear(attn / "q", dim, dim, bias);
  const Tensor both = concat(std::array{k.get("weight", {dim, dim}), v.get("weight", {dim, dim})}, 0);
  kv = Linear(both, c.qkv_bias ? concat(std::array{k.get("bias", {dim}), v.get("bias", {dim})}, 0) : Tensor(), w.options());
  proj = Linear(attn / "proj", dim, dim, {.scale = w.get("gamma_1", {dim})});
  const auto hidden = static_cast<std::int64_t>(static_cast<double>(dim) * c.mlp_ratio_clstk);
  mlp = Mlp(w / "mlp", dim, hidden, Activation::gelu, {.scale = w.get("gamma_2", {dim})});
}

Tensor PatchConvNet::TokenBlock::operator()(Tensor tokens, const Tensor& patches) const {
  const std::int64_t dim = tokens.size(2), head_dim = dim / num_heads;
  const Tensor queries = norm1(tokens), seen = norm1(patches);
  const Tensor keys = kv(patches_only ? seen : concat(std::array{queries, seen}, 1)).unflatten(2, {2, num_heads, head_dim});
  AttentionOptions options;
  options.scale = scale;
  const Tensor y = attention(q(queries).unflatten(2, {num_heads, head_dim}), keys.select(2, 0), keys.select(2, 1), options);
  tokens = proj(y.flatten(2, 3), {.residual = std::move(tokens)});
  const Tensor z = norm2(tokens);
  return mlp(z, std::move(tokens));
}

PatchConvNet::PatchConvNet(const Weights& w, PatchConvNetConfig config) : config_(std::move(config)) {
  validate(config_);
  const PatchConvNetConfig& c = config_;
  const std::int64_t dim = c.embed_dim, tokens = c.multiclass ? c.num_classes : 1;
  const Weights proj = w / "patch_embed" / "proj";
  std::int64_t in = c.in_chans;
  for (std::int64_t i = 0; i < 4; ++i) {
    const std::int64_t out = dim >> (3 - i);
    stem_.emplace_back(proj / (2 * i) / 0, in, out, 3, 3,
                       Conv2dOptions{.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1, .bias = false});
    in = out;
  }
  for (std::int64_t i = 0; i < c.depth; ++i) blocks_.emplace_back(w / "blocks" / i, c);
  for (std::int64_t i = 0; i < c.depth_token_only; ++i) token_blocks_.emplace_back(w / "blocks_token_only" / i, c);
  cls_token_ = w.on_device("cls_token", {1, tokens, dim}, w.dtype());
  norm_ = LayerNorm(w / "norm", dim, c.norm_eps);
  if (c.multiclass) {
    class_weights_ = Tensor::empty({tokens, dim});
    class_biases_ = Tensor::empty({tokens});
    for (std::int64_t i = 0; i < tokens; ++i) {
      const Weights head = w / "head" / i;
      Tensor weight = class_weights_.slice(0, i, i + 1), bias = class_biases_.slice(0, i, i + 1);
      copy_(weight, head.get("weight", {1, dim}));
      copy_(bias, head.get("bias", {1}));
    }
    class_weights_ = class_weights_.to(w.device());
    class_biases_ = class_biases_.to(w.device());
  } else if (c.num_classes > 0) {
    head_ = Linear(w / "head", dim, c.num_classes);
  }
  dtype_ = w.dtype();
  info_.num_classes = c.num_classes;
  info_.num_features = dim;
}

Tensor PatchConvNet::run_trunk(const Tensor& images, const Observer& observer, const BlockDone& done) const {
  if (images.rank() != 4 || images.size(3) != config_.in_chans || images.numel() == 0)
    throw Error(
        fmt::format("{}: images are {}, expected [B, H, W, {}]", info_.name, images.shape().to_string(), config_.in_chans));
  Tensor x = images.to(dtype_);
  for (std::size_t i = 0; i < stem_.size(); ++i)
    x = stem_[i](x, {.activation = i + 1 < stem_.size() ? Activation::gelu : Activation::none});
  if (observer) observer("patch_embed", x.flatten(1, 2));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    x = blocks_[i](std::move(x));
    if (observer) observer(fmt::format("blocks.{}", i), x.flatten(1, 2));
    if (done) done(i, x);
  }
  return x;  // [B, H / 16, W / 16, C]
}

Tensor PatchConvNet::forward_features(const Tensor& images, const Observer& observer) const {
  const Tensor patches = run_trunk(images, observer, {}).flatten(1, 2);
  const std::vector<Tensor> copies(static_cast<std::size_t>(patches.size(0)), cls_token_);
  Tensor tokens = concat(copies, 0);
  for (std::size_t i = 0; i < token_blocks_.size(); ++i) {
    tokens = token_blocks_[i](std::move(tokens), patches);
    if (observer) observer(fmt::format("blocks_token_only.{}", i), tokens);
  }
  const Tensor x = norm_(concat(std::array{tokens, patches}, 1));
  if (observer) observer("norm", x);
  return x;
}

Tensor PatchConvNet::forward_head(const Tensor& features, bool pre_logits) const {
  if (!config_.multiclass) {
    const Tensor token = features.select(1, 0);
    return (pre_logits || !head_.defined() ? token : head_(token)).to(DType::f32).contiguous();
  }
  // Each class has a token and a row of weights; what enters them is the mean of the tokens, for want of one vector.
  const Tensor tokens = features.slice(1, 0, config_.num_classes).to(DType::f32).contiguous();
  if (pre_logits) return mean(tokens, 1, 1);
  const Tensor products = multiply(tokens, class_weights_).unsqueeze(3);                                 // [B, T, C, 1]
  Tensor logits = affine(mean(products, 2, 2), static_cast<float>(config_.embed_dim), 0).flatten(1, 2);  // [B, T]
  add_(logits, class_biases_);
  return logits;
}

std::vector<IntermediateMap> PatchConvNet::forward_intermediates(const Tensor& images,
                                                                 const IntermediatesOptions& options) const {
  const auto wanted = detail::wanted_indices(options.indices, static_cast<int>(blocks_.size()), info_.name);
  std::vector<IntermediateMap> maps;
  run_trunk(images, {}, [&](std::size_t i, const Tensor& x) {
    if (wanted[i]) maps.push_back({options.norm ? norm_(x) : x, kStride, {}});
  });
  return maps;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

#define VITRINE_PATCHCONVNET(embed_dim, depth) R"({"qkv_bias":true,"embed_dim":)" #embed_dim R"(,"depth":)" #depth
constexpr Variant kPatchConvNet[] = {
    {"patchconvnet_s60", VITRINE_PATCHCONVNET(384, 60) "}", "", "82.1"},
    {"patchconvnet_s120", VITRINE_PATCHCONVNET(384, 120) "}", "", "83.2"},
    {"patchconvnet_b60", VITRINE_PATCHCONVNET(768, 60) "}", "", "83.5"},
    {"patchconvnet_b120", VITRINE_PATCHCONVNET(768, 120) "}", "", "84.1"},
    {"patchconvnet_l60", VITRINE_PATCHCONVNET(1024, 60) "}", ""},
    {"patchconvnet_l120", VITRINE_PATCHCONVNET(1024, 120) "}", ""},
    {"patchconvnet_s60_multi", VITRINE_PATCHCONVNET(384, 60) R"(,"multiclass":true})", "", "82.0"},
};
// The publisher's factories have no prefix.
constexpr Variant kPatchConvNetConstructors[] = {
    {"S60", VITRINE_PATCHCONVNET(384, 60) "}", ""},
    {"S120", VITRINE_PATCHCONVNET(384, 120) "}", ""},
    {"B60", VITRINE_PATCHCONVNET(768, 60) "}", ""},
    {"B120", VITRINE_PATCHCONVNET(768, 120) "}", ""},
    {"L60", VITRINE_PATCHCONVNET(1024, 60) "}", ""},
    {"L120", VITRINE_PATCHCONVNET(1024, 120) "}", ""},
    {"S60_multi", VITRINE_PATCHCONVNET(384, 60) R"(,"multiclass":true})", ""},
    {"PatchConvnet", R"({"norm_eps":1e-5})", ""},
};

std::unique_ptr<Backbone> build_patchconvnet(const Variant& variant, const Weights& w, const Arguments& arguments) {
  PatchConvNetConfig c;
  c.name = variant.name;
  ArgumentReader(variant.name, arguments)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("embed_dim", c.embed_dim)
      .get("depth", c.depth)
      .get("num_heads", c.num_heads)
      .get("qkv_bias", c.qkv_bias)
      .get("qk_scale", c.qk_scale)
      .get("depth_token_only", c.depth_token_only)
      .get("mlp_ratio_clstk", c.mlp_ratio_clstk)
      .get("multiclass", c.multiclass)
      .get("norm_eps", c.norm_eps)  // bound into norm_layer by the factories
      // patch_size counts patches only: the stem's stride is 16
      .ignore({"pretrained", "img_size", "patch_size", "drop_rate", "attn_drop_rate", "drop_path_rate", "dpr_constant",
               "init_scale", "global_pool", "hybrid_backbone"})
      .finish();
  return std::make_unique<PatchConvNet>(w, std::move(c));
}

}  // namespace

constinit const Family kPatchConvNetFamily{.name = "patchconvnet",
                                           .source = "arXiv:2112.13692; facebookresearch/deit patchconvnet_models.py",
                                           .attention = "none in the trunk; one global query pools",
                                           .variants = kPatchConvNet,
                                           .build = build_patchconvnet,
                                           .constructors = kPatchConvNetConstructors,
                                           .preprocess = R"({"crop_pct":1.0})"};

}  // namespace detail
}  // namespace vitrine
