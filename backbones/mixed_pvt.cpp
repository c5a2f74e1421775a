#include <vitrine/backbones/mixed_pvt.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/layers/devices.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::MixedKind;

namespace {

constexpr std::size_t kStages = 4;
constexpr double kEps = 1e-6, kPatchEps = 1e-5;

void check(bool right, const char* what) {
  if (!right) throw Error(fmt::format("pvt: {}", what));
}

void validate(const MixedPvtConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  for (const auto* list : {&c.embed_dims, &c.num_heads, &c.depths, &c.sr_ratios})
    check(list->size() == kStages, "embed_dims, num_heads, depths and sr_ratios have four entries each");
  check(c.mlp_ratios.size() == kStages, "mlp_ratios has four entries");
  check(c.kind != MixedKind::agent || c.agent_num.size() >= kStages, "agent_num has fewer than four entries");
  check(c.replaced_sr.size() >= kStages && c.replaced_sr.find_first_not_of("123456789") == std::string::npos,
        "agent_sr_ratios or la_sr_ratios, expected four digits");
  check(sane(c.img_size) && sane(c.patch_size) && c.img_size / c.patch_size >= 8, "img_size is below eight patches");
  check(sane(c.in_chans), "in_chans must be positive");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  for (std::size_t i = 0; i < kStages; ++i) {
    check(sane(c.depths[i]) && sane(c.embed_dims[i]) && sane(c.num_heads[i]) && sane(c.sr_ratios[i]) &&
              c.embed_dims[i] % c.num_heads[i] == 0,
          "depths, embed_dims, num_heads and sr_ratios must be positive, and the heads divide their stage's width");
    check(c.mlp_ratios[i] > 0 && c.mlp_ratios[i] <= 64, "mlp_ratios are out of range");
  }
}

std::int64_t side_of(const MixedPvtConfig& c, std::size_t stage) { return (c.img_size / c.patch_size) >> stage; }

}  // namespace

Tensor MixedPvt::Block::operator()(Tensor x) const {  // [B, H, W, C]
  const Tensor y = norm1(x);
  if (const auto* original = std::get_if<SpatialReductionAttention>(&attn)) {
    x = (*original)(y, std::move(x));
  } else {
    const std::int64_t H = x.size(1), W = x.size(2);
    x = std::get<detail::MixedAttention>(attn)(y.flatten(1, 2), H, W, std::exchange(x, {}).flatten(1, 2)).unflatten(1, {H, W});
  }
  const Tensor z = norm2(x);
  if (!dwconv.defined()) return mlp(z, std::move(x));
  const Tensor hidden =
      dwconv(mlp.fc1(z, {.activation = relu ? Activation::relu : Activation::none}), {.activation = mlp.activation});
  return mlp.fc2(hidden, {.residual = std::move(x)});
}

MixedPvt::Block MixedPvt::make_block(const Weights& w, const detail::AttentionTypes& types, std::size_t stage,
                                     std::int64_t index) const {
  const MixedPvtConfig& c = config_;
  const std::int64_t dim = c.embed_dims[stage], side = side_of(c, stage);
  Block block;
  block.norm1 = LayerNorm(w / "norm1", dim, kEps);
  block.norm2 = LayerNorm(w / "norm2", dim, kEps);
  if (types.replaced(stage, index)) {
    detail::MixedAttentionConfig a;
    a.kind = c.kind;
    a.dim = dim;
    a.num_heads = c.num_heads[stage];
    a.window_size = {side, side};
    a.qkv_bias = c.qkv_bias;
    a.pvt = true;
    a.sr_ratio = c.replaced_sr[stage] - '0';
    a.linear = c.linear;
    if (c.kind == MixedKind::agent) a.agent_num = c.agent_num[stage];
    a.focusing_factor = c.focusing_factor;
    a.kernel_size = c.kernel_size;
    block.attn = detail::MixedAttention(w / "attn", a);
  } else {
    SpatialReductionConfig a;
    a.dim = dim;
    a.num_heads = c.num_heads[stage];
    a.sr_ratio = c.sr_ratios[stage];
    a.linear = c.linear;
    a.qkv_bias = c.qkv_bias;
    if (c.qk_scale) a.scale = static_cast<float>(*c.qk_scale);
    block.attn = SpatialReductionAttention(w / "attn", a);
  }
  const auto hidden = static_cast<std::int64_t>(static_cast<double>(dim) * c.mlp_ratios[stage]);
  block.mlp = Mlp(w / "mlp", dim, hidden, Activation::gelu);
  if (c.v2)
    block.dwconv = Conv2d(w / "mlp" / "dwconv" / "dwconv", hidden, hidden, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = hidden});
  block.relu = c.linear;
  return block;
}

