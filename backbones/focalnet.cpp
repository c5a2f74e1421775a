#include <vitrine/backbones/focalnet.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/backbones/focalnet_variants.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::require;

namespace {

constexpr double kEps = 1e-5;

void validate(const FocalNetConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto check = [&](bool right, std::string_view what) { require(right, c.name, what); };
  check(!c.depths.empty() && c.depths.size() <= 8, "depths, expected one to eight stages");
  check(c.focal_levels.size() >= c.depths.size() && c.focal_windows.size() >= c.depths.size(),
        "focal_levels and focal_windows have fewer stages than depths");
  check(std::all_of(c.depths.begin(), c.depths.end(), sane), "depths must be positive");
  check(sane(c.in_chans) && sane(c.embed_dim), "in_chans and embed_dim must be positive");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  check(c.mlp_ratio > 0 && c.mlp_ratio <= 64, "mlp_ratio is out of range");
  check(c.head_hidden_size >= 0 && c.head_hidden_size <= kMost, "head_hidden_size is out of range");
  check(c.head_hidden_size == 0 || c.global_pool != detail::GlobalPool::catavgmax,
        "global_pool catavgmax has no head_hidden_size");
}

// The layer scale of a post norm: (n w + b) s = n (w s) + b s.
void scale_norm(LayerNorm& norm, const Tensor& scale) {
  norm.weight = multiply(norm.weight, scale);
  norm.bias = multiply(norm.bias, scale);
}

}  // namespace

FocalNet::Block::Block(const Weights& w, const FocalNetConfig& c, std::int64_t dim, std::size_t stage)
    : post_norm(c.use_post_norm),
      norm1(w / (post_norm ? "norm1_post" : "norm1"), dim, kEps),
      norm2(w / (post_norm ? "norm2_post" : "norm2"), dim, kEps) {
  LinearOptions scaled1, scaled2;
  if (c.layer_scale) {
    const Tensor scale1 = (w / "ls1").get("gamma", {dim}), scale2 = (w / "ls2").get("gamma", {dim});
    if (post_norm) {
      scale_norm(norm1, scale1.to(w.device()));
      scale_norm(norm2, scale2.to(w.device()));
    } else {
      scaled1.scale = scale1;
      scaled2.scale = scale2;
    }
  }
  modulation = FocalModulation(w / "modulation",
                               {.dim = dim,
                                .focal_level = c.focal_levels[stage],
                                .focal_window = c.focal_windows[stage],
                                .normalize_modulator = c.normalize_modulator,
                                .norm_eps = c.use_post_norm_in_modulation ? kEps : 0},
                               scaled1);
  mlp = Mlp(w / "mlp", dim, static_cast<std::int64_t>(static_cast<double>(dim) * c.mlp_ratio), Activation::gelu, scaled2);
}

Tensor FocalNet::Block::operator()(Tensor x) const {
  if (post_norm) {
    Tensor y = norm1(modulation(x));
    add_(y, x);
    Tensor z = norm2(mlp(y));
    add_(z, y);
    return z;
  }
  const Tensor y = norm1(x);
  x = modulation(y, std::move(x));
  const Tensor z = norm2(x);
  return mlp(z, std::move(x));
}

FocalNet::Downsample::Downsample(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t stride, bool overlap)
    : norm(w / "norm", out, kEps) {
  if (!overlap) {
    patches = PatchEmbed(w / "proj", in, out, stride, stride);
    return;
  }
  const std::int64_t kernel = stride == 4 ? 7 : 3, pad = stride == 4 ? 2 : 1;
  conv = Conv2d(w / "proj", in, out, kernel, kernel, {.stride_h = stride, .stride_w = stride, .pad_h = pad, .pad_w = pad});
}

Tensor FocalNet::Downsample::operator()(const Tensor& x) const {
  if (conv.defined()) return norm(conv(x));
  return norm(patches(detail::whole_patches(x, patches.patch_h, "focalnet")));
}

FocalNet::FocalNet(const Weights& w, FocalNetConfig config) : config_(std::move(config)) {
  validate(config_);
  const FocalNetConfig& c = config_;
  std::int64_t dim = c.embed_dim;
  stem_ = Downsample(w / "stem", c.in_chans, dim, 4, c.use_overlap_down);
  for (std::size_t i = 0; i < c.depths.size(); ++i) {
    const Weights stage = w / "layers" / static_cast<std::int64_t>(i);
    Stage& built = stages_.emplace_back();
    if (i > 0) {
      built.downsample = Downsample(stage / "downsample", dim, 2 * dim, 2, c.use_overlap_down);
      dim *= 2;
    }
    for (std::int64_t j = 0; j < c.depths[i]; ++j) built.blocks.emplace_back(stage / "blocks" / j, c, dim, i);
    strides_.push_back(std::int64_t{4} << i);
  }
  const Weights head = w / "head";
  if (c.head_hidden_size > 0) {
    head_norm_ = LayerNorm(head / "norm", dim, kEps);
    pre_logits_ = Linear(head / "pre_logits" / "fc", dim, c.head_hidden_size);
    dim = c.head_hidden_size;
  } else {
    norm_ = LayerNorm(w / "norm", dim, kEps);
    if (c.global_pool == detail::GlobalPool::catavgmax) dim *= 2;
  }
  set_head(head / "fc", dim, c.num_classes);
  in_chans_ = c.in_chans;
}

