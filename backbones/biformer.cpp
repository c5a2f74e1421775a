#include <vitrine/backbones/biformer.h>

#include <string>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/layers/error.h>

namespace vitrine {
namespace {

constexpr std::size_t kStages = 4;
constexpr double kEps = 1e-6, kBatchNormEps = 1e-5;
constexpr Conv2dOptions kHalve{.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1, .bn_eps = kBatchNormEps};

void check(bool right, const char* what) {
  if (!right) throw Error(fmt::format("biformer: {}", what));
}

void validate(const BiFormerConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  for (const auto* list : {&c.depth, &c.embed_dim, &c.qk_dims, &c.n_wins, &c.topks})
    check(list->size() == kStages, "depth, embed_dim, qk_dims, n_wins and topks have four entries each");
  check(c.mlp_ratios.size() == kStages, "mlp_ratios has four entries");
  check(sane(c.in_chans) && sane(c.head_dim), "in_chans and head_dim must be positive");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  check(c.layout != BiFormerLayout::biformer || c.embed_dim[0] % 2 == 0, "embed_dim must start with an even number");
  check(c.side_dwconv >= 0 && c.side_dwconv <= 255 && (c.side_dwconv == 0 || c.side_dwconv % 2 == 1),
        "side_dwconv must be odd, or 0 for none");
  check(c.before_attn_dwconv == 0 || c.before_attn_dwconv == 3, "before_attn_dwconv must be 3, or 0 for none");
  check(!c.qk_scale || *c.qk_scale > 0, "qk_scale must be positive");
  for (std::size_t i = 0; i < kStages; ++i) {
    check(sane(c.depth[i]) && sane(c.embed_dim[i]) && sane(c.qk_dims[i]) && sane(c.n_wins[i]),
          "depth, embed_dim, qk_dims and n_wins must be positive");
    check(c.mlp_ratios[i] > 0 && c.mlp_ratios[i] <= 64, "mlp_ratios are out of range");
    check(c.topks[i] >= -2 && c.topks[i] <= kMost, "topks must be regions to choose, 0, -1 or -2");
    check(c.layout != BiFormerLayout::stl_nchw || c.topks[i] > 0 || c.topks[i] == -1, "topks must be positive or -1");
    const std::int64_t heads = c.topks[i] > 0 ? c.qk_dims[i] / c.head_dim : c.topks[i] < 0 ? 8 : 1;
    check(heads > 0 && c.embed_dim[i] % heads == 0 && (c.topks[i] <= 0 || c.qk_dims[i] % heads == 0),
          "heads (qk_dims / head_dim with routing, else 8) must divide embed_dim and qk_dims");
  }
}

std::optional<float> scale_of(const BiFormerConfig& c) {
  return c.qk_scale ? std::optional(static_cast<float>(*c.qk_scale)) : std::nullopt;
}

BiLevelRoutingConfig routing_of(const BiFormerConfig& c, std::size_t stage) {
  using Uneven = BiLevelRoutingConfig::Uneven;
  return {.dim = c.embed_dim[stage],
          .num_heads = c.qk_dims[stage] / c.head_dim,
          .n_win = c.n_wins[stage],
          .topk = c.topks[stage],
          .side_dwconv = c.side_dwconv,
          .qk_dim = c.qk_dims[stage],
          .scale = scale_of(c),
          .uneven = c.layout == BiFormerLayout::stl_nchw ? Uneven::partial
                    : c.auto_pad                         ? Uneven::pad
                                                         : Uneven::refuse};
}

// The original gives these neither its qk_scale nor, with a layout of stl_nchw, its side_dwconv.
LepeAttentionConfig global_of(const BiFormerConfig& c, std::size_t stage) {
  const bool nchw = c.layout == BiFormerLayout::stl_nchw;
  return {.dim = c.embed_dim[stage], .side_dwconv = nchw ? 5 : c.topks[stage] == -2 ? c.side_dwconv : 0, .lepe_of_values = nchw};
}

}  // namespace

BiFormer::Block::Block(const Weights& w, const BiFormerConfig& config, std::size_t stage) : pre_norm(config.pre_norm) {
  const std::int64_t dim = config.embed_dim[stage], topk = config.topks[stage];
  const auto hidden = static_cast<std::int64_t>(config.mlp_ratios[stage] * static_cast<double>(dim));
  const bool plain = config.layout == BiFormerLayout::biformer;
  const Weights a = w / "attn", m = w / "mlp";
  if (plain && config.before_attn_dwconv > 0)
    pos_embed = Conv2d(w / "pos_embed", dim, dim, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = dim});
  norm1 = LayerNorm(w / "norm1", dim, kEps);
  norm2 = LayerNorm(w / "norm2", dim, kEps);
  LinearOptions scale1, scale2;
  if (plain && config.layer_scale_init_value > 0) {
    scale1.scale = w.get("gamma1", {dim});
    scale2.scale = w.get("gamma2", {dim});
  }
  if (topk > 0)
    attn = BiLevelRoutingAttention(a, routing_of(config, stage), scale1);
  else if (topk < 0)
    attn = LepeAttention(a, global_of(config, stage), scale1);
  else
    attn = ConvMixer{Linear(a / "1", dim, dim), Linear(a / "3", dim, dim, scale1),
                     Conv2d(a / "2", dim, dim, 5, 5, {.pad_h = 2, .pad_w = 2, .groups = dim})};
  fc1 = Linear(m / "0", dim, hidden);
  if (plain && config.mlp_dwconv)
    mlp_dwconv = Conv2d(m / "1" / "dwconv", hidden, hidden, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = hidden});
  fc2 = Linear(m / (plain ? "3" : "2"), hidden, dim, scale2);
}

