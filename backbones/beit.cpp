#include <vitrine/backbones/beit.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include <vitrine/attention2d/partition.h>
#include <vitrine/backbones/family.h>
#include <vitrine/backbones/preprocessing.h>
#include <vitrine/backbones/pretrained.h>

namespace vitrine {

using namespace detail;

// --- relative positions ------------------------------------------------------------------------------------------

RelativePositions::RelativePositions(const Weights& w, const Grid& grid, std::int64_t num_heads, TableInterpolation interpolation,
                                     const RelativePositions* shared)
    : num_heads_(num_heads), interpolation_(interpolation) {
  constexpr std::string_view kName = "relative_position_bias_table";
  Grid stored = grid;
  if (const auto shape = w.shape_of(kName); shape && shape->rank() == 2 && (*shape)[1] == num_heads && (*shape)[0] > 3) {
    const auto side = static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>((*shape)[0] - 3))));
    if (side % 2 == 1 && side * side == (*shape)[0] - 3) stored = {(side + 1) / 2, (side + 1) / 2};
  }
  const std::int64_t n = (2 * stored[0] - 1) * (2 * stored[1] - 1);
  const Tensor table = w.get(kName, {n + 3, num_heads});
  offsets_ = table.slice(0, 0, n).clone().view({2 * stored[0] - 1, 2 * stored[1] - 1, num_heads});
  extra_ = table.slice(0, n, n + 3).clone();
  w.release(kName);
  w.ignore("relative_position_index");  // follows from the grid
  if (interpolation_ == TableInterpolation::timm) offsets_ = table_for(grid);
  if (shared != nullptr) {
    add_(offsets_, shared->offsets_);
    add_(extra_, shared->extra_);
  }
}

Tensor RelativePositions::table_for(const Grid& grid) const {  // [2 h - 1, 2 w - 1, heads]
  const std::int64_t height = 2 * grid[0] - 1, width = 2 * grid[1] - 1;
  if (offsets_.size(0) == height && offsets_.size(1) == width) return offsets_;
  if (interpolation_ == TableInterpolation::timm) return resample_relative_positions(offsets_, height, width);
  return resize(offsets_.unsqueeze(0), height, width).select(0, 0);
}

Tensor RelativePositions::index(std::int64_t height, std::int64_t width) {
  const std::int64_t L = 1 + height * width, wide = 2 * width - 1, extra = (2 * height - 1) * wide;
  Tensor columns = Tensor::empty({L * L}, DType::i32);
  std::int32_t* to = columns.data<std::int32_t>();
  const auto put = [&](std::int64_t column) { *to++ = static_cast<std::int32_t>(column); };
  put(extra + 2);
  for (std::int64_t k = 1; k < L; ++k) put(extra);
  for (std::int64_t q = 0; q + 1 < L; ++q) {
    put(extra + 1);
    for (std::int64_t k = 0; k + 1 < L; ++k) put((q / width - k / width + height - 1) * wide + q % width - k % width + width - 1);
  }
  return columns;
}

Tensor RelativePositions::bias(std::int64_t height, std::int64_t width, const Tensor& index) const {
  const Tensor table = tables_.get(height, width, [&] {
    const Tensor rows[] = {table_for({height, width}).flatten(0, 1), extra_};
    const int axes[] = {1, 0};
    return permute(concat(rows, 0), axes).to(index.device());  // [heads, offsets + 3]
  });
  const std::int64_t L = 1 + height * width;
  return gather_columns(table, index).view({1, num_heads_, L, L});
}

// --- block and model ---------------------------------------------------------------------------------------------

