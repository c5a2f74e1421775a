#include <vitrine/backbones/mixed_swin.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/partition.h>
#include <vitrine/backbones/family.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::MixedKind;

namespace {

constexpr double kEps = 1e-5;

void check(bool right, const char* what) {
  if (!right) throw Error(fmt::format("swin: {}", what));
}

void validate(const MixedSwinConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  check(c.depths.size() >= 1 && c.depths.size() <= 8, "depths, expected one to eight stages");
  check(c.num_heads.size() >= c.depths.size(), "num_heads has fewer entries than depths");
  check(c.kind != MixedKind::agent || c.agent_num.size() >= c.depths.size(), "agent_num has fewer entries than depths");
  check(sane(c.in_chans) && sane(c.embed_dim) && sane(c.window_size), "in_chans, embed_dim and window_size must be positive");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  check(c.mlp_ratio > 0 && c.mlp_ratio <= 64, "mlp_ratio is out of range");
  for (std::size_t side = 0; side < 2; ++side) {
    check(sane(c.img_size[side]) && sane(c.patch_size[side]), "img_size and patch_size must be positive");
    check(c.img_size[side] % (c.patch_size[side] << (c.depths.size() - 1)) == 0,
          "img_size must be a multiple of patch_size, doubled with each stage");
  }
  for (std::size_t i = 0; i < c.depths.size(); ++i)
    check(sane(c.depths[i]) && sane(c.num_heads[i]) && (c.embed_dim << i) % c.num_heads[i] == 0,
          "depths and num_heads must be positive, and the heads divide their stage's width");
}

// The windows of the original's attention where those of the other are large.
std::int64_t plain_window(const MixedSwinConfig& c) {
  if (c.kind == MixedKind::focused) return c.window_size <= 56 ? 7 : 12;
  return std::max<std::int64_t>(7, c.window_size / 8);
}

}  // namespace

Tensor MixedSwin::Block::operator()(Tensor x) const {  // [B, H, W, C]
  Tensor y = norm1(x);
  if (const auto* windows = std::get_if<WindowAttention>(&attn)) {
    x = (*windows)(y, std::move(x));
  } else {
    const auto& attend = std::get<detail::MixedAttention>(attn);
    const std::int64_t H = x.size(1), W = x.size(2);
    if (window[0] == H && window[1] == W) {
      x = attend(y.flatten(1, 2), H, W, std::exchange(x, {}).flatten(1, 2)).unflatten(1, {H, W});
    } else {  // windows that are shifted around the map's end are not masked
      y = join_windows(attend(cut_windows(y, window, shift), window[0], window[1]), H, W, window, shift);
      add_(y, x);
      x = std::move(y);
    }
  }
  const Tensor z = norm2(x);
  return mlp(z, std::move(x));
}

MixedSwin::Block MixedSwin::make_block(const Weights& w, const detail::AttentionTypes& types, std::size_t stage,
                                       std::int64_t index) const {
  const MixedSwinConfig& c = config_;
  const std::int64_t dim = c.embed_dim << stage, heads = c.num_heads[stage];
  const bool replaced = types.replaced(stage, index);
  const std::int64_t side = std::min((c.img_size[0] / c.patch_size[0]) >> stage, (c.img_size[1] / c.patch_size[1]) >> stage);
  std::int64_t window = replaced ? c.window_size : plain_window(c), shift = index % 2 == 0 ? 0 : window / 2;
  if (side <= window) window = side, shift = 0;
  Block block;
  block.window = {window, window};
  block.shift = {shift, shift};
  block.norm1 = LayerNorm(w / "norm1", dim, kEps);
  block.norm2 = LayerNorm(w / "norm2", dim, kEps);
  if (replaced) {
    detail::MixedAttentionConfig a;
    a.kind = c.kind;
    a.dim = dim;
    a.num_heads = heads;
    a.window_size = block.window;
    a.qkv_bias = c.qkv_bias;
    if (c.kind == MixedKind::agent) a.agent_num = c.agent_num[stage];
    a.focusing_factor = c.focusing_factor;
    a.kernel_size = c.kernel_size;
    block.attn = detail::MixedAttention(w / "attn", a);
  } else {
    WindowAttentionConfig a;
    a.dim = dim;
    a.num_heads = heads;
    a.window_size = block.window;
    a.shift_size = block.shift;
    a.qkv_bias = c.qkv_bias;
    if (c.qk_scale) a.scale = static_cast<float>(*c.qk_scale);
    block.attn = WindowAttention(w / "attn", a);
  }
  block.mlp = Mlp(w / "mlp", dim, static_cast<std::int64_t>(static_cast<double>(dim) * c.mlp_ratio), Activation::gelu);
  return block;
}

