#include <vitrine/backbones/nat.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/layers/error.h>

namespace vitrine {
namespace {

constexpr double kEps = 1e-5;  // torch.nn.LayerNorm's, which the original leaves as it is

void check(bool right, const char* what) {
  if (!right) throw Error(fmt::format("nat: {}", what));
}

void validate(const NatConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  check(sane(c.embed_dim), "embed_dim is missing or out of range");
  check(c.depths.size() >= 1 && c.depths.size() <= 8, "depths, expected one to eight levels");
  check(c.num_heads.size() == c.depths.size(), "num_heads and depths have different lengths");
  check(sane(c.in_chans) && sane(c.patch_size) && sane(c.kernel_size[0]) && sane(c.kernel_size[1]),
        "in_chans, patch_size and kernel_size must be positive");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  check(c.mlp_ratio > 0 && c.mlp_ratio <= 64, "mlp_ratio is out of range");
  check(c.layout != NatLayout::nat || c.embed_dim % 2 == 0, "embed_dim must be even");
  check(c.dilations.empty() || c.dilations.size() >= c.depths.size(), "dilations has fewer levels than depths");
  for (std::size_t i = 0; i < c.depths.size(); ++i) {
    check(sane(c.depths[i]) && sane(c.num_heads[i]) && (c.embed_dim << i) % c.num_heads[i] == 0,
          "depths and num_heads must be positive, and the heads divide their level's width");
    if (c.dilations.empty()) continue;
    check(static_cast<std::int64_t>(c.dilations[i].size()) >= c.depths[i], "dilations has fewer entries than a level has blocks");
    check(std::all_of(c.dilations[i].begin(), c.dilations[i].end(), sane), "dilations must be positive");
  }
}

}  // namespace

Nat::Block::Block(const Weights& w, const NatConfig& config, std::int64_t dim, std::int64_t num_heads, std::int64_t dilation)
    : norm1(w / "norm1", dim, kEps), norm2(w / "norm2", dim, kEps) {
  LinearOptions scale1, scale2;
  if (config.layer_scale) {
    scale1.scale = w.get("gamma1", {dim});
    scale2.scale = w.get("gamma2", {dim});
  }
  NeighborhoodAttentionConfig attention;
  attention.dim = dim;
  attention.num_heads = num_heads;
  attention.kernel_size = config.kernel_size;
  attention.dilation = {dilation, dilation};
  attention.qkv_bias = config.qkv_bias;
  attention.scale = config.qk_scale;
  attn = NeighborhoodAttention(w / "attn", attention, scale1);
  mlp = Mlp(w / "mlp", dim, static_cast<std::int64_t>(static_cast<double>(dim) * config.mlp_ratio), Activation::gelu, scale2);
}

Tensor Nat::Block::operator()(Tensor x) const {
  const Tensor y = norm1(x);
  x = attn(y, std::move(x));
  const Tensor z = norm2(x);
  return mlp(z, std::move(x));
}

Nat::Nat(const Weights& w, NatConfig config) : config_(std::move(config)) {
  validate(config_);
  const NatConfig& c = config_;
  const Weights embed = w / "patch_embed";
  if (c.layout == NatLayout::nat) {
    const Conv2dOptions options{.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1};
    stem1_ = Conv2d(embed / "proj.0", c.in_chans, c.embed_dim / 2, 3, 3, options);
    stem2_ = Conv2d(embed / "proj.1", c.embed_dim / 2, c.embed_dim, 3, 3, options);
  } else {
    patches_ = PatchEmbed(embed / "proj", c.in_chans, c.embed_dim, c.patch_size, c.patch_size);
  }
  if (c.patch_norm) patch_norm_ = LayerNorm(embed / "norm", c.embed_dim, kEps);

  const Weights levels = w / (c.layout == NatLayout::nat ? "levels" : "layers");
  std::int64_t dim = c.embed_dim;
  for (std::size_t i = 0; i < c.depths.size(); ++i) {
    const bool last = i + 1 == c.depths.size();
    const Weights level = c.layout == NatLayout::isotropic ? levels : levels / static_cast<std::int64_t>(i);
    const Weights blocks = c.layout == NatLayout::isotropic ? levels : level / "blocks";
    Level& built = levels_.emplace_back();
    for (std::int64_t j = 0; j < c.depths[i]; ++j)
      built.blocks.emplace_back(blocks / j, c, dim, c.num_heads[i],
                                c.dilations.empty() ? 1 : c.dilations[i][static_cast<std::size_t>(j)]);
    if (last) break;
    const Weights down = level / "downsample";
    if (c.layout == NatLayout::nat)
      built.downsample = {
          Conv2d(down / "reduction", dim, 2 * dim, 3, 3, {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1, .bias = false}),
          LayerNorm(down / "norm", 2 * dim, kEps)};
    else
      built.merging = detail::PatchMerging(down, dim, 2 * dim, kEps);
    dim *= 2;
  }
  norm_ = LayerNorm(w / "norm", dim, kEps);
  set_head(w / "head", dim, c.num_classes);
  in_chans_ = c.in_chans;
  for (std::size_t i = 0; i < levels_.size(); ++i) strides_.push_back((c.layout == NatLayout::nat ? 4 : c.patch_size) << i);
}

Tensor Nat::embed(const Tensor& images) const {  // [B, H, W, in_chans] -> [B, H', W', embed_dim]
  Tensor x = images;
  if (config_.layout == NatLayout::nat) {
    x = stem2_(stem1_(x));
  } else {
    x = patches_(detail::pad_to_multiple(x, config_.patch_size));
  }
  if (config_.fixed_size > 0 && (x.size(1) != config_.fixed_size || x.size(2) != config_.fixed_size))
    throw Error(fmt::format("{}: images of {}x{}, expected {}x{}: the position biases are of that size; give another img_size",
                            info_.name, images.size(1), images.size(2), config_.fixed_size * config_.patch_size,
                            config_.fixed_size * config_.patch_size));
  return patch_norm_.defined() ? patch_norm_(x) : x;
}

// A level's map is taken before the downsampling, the observer sees it after.
Tensor Nat::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  Tensor x = embed(images);
  if (observer) observer("patch_embed", x);
  const std::string_view name = config_.layout == NatLayout::nat ? "levels" : "layers";
  for (std::size_t i = 0; i < levels_.size(); ++i) {
    const std::string path = config_.layout == NatLayout::isotropic ? std::string(name) : fmt::format("{}.{}", name, i);
    for (std::size_t j = 0; j < levels_[i].blocks.size(); ++j) {
      x = levels_[i].blocks[j](std::move(x));
      if (observer) observer(fmt::format("{}{}.{}", path, config_.layout == NatLayout::isotropic ? "" : ".blocks", j), x);
    }
    if (stage_done) stage_done(i, x);
    const Level& level = levels_[i];
    if (level.downsample.conv.defined()) x = level.downsample.norm(level.downsample.conv(x));
    if (level.merging.defined()) x = level.merging(x);
    if (observer) observer(path, x);
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

// Dilations alternate between 1 and the level's own. 18 blocks in the third level of all but the smallest models.
#define VITRINE_NINE(pair) pair "," pair "," pair "," pair "," pair "," pair "," pair "," pair "," pair
#define VITRINE_DINAT(a, b, c) R"("dilations": [[1,)" #a ",1],[1," #b ",1," #b "],[" VITRINE_NINE("1," #c) R"(],[1,1,1,1,1]])"
#define VITRINE_DINAT_S(a, b, c) R"("dilations": [[1,)" #a "],[1," #b "],[" VITRINE_NINE("1," #c) "],[1,1]]"

#define VITRINE_MINI R"("depths": [3, 4, 6, 5], "num_heads": [2, 4, 8, 16], "embed_dim": 64, "mlp_ratio": 3)"
#define VITRINE_TINY R"("depths": [3, 4, 18, 5], "num_heads": [2, 4, 8, 16], "embed_dim": 64, "mlp_ratio": 3)"
#define VITRINE_SMALL R"("depths": [3, 4, 18, 5], "num_heads": [3, 6, 12, 24], "embed_dim": 96, "mlp_ratio": 2)"
#define VITRINE_BASE R"("depths": [3, 4, 18, 5], "num_heads": [4, 8, 16, 32], "embed_dim": 128, "mlp_ratio": 2)"
#define VITRINE_LARGE R"("depths": [3, 4, 18, 5], "num_heads": [6, 12, 24, 48], "embed_dim": 192, "mlp_ratio": 2)"
#define VITRINE_SCALED R"("layer_scale": 1e-5)"

constexpr std::string_view k384 = R"({"input_size": [3, 384, 384], "crop_pct": 1.0})";

constexpr Variant kNat[] = {
    {"nat_mini", "{" VITRINE_MINI "}", "", "81.8"},
    {"nat_tiny", "{" VITRINE_TINY "}", "", "83.2"},
    {"nat_small", "{" VITRINE_SMALL "," VITRINE_SCALED "}", "", "83.7"},
    {"nat_base", "{" VITRINE_BASE "," VITRINE_SCALED "}", "", "84.3"},
    {"dinat_mini", "{" VITRINE_MINI R"(, "dilations": [[1,8,1],[1,4,1,4],[1,2,1,2,1,2],[1,1,1,1,1]]})", "", "81.8"},
    {"dinat_tiny", "{" VITRINE_TINY "," VITRINE_DINAT(8, 4, 2) "}", "", "82.7"},
    {"dinat_small", "{" VITRINE_SMALL "," VITRINE_DINAT(8, 4, 2) "}", "", "83.8"},
    {"dinat_base", "{" VITRINE_BASE "," VITRINE_DINAT(8, 4, 2) "," VITRINE_SCALED "}", "", "84.4"},
    {"dinat_large", "{" VITRINE_LARGE "," VITRINE_DINAT(8, 4, 2) "}", "", "86.6*"},
    {"dinat_large_384", "{" VITRINE_LARGE "," VITRINE_DINAT(13, 6, 3) "}", k384, "87.4*"},
    {"dinat_large_384_11x11", "{" VITRINE_LARGE "," VITRINE_DINAT(8, 4, 2) R"(, "kernel_size": 11})", k384, "87.5*"},
    {"dinat_large_21k", "{" VITRINE_LARGE "," VITRINE_DINAT(8, 4, 2) "}", ""},
    {"dinat_large_21k_11x11", "{" VITRINE_LARGE "," VITRINE_DINAT(8, 4, 2) R"(, "kernel_size": 11})", ""},
};
constexpr Variant kNatConstructors[] = {{"NAT", "", ""}, {"DiNAT", "", ""}, {"nat", "", ""}};

constexpr Variant kDinatS[] = {
    {"dinat_s_tiny", R"({"dilations": [[1,8],[1,4],[1,2,1,2,1,2],[1,1]]})", "", "81.8"},
    {"dinat_s_small", R"({"depths": [2, 2, 18, 2],)" VITRINE_DINAT_S(8, 4, 2) "}", "", "83.5"},
    {"dinat_s_base", R"({"depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "embed_dim": 128,)" VITRINE_DINAT_S(8, 4, 2) "}",
     "", "83.8"},
    {"dinat_s_large", R"({"depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "embed_dim": 192,)" VITRINE_DINAT_S(8, 4, 2) "}",
     "", "86.5*"},
    {"dinat_s_large_384",
     R"({"depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "embed_dim": 192,)" VITRINE_DINAT_S(13, 6, 3) "}", k384, "87.4*"},
    {"dinat_s_large_21k",
     R"({"depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "embed_dim": 192,)" VITRINE_DINAT_S(8, 4, 2) "}", ""},
};
constexpr Variant kDinatSConstructors[] = {{"DiNAT_s", "", ""}};