namespace {

std::int64_t hidden_features(const BeitConfig& c) {
  return static_cast<std::int64_t>(static_cast<double>(c.embed_dim) * c.mlp_ratio);
}

SelfAttentionConfig attention_config(const BeitConfig& c) {
  SelfAttentionConfig attention;
  attention.dim = c.embed_dim;
  attention.num_heads = c.num_heads;
  attention.qkv_bias = c.qkv_bias;
  attention.k_bias = false;
  return attention;
}

FeedForwardConfig mlp_config(const BeitConfig& c) {
  FeedForwardConfig mlp;
  mlp.dim = c.embed_dim;
  mlp.hidden = hidden_features(c);
  if (c.scale_mlp) mlp.norm = c.norm;
  if (c.swiglu_mlp) {
    mlp.kind = MlpKind::split;
    mlp.activation = Activation::silu;
  }
  return mlp;
}

void validate(const BeitConfig& c) {
  constexpr std::int64_t kMost = 1 << 20;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  require(sane(c.embed_dim) && sane(c.num_heads) && c.embed_dim % c.num_heads == 0, c.name,
          "embed_dim must be a multiple of num_heads");
  require(sane(c.in_chans) && c.depth >= 0 && c.depth <= 1000, c.name, "in_chans or depth is out of range");
  require(c.mlp_ratio > 0 && c.mlp_ratio <= 64 && hidden_features(c) > 0, c.name, "mlp_ratio is out of range");
  require(c.num_classes >= 0 && c.num_classes <= 1 << 24, c.name, "num_classes is out of range");
}

}  // namespace

Beit::Block::Block(const Weights& w, const BeitConfig& c, const Tensor& gamma1, const Tensor& gamma2)
    : norm1(w / "norm1", c.embed_dim, c.norm),
      norm2(w / "norm2", c.embed_dim, c.norm),
      attn(w / "attn", attention_config(c), gamma1),
      mlp(w / "mlp", mlp_config(c), gamma2) {}

Beit::Beit(const Weights& w, BeitConfig config) : config_(std::move(config)) {
  const BeitConfig& c = config_;
  validate(c);
  EmbeddingConfig embedding;
  embedding.img_size = c.img_size;
  embedding.patch_size = c.patch_size;
  embedding.in_chans = c.in_chans;
  embedding.dim = c.embed_dim;
  embedding.prefix = {"cls_token"};
  embedding.pos_embed = c.use_abs_pos_emb;
  embedding.interpolation = c.interpolation;
  embed_ = Embedding(w, embedding, c.name);
  if (c.use_shared_rel_pos_bias)
    shared_ = std::make_unique<RelativePositions>(w / "rel_pos_bias", embed_.grid(), c.num_heads, c.interpolation, nullptr);
  for (std::int64_t i = 0; i < c.depth; ++i) {
    const Weights block = w / "blocks" / i;
    const bool scaled = c.init_values.value_or(0) != 0;
    const Tensor gamma1 = scaled ? block.get("gamma_1", {c.embed_dim}) : Tensor();
    const Tensor gamma2 = scaled ? block.get("gamma_2", {c.embed_dim}) : Tensor();
    Block& built = blocks_.emplace_back(block, c, gamma1, gamma2);
    if (c.use_rel_pos_bias)
      built.positions =
          std::make_unique<RelativePositions>(block / "attn", embed_.grid(), c.num_heads, c.interpolation, shared_.get());
  }
  const bool fc_norm = c.use_fc_norm.value_or(c.global_pool == Pooling::avg);
  if (!fc_norm) norm_ = Norm(w / "norm", c.embed_dim, c.norm);
  HeadConfig head;
  head.dim = c.embed_dim;
  head.num_classes = c.num_classes;
  head.num_heads = c.num_heads;
  head.pooling = c.global_pool;
  head_ = Head(w, head, fc_norm ? std::optional(c.norm) : std::nullopt);
  dtype_ = w.dtype();
  info_.num_classes = c.num_classes;
  info_.num_features = c.embed_dim;
}

Tensor Beit::run_block(std::int64_t index, Tensor x, const Positions& positions) const {
  const Block& block = blocks_[static_cast<std::size_t>(index)];
  Positions own = positions;
  // Made anew for each block and image size: all blocks' together would be larger than the weights.
  if (const RelativePositions* relative = block.positions ? block.positions.get() : shared_.get())
    own.bias = relative->bias(positions.height, positions.width, index_.get(positions.height, positions.width, [&] {
      return RelativePositions::index(positions.height, positions.width).to(x.device());
    }));
  const Tensor y = block.norm1(x);
  x = block.attn(y, own, std::move(x));
  const Tensor z = block.norm2(x);
  return block.mlp(z, std::move(x));
}