Tensor BiFormer::Block::mix(const Tensor& x, Tensor residual) const {
  if (const auto* convolutions = std::get_if<ConvMixer>(&attn))
    return convolutions->last(convolutions->dwconv(convolutions->first(x)), {.residual = std::move(residual)});
  if (const auto* global = std::get_if<LepeAttention>(&attn)) return (*global)(x, std::move(residual));
  return std::get<BiLevelRoutingAttention>(attn)(x, std::move(residual));
}

Tensor BiFormer::Block::feed_forward(const Tensor& x, Tensor residual) const {
  const Tensor hidden =
      mlp_dwconv.defined() ? mlp_dwconv(fc1(x), {.activation = Activation::gelu}) : fc1(x, {.activation = Activation::gelu});
  return fc2(hidden, {.residual = std::move(residual)});
}

Tensor BiFormer::Block::operator()(Tensor x) const {  // [B, H, W, C]
  if (pos_embed.defined()) x = pos_embed(x, {.residual = x});
  if (pre_norm) {
    const Tensor y = norm1(x);
    x = mix(y, std::move(x));
    const Tensor z = norm2(x);
    return feed_forward(z, std::move(x));
  }
  x = norm1(mix(x, x));
  return norm2(feed_forward(x, x));
}

BiFormer::Norm::Norm(const Weights& w, std::int64_t dim, bool is_batch) {
  if (is_batch)
    batch = BatchNorm(w, dim, kBatchNormEps);
  else
    layer = LayerNorm(w, dim, kEps);
}