// vitrpb is global attention with a position bias: a window as large as the map.
constexpr Variant kNatIsotropic[] = {
    {"nat_isotropic_small", R"({"dilation": 1})", "", "80.0"},
    {"nat_isotropic_base", R"({"embed_dim": 768, "num_heads": 24, "dilation": 1})", "", "81.6"},
    {"dinat_isotropic_small", "", "", "80.8"},
    {"dinat_isotropic_base", R"({"embed_dim": 768, "num_heads": 24})", "", "82.1"},
    {"vitrpb_small", R"({"kernel_size": null, "dilation": null})", "", "81.2"},
    {"vitrpb_base", R"({"embed_dim": 768, "num_heads": 24, "kernel_size": null, "dilation": null})", "", "82.5"},
};
constexpr Variant kNatIsotropicConstructors[] = {{"NATIsotropic", "", ""}};

// What all constructors share. Drop rates act in training only; any image size fits (but see fixed_size), img_size is
// what the preprocessing gives.
ArgumentReader& read_common(ArgumentReader& reader, NatConfig& c) {
  return reader.get("embed_dim", c.embed_dim)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("mlp_ratio", c.mlp_ratio)
      .get("qkv_bias", c.qkv_bias)
      .get("qk_scale", c.qk_scale)
      .ignore({"drop_rate", "attn_drop_rate", "drop_path_rate", "pretrained", "img_size"});
}

