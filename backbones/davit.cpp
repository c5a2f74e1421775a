#include <vitrine/backbones/davit.h>

#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/davit_variants.h>
#include <vitrine/backbones/family.h>
#include <vitrine/backbones/tokens.h>

namespace vitrine {

using namespace detail;

namespace {

void validate(const DavitConfig& c, std::string_view model) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  require(!c.depths.empty() && c.depths.size() <= 8, model, "depths, expected one to eight stages");
  require(c.num_heads.size() == c.depths.size() && c.embed_dims.size() == c.depths.size(), model,
          "embed_dims, num_heads and depths have different lengths");
  for (std::size_t i = 0; i < c.depths.size(); ++i) {
    require(c.depths[i] >= 0 && c.depths[i] <= 1000 && sane(c.embed_dims[i]) && sane(c.num_heads[i]), model,
            "depths, embed_dims and num_heads must be positive");
    require(c.embed_dims[i] % c.num_heads[i] == 0, model, "num_heads must divide embed_dims");
  }
  require(sane(c.in_chans) && c.window_size > 0 && c.window_size <= 256, model, "in_chans and window_size must be positive");
  require(c.down_kernel_size > 0 && c.down_kernel_size <= 64, model, "down_kernel_size is out of range");
  require(c.num_classes >= 0 && c.num_classes <= 1 << 24, model, "num_classes is out of range");
  require(c.mlp_ratio > 0 && c.mlp_ratio <= 64, model, "mlp_ratio is out of range");
  require(c.norm_eps > 0 && c.norm_eps < 1, model, "norm_eps is out of range");
  for (const std::string& type : c.attn_types) parse_choice(model, "attn_types", type, {"spatial", "channel"});
}

Conv2d position_conv(const Weights& w, std::int64_t dim) {
  return {w / "proj", dim, dim, 3, 3, {.pad_h = 1, .pad_w = 1, .groups = dim}};
}

}  // namespace

Tensor Davit::Block::operator()(Tensor x) const {
  x = cpe1(x, {.activation = cpe_act, .residual = x});
  const Tensor y = norm1(x);
  if (window.cache) {
    x = window(y, std::move(x));
  } else {
    const Shape map = x.shape();
    x = channel(y.flatten(1, 2), std::exchange(x, Tensor()).flatten(1, 2)).view(map);
  }
  x = cpe2(x, {.activation = cpe_act, .residual = x});
  if (!norm2.defined()) return x;
  const Tensor z = norm2(x);
  return mlp(z, std::move(x));
}

Davit::Block Davit::make_block(const Weights& w, bool spatial, std::int64_t dim, std::int64_t num_heads) const {
  const DavitConfig& c = config_;
  Block block;
  block.cpe_act = c.cpe_act ? Activation::gelu : Activation::none;
  block.cpe1 = position_conv(w / "cpe1", dim);
  block.cpe2 = position_conv(w / "cpe2", dim);
  block.norm1 = LayerNorm(w / "norm1", dim, c.norm_eps);
  if (spatial)
    block.window = WindowAttention(w / "attn", {.dim = dim,
                                                .num_heads = num_heads,
                                                .window_size = {c.window_size, c.window_size},
                                                .qkv_bias = c.qkv_bias,
                                                .rel_pos_bias = false});
  else
    block.channel = ChannelAttention(
        w / "attn", {.dim = dim, .num_heads = num_heads, .version = c.channel_attn_v2 ? 2 : 1, .qkv_bias = c.qkv_bias});
  if (c.ffn) {
    block.norm2 = LayerNorm(w / "norm2", dim, c.norm_eps);
    block.mlp = Mlp(w / "mlp", dim, static_cast<std::int64_t>(static_cast<double>(dim) * c.mlp_ratio), Activation::gelu);
  }
  return block;
}