BiFormer::BiFormer(const Weights& w, BiFormerConfig config) : config_(std::move(config)) {
  if (config_.qk_dims.empty()) config_.qk_dims = config_.embed_dim;
  validate(config_);
  const BiFormerConfig& c = config_;
  const bool plain = c.layout == BiFormerLayout::biformer;
  for (std::size_t i = 0; i < kStages; ++i) {
    const auto index = static_cast<std::int64_t>(i);
    const std::int64_t dim = c.embed_dim[i], from = i == 0 ? c.in_chans : c.embed_dim[i - 1];
    const Weights down = w / "downsample_layers" / index, blocks = plain ? w / "stages" / index : w / "stages" / index / "blocks";
    Stage& stage = stages_.emplace_back();
    if (!plain) {
      const std::int64_t side = i == 0 ? 4 : 2;
      stage.reduce = Conv2d(down / (i == 0 ? "0" : "1"), from, dim, side, side, {.stride_h = side, .stride_w = side});
      stage.norm = Norm(down / (i == 0 ? "1" : "0"), i == 0 ? dim : from, c.batch_norm);
    } else if (i == 0) {
      const Weights first = down / "1", second = down / "4";
      stage.stem = Conv2d(down / "0", from, dim / 2, 3, 3, kHalve, &first);
      stage.reduce = Conv2d(down / "3", dim / 2, dim, 3, 3, kHalve, &second);
    } else {
      const Weights norm = down / "1";
      stage.reduce = Conv2d(down / "0", from, dim, 3, 3, kHalve, &norm);
    }
    for (std::int64_t j = 0; j < c.depth[i]; ++j) stage.blocks.emplace_back(blocks / j, c, i);
    strides_.push_back(std::int64_t{4} << i);
  }
  const std::int64_t features = c.embed_dim.back();
  norm_ = Norm(w / "norm", features, plain || c.batch_norm);
  set_head(w / "head", features, c.num_classes);
  in_chans_ = c.in_chans;
  observed_ = detail::ObservedLayout::nchw;
}

Tensor BiFormer::reduce(std::size_t i, const Tensor& x) const {
  const Stage& stage = stages_[i];
  if (config_.layout != BiFormerLayout::biformer) return i == 0 ? stage.norm(stage.reduce(x)) : stage.reduce(stage.norm(x));
  return stage.reduce(i == 0 ? stage.stem(x, {.activation = Activation::gelu}) : x);
}

