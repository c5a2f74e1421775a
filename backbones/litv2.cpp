#include <vitrine/backbones/litv2.h>

#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::require;

namespace {

constexpr double kEps = 1e-5;  // torch.nn.LayerNorm's, which the original leaves as it is

void validate(const LitV2Config& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto check = [&](bool right, std::string_view what) { require(right, c.name, what); };
  check(!c.depths.empty() && c.depths.size() <= 8, "depths, expected one to eight stages");
  check(c.num_heads.size() == c.depths.size() && c.has_msa.size() == c.depths.size() && c.local_ws.size() == c.depths.size(),
        "depths, num_heads, has_msa and local_ws have different lengths");
  check(sane(c.in_chans) && sane(c.patch_size) && sane(c.embed_dim), "in_chans, patch_size and embed_dim must be positive");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  check(c.mlp_ratio > 0 && c.mlp_ratio <= 64, "mlp_ratio is out of range");
  for (std::size_t i = 0; i < c.depths.size(); ++i)
    check(sane(c.depths[i]) && sane(c.num_heads[i]) && (c.has_msa[i] != 1 || sane(c.local_ws[i])),
          "depths, num_heads, and local_ws of stages with attention must be positive");
}

}  // namespace

LitV2::Block::Block(const Weights& w, const LitV2Config& c, std::int64_t dim, std::size_t stage) : norm2(w / "norm2", dim, kEps) {
  if (c.has_msa[stage] == 1) {
    norm1 = LayerNorm(w / "norm1", dim, kEps);
    attn = HiLoAttention(w / "attn", {.dim = dim,
                                      .num_heads = c.num_heads[stage],
                                      .window_size = c.local_ws[stage],
                                      .alpha = c.alpha,
                                      .qkv_bias = c.qkv_bias,
                                      .scale = c.qk_scale});
  }
  const Weights mlp = w / "mlp";
  const auto hidden = static_cast<std::int64_t>(static_cast<double>(dim) * c.mlp_ratio);
  fc1 = Linear(mlp / "fc1", dim, hidden);
  dwconv = Conv2d(mlp / "dwconv.dwconv", hidden, hidden, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = hidden});
  fc2 = Linear(mlp / "fc2", hidden, dim);
}

Tensor LitV2::Block::operator()(Tensor x) const {
  if (attn) {
    const Tensor y = norm1(x);
    x = (*attn)(y, std::move(x));
  }
  const Tensor hidden = dwconv(fc1(norm2(x)), {.activation = Activation::gelu});
  return fc2(hidden, {.residual = std::move(x)});
}

LitV2::LitV2(const Weights& w, LitV2Config config) : config_(std::move(config)) {
  validate(config_);
  const LitV2Config& c = config_;
  std::int64_t dim = c.embed_dim;
  patches_ = PatchEmbed(w / "patch_embed" / "proj", c.in_chans, dim, c.patch_size, c.patch_size);
  if (c.patch_norm) patch_norm_ = LayerNorm(w / "patch_embed" / "norm", dim, kEps);
  for (std::size_t i = 0; i < c.depths.size(); ++i) {
    const Weights layer = w / "layers" / static_cast<std::int64_t>(i);
    Layer& built = layers_.emplace_back();
    for (std::int64_t j = 0; j < c.depths[i]; ++j) built.blocks.emplace_back(layer / "blocks" / j, c, dim, i);
    strides_.push_back(c.patch_size << i);
    if (i + 1 == c.depths.size()) break;
    built.downsample = DeformableMerging(layer / "downsample", dim, 2 * dim);
    dim *= 2;
  }
  norm_ = LayerNorm(w / "norm", dim, kEps);
  set_head(w / "head", dim, c.num_classes);
  in_chans_ = c.in_chans;
}

// A stage's map is taken before the merging, the observer sees it after, as a sequence.
Tensor LitV2::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  Tensor x = patches_(images);  // [B, H / 4, W / 4, C]
  if (patch_norm_.defined()) x = patch_norm_(x);
  if (observer) observer("patch_embed", x.flatten(1, 2));
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    for (std::size_t j = 0; j < layers_[i].blocks.size(); ++j) {
      x = layers_[i].blocks[j](std::move(x));
      if (observer) observer(fmt::format("layers.{}.blocks.{}", i, j), x.flatten(1, 2));
    }
    if (stage_done) stage_done(i, x);
    if (layers_[i].downsample.defined()) x = layers_[i].downsample(x);
    if (observer) observer(fmt::format("layers.{}", i), x.flatten(1, 2));
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

#define VITRINE_LITV2_BASE R"({"embed_dim":128,"depths":[2,2,18,2],"num_heads":[4,8,16,32])"
constexpr Variant kLitV2[] = {
    {"litv2_small", R"({"depths":[2,2,6,2]})", "", "82.0"},
    {"litv2_medium", R"({"depths":[2,2,18,2]})", "", "83.3"},
    {"litv2_base", VITRINE_LITV2_BASE "}", "", "83.6"},
    {"litv2_base_384", VITRINE_LITV2_BASE R"(,"img_size":384})", R"({"crop_pct":1.0,"crop_mode":"squash"})", "84.7"},
};
// The class's own share of heads is a half; the published models' is 0.9.
constexpr Variant kLitV2Constructors[] = {{"LITv2", R"({"alpha":0.5})", ""}};

std::unique_ptr<Backbone> build_litv2(const Variant& variant, const Weights& w, const Arguments& arguments) {
  LitV2Config c;
  c.name = variant.name;
  ArgumentReader(variant.name, arguments)
      .get("patch_size", c.patch_size)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("embed_dim", c.embed_dim)
      .get("depths", c.depths)
      .get("num_heads", c.num_heads)
      .get("mlp_ratio", c.mlp_ratio)
      .get("qkv_bias", c.qkv_bias)
      .get("qk_scale", c.qk_scale)
      .get("patch_norm", c.patch_norm)
      .get("has_msa", c.has_msa)
      .get("alpha", c.alpha)
      .get("local_ws", c.local_ws)
      // ape is kept by the original and never looked at; any image whose maps can be halved fits
      .ignore({"img_size", "drop_rate", "attn_drop_rate", "drop_path_rate", "ape", "use_checkpoint", "norm_layer"})
      .finish();
  return std::make_unique<LitV2>(w, std::move(c));
}

}  // namespace

constinit const Family kLitV2Family{.name = "litv2",
                                    .source = "arXiv:2205.13213; ziplab/LITv2",
                                    .attention = "HiLo: windows for high frequencies, averaged keys for low ones",
                                    .variants = kLitV2,
                                    .build = build_litv2,
                                    .constructors = kLitV2Constructors};

}  // namespace detail
}  // namespace vitrine
