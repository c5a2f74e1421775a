#include <vitrine/backbones/mixed_cswin.h>

#include <charconv>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::MixedKind;

namespace {

constexpr std::size_t kStages = 4;
constexpr double kEps = 1e-5;

void check(bool right, const char* what) {
  if (!right) throw Error(fmt::format("cswin: {}", what));
}

// "56-28-14-7"
std::vector<std::int64_t> parse_widths(std::string_view text) {
  std::vector<std::int64_t> widths;
  for (const char *at = text.data(), *end = at + text.size(); at < end;) {
    std::int64_t width = 0;
    const auto [next, error] = std::from_chars(at, end, width);
    check(error == std::errc() && width > 0 && (next == end || *next == '-'), "la_split_size, expected numbers as in 56-28-14-7");
    widths.push_back(width);
    at = next == end ? end : next + 1;
  }
  check(widths.size() >= kStages, "la_split_size has fewer than four numbers");
  return widths;
}

void validate(const MixedCswinConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  for (const auto* list : {&c.depth, &c.num_heads, &c.split_size})
    check(list->size() == kStages, "depth, num_heads and split_size have four entries each");
  check(c.kind != MixedKind::agent || c.agent_num.size() >= kStages, "agent_num has fewer than four entries");
  check(sane(c.img_size) && c.img_size % 32 == 0, "img_size must be a multiple of 32");
  check(sane(c.in_chans) && sane(c.embed_dim), "in_chans and embed_dim must be positive");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  check(c.mlp_ratio > 0 && c.mlp_ratio <= 64, "mlp_ratio is out of range");
  for (std::size_t i = 0; i < kStages; ++i)
    check(sane(c.depth[i]) && sane(c.num_heads[i]) && sane(c.split_size[i]) && (c.embed_dim << i) % c.num_heads[i] == 0,
          "depth, num_heads and split_size must be positive, and the heads divide their stage's width");
}

}  // namespace

Tensor MixedCswin::Block::operator()(Tensor x) const {  // [B, H, W, C]
  const std::int64_t H = x.size(1), W = x.size(2), C = x.size(3);
  const auto halves = static_cast<std::int64_t>(attns.size());
  const Tensor parts = qkv(norm1(x)).flatten(1, 2).unflatten(2, {3, halves, C / halves});  // [B, N, 3, halves, C / halves]
  // InLine predicts its kernels from the mean of the block's own input, before the norm.
  const Tensor token = mean(x.to(DType::f32), 1, 2).unflatten(1, {halves, C / halves});
  std::vector<Tensor> outputs;
  for (std::int64_t i = 0; i < halves; ++i) {
    const auto part = [&](int which) { return parts.select(2, which).select(2, i); };
    const auto& attn = attns[static_cast<std::size_t>(i)];
    if (const auto* stripes = std::get_if<StripeAttention>(&attn))
      outputs.push_back((*stripes)(part(0), part(1), part(2), H, W));
    else
      outputs.push_back(std::get<detail::MixedMixer>(attn)(part(0), part(1), part(2), token.select(1, i), H, W));
  }
  const Tensor y = (halves == 1 ? outputs[0] : concat(outputs, 2)).unflatten(1, {H, W});
  x = proj(y, {.residual = std::move(x)});
  const Tensor z = norm2(x);
  return mlp(z, std::move(x));
}

MixedCswin::Block MixedCswin::make_block(const Weights& w, const detail::AttentionTypes& types,
                                         const std::vector<std::int64_t>& widths, std::size_t stage, std::int64_t index) const {
  const MixedCswinConfig& c = config_;
  const std::int64_t dim = c.embed_dim << stage, side = c.img_size >> (stage + 2);
  const bool replaced = types.replaced(stage, index);
  const std::int64_t width = replaced ? widths[stage] : c.split_size[stage];
  const std::int64_t halves = stage + 1 == kStages || side == width ? 1 : 2;
  check(dim % halves == 0 && c.num_heads[stage] >= halves && dim / halves % (c.num_heads[stage] / halves) == 0,
        "num_heads must divide the halves of their stage's width");
  check(halves == 1 || side % width == 0, "split_size and la_split_size must divide their stage's map");
  Block block;
  block.norm1 = LayerNorm(w / "norm1", dim, kEps);
  block.norm2 = LayerNorm(w / "norm2", dim, kEps);
  block.qkv = Linear(w / "qkv", dim, 3 * dim, {.bias = c.qkv_bias});
  block.proj = Linear(w / "proj", dim, dim);
  for (std::int64_t i = 0; i < halves; ++i) {
    const std::array<std::int64_t, 2> whole{side, side}, upright{side, width}, lying{width, side};
    const auto& size = halves == 1 ? whole : i == 0 ? upright : lying;
    const Weights a = w / "attns" / i;
    if (replaced) {
      detail::MixedAttentionConfig mixed;
      mixed.kind = c.kind;
      mixed.dim = dim / halves;
      mixed.num_heads = c.num_heads[stage] / halves;
      mixed.window_size = size;
      if (c.kind == MixedKind::agent) mixed.agent_num = c.agent_num[stage];
      mixed.focusing_factor = c.focusing_factor;
      mixed.kernel_size = c.kernel_size;
      check(c.kind == MixedKind::agent || halves == 1, "la_split_size must be the sides of the maps: img_size / 4, / 8, ...");
      block.attns.emplace_back(detail::MixedMixer(a, mixed));
    } else {
      StripeAttentionConfig stripes{dim / halves, c.num_heads[stage] / halves, size, {}};
      if (c.qk_scale) stripes.scale = static_cast<float>(*c.qk_scale);
      block.attns.emplace_back(StripeAttention(a, stripes));
    }
  }
  block.mlp = Mlp(w / "mlp", dim, static_cast<std::int64_t>(static_cast<double>(dim) * c.mlp_ratio), Activation::gelu);
  return block;
}

