#include <vitrine/backbones/transnext.h>

#include <numeric>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/layers/error.h>

namespace vitrine {
namespace {

constexpr std::size_t kStages = 4;
constexpr double kPatchEps = 1e-5;

void check(bool right, const char* what) {
  if (!right) throw Error(fmt::format("transnext: {}", what));
}

void validate(const TransNextConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  for (const auto* list : {&c.embed_dims, &c.num_heads, &c.depths, &c.sr_ratios})
    check(list->size() == kStages, "embed_dims, num_heads, depths and sr_ratios have four entries each");
  for (const auto* list : {&c.shared_head, &c.routed_head})
    check(list->size() == kStages || (c.shared_head.empty() && c.routed_head.empty()),
          "shared_head and routed_head have four entries each");
  check(c.mlp_ratios.size() == kStages && c.window_size.size() == kStages, "mlp_ratios and window_size have four entries");
  check(sane(c.in_chans) && c.patch_size > 1 && c.patch_size <= kMost, "in_chans and patch_size must be positive");
  check(sane(c.img_size) && (!c.pretrain_size || sane(*c.pretrain_size)), "img_size and pretrain_size must be positive");
  check(!c.fixed_pool_size || sane(*c.fixed_pool_size), "fixed_pool_size must be positive");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  check(c.norm_eps > 0 && c.norm_eps < 1, "norm_eps is out of range");
  for (std::size_t i = 0; i < kStages; ++i) {
    check(sane(c.depths[i]) && sane(c.embed_dims[i]) && sane(c.num_heads[i]) && sane(c.sr_ratios[i]) &&
              c.embed_dims[i] % c.num_heads[i] == 0,
          "depths, embed_dims, num_heads and sr_ratios must be positive, and the heads divide their stage's width");
    check(c.mlp_ratios[i] > 0 && c.mlp_ratios[i] <= 64, "mlp_ratios are out of range");
    check(c.sr_ratios[i] == 1 || (c.window_size[i] && *c.window_size[i] > 0 && *c.window_size[i] % 2 == 1),
          "window_size must be odd in stages whose sr_ratio is above 1");
  }
}

// The sides of the stage's map that offsets are measured by.
std::array<std::int64_t, 2> reference_of(const TransNextConfig& c, std::size_t stage) {
  const std::int64_t side = c.pretrain_size.value_or(c.img_size) >> (stage + 2);
  return {side, side};
}

// The stages, from the first on, that compute in f32 whatever the model's type; where there are any, the convolutions between
// stages do, too. A map's mean decides what a deep stage sees: the rounding of activations cancels in it, that of weights does
// not, and what the first stages get wrong grows through the blocks that follow. All in bf16, with the choices of the f32 pass,
// the logits of synthetic weights are off by 0.035 to 0.043 with gated heads (PyTorch: 0.079; with nothing but the weights
// rounded: 0.042), by 0.021 to 0.026 in small and base, by 0.016 and less in micro and tiny; like this by 0.014 to 0.020, and
// 0.012 to 0.017.
std::size_t exact_stages(const TransNextConfig& c) {
  constexpr std::int64_t kDeep = 30;  // blocks
  if (!c.shared_head.empty()) return 2;
  return std::accumulate(c.depths.begin(), c.depths.end(), std::int64_t{0}) >= kDeep ? 1 : 0;
}

std::int64_t head_count(const std::vector<std::int64_t>& heads, std::size_t stage) { return heads.empty() ? 0 : heads[stage]; }

}  // namespace

TransNext::Block::Block(const Weights& w, const TransNextConfig& c, std::size_t stage) {
  const std::int64_t dim = c.embed_dims[stage], heads = c.num_heads[stage];
  const auto hidden = 2 * static_cast<std::int64_t>(static_cast<double>(dim) * c.mlp_ratios[stage]) / 3;
  const Weights mlp = w / "mlp";
  norm1 = LayerNorm(w / "norm1", dim, c.norm_eps);
  norm2 = LayerNorm(w / "norm2", dim, c.norm_eps);
  if (c.sr_ratios[stage] == 1) {
    attn = CosineAttention(w / "attn", {dim, heads, c.qkv_bias, reference_of(c, stage), head_count(c.shared_head, stage),
                                        head_count(c.routed_head, stage)});
  } else {
    AggregatedAttentionConfig a;
    a.dim = dim;
    a.num_heads = heads;
    a.window_size = *c.window_size[stage];
    a.sr_ratio = c.sr_ratios[stage];
    a.qkv_bias = c.qkv_bias;
    a.pretrain_size = reference_of(c, stage);
    a.fixed_pool_size = c.fixed_pool_size.value_or(0);
    a.shared_head = head_count(c.shared_head, stage);
    a.routed_head = head_count(c.routed_head, stage);
    attn = AggregatedAttention(w / "attn", a);
  }
  fc1 = Linear(mlp / "fc1", dim, 2 * hidden);
  dwconv = Conv2d(mlp / "dwconv" / "dwconv", hidden, hidden, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = hidden});
  fc2 = Linear(mlp / "fc2", hidden, dim);
}

