#include <vitrine/backbones/eva.h>

#include <algorithm>
#include <utility>

#include <vitrine/backbones/family.h>

namespace vitrine {

using namespace detail;

namespace {

std::int64_t hidden_features(const EvaConfig& c) {
  return static_cast<std::int64_t>(static_cast<double>(c.embed_dim) * c.mlp_ratio);
}

SelfAttentionConfig attention_config(const EvaConfig& c, std::int64_t num_kv_heads) {
  SelfAttentionConfig attention;
  attention.dim = c.embed_dim;
  attention.num_heads = c.num_heads;
  attention.num_kv_heads = num_kv_heads;
  attention.qkv_fused = c.qkv_fused;
  attention.qkv_bias = c.qkv_bias;
  attention.k_bias = c.attn_rope;
  attention.qk_norm = c.qk_norm;
  attention.inner_norm = c.scale_attn_inner;
  attention.norm = c.norm;
  return attention;
}

FeedForwardConfig mlp_config(const EvaConfig& c) {
  FeedForwardConfig mlp;
  mlp.dim = c.embed_dim;
  mlp.hidden = hidden_features(c);
  if (c.scale_mlp) mlp.norm = c.norm;
  if (!c.swiglu_mlp) return mlp;
  mlp.activation = Activation::silu;
  // One matrix for gate and value, unless a norm or an alignment follows (the post-norm block aligns only with the norm).
  if (c.scale_mlp || (c.swiglu_align_to > 0 && !c.use_post_norm)) {
    mlp.kind = MlpKind::split;
    if (c.swiglu_align_to > 0) mlp.hidden = (mlp.hidden + c.swiglu_align_to - 1) / c.swiglu_align_to * c.swiglu_align_to;
  } else {
    mlp.kind = MlpKind::packed;
    mlp.hidden *= 2;
  }
  return mlp;
}

void validate(const EvaConfig& c) {
  constexpr std::int64_t kMost = 1 << 20;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  require(sane(c.embed_dim) && sane(c.num_heads) && c.embed_dim % c.num_heads == 0, c.name,
          "embed_dim must be a multiple of num_heads");
  require(sane(c.in_chans) && c.depth >= 0 && c.depth <= 1000, c.name, "in_chans or depth is out of range");
  require(c.mlp_ratio > 0 && c.mlp_ratio <= 64 && hidden_features(c) > 0, c.name, "mlp_ratio is out of range");
  require(c.swiglu_align_to >= 0 && c.swiglu_align_to <= 1 << 16, c.name, "swiglu_align_to is out of range");
  require(c.num_classes >= 0 && c.num_classes <= 1 << 24 && c.num_reg_tokens >= 0 && c.num_reg_tokens <= 1 << 16, c.name,
          "num_classes or num_reg_tokens is out of range");
  require(c.class_token || c.global_pool != Pooling::token, c.name, "global_pool 'token' needs class_token");
  require(c.global_pool != Pooling::prr, c.name, "global_pool 'prr' is not one of EVA's");
  require(c.num_kv_heads.empty() || static_cast<std::int64_t>(c.num_kv_heads.size()) == c.depth, c.name,
          "num_kv_heads needs an entry for each block");
  for (const std::int64_t heads : c.num_kv_heads) {
    require(heads > 0 && c.num_heads % heads == 0, c.name, "num_heads must be a multiple of num_kv_heads");
    require(heads == c.num_heads || (c.attn_rope && !c.qkv_fused), c.name,
            "num_kv_heads below num_heads needs attn_type 'rope' and qkv_fused=false");
  }
  require(!c.use_post_norm || (!c.qk_norm && !c.attn_only_layer_scale && c.num_kv_heads.empty()), c.name,
          "use_post_norm excludes qk_norm, num_kv_heads and attn_only_layer_scale");
  require(!c.rotary || c.embed_dim / c.num_heads % 4 == 0, c.name, "rotary positions need heads of a width that 4 divides");
  const std::int64_t pool_heads = c.attn_pool_num_heads.value_or(c.num_heads);
  require(pool_heads > 0 && c.embed_dim % pool_heads == 0, c.name, "embed_dim must be a multiple of attn_pool_num_heads");
}

}  // namespace

// --- block and model ---------------------------------------------------------------------------------------------

Eva::Block::Block(const Weights& w, const EvaConfig& c, std::int64_t num_kv_heads, const Tensor& gamma1, const Tensor& gamma2)
    : post_norm(c.use_post_norm),
      norm1(w / "norm1", c.embed_dim, c.norm),
      norm2(w / "norm2", c.embed_dim, c.norm),
      attn(w / "attn", attention_config(c, num_kv_heads), gamma1),
      mlp(w / "mlp", mlp_config(c), gamma2) {}

Tensor Eva::Block::operator()(Tensor x, const Positions& positions) const {
  if (post_norm) {
    const Tensor y = norm1(attn(x, positions, {}));
    x = sum(std::move(x), y);
    const Tensor z = norm2(mlp(x));
    return sum(std::move(x), z);
  }
  const Tensor y = norm1(x);
  x = attn(y, positions, std::move(x));
  const Tensor z = norm2(x);
  return mlp(z, std::move(x));
}

Eva::Eva(const Weights& w, EvaConfig config) : config_(std::move(config)) {
  const EvaConfig& c = config_;
  validate(c);
  EmbeddingConfig embedding;
  embedding.img_size = c.img_size;
  embedding.patch_size = c.patch_size;
  embedding.in_chans = c.in_chans;
  embedding.dim = c.embed_dim;
  embedding.bias = !c.use_pre_transformer_norm;
  if (c.class_token) embedding.prefix.emplace_back("cls_token");
  if (c.num_reg_tokens > 0) embedding.prefix.emplace_back("reg_token");
  embedding.reg_tokens = c.num_reg_tokens;
  embedding.pos_embed = c.use_abs_pos_emb;
  embedding.pos_embed_prefix = !c.no_embed_class;
  embedding.pad = c.dynamic_img_pad;
  embedding.interpolation = c.interpolation;
  embed_ = Embedding(w, embedding, c.name);
  if (c.rotary) rotary_.emplace(w / "rope", *c.rotary);
  if (c.use_pre_transformer_norm) norm_pre_ = Norm(w / "norm_pre", c.embed_dim, c.norm);

  for (std::int64_t i = 0; i < c.depth; ++i) {
    const Weights block = w / "blocks" / i;
    const bool scaled = c.init_values.has_value() && !c.use_post_norm;
    const Tensor gamma1 = scaled ? block.get("gamma_1", {c.embed_dim}) : Tensor();
    const Tensor gamma2 = scaled && !c.attn_only_layer_scale ? block.get("gamma_2", {c.embed_dim}) : Tensor();
    blocks_.emplace_back(block, c, c.num_kv_heads.empty() ? 0 : c.num_kv_heads[static_cast<std::size_t>(i)], gamma1, gamma2);
  }

  const bool fc_norm = c.use_fc_norm.value_or(c.global_pool == Pooling::avg);
  if (c.use_post_transformer_norm.value_or(!fc_norm)) norm_ = Norm(w / "norm", c.embed_dim, c.norm);
  HeadConfig head;
  head.dim = c.embed_dim;
  head.num_classes = c.num_classes;
  head.prefix_tokens = embed_.prefix_tokens();
  head.num_heads = c.num_heads;
  head.pooling = c.global_pool;
  head.include_prefix = c.global_pool == Pooling::map;  // the latent sees all tokens here, unlike in the plain ViT
  head.class_token = c.class_token;
  head_ = Head(w, head, fc_norm ? std::optional(c.norm) : std::nullopt);
  if (c.global_pool == Pooling::map)
    head_.attn_pool = AttentionPool(w / "attn_pool", c.embed_dim, c.attn_pool_num_heads.value_or(c.num_heads),
                                    c.attn_pool_mlp_ratio.value_or(c.mlp_ratio), c.norm, Activation::gelu);
  for (const char* name : {"mask_token", "rope"}) w.ignore(name);  // of the pretraining; tables that are computed here
  dtype_ = w.dtype();
  info_.num_classes = c.num_classes;
  info_.num_features = c.embed_dim;
}

void Eva::locate(Positions& positions) const {
  if (!rotary_) return;
  auto [sin, cos] = (*rotary_)(positions.height, positions.width);
  positions.sin = std::move(sin);
  positions.cos = std::move(cos);
  positions.layout = rotary_->layout();
}

Tensor Eva::run_block(std::int64_t index, Tensor x, const Positions& positions) const {
  const Block& block = blocks_[static_cast<std::size_t>(index)];
  if (positions.sin.rank() != 4) return block(std::move(x), positions);
  Positions own = positions;  // frequencies of this block
  own.sin = positions.sin.select(0, index);
  own.cos = positions.cos.select(0, index);
  return block(std::move(x), own);
}

// --- arguments ---------------------------------------------------------------------------------------------------

namespace detail {

std::unique_ptr<Backbone> build_eva(const Variant& variant, const Weights& w, const Arguments& arguments) {
  EvaConfig c;
  c.name = variant.name;
  std::string global_pool = "avg", norm_layer = "layernorm", attn_type = "eva", rope_type = "cat", indexing = "ij",
              interpolation = "timm";
  double norm_eps = c.norm.eps;
  bool use_rot_pos_emb = false;
  RotaryConfig rotary;
  std::vector<std::int64_t> sections;
  // One number for all blocks or a list.
  Arguments given = arguments;
  std::optional<std::int64_t> all_kv_heads;
  if (const auto it = given.find("num_kv_heads"); it != given.end() && !it->second.empty() && it->second.front() != '[') {
    ArgumentReader(variant.name, given).get("num_kv_heads", all_kv_heads);
    given.erase(it);
  }
  ArgumentReader(variant.name, given)
      .get("img_size", c.img_size)
      .get("patch_size", c.patch_size)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("global_pool", global_pool)
      .get("embed_dim", c.embed_dim)
      .get("depth", c.depth)
      .get("num_heads", c.num_heads)
      .get("num_kv_heads", c.num_kv_heads)
      .get("qkv_bias", c.qkv_bias)
      .get("qkv_fused", c.qkv_fused)
      .get("qk_norm", c.qk_norm)
      .get("mlp_ratio", c.mlp_ratio)
      .get("swiglu_mlp", c.swiglu_mlp)
      .get("swiglu_align_to", c.swiglu_align_to)
      .get("scale_mlp", c.scale_mlp)
      .get("scale_attn_inner", c.scale_attn_inner)
      .get("attn_type", attn_type)
      .get("norm_layer", norm_layer)
      .get("norm_eps", norm_eps)  // timm binds it into norm_layer
      .get("init_values", c.init_values)
      .get("attn_only_layer_scale", c.attn_only_layer_scale)
      .get("class_token", c.class_token)
      .get("num_reg_tokens", c.num_reg_tokens)
      .get("no_embed_class", c.no_embed_class)
      .get("use_abs_pos_emb", c.use_abs_pos_emb)
      .get("use_rot_pos_emb", use_rot_pos_emb)
      .get("rope_type", rope_type)
      .get("rope_grid_offset", rotary.grid_offset)
      .get("rope_grid_indexing", indexing)
      .get("rope_temperature", rotary.temperature)
      .get("rope_rotate_half", rotary.rotate_half)
      .get("rope_mrope_section", sections)
      .get("ref_feat_shape", rotary.ref_feat_shape)
      .get("use_post_norm", c.use_post_norm)
      .get("use_pre_transformer_norm", c.use_pre_transformer_norm)
      .get("use_post_transformer_norm", c.use_post_transformer_norm)
      .get("use_fc_norm", c.use_fc_norm)
      .get("attn_pool_num_heads", c.attn_pool_num_heads)
      .get("attn_pool_mlp_ratio", c.attn_pool_mlp_ratio)
      .get("dynamic_img_pad", c.dynamic_img_pad)
      .get("pos_embed_interpolation", interpolation)
      // Any size is accepted with and without dynamic_img_size; the others act in training only.
      .ignore({"dynamic_img_size", "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate",
               "drop_path_rate", "rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords", "head_init_scale"})
      .finish();
  if (all_kv_heads) c.num_kv_heads.assign(static_cast<std::size_t>(std::clamp<std::int64_t>(c.depth, 0, 1000)), *all_kv_heads);
  c.global_pool = parse_pooling(c.name, global_pool);
  c.norm = parse_norm(c.name, "norm_layer", norm_layer, norm_eps);
  c.attn_rope = parse_choice(c.name, "attn_type", attn_type, {"eva", "rope"}) == 1;
  c.interpolation = parse_interpolation(c.name, interpolation);
  rotary.type = static_cast<RotaryType>(parse_choice(c.name, "rope_type", rope_type, {"cat", "mixed", "dinov3", "mrope"}));
  rotary.xy = parse_choice(c.name, "rope_grid_indexing", indexing, {"ij", "xy"}) == 1;
  require(sections.empty() || sections.size() == 3, c.name, "rope_mrope_section has three numbers");
  if (!sections.empty()) std::copy(sections.begin(), sections.end(), rotary.mrope_section.begin());
  rotary.dim = c.embed_dim;
  rotary.num_heads = c.num_heads;
  rotary.depth = c.depth;
  if (use_rot_pos_emb) c.rotary = rotary;
  return std::make_unique<Eva>(w, std::move(c));
}

}  // namespace detail
}  // namespace vitrine