std::unique_ptr<Backbone> build_nat(const Variant& variant, const Weights& w, const Arguments& arguments) {
  NatConfig c;
  ArgumentReader reader(variant.name, arguments);
  read_common(reader, c)
      .get("depths", c.depths)
      .get("num_heads", c.num_heads)
      .get("kernel_size", c.kernel_size)
      .get("dilations", c.dilations)
      .get("layer_scale", c.layer_scale)
      .finish();
  return std::make_unique<Nat>(w, std::move(c));
}

std::unique_ptr<Backbone> build_dinat_s(const Variant& variant, const Weights& w, const Arguments& arguments) {
  NatConfig c;
  c.layout = NatLayout::swin;
  c.embed_dim = 96;
  c.depths = {2, 2, 6, 2};
  c.num_heads = {3, 6, 12, 24};
  c.mlp_ratio = 4.0;
  ArgumentReader reader(variant.name, arguments);
  read_common(reader, c)
      .get("depths", c.depths)
      .get("num_heads", c.num_heads)
      .get("kernel_size", c.kernel_size)
      .get("dilations", c.dilations)
      .get("patch_size", c.patch_size)
      .get("patch_norm", c.patch_norm)
      .finish();
  return std::make_unique<Nat>(w, std::move(c));
}

std::unique_ptr<Backbone> build_isotropic(const Variant& variant, const Weights& w, const Arguments& arguments) {
  NatConfig c;
  c.layout = NatLayout::isotropic;
  c.embed_dim = 384;
  c.mlp_ratio = 4.0;
  c.patch_size = 16;
  std::int64_t depth = 12, num_heads = 12, img_size = 224;
  std::optional<std::array<std::int64_t, 2>> kernel_size{c.kernel_size};
  std::optional<std::int64_t> dilation{2};
  ArgumentReader reader(variant.name, arguments);
  read_common(reader, c)
      .get("img_size", img_size)
      .get("patch_size", c.patch_size)
      .get("patch_norm", c.patch_norm)
      .get("depth", depth)
      .get("num_heads", num_heads)
      .get("kernel_size", kernel_size)
      .get("dilation", dilation)
      .finish();
  check(depth > 0 && depth <= 1000, "depth is out of range");
  c.depths = {depth};
  c.num_heads = {num_heads};
  if (kernel_size) {
    c.kernel_size = *kernel_size;
    auto& blocks = c.dilations.emplace_back();
    for (std::int64_t i = 0; i < depth; ++i) blocks.push_back(i % 2 == 0 ? 1 : dilation.value_or(1));
  } else {
    check(c.patch_size > 0 && img_size >= c.patch_size, "img_size is smaller than patch_size");
    c.fixed_size = img_size / c.patch_size;
    c.kernel_size = {c.fixed_size, c.fixed_size};
  }
  return std::make_unique<Nat>(w, std::move(c));
}

}  // namespace

constexpr std::string_view kSource = "arXiv:2204.07143, arXiv:2209.15001; SHI-Labs/Neighborhood-Attention-Transformer";
constinit const Family kNatFamily{.name = "nat",
                                  .source = kSource,
                                  .attention = "neighborhoods, dilated in turns (DiNAT)",
                                  .variants = kNat,
                                  .build = build_nat,
                                  .constructors = kNatConstructors};
constinit const Family kDinatSFamily{.name = "dinat_s",
                                     .source = kSource,
                                     .attention = "neighborhoods, dilated in turns",
                                     .variants = kDinatS,
                                     .build = build_dinat_s,
                                     .constructors = kDinatSConstructors};
constinit const Family kNatIsotropicFamily{.name = "nat_isotropic",
                                           .source = kSource,
                                           .attention = "neighborhoods, dilated in turns, global (ViT-rpb)",
                                           .variants = kNatIsotropic,
                                           .build = build_isotropic,
                                           .constructors = kNatIsotropicConstructors};

}  // namespace detail
}  // namespace vitrine