Tensor TransNext::Block::operator()(Tensor x) const {  // [B, H, W, C]
  const Tensor y = norm1(x);
  x = std::visit([&](const auto& attend) { return attend(y, std::move(x)); }, attn);
  const Tensor parts = fc1(norm2(x));  // [B, H, W, hidden + hidden]
  const std::int64_t hidden = parts.size(3) / 2;
  Tensor gated = dwconv(parts.slice(3, 0, hidden), {.activation = Activation::gelu});
  multiply_(gated, parts.slice(3, hidden, 2 * hidden));
  return fc2(gated, {.residual = std::move(x)});
}

TransNext::TransNext(const Weights& w, TransNextConfig config) : config_(std::move(config)) {
  validate(config_);
  const TransNextConfig& c = config_;
  const std::size_t exact = exact_stages(c);
  for (std::size_t i = 0; i < kStages; ++i) {
    const std::int64_t dim = c.embed_dims[i], from = i == 0 ? c.in_chans : c.embed_dims[i - 1];
    const std::int64_t kernel = i == 0 ? 2 * c.patch_size - 1 : 3, stride = i == 0 ? c.patch_size : 2;
    Stage& stage = stages_.emplace_back();
    stage.dtype = i < exact ? DType::f32 : w.dtype();
    const Weights embed = w.in(exact > 0 ? DType::f32 : w.dtype()) / fmt::format("patch_embed{}", i + 1);
    const Weights blocks = w.in(stage.dtype) / fmt::format("block{}", i + 1);
    stage.patch_embed = Conv2d(embed / "proj", from, dim, kernel, kernel,
                               {.stride_h = stride, .stride_w = stride, .pad_h = kernel / 2, .pad_w = kernel / 2});
    stage.patch_norm = LayerNorm(embed / "norm", dim, kPatchEps);
    for (std::int64_t j = 0; j < c.depths[i]; ++j) stage.blocks.emplace_back(blocks / j, c, i);
    stage.norm = LayerNorm(w / fmt::format("norm{}", i + 1), dim, c.norm_eps);
    strides_.push_back(c.patch_size << i);
  }
  const std::int64_t features = c.embed_dims.back();
  set_head(w / "head", features, c.num_classes);
  in_chans_ = c.in_chans;
  observed_ = detail::ObservedLayout::tokens;
}