Tensor BiFormer::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  Tensor x = images;
  for (std::size_t i = 0; i < kStages; ++i) {
    x = reduce(i, x);  // [B, H / 4, W / 4, embed_dim[0]], then half as high and wide each
    observe(observer, fmt::format("downsample_layers.{}", i), x);
    for (const Block& block : stages_[i].blocks) x = block(std::move(x));
    observe(observer, fmt::format("stages.{}", i), x);
    if (stage_done) stage_done(i, x);
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

#define VITRINE_ROUTED R"("topks": [1, 4, 16, -2], "head_dim": 32)"
#define VITRINE_PLAIN R"("mlp_ratios": [3, 3, 3, 3], "kv_downsample_mode": "identity",)" VITRINE_ROUTED

constexpr Variant kBiFormer[] = {
    {"biformer_tiny", R"({"depth": [2, 2, 8, 2], "embed_dim": [64, 128, 256, 512],)" VITRINE_PLAIN "}", "", "81.4"},
    {"biformer_small", R"({"depth": [4, 4, 18, 4], "embed_dim": [64, 128, 256, 512],)" VITRINE_PLAIN "}", "", "83.8"},
    {"biformer_base", R"({"depth": [4, 4, 18, 4], "embed_dim": [96, 192, 384, 768],)" VITRINE_PLAIN "}", "", "84.3"},
    {"biformer_stl", R"({"norm_layer": "BatchNorm2d"})", "", "82.7"},
    {"biformer_stl_nchw", R"({"norm_layer": "BatchNorm2d", "topks": [1, 4, 16, -1]})", "", "82.7"},
};
constexpr Variant kBiFormerConstructors[] = {{"BiFormer", "", ""}, {"BiFormerSTL", "", ""}, {"nchwBiFormerSTL", "", ""}};

BiFormerLayout layout_of(std::string_view name) {
  if (name == "biformer_stl" || name == "BiFormerSTL") return BiFormerLayout::stl;
  if (name == "biformer_stl_nchw" || name == "nchwBiFormerSTL") return BiFormerLayout::stl_nchw;
  return BiFormerLayout::biformer;
}

// What the constructors share. Drop rates and checkpointing act in training only; any image size fits that the regions divide.
ArgumentReader& read_common(ArgumentReader& reader, BiFormerConfig& c) {
  return reader.get("depth", c.depth)
      .get("embed_dim", c.embed_dim)
      .get("mlp_ratios", c.mlp_ratios)
      .get("topks", c.topks)
      .get("head_dim", c.head_dim)
      .get("side_dwconv", c.side_dwconv)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .ignore({"drop_path_rate", "drop_rate", "use_checkpoint_stages", "pretrained", "img_size"});
}

void read_plain(ArgumentReader& reader, BiFormerConfig& c) {
  std::int64_t n_win = 7;
  // What the published models leave as it is; the rest of the original's experiments has no weights.
  std::string downsample = "identity", parameters = "qkvo";
  bool param_routing = false, diff_routing = false, soft_routing = false;
  std::optional<std::int64_t> representation_size;
  std::optional<std::string> pe;
  reader.get("qk_dims", c.qk_dims)
      .get("qk_scale", c.qk_scale)
      .get("n_win", n_win)
      .get("layer_scale_init_value", c.layer_scale_init_value)
      .get("pre_norm", c.pre_norm)
      .get("before_attn_dwconv", c.before_attn_dwconv)
      .get("auto_pad", c.auto_pad)
      .get("mlp_dwconv", c.mlp_dwconv)
      .get("kv_downsample_mode", downsample)
      .get("param_attention", parameters)
      .get("param_routing", param_routing)
      .get("diff_routing", diff_routing)
      .get("soft_routing", soft_routing)
      .get("representation_size", representation_size)
      .get("pe", pe)
      .ignore({"kv_per_wins", "kv_downsample_kernels", "kv_downsample_ratios", "pe_stages"})
      .finish();
  check(downsample == "identity", "kv_downsample_mode must be \"identity\", as in the published models");
  check(parameters == "qkvo", "param_attention must be \"qkvo\", as in the published models");
  check(!param_routing && !diff_routing && !soft_routing,
        "param_routing, diff_routing and soft_routing must be false, as in the published models");
  check(!representation_size && (!pe || *pe == "none"), "representation_size and pe are not of the published models");
  c.n_wins.assign(kStages, n_win);
}

void read_stl(ArgumentReader& reader, BiFormerConfig& c) {
  std::string norm = "LayerNorm2d";
  std::optional<std::string> last_norm;
  reader.get("n_wins", c.n_wins).get("norm_layer", norm).get("pre_head_norm_layer", last_norm).ignore({"qk_scale"}).finish();
  check((norm == "LayerNorm2d" || norm == "BatchNorm2d") && (!last_norm || *last_norm == norm),
        "norm_layer must be \"LayerNorm2d\" or \"BatchNorm2d\", and pre_head_norm_layer the same");
  c.batch_norm = norm == "BatchNorm2d";
}

std::unique_ptr<Backbone> build(const Variant& variant, const Weights& w, const Arguments& arguments) {
  BiFormerConfig c;
  c.layout = layout_of(variant.name);
  ArgumentReader reader(variant.name, arguments);
  if (c.layout == BiFormerLayout::biformer) {
    read_common(reader, c);
    read_plain(reader, c);
  } else {
    c.depth = {2, 2, 6, 2};
    c.embed_dim = {96, 192, 384, 768};
    c.head_dim = 32;
    c.topks = {1, 4, 16, -2};
    read_common(reader, c);
    read_stl(reader, c);
  }
  return std::make_unique<BiFormer>(w, std::move(c));
}

}  // namespace

constinit const Family kBiFormerFamily{.name = "biformer",
                                       .source = "BiFormer, arXiv:2303.08810; rayleizhu/BiFormer",
                                       .attention = "bi-level routing: each region attends to the few it matches",
                                       .variants = kBiFormer,
                                       .build = build,
                                       .constructors = kBiFormerConstructors};

}  // namespace detail
}  // namespace vitrine