Tensor FocalNet::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  Tensor x = stem_(images);  // [B, H / 4, W / 4, C]
  detail::observe_nchw(observer, "stem", x);
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    if (stages_[i].downsample.defined()) x = stages_[i].downsample(x);
    for (std::size_t j = 0; j < stages_[i].blocks.size(); ++j) {
      x = stages_[i].blocks[j](std::move(x));
      if (observer) detail::observe_nchw(observer, fmt::format("layers.{}.blocks.{}", i, j), x);
    }
    if (observer) detail::observe_nchw(observer, fmt::format("layers.{}", i), x);
    if (stage_done) stage_done(i, x);
  }
  return x;
}

Tensor FocalNet::pool(const Tensor& features) const {
  const Tensor x = detail::global_pool(features, config_.global_pool);
  return pre_logits_.defined() ? pre_logits_(head_norm_(x), {.activation = Activation::tanh}) : x;
}

// --- arguments ---------------------------------------------------------------------------------------------------

namespace detail {
namespace {

// microsoft/FocalNet makes a stage's map smaller at its end, not at the beginning of the next one. Its norms have the same names
// before and after what they norm: where they are is for the model to say, in build_focalnet.
#define VITRINE_DOWNSAMPLE(from, to) \
  { R"(layers\.)" from R"(\.downsample\.(.*))", "layers." to ".downsample.$1" }
constexpr NameRule kOfficial[] = {
    {R"(layers\.(\d+)\.blocks\.(\d+)\.norm([12])\.(.*))", "layers.$1.blocks.$2.norm$3_anywhere.$4"},
    {R"(patch_embed\.(.*))", "stem.$1"},
    VITRINE_DOWNSAMPLE("0", "1"),
    VITRINE_DOWNSAMPLE("1", "2"),
    VITRINE_DOWNSAMPLE("2", "3"),
    VITRINE_DOWNSAMPLE("3", "4"),
    VITRINE_DOWNSAMPLE("4", "5"),
    VITRINE_DOWNSAMPLE("5", "6"),
    VITRINE_DOWNSAMPLE("6", "7"),
    {R"((.*)\.gamma_([12]))", "$1.ls$2.gamma"},
    {R"((.*)\.modulation\.ln\.(.*))", "$1.modulation.norm.$2"},
    {R"(head\.(weight|bias))", "head.fc.$1"},
};
#undef VITRINE_DOWNSAMPLE
constexpr NameMap kNames[] = {{"patch_embed.proj.weight", kOfficial}};
constexpr NameRule kBefore[] = {{R"((.*)\.norm([12])_anywhere\.(.*))", "$1.norm$2.$3"}};
constexpr NameRule kAfter[] = {{R"((.*)\.norm([12])_anywhere\.(.*))", "$1.norm$2_post.$3"}};
constexpr std::string_view kAnywhere = "layers.0.blocks.0.norm1_anywhere.weight";
constexpr NameMap kPreNorms[] = {{kAnywhere, kBefore}}, kPostNorms[] = {{kAnywhere, kAfter}};

std::unique_ptr<Backbone> build_focalnet(const Variant& variant, const Weights& w, const Arguments& arguments) {
  FocalNetConfig c;
  c.name = variant.name;
  std::string pool = "avg";
  std::optional<double> layerscale_value;
  std::optional<std::int64_t> head_hidden_size;
  ArgumentReader(variant.name, arguments)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("global_pool", pool)
      .get("embed_dim", c.embed_dim)
      .get("depths", c.depths)
      .get("mlp_ratio", c.mlp_ratio)
      .get("focal_levels", c.focal_levels)
      .get("focal_windows", c.focal_windows)
      .get("use_overlap_down", c.use_overlap_down)
      .get("use_post_norm", c.use_post_norm)
      .get("use_post_norm_in_modulation", c.use_post_norm_in_modulation)
      .get("normalize_modulator", c.normalize_modulator)
      .get("head_hidden_size", head_hidden_size)
      .get("layerscale_value", layerscale_value)
      .ignore({"head_init_scale", "drop_rate", "proj_drop_rate", "drop_path_rate", "img_size"})
      .finish();
  c.global_pool = parse_global_pool(c.name, pool);
  c.layer_scale = layerscale_value.has_value();
  c.head_hidden_size = head_hidden_size.value_or(0);
  rename_parameters(w, c.use_post_norm ? kPostNorms : kPreNorms);
  return std::make_unique<FocalNet>(w, std::move(c));
}

constexpr Variant kFocalNetConstructors[] = {{"FocalNet", "", ""}};

}  // namespace

constinit const Family kFocalNetFamily{.name = "focalnet",
                                       .source = "arXiv:2203.11926; timm 1.0.31 focalnet.py",
                                       .attention = "focal modulation",
                                       .variants = kFocalNetVariants,
                                       .build = build_focalnet,
                                       .constructors = kFocalNetConstructors,
                                       .preprocess = R"({"crop_pct":0.9})",
                                       .head = "head.fc",
                                       .pretrained = kFocalNetPretrained,
                                       .name_maps = kNames};

}  // namespace detail
}  // namespace vitrine