// A stage's map is taken after its norm, as what follows takes it.
Tensor TransNext::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  Tensor x = images;
  for (std::size_t i = 0; i < kStages; ++i) {
    const Stage& stage = stages_[i];
    x = stage.patch_norm(
        stage.patch_embed(x.to(stage.dtype)));  // [B, H / 4, W / 4, embed_dims[0]], then half as high and wide each
    for (std::size_t j = 0; j < stage.blocks.size(); ++j) {
      x = stage.blocks[j](std::move(x));
      observe(observer, fmt::format("block{}.{}", i + 1, j), x);
    }
    x = stage.norm(x).to(images.dtype());
    observe(observer, fmt::format("norm{}", i + 1), x);
    if (stage_done) stage_done(i, x);
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

#define VITRINE_COMMON R"("patch_size": 4, "mlp_ratios": [8, 8, 4, 4], "qkv_bias": true, "norm_eps": 1e-6)"
#define VITRINE_MICRO R"("embed_dims": [48, 96, 192, 384], "num_heads": [2, 4, 8, 16], "depths": [2, 2, 15, 2],)" VITRINE_COMMON
#define VITRINE_TINY R"("embed_dims": [72, 144, 288, 576], "num_heads": [3, 6, 12, 24], "depths": [2, 2, 15, 2],)" VITRINE_COMMON
#define VITRINE_SMALL R"("embed_dims": [72, 144, 288, 576], "num_heads": [3, 6, 12, 24], "depths": [5, 5, 22, 5],)" VITRINE_COMMON
#define VITRINE_BASE R"("embed_dims": [96, 192, 384, 768], "num_heads": [4, 8, 16, 32], "depths": [5, 5, 23, 5],)" VITRINE_COMMON
#define VITRINE_384 R"("img_size": 384, "pretrain_size": 224)"

constexpr std::string_view k256 = R"({"input_size": [3, 256, 256]})";
constexpr std::string_view k384 = R"({"input_size": [3, 384, 384], "crop_pct": 1.0, "crop_mode": "squash"})";

constexpr Variant kTransNext[] = {
    {"transnext_micro", "{" VITRINE_MICRO "}", "", "82.5"},
    {"transnext_tiny", "{" VITRINE_TINY "}", "", "84.0"},
    {"transnext_small", "{" VITRINE_SMALL "}", "", "84.7"},
    {"transnext_base", "{" VITRINE_BASE "}", "", "84.8"},
    {"transnext_small_384", "{" VITRINE_SMALL "," VITRINE_384 "}", k384, "86.0"},
    {"transnext_base_384", "{" VITRINE_BASE "," VITRINE_384 "}", k384, "86.2"},
    {"transnext_micro_AAAA", "{" VITRINE_MICRO R"(, "img_size": 256, "window_size": [3, 3, 3, 3], "sr_ratios": [16, 8, 4, 2]})",
     k256, "82.6"},
};
constexpr Variant kMohTransNext[] = {
    {"moh_transnext_small_75", "{" VITRINE_SMALL R"(, "shared_head": [3, 6, 3, 4], "routed_head": [0, 0, 6, 12]})", ""},
    {"moh_transnext_small_80", "{" VITRINE_SMALL R"(, "shared_head": [3, 6, 3, 8], "routed_head": [0, 0, 6, 12]})", ""},
    {"moh_transnext_base_50", "{" VITRINE_BASE R"(, "shared_head": [2, 2, 2, 4], "routed_head": [2, 4, 6, 8]})", ""},
    {"moh_transnext_base_75", "{" VITRINE_BASE R"(, "shared_head": [4, 8, 4, 5], "routed_head": [0, 0, 8, 16]})", ""},
};
constexpr Variant kTransNextConstructors[] = {{"TransNeXt", "", ""}};

std::unique_ptr<Backbone> build(const Variant& variant, const Weights& w, const Arguments& arguments) {
  TransNextConfig c;
  std::int64_t num_stages = kStages;
  ArgumentReader(variant.name, arguments)
      .get("img_size", c.img_size)
      .get("pretrain_size", c.pretrain_size)
      .get("window_size", c.window_size)
      .get("patch_size", c.patch_size)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("embed_dims", c.embed_dims)
      .get("num_heads", c.num_heads)
      .get("mlp_ratios", c.mlp_ratios)
      .get("qkv_bias", c.qkv_bias)
      .get("depths", c.depths)
      .get("sr_ratios", c.sr_ratios)
      .get("num_stages", num_stages)
      .get("fixed_pool_size", c.fixed_pool_size)
      .get("norm_eps", c.norm_eps)
      .get("shared_head", c.shared_head)
      .get("routed_head", c.routed_head)
      .ignore({"drop_rate", "attn_drop_rate", "drop_path_rate", "pretrained"})
      .finish();
  check(num_stages == static_cast<std::int64_t>(kStages), "num_stages must be 4: the head is the fourth stage's");
  return std::make_unique<TransNext>(w, std::move(c));
}

}  // namespace

constinit const Family kTransNextFamily{.name = "transnext",
                                        .source = "TransNeXt, arXiv:2311.17132; DaiShiResearch/TransNeXt",
                                        .attention = "aggregated: a 3x3 neighborhood and pooled keys under one softmax",
                                        .variants = kTransNext,
                                        .build = build,
                                        .constructors = kTransNextConstructors};

constinit const Family kMohTransNextFamily{.name = "moh_transnext",
                                           .source = "MoH, arXiv:2410.11842; SkyworkAI/MoH",
                                           .attention = "aggregated, with heads routed by token",
                                           .variants = kMohTransNext,
                                           .build = build};

}  // namespace detail
}  // namespace vitrine