MixedSwin::MixedSwin(const Weights& w, MixedSwinConfig config) : config_(std::move(config)) {
  validate(config_);
  const MixedSwinConfig& c = config_;
  const std::size_t stages = c.depths.size();
  const detail::AttentionTypes types(c.kind, c.attn_type, stages, "swin");
  const std::int64_t H = c.img_size[0] / c.patch_size[0], W = c.img_size[1] / c.patch_size[1];
  patches_ = PatchEmbed(w / "patch_embed" / "proj", c.in_chans, c.embed_dim, c.patch_size[0], c.patch_size[1]);
  if (c.patch_norm) patch_norm_ = LayerNorm(w / "patch_embed" / "norm", c.embed_dim, kEps);
  if (c.ape) position_ = w.on_device("absolute_pos_embed", {1, H * W, c.embed_dim}, w.dtype()).view({1, H, W, c.embed_dim});
  for (std::size_t i = 0; i < stages; ++i) {
    const std::int64_t dim = c.embed_dim << i;
    const Weights layer = w / "layers" / static_cast<std::int64_t>(i);
    Layer& built = layers_.emplace_back();
    for (std::int64_t j = 0; j < c.depths[i]; ++j) built.blocks.push_back(make_block(layer / "blocks" / j, types, i, j));
    if (i + 1 < stages) built.downsample = detail::PatchMerging(layer / "downsample", dim, 2 * dim, kEps);
    strides_.push_back(std::max(c.patch_size[0], c.patch_size[1]) << i);
  }
  const std::int64_t features = c.embed_dim << (stages - 1);
  norm_ = LayerNorm(w / "norm", features, kEps);
  set_head(w / "head", features, c.num_classes);
  in_chans_ = c.in_chans;
  observed_ = detail::ObservedLayout::tokens;
}

// A layer's map is taken before the merging, the observer sees it after.
Tensor MixedSwin::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  check_image_size(images, config_.img_size, "the attention is");
  Tensor x = patches_(images);
  if (patch_norm_.defined()) x = patch_norm_(x);
  observe(observer, "patch_embed", x);
  if (position_.defined()) add_(x, position_);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    for (std::size_t j = 0; j < layer.blocks.size(); ++j) {
      x = layer.blocks[j](std::move(x));
      observe(observer, fmt::format("layers.{}.blocks.{}", i, j), x);
    }
    if (stage_done) stage_done(i, x);
    if (layer.downsample.defined()) x = layer.downsample(x);
    observe(observer, fmt::format("layers.{}", i), x);
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

#define VITRINE_TINY R"("embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24])"
#define VITRINE_SMALL R"("embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24])"
#define VITRINE_BASE R"("embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32])"
#define VITRINE_384 R"("img_size": 384, "window_size": 96)"

// The larger pictures are squeezed, not cropped.
constexpr std::string_view k288 = R"({"input_size": [3, 288, 288], "crop_pct": 1.0, "crop_mode": "squash"})";
constexpr std::string_view k384 = R"({"input_size": [3, 384, 384], "crop_pct": 1.0, "crop_mode": "squash"})";