Davit::Davit(const Weights& w, DavitConfig config, std::string_view model) : config_(std::move(config)) {
  validate(config_, model);
  const DavitConfig& c = config_;
  pool_ = parse_global_pool(model, c.global_pool);
  require(pool_ != GlobalPool::catavgmax || c.head_norm_first, model, "global_pool=catavgmax needs head_norm_first");
  stem_ = Conv2d(w / "stem" / "conv", c.in_chans, c.embed_dims[0], 7, 7, {.stride_h = 4, .stride_w = 4, .pad_h = 3, .pad_w = 3});
  stem_norm_ = LayerNorm(w / "stem" / "norm", c.embed_dims[0], c.norm_eps);
  for (std::size_t i = 0; i < c.depths.size(); ++i) {
    const Weights stage = w / "stages" / static_cast<std::int64_t>(i);
    const std::int64_t dim = c.embed_dims[i], k = c.down_kernel_size, pad = k % 2 == 0 ? 0 : k / 2;
    Stage& built = stages_.emplace_back();
    if (i > 0) {
      built.norm = LayerNorm(stage / "downsample" / "norm", c.embed_dims[i - 1], c.norm_eps);
      built.conv = Conv2d(stage / "downsample" / "conv", c.embed_dims[i - 1], dim, k, k,
                          {.stride_h = 2, .stride_w = 2, .pad_h = pad, .pad_w = pad});
    }
    for (std::int64_t j = 0; j < c.depths[i]; ++j) {
      auto& blocks = built.blocks.emplace_back();
      for (const std::string& type : c.attn_types) {
        const std::string name = c.named_blocks ? type + "_block" : std::to_string(blocks.size());
        blocks.push_back(make_block(stage / "blocks" / j / name, type == "spatial", dim, c.num_heads[i]));
      }
    }
    strides_.push_back(std::int64_t{4} << i);
  }
  const std::int64_t dim = c.embed_dims.back();
  const Weights norm = c.head_norm_first ? w / "norm_pre" : w / "head" / "norm";
  norm_.eps = c.norm_eps;
  // Florence-2's towers end without; timm leaves the norm's weights at one then
  if (w.source().is_open() || norm.has("weight") || c.num_classes > 0) norm_ = LayerNorm(norm, dim, c.norm_eps);
  set_head(w / "head" / "fc", pool_ == GlobalPool::catavgmax ? 2 * dim : dim, c.num_classes);
  in_chans_ = c.in_chans;
}

Tensor Davit::pool(const Tensor& features) const {
  const Tensor pooled = global_pool(features, pool_);
  return config_.head_norm_first ? pooled : norm_(pooled);
}

// Maps that an even kernel does not divide are filled up with zeros.
Tensor Davit::downsample(const Stage& stage, const Tensor& x) const {
  const std::int64_t k = config_.down_kernel_size;
  const Tensor y = stage.norm(x);
  return stage.conv(k % 2 == 0 ? pad_to_multiple(y, k) : y);
}

Tensor Davit::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  Tensor x = stem_norm_(stem_(pad_to_multiple(images, 4)));
  if (observer) observer("stem", x);
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    if (stages_[i].conv.defined()) x = downsample(stages_[i], x);
    for (std::size_t j = 0; j < stages_[i].blocks.size(); ++j) {
      for (const Block& block : stages_[i].blocks[j]) x = block(std::move(x));
      if (observer) observer(fmt::format("stages.{}.blocks.{}", i, j), x);
    }
    if (stage_done) stage_done(i, x);
    if (observer) observer(fmt::format("stages.{}", i), x);
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