MixedPvt::MixedPvt(const Weights& w, MixedPvtConfig config) : config_(std::move(config)) {
  validate(config_);
  const MixedPvtConfig& c = config_;
  const detail::AttentionTypes types(c.kind, c.attn_type, kStages, "pvt");
  for (std::size_t i = 0; i < kStages; ++i) {
    const std::int64_t dim = c.embed_dims[i], patch = i == 0 ? c.patch_size : 2, side = side_of(c, i);
    const Weights embed = w / fmt::format("patch_embed{}", i + 1), blocks = w / fmt::format("block{}", i + 1);
    Stage& stage = stages_.emplace_back();
    const std::int64_t in = i == 0 ? c.in_chans : c.embed_dims[i - 1];
    stage.patch_norm = LayerNorm(embed / "norm", dim, kPatchEps);
    if (c.v2) {
      const std::int64_t kernel = 2 * patch - 1;
      stage.overlap_embed = Conv2d(embed / "proj", in, dim, kernel, kernel,
                                   {.stride_h = patch, .stride_w = patch, .pad_h = kernel / 2, .pad_w = kernel / 2});
      stage.norm = LayerNorm(w / fmt::format("norm{}", i + 1), dim, kEps);
    } else {
      stage.patch_embed = PatchEmbed(embed / "proj", in, dim, patch, patch);
      stage.position = w.on_device(fmt::format("pos_embed{}", i + 1), {1, side * side, dim}).view({1, side, side, dim});
    }
    for (std::int64_t j = 0; j < c.depths[i]; ++j) stage.blocks.push_back(make_block(blocks / j, types, i, j));
    strides_.push_back(c.patch_size << i);
  }
  const std::int64_t features = c.embed_dims.back();
  if (c.kind == MixedKind::focused && !c.v2)
    LayerNorm(w / "norm", features, kEps);  // a parameter of the original that it never uses
  set_head(w / "head", features, c.num_classes);
  in_chans_ = c.in_chans;
  observed_ = detail::ObservedLayout::tokens;
  if (c.v2) final_name_ = "norm4";
}

// Patches and their positions; rows and columns that do not fill a patch are left out.
Tensor MixedPvt::embed(const Stage& stage, const Tensor& x) const {
  if (stage.overlap_embed.defined()) return stage.patch_norm(stage.overlap_embed(x));
  const std::int64_t patch = stage.patch_embed.patch_h, H = x.size(1) / patch, W = x.size(2) / patch;
  if (H < 1 || W < 1) throw Error(fmt::format("{}: images are too small", info_.name));
  Tensor y = stage.patch_norm(stage.patch_embed(x.slice(1, 0, H * patch).slice(2, 0, W * patch)));
  const Tensor position = stage.positions.get(H, W, [&] {
    const bool same = H == stage.position.size(1) && W == stage.position.size(2);
    return finished((same ? stage.position : resize(stage.position, H, W)).to(dtype_));
  });
  add_(y, position);
  return y;
}