constexpr Variant kAgent[] = {
    {"agent_swin_tiny", "{" VITRINE_TINY R"(, "window_size": 56, "attn_type": "AAAB"})", "", "82.6"},
    {"agent_swin_small", "{" VITRINE_SMALL R"(, "window_size": 56, "attn_type": "AABB"})", "", "83.7"},
    {"agent_swin_small_288", "{" VITRINE_SMALL R"(, "img_size": 288, "window_size": 72, "attn_type": "AABB"})", k288, "84.1"},
    {"agent_swin_base", "{" VITRINE_BASE R"(, "window_size": 56, "attn_type": "AAMB2"})", "", "84.0"},
    {"agent_swin_base_384", "{" VITRINE_BASE "," VITRINE_384 R"(, "attn_type": "AAMB2"})", k384, "84.9"},
};
constexpr Variant kInline[] = {
    {"inline_swin_tiny", "{" VITRINE_TINY R"(, "window_size": 56, "attn_type": "IIIS"})", "", "82.4"},
    {"inline_swin_small", "{" VITRINE_SMALL R"(, "window_size": 56, "attn_type": "IISS"})", "", "83.6"},
    {"inline_swin_base", "{" VITRINE_BASE R"(, "window_size": 56, "attn_type": "IIMS2"})", "", "84.1"},
    {"inline_swin_base_384", "{" VITRINE_BASE "," VITRINE_384 R"(, "attn_type": "IIMS2"})", k384},
};
constexpr Variant kFlatten[] = {
    {"flatten_swin_tiny", "{" VITRINE_TINY R"(, "window_size": 56, "attn_type": "LLSS"})", "", "82.1"},
    {"flatten_swin_small", "{" VITRINE_SMALL R"(, "window_size": 56, "attn_type": "LLSS"})", "", "83.5"},
    {"flatten_swin_base", "{" VITRINE_BASE R"(, "window_size": 56, "attn_type": "LLSS"})", "", "83.8"},
    {"flatten_swin_base_384", "{" VITRINE_BASE "," VITRINE_384 R"(, "attn_type": "LLSS"})", k384, "85.0"},
};
constexpr Variant kAgentConstructors[] = {{"AgentSwinTransformer", R"({"attn_type": "BBBB"})", ""}};
constexpr Variant kInlineConstructors[] = {{"InLineSwin", R"({"attn_type": "IIII"})", ""}};
constexpr Variant kFlattenConstructors[] = {{"FLattenSwinTransformer", R"({"attn_type": "LLLL"})", ""}};

std::unique_ptr<Backbone> build(const Variant& variant, const Weights& w, const Arguments& arguments) {
  MixedSwinConfig c;
  c.kind = kind_of_name(variant.name);
  ArgumentReader reader(variant.name, arguments);
  reader.get("img_size", c.img_size)
      .get("patch_size", c.patch_size)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("embed_dim", c.embed_dim)
      .get("depths", c.depths)
      .get("num_heads", c.num_heads)
      .get("window_size", c.window_size)
      .get("mlp_ratio", c.mlp_ratio)
      .get("qkv_bias", c.qkv_bias)
      .get("qk_scale", c.qk_scale)
      .get("ape", c.ape)
      .get("patch_norm", c.patch_norm)
      .get("attn_type", c.attn_type)
      .ignore({"drop_rate", "attn_drop_rate", "drop_path_rate", "use_checkpoint"});
  if (c.kind == MixedKind::agent) reader.get("agent_num", c.agent_num);
  if (c.kind == MixedKind::focused) reader.get("focusing_factor", c.focusing_factor).get("kernel_size", c.kernel_size);
  reader.finish();
  return std::make_unique<MixedSwin>(w, std::move(c));
}

}  // namespace

constinit const Family kAgentSwinFamily{.name = "agent_swin",
                                        .source = "Agent Attention, arXiv:2312.08874; LeapLabTHU/Agent-Attention",
                                        .attention = "agents, then windows",
                                        .variants = kAgent,
                                        .build = build,
                                        .constructors = kAgentConstructors};
constinit const Family kInlineSwinFamily{.name = "inline_swin",
                                         .source = "InLine, arXiv:2412.06590; LeapLabTHU/InLine",
                                         .attention = "InLine, linear; windows",
                                         .variants = kInline,
                                         .build = build,
                                         .constructors = kInlineConstructors};
constinit const Family kFlattenSwinFamily{.name = "flatten_swin",
                                          .source = "FLatten, arXiv:2308.00442; LeapLabTHU/FLatten-Transformer",
                                          .attention = "focused linear; windows",
                                          .variants = kFlatten,
                                          .build = build,
                                          .constructors = kFlattenConstructors};

}  // namespace detail
}  // namespace vitrine