MixedCswin::MixedCswin(const Weights& w, MixedCswinConfig config) : config_(std::move(config)) {
  validate(config_);
  const MixedCswinConfig& c = config_;
  const detail::AttentionTypes types(c.kind, c.attn_type, kStages, "cswin");
  const std::vector<std::int64_t> widths = parse_widths(c.la_split_size);
  const Weights embed = w / "stage1_conv_embed";
  embed_ = Conv2d(embed / "0", c.in_chans, c.embed_dim, 7, 7, {.stride_h = 4, .stride_w = 4, .pad_h = 2, .pad_w = 2});
  embed_norm_ = LayerNorm(embed / "2", c.embed_dim, kEps);
  for (std::size_t i = 0; i < kStages; ++i) {
    const std::int64_t dim = c.embed_dim << i;
    const Weights blocks = w / fmt::format("stage{}", i + 1), merge = w / fmt::format("merge{}", i + 1);
    Stage& stage = stages_.emplace_back();
    for (std::int64_t j = 0; j < c.depth[i]; ++j) stage.blocks.push_back(make_block(blocks / j, types, widths, i, j));
    if (i + 1 < kStages) {
      stage.merge = Conv2d(merge / "conv", dim, 2 * dim, 3, 3, {.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1});
      stage.merge_norm = LayerNorm(merge / "norm", 2 * dim, kEps);
    }
    strides_.push_back(std::int64_t{4} << i);
  }
  const std::int64_t features = c.embed_dim << (kStages - 1);
  norm_ = LayerNorm(w / "norm", features, kEps);
  set_head(w / "head", features, c.num_classes);
  in_chans_ = c.in_chans;
  observed_ = detail::ObservedLayout::tokens;
}