// --- arguments ---------------------------------------------------------------------------------------------------

namespace detail {
namespace {

std::unique_ptr<Backbone> build_beit(const Variant& variant, const Weights& w, const Arguments& arguments) {
  BeitConfig c;
  c.name = variant.name;
  std::string global_pool = "avg", norm_layer = "layernorm", interpolation = "timm";
  double norm_eps = c.norm.eps;
  ArgumentReader(variant.name, arguments)
      .get("img_size", c.img_size)
      .get("patch_size", c.patch_size)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("global_pool", global_pool)
      .get("embed_dim", c.embed_dim)
      .get("depth", c.depth)
      .get("num_heads", c.num_heads)
      .get("qkv_bias", c.qkv_bias)
      .get("mlp_ratio", c.mlp_ratio)
      .get("swiglu_mlp", c.swiglu_mlp)
      .get("scale_mlp", c.scale_mlp)
      .get("norm_layer", norm_layer)
      .get("norm_eps", norm_eps)  // timm binds it into norm_layer
      .get("init_values", c.init_values)
      .get("use_abs_pos_emb", c.use_abs_pos_emb)
      .get("use_rel_pos_bias", c.use_rel_pos_bias)
      .get("use_shared_rel_pos_bias", c.use_shared_rel_pos_bias)
      .get("use_fc_norm", c.use_fc_norm)
      .get("pos_embed_interpolation", interpolation)
      .ignore({"drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "head_init_scale"})
      .finish();
  constexpr Pooling kPoolings[] = {Pooling::none, Pooling::avg, Pooling::token};
  c.global_pool = kPoolings[parse_choice(c.name, "global_pool", global_pool, {"", "avg", "token"})];
  c.norm = parse_norm(c.name, "norm_layer", norm_layer, norm_eps);
  c.interpolation = parse_interpolation(c.name, interpolation);
  return std::make_unique<Beit>(w, std::move(c));
}

constexpr Variant kBeitVariants[] = {
    {"beit_base_patch16_224",
     R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"use_abs_pos_emb":false,"use_rel_pos_bias":true,)"
     R"("init_values":0.1})",
     kInception90, "85.2*"},
    {"beit_base_patch16_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"use_abs_pos_emb":false,)"
     R"("use_rel_pos_bias":true,"init_values":0.1})",
     kInception100, "86.8*"},
    {"beit_large_patch16_224",
     R"({"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"use_abs_pos_emb":false,"use_rel_pos_bias":true,)"
     R"("init_values":1e-05})",
     kInception90, "87.4*"},
    {"beit_large_patch16_384",
     R"({"img_size":384,"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"use_abs_pos_emb":false,)"
     R"("use_rel_pos_bias":true,"init_values":1e-05})",
     kInception100, "88.4*"},
    {"beit_large_patch16_512",
     R"({"img_size":512,"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"use_abs_pos_emb":false,)"
     R"("use_rel_pos_bias":true,"init_values":1e-05})",
     kInception100, "88.6*"},
    {"beitv2_base_patch16_224",
     R"({"patch_size":16,"embed_dim":768,"depth":12,"num_heads":12,"use_abs_pos_emb":false,"use_rel_pos_bias":true,)"
     R"("init_values":1e-05})",
     kImageNet90},
    {"beitv2_large_patch16_224",
     R"({"patch_size":16,"embed_dim":1024,"depth":24,"num_heads":16,"use_abs_pos_emb":false,"use_rel_pos_bias":true,)"
     R"("init_values":1e-05})",
     kImageNet95},
};

constexpr Variant kBeitConstructors[] = {{"Beit", "", ""}};

}  // namespace

constinit const Family kBeitFamily{.name = "beit",
                                   .source = "arXiv:2106.08254, arXiv:2208.06366; timm 1.0.31 beit.py",
                                   .attention = "global, with relative positions",
                                   .variants = kBeitVariants,
                                   .build = build_beit,
                                   .constructors = kBeitConstructors,
                                   .preprocess = kInception90,
                                   .pretrained = kBeitPretrained};

}  // namespace detail
}  // namespace vitrine