Tensor MixedPvt::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  Tensor x = images;
  for (std::size_t i = 0; i < kStages; ++i) {
    x = embed(stages_[i], x);  // [B, H / 4, W / 4, embed_dims[0]], then half as high and wide each
    for (std::size_t j = 0; j < stages_[i].blocks.size(); ++j) {
      x = stages_[i].blocks[j](std::move(x));
      observe(observer, fmt::format("block{}.{}", i + 1, j), x);
    }
    if (stages_[i].norm.defined() && i + 1 < kStages) x = stages_[i].norm(x);
    if (stage_done) stage_done(i, x);
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

#define VITRINE_TINY R"({"depths": [2, 2, 2, 2])"
#define VITRINE_SMALL R"({"depths": [3, 4, 6, 3])"
#define VITRINE_MEDIUM R"({"depths": [3, 4, 18, 3])"
#define VITRINE_LARGE R"({"depths": [3, 8, 27, 3])"
#define VITRINE_HEADS R"(, "num_heads": [2, 4, 10, 16]})"

constexpr Variant kAgent[] = {
    {"agent_pvt_tiny", VITRINE_TINY "}", "", "78.4"},
    {"agent_pvt_small", VITRINE_SMALL "}", "", "82.2"},
    {"agent_pvt_medium", VITRINE_MEDIUM "}", "", "83.4"},
    {"agent_pvt_medium_256", VITRINE_MEDIUM R"(, "img_size": 256})", R"({"input_size": [3, 256, 256]})", "83.8"},
    {"agent_pvt_large", VITRINE_LARGE "}", "", "83.7"},
};
constexpr Variant kInline[] = {
    {"inline_pvt_tiny", VITRINE_TINY VITRINE_HEADS, "", "78.2"},
    {"inline_pvt_small", VITRINE_SMALL VITRINE_HEADS, "", "82.0"},
    {"inline_pvt_medium", VITRINE_MEDIUM VITRINE_HEADS, "", "83.2"},
    {"inline_pvt_large", VITRINE_LARGE VITRINE_HEADS, "", "83.6"},
};
constexpr Variant kFlatten[] = {
    {"flatten_pvt_tiny", VITRINE_TINY "}", "", "77.8"},
    {"flatten_pvt_small", VITRINE_SMALL "}", ""},
    {"flatten_pvt_medium", VITRINE_MEDIUM "}", ""},
    {"flatten_pvt_large", VITRINE_LARGE "}", ""},
};
// la_sr_ratios of the configurations that the published models were trained with; b5 has none, and the constructor's.
#define VITRINE_WHOLE R"(, "la_sr_ratios": "1111"})"
constexpr Variant kFlattenV2[] = {
    {"flatten_pvt_v2_b0", VITRINE_TINY R"(, "embed_dims": [32, 64, 160, 256])" VITRINE_WHOLE, "", "71.1"},
    {"flatten_pvt_v2_b1", VITRINE_TINY VITRINE_WHOLE, ""},
    {"flatten_pvt_v2_b2", VITRINE_SMALL VITRINE_WHOLE, ""},
    {"flatten_pvt_v2_b3", VITRINE_MEDIUM VITRINE_WHOLE, ""},
    {"flatten_pvt_v2_b4", VITRINE_LARGE VITRINE_WHOLE, ""},
    {"flatten_pvt_v2_b5", R"({"depths": [3, 6, 40, 3], "mlp_ratios": [4, 4, 4, 4]})", ""},
};

std::unique_ptr<Backbone> build(bool v2, const Variant& variant, const Weights& w, const Arguments& arguments) {
  MixedPvtConfig c;
  c.v2 = v2;
  if (v2) c.replaced_sr = "8421";
  c.kind = kind_of_name(variant.name);
  c.attn_type = c.kind == MixedKind::agent ? "AAAA" : c.kind == MixedKind::injective ? "IIII" : "LLLL";
  std::int64_t num_stages = kStages;
  ArgumentReader reader(variant.name, arguments);
  reader.get("img_size", c.img_size)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("depths", c.depths)
      .get("num_heads", c.num_heads)
      .get("embed_dims", c.embed_dims)
      .get("mlp_ratios", c.mlp_ratios)
      .get("sr_ratios", c.sr_ratios)
      .get("qkv_bias", c.qkv_bias)
      .get("qk_scale", c.qk_scale)
      .get("attn_type", c.attn_type)
      .get(c.kind == MixedKind::agent ? "agent_sr_ratios" : "la_sr_ratios", c.replaced_sr)
      .get("num_stages", num_stages)
      .ignore({"drop_rate", "attn_drop_rate", "drop_path_rate", "pretrained"});
  if (c.kind == MixedKind::agent) reader.get("agent_num", c.agent_num);
  if (v2) reader.get("linear", c.linear);
  if (c.kind == MixedKind::focused) reader.get("focusing_factor", c.focusing_factor).get("kernel_size", c.kernel_size);
  reader.finish();
  check(num_stages == static_cast<std::int64_t>(kStages), "num_stages must be 4: the head is the fourth stage's");
  return std::make_unique<MixedPvt>(w, std::move(c));
}

std::unique_ptr<Backbone> build_v1(const Variant& variant, const Weights& w, const Arguments& arguments) {
  return build(false, variant, w, arguments);
}
std::unique_ptr<Backbone> build_v2(const Variant& variant, const Weights& w, const Arguments& arguments) {
  return build(true, variant, w, arguments);
}

}  // namespace

constinit const Family kAgentPvtFamily{.name = "agent_pvt",
                                       .source = "Agent Attention, arXiv:2312.08874; LeapLabTHU/Agent-Attention",
                                       .attention = "agents, spatial reduction where plain",
                                       .variants = kAgent,
                                       .build = build_v1};
constinit const Family kInlinePvtFamily{.name = "inline_pvt",
                                        .source = "InLine, arXiv:2412.06590; LeapLabTHU/InLine",
                                        .attention = "InLine, linear; spatial reduction",
                                        .variants = kInline,
                                        .build = build_v1};
constinit const Family kFlattenPvtFamily{.name = "flatten_pvt",
                                         .source = "FLatten, arXiv:2308.00442; LeapLabTHU/FLatten-Transformer",
                                         .attention = "focused linear; spatial reduction",
                                         .variants = kFlatten,
                                         .build = build_v1};

constinit const Family kFlattenPvtV2Family{.name = "flatten_pvt_v2",
                                           .source = "FLatten, arXiv:2308.00442; LeapLabTHU/FLatten-Transformer",
                                           .attention = "focused linear; spatial reduction",
                                           .variants = kFlattenV2,
                                           .build = build_v2};

}  // namespace detail
}  // namespace vitrine