std::unique_ptr<Backbone> build(const Variant& variant, const Weights& w, const Arguments& arguments) {
  DavitConfig c;
  std::string norm_layer = "layernorm2d", norm_layer_cl = "layernorm";
  ArgumentReader(variant.name, arguments)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("depths", c.depths)
      .get("embed_dims", c.embed_dims)
      .get("num_heads", c.num_heads)
      .get("window_size", c.window_size)
      .get("mlp_ratio", c.mlp_ratio)
      .get("qkv_bias", c.qkv_bias)
      .get("norm_layer", norm_layer)
      .get("norm_layer_cl", norm_layer_cl)
      .get("norm_eps", c.norm_eps)
      .get("attn_types", c.attn_types)
      .get("ffn", c.ffn)
      .get("cpe_act", c.cpe_act)
      .get("down_kernel_size", c.down_kernel_size)
      .get("channel_attn_v2", c.channel_attn_v2)
      .get("named_blocks", c.named_blocks)
      .get("global_pool", c.global_pool)
      .get("head_norm_first", c.head_norm_first)
      .ignore({"drop_rate", "drop_path_rate", "img_size"})  // any size fits
      .finish();
  parse_choice(variant.name, "norm_layer", norm_layer, {"layernorm2d"});
  parse_choice(variant.name, "norm_layer_cl", norm_layer_cl, {"layernorm"});
  return std::make_unique<Davit>(w, std::move(c), variant.name);
}

constexpr Variant kConstructors[] = {{"DaVit", "", ""}};

constexpr NameRule kOfficial[] = {
    {R"(patch_embeds\.0\.proj\.(.*))", "stem.conv.$1"},
    {R"(patch_embeds\.0\.(.*))", "stem.$1"},
    {R"(patch_embeds\.(\d+)\.proj\.(.*))", "stages.$1.downsample.conv.$2"},
    {R"(patch_embeds\.(\d+)\.(.*))", "stages.$1.downsample.$2"},
    {R"(main_blocks\.(\d+)\.(.*)\.cpe\.0\.(.*))", "stages.$1.blocks.$2.cpe1.$3"},
    {R"(main_blocks\.(\d+)\.(.*)\.cpe\.1\.(.*))", "stages.$1.blocks.$2.cpe2.$3"},
    {R"(main_blocks\.(\d+)\.(.*))", "stages.$1.blocks.$2"},
    {R"(norms\.(.*))", "head.norm.$1"},
    {R"(head\.(weight|bias))", "head.fc.$1"},
};

// The language model and what joins it to the tower are left out.
#define VITRINE_BLOCK R"(vision_tower\.blocks\.(\d+)\.(\d+)\.(spatial|channel)_block\.)"
constexpr NameRule kFlorence[] = {
    {R"(vision_tower\.convs\.0\.proj\.(.*))", "stem.conv.$1"},
    {R"(vision_tower\.convs\.0\.(.*))", "stem.$1"},
    {R"(vision_tower\.convs\.(\d+)\.proj\.(.*))", "stages.$1.downsample.conv.$2"},
    {R"(vision_tower\.convs\.(\d+)\.(.*))", "stages.$1.downsample.$2"},
    {VITRINE_BLOCK R"(conv([12])\.fn\.dw\.(.*))", "stages.$1.blocks.$2.$3_block.cpe$4.proj.$5"},
    {VITRINE_BLOCK R"((window|channel)_attn\.norm\.(.*))", "stages.$1.blocks.$2.$3_block.norm1.$5"},
    {VITRINE_BLOCK R"((window|channel)_attn\.fn\.(.*))", "stages.$1.blocks.$2.$3_block.attn.$5"},
    {VITRINE_BLOCK R"(ffn\.norm\.(.*))", "stages.$1.blocks.$2.$3_block.norm2.$4"},
    {VITRINE_BLOCK R"(ffn\.fn\.net\.(.*))", "stages.$1.blocks.$2.$3_block.mlp.$4"},
    {".*", ""},
};
#undef VITRINE_BLOCK

constexpr NameMap kNames[] = {{"patch_embeds.0.proj.weight", kOfficial}, {"vision_tower.convs.0.proj.weight", kFlorence}};

}  // namespace

constinit const Family kDavitFamily{.name = "davit",
                                    .source = "arXiv:2204.03645; timm 1.0.31",
                                    .attention = "windows and channels, in turns",
                                    .variants = kDavitVariants,
                                    .build = build,
                                    .constructors = kConstructors,
                                    .preprocess = R"({"crop_pct":0.95})",
                                    .head = "head.fc",
                                    .pretrained = kDavitPretrained,
                                    .name_maps = kNames};

}  // namespace detail
}  // namespace vitrine
