#include <vitrine/backbones/flowformer.h>

#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::require;

namespace {

constexpr double kEps = 1e-6;
constexpr std::int64_t kHeads = 12;  // at every width

void validate(const FlowformerConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto check = [&](bool right, std::string_view what) { require(right, c.name, what); };
  check(c.embed_dim.size() == 4 && c.depth.size() == 4 && c.mlp_ratio.size() == 4,
        "embed_dim, depth and mlp_ratio, expected four stages");
  check(sane(c.patch_size) && sane(c.img_size), "img_size and patch_size must be positive");
  check(c.img_size / c.patch_size >= 8, "img_size, expected eight patches a side at least, to be halved three times");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  for (std::size_t i = 0; i < 4; ++i)
    check(sane(c.embed_dim[i]) && c.embed_dim[i] % kHeads == 0 && sane(c.depth[i]) && c.mlp_ratio[i] > 0 && c.mlp_ratio[i] <= 64,
          "embed_dim must be multiples of 12, the heads, depth and mlp_ratio positive");
}

}  // namespace

Flowformer::Block::Block(const Weights& w, std::int64_t dim, double mlp_ratio)
    : norm1(w / "norm1", dim, kEps), norm2(w / "norm2", dim, kEps), attn(w / "attn", {.dim = dim, .num_heads = kHeads}) {
  const auto hidden = static_cast<std::int64_t>(static_cast<double>(dim) * mlp_ratio);
  mlp = Mlp(w / "mlp", dim, hidden, Activation::gelu, {.scale = w.get("gamma", {dim})});
}

Tensor Flowformer::Block::operator()(Tensor x) const {
  const Tensor y = norm1(x);
  x = attn(y, std::move(x));
  const Tensor z = norm2(x);
  return mlp(z, std::move(x));
}

Flowformer::Flowformer(const Weights& w, FlowformerConfig config) : config_(std::move(config)) {
  validate(config_);
  const FlowformerConfig& c = config_;
  std::int64_t in = 3;
  for (std::size_t i = 0; i < 4; ++i) {
    const auto index = static_cast<std::int64_t>(i);
    const std::int64_t dim = c.embed_dim[i], patch = i == 0 ? c.patch_size : 2;
    Stage& stage = stages_.emplace_back();
    stage.patches = PatchEmbed(w / "patch_embed" / index / "proj", in, dim, patch, patch);
    for (std::int64_t j = 0; j < c.depth[i]; ++j) stage.blocks.emplace_back(w / "blocks" / index / j, dim, c.mlp_ratio[i]);
    strides_.push_back(c.patch_size << i);
    in = dim;
  }
  const std::int64_t side = c.img_size / c.patch_size;
  pos_embed_ = w.on_device("pos_embed", {1, side * side, c.embed_dim[0]}, w.dtype()).view({side, side, c.embed_dim[0]});
  norm_ = LayerNorm(w / "norm", in, kEps);
  set_head(w / "head", in, c.num_classes);
}

Tensor Flowformer::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  check_image_size(images, {config_.img_size, config_.img_size}, "the position table is");
  Tensor x = images;
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    const Stage& stage = stages_[i];
    x = stage.patches(detail::whole_patches(x, stage.patches.patch_h, info_.name));  // [B, H, W, C]
    if (i == 0) add_(x, pos_embed_);
    const std::int64_t H = x.size(1), W = x.size(2);
    Tensor tokens = x.flatten(1, 2);
    x = Tensor();
    for (std::size_t j = 0; j < stage.blocks.size(); ++j) {
      tokens = stage.blocks[j](std::move(tokens));
      if (observer) observer(fmt::format("blocks.{}.{}", i, j), tokens);
    }
    if (observer) observer(fmt::format("blocks.{}", i), tokens);
    x = tokens.unflatten(1, {H, W});
    tokens = Tensor();
    if (stage_done) stage_done(i, x);
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

constexpr Variant kFlowformer[] = {{"flowformer_cv", R"({"embed_dim":[96,192,384,768],"depth":[3,3,10,3]})", "", "80.6"}};
constexpr Variant kFlowformerConstructors[] = {{"Flowformer", "", ""}};

std::unique_ptr<Backbone> build_flowformer(const Variant& variant, const Weights& w, const Arguments& arguments) {
  FlowformerConfig c;
  c.name = variant.name;
  ArgumentReader(variant.name, arguments)
      .get("img_size", c.img_size)
      .get("patch_size", c.patch_size)
      .get("num_classes", c.num_classes)
      .get("embed_dim", c.embed_dim)
      .get("depth", c.depth)
      .get("mlp_ratio", c.mlp_ratio)
      .ignore({"drop_rate", "drop_path_rate", "norm_layer", "init_values", "dropcls"})
      .finish();
  return std::make_unique<Flowformer>(w, std::move(c));
}

}  // namespace

constinit const Family kFlowformerFamily{.name = "flowformer",
                                         .source = "arXiv:2202.06258; thuml/Flowformer Flowformer_CV",
                                         .attention = "linear: flows that compete for keys and queries",
                                         .variants = kFlowformer,
                                         .build = build_flowformer,
                                         .constructors = kFlowformerConstructors};

}  // namespace detail
}  // namespace vitrine