Tensor MixedCswin::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  check_image_size(images, {config_.img_size, config_.img_size}, "the attention is");
  Tensor x = embed_norm_(embed_(images));  // [B, H / 4, W / 4, embed_dim]
  for (std::size_t i = 0; i < kStages; ++i) {
    const Stage& stage = stages_[i];
    for (std::size_t j = 0; j < stage.blocks.size(); ++j) {
      x = stage.blocks[j](std::move(x));
      observe(observer, fmt::format("stage{}.{}", i + 1, j), x);
    }
    if (stage_done) stage_done(i, x);
    if (stage.merge.defined()) x = stage.merge_norm(stage.merge(x));
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

#define VITRINE_TINY R"("embed_dim": 64, "depth": [2, 4, 18, 1])"
#define VITRINE_SMALL R"("embed_dim": 64, "depth": [3, 6, 29, 2])"
#define VITRINE_SMALL_32 R"("embed_dim": 64, "depth": [2, 4, 32, 2])"
#define VITRINE_BASE R"("embed_dim": 96, "depth": [3, 6, 29, 2], "num_heads": [4, 8, 16, 32])"
#define VITRINE_384 R"("img_size": 384, "split_size": [1, 2, 12, 12], "la_split_size": "96-48-24-12")"

// CSWin's crop.
constexpr std::string_view k384 = R"({"input_size": [3, 384, 384], "crop_pct": 1.0, "crop_mode": "squash"})";

constexpr Variant kAgent[] = {
    {"agent_cswin_tiny", "{" VITRINE_TINY R"(, "attn_type": "AABB"})", "", "83.1"},
    {"agent_cswin_small", "{" VITRINE_SMALL R"(, "attn_type": "AABB"})", "", "83.9"},
    {"agent_cswin_base", "{" VITRINE_BASE R"(, "attn_type": "AABB"})", "", "84.7"},
    {"agent_cswin_base_384", "{" VITRINE_BASE "," VITRINE_384 R"(, "attn_type": "AABB"})", k384, "85.8"},
};
constexpr Variant kInline[] = {
    {"inline_cswin_tiny", "{" VITRINE_TINY R"(, "attn_type": "IISS"})", "", "83.2"},
    {"inline_cswin_small", "{" VITRINE_SMALL R"(, "attn_type": "IISS"})", "", "83.8"},
    {"inline_cswin_base", "{" VITRINE_BASE R"(, "attn_type": "IISS"})", "", "84.5"},
    {"inline_cswin_base_384", "{" VITRINE_BASE "," VITRINE_384 R"(, "attn_type": "IISS"})", k384},
};
constexpr Variant kFlatten[] = {
    {"flatten_cswin_tiny", "{" VITRINE_TINY R"(, "attn_type": "LLSS"})", "", "83.1"},
    {"flatten_cswin_small", "{" VITRINE_SMALL_32 R"(, "attn_type": "LLSS"})", ""},
    {"flatten_cswin_base", "{" VITRINE_BASE R"(, "attn_type": "LLSS"})", ""},
    {"flatten_cswin_base_384", "{" VITRINE_BASE "," VITRINE_384 R"(, "attn_type": "LLSS"})", k384},
};
// The originals' spelling.
constexpr Variant kAgentConstructors[] = {{"Agent_CSWin_64_24181_tiny_224", kAgent[0].arguments, ""},
                                          {"Agent_CSWin_64_36292_small_224", kAgent[1].arguments, ""},
                                          {"Agent_CSWin_96_36292_base_224", kAgent[2].arguments, ""},
                                          {"Agent_CSWin_96_36292_base_384", kAgent[3].arguments, k384}};
constexpr Variant kFlattenConstructors[] = {{"FLatten_CSWin_64_24181_tiny_224", kFlatten[0].arguments, ""},
                                            {"FLatten_CSWin_64_24322_small_224", kFlatten[1].arguments, ""},
                                            {"FLatten_CSWin_96_36292_base_224", kFlatten[2].arguments, ""},
                                            {"FLatten_CSWin_96_36292_base_384", kFlatten[3].arguments, k384}};

std::unique_ptr<Backbone> build(const Variant& variant, const Weights& w, const Arguments& arguments) {
  MixedCswinConfig c;
  c.kind = kind_of_name(variant.name);
  ArgumentReader reader(variant.name, arguments);
  reader.get("img_size", c.img_size)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("embed_dim", c.embed_dim)
      .get("depth", c.depth)
      .get("num_heads", c.num_heads)
      .get("split_size", c.split_size)
      .get("la_split_size", c.la_split_size)
      .get("mlp_ratio", c.mlp_ratio)
      .get("qkv_bias", c.qkv_bias)
      .get("qk_scale", c.qk_scale)
      .get("attn_type", c.attn_type)
      .ignore({"patch_size", "drop_rate", "attn_drop_rate", "drop_path_rate", "use_chk", "hybrid_backbone", "pretrained"});
  if (c.kind == MixedKind::agent) reader.get("agent_num", c.agent_num);
  if (c.kind == MixedKind::focused) reader.get("focusing_factor", c.focusing_factor).get("kernel_size", c.kernel_size);
  reader.finish();
  return std::make_unique<MixedCswin>(w, std::move(c));
}

}  // namespace

constinit const Family kAgentCswinFamily{.name = "agent_cswin",
                                         .source = "Agent Attention, arXiv:2312.08874; LeapLabTHU/Agent-Attention",
                                         .attention = "agents, then cross-shaped windows",
                                         .variants = kAgent,
                                         .build = build,
                                         .constructors = kAgentConstructors};
constinit const Family kInlineCswinFamily{.name = "inline_cswin",
                                          .source = "InLine, arXiv:2412.06590; LeapLabTHU/InLine",
                                          .attention = "InLine, linear; cross-shaped windows",
                                          .variants = kInline,
                                          .build = build};
constinit const Family kFlattenCswinFamily{.name = "flatten_cswin",
                                           .source = "FLatten, arXiv:2308.00442; LeapLabTHU/FLatten-Transformer",
                                           .attention = "focused linear; cross-shaped windows",
                                           .variants = kFlatten,
                                           .build = build,
                                           .constructors = kFlattenConstructors};

}  // namespace detail
}  // namespace vitrine
