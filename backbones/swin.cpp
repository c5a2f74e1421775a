#include <vitrine/backbones/swin.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/backbones/swin_variants.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using namespace detail;
using Size = SwinConfig::Size;

namespace {

constexpr double kEps = 1e-5;              // torch.nn.LayerNorm's
constexpr std::int64_t kMost = 1 << 16;    // far above any model, and safe to multiply
constexpr std::int64_t kMostWindow = 256;  // the position bias of a window has the fourth power of this

bool sane(std::int64_t n) { return n > 0 && n <= kMost; }
bool sane(const Size& size) { return sane(size[0]) && sane(size[1]); }

// What timm takes once for all stages or once per stage.
template <typename T>
void per_stage(std::vector<T>& values, std::size_t stages, const T& otherwise, std::string_view model, std::string_view what) {
  if (values.empty()) values.push_back(otherwise);
  if (values.size() == 1) values.resize(stages, values[0]);
  require(values.size() == stages, model, fmt::format("{} has {} entries, expected one or {}", what, values.size(), stages));
}

void complete(SwinConfig& c, std::string_view model) {
  require(!c.depths.empty() && c.depths.size() <= 8, model, "depths, expected one to eight stages");
  require(c.num_heads.size() == c.depths.size(), model, "num_heads and depths have different lengths");
  require(sane(c.img_size) && sane(c.patch_size) && sane(c.in_chans), model,
          "img_size, patch_size and in_chans must be positive");
  require(c.img_size[0] >= c.patch_size[0] && c.img_size[1] >= c.patch_size[1], model, "img_size is smaller than patch_size");
  require(sane(c.embed_dim) && c.embed_dim << c.depths.size() <= kMost, model, "embed_dim is out of range");
  require(c.num_classes >= 0 && c.num_classes <= 1 << 24, model, "num_classes is out of range");
  const std::size_t stages = c.depths.size();
  per_stage(c.head_dim, stages, std::int64_t{0}, model, "head_dim");
  per_stage(c.window_size, stages, Size{7, 7}, model, "window_size");
  per_stage(c.mlp_ratio, stages, 4.0, model, "mlp_ratio");
  // as in the original, what is beyond the last stage is not looked at
  if (c.pretrained_window_sizes.size() > stages) c.pretrained_window_sizes.resize(stages);
  per_stage(c.pretrained_window_sizes, stages, Size{0, 0}, model, "pretrained_window_sizes");
  for (std::size_t i = 0; i < stages; ++i) {
    require(c.depths[i] >= 0 && c.depths[i] <= 1000 && sane(c.num_heads[i]), model, "depths and num_heads are out of range");
    require(c.head_dim[i] >= 0 && c.head_dim[i] <= 1 << 12, model, "head_dim is out of range");
    require(c.head_dim[i] > 0 || (c.embed_dim << i) % c.num_heads[i] == 0, model, "num_heads must divide its stage's width");
    require(sane(c.window_size[i]), model, "window_size must be positive");
    require(c.mlp_ratio[i] > 0 && c.mlp_ratio[i] <= 64, model, "mlp_ratio is out of range");
  }
}

}  // namespace

Tensor Swin::Block::operator()(Tensor x) const {
  if (attn_v2.cache) {
    const Tensor y = norm1(attn_v2(x));
    x = sum(std::move(x), y);
    const Tensor z = norm2(mlp(x));
    return sum(std::move(x), z);
  }
  const Tensor y = norm1(x);
  x = attn(y, std::move(x));
  const Tensor z = norm2(x);
  return mlp(z, std::move(x));
}

// A window no smaller than the map of img_size takes the map's size and does not shift.
Swin::Block Swin::make_block(const Weights& w, std::size_t stage, std::int64_t dim, const Size& map, bool shifted) const {
  const SwinConfig& c = config_;
  Size window = c.window_size[stage], shift{0, 0};
  if (shifted) shift = {window[0] / 2, window[1] / 2};
  for (std::size_t a = 0; a < 2 && !c.always_partition; ++a)
    if (map[a] <= window[a]) window[a] = map[a], shift[a] = 0;
  require(window[0] <= kMostWindow && window[1] <= kMostWindow, model_,
          fmt::format("window_size is {}x{}, expected up to {}", window[0], window[1], kMostWindow));
  Block block;
  block.norm1 = LayerNorm(w / "norm1", dim, kEps);
  if (c.v2)
    block.attn_v2 = WindowAttentionV2(w / "attn", {.dim = dim,
                                                   .num_heads = c.num_heads[stage],
                                                   .window_size = window,
                                                   .shift_size = shift,
                                                   .pretrained_window_size = c.pretrained_window_sizes[stage],
                                                   .qkv_bias = c.qkv_bias});
  else
    block.attn = WindowAttention(w / "attn", {.dim = dim,
                                              .num_heads = c.num_heads[stage],
                                              .head_dim = c.head_dim[stage],
                                              .window_size = window,
                                              .shift_size = shift,
                                              .qkv_bias = c.qkv_bias});
  block.norm2 = LayerNorm(w / "norm2", dim, kEps);
  block.mlp = Mlp(w / "mlp", dim, static_cast<std::int64_t>(static_cast<double>(dim) * c.mlp_ratio[stage]), c.act_layer);
  return block;
}

Swin::Swin(const Weights& w, SwinConfig config, std::string_view model) : config_(std::move(config)), model_(model) {
  complete(config_, model);
  const SwinConfig& c = config_;
  pool_ = parse_global_pool(model, c.global_pool);
  const Weights embed = w / "patch_embed";
  patches_ = PatchEmbed(embed / "proj", c.in_chans, c.embed_dim, c.patch_size[0], c.patch_size[1]);
  patch_norm_ = LayerNorm(embed / "norm", c.embed_dim, kEps);
  Size map{c.img_size[0] / c.patch_size[0], c.img_size[1] / c.patch_size[1]};
  std::int64_t dim = c.embed_dim;
  for (std::size_t i = 0; i < c.depths.size(); ++i) {
    const Weights stage = w / "layers" / static_cast<std::int64_t>(i);
    Stage& built = stages_.emplace_back();
    if (i > 0) {
      built.downsample = PatchMerging(stage / "downsample", dim, 2 * dim, kEps, c.v2);
      dim *= 2;
      map = {(map[0] + 1) / 2, (map[1] + 1) / 2};
    }
    for (std::int64_t j = 0; j < c.depths[i]; ++j)
      built.blocks.push_back(make_block(stage / "blocks" / j, i, dim, map, j % 2 == 1));
    strides_.push_back(std::max(c.patch_size[0], c.patch_size[1]) << i);
  }
  norm_ = LayerNorm(w / "norm", dim, kEps);
  set_head(w / "head" / "fc", pool_ == GlobalPool::catavgmax ? 2 * dim : dim, c.num_classes);
  in_chans_ = c.in_chans;
}

Tensor Swin::embed(const Tensor& images) const {  // [B, H, W, in_chans] -> [B, H', W', embed_dim]
  const SwinConfig& c = config_;
  const std::int64_t H = images.size(1), W = images.size(2);
  if (!c.strict_img_size) return patch_norm_(patches_(images));
  if (H != c.img_size[0] || W != c.img_size[1])
    throw Error(fmt::format("{}: images of {}x{}, expected {}x{}; give img_size=[{},{}], or strict_img_size=false for any size",
                            model_, H, W, c.img_size[0], c.img_size[1], H, W));
  // a convolution leaves out what is beyond its last whole step
  return patch_norm_(patches_(whole_patches(images, c.patch_size, model_)));
}

Tensor Swin::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  Tensor x = embed(images);
  if (observer) observer("patch_embed", x);
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    if (stages_[i].downsample.defined()) x = stages_[i].downsample(x);
    for (std::size_t j = 0; j < stages_[i].blocks.size(); ++j) {
      x = stages_[i].blocks[j](std::move(x));
      if (observer) observer(fmt::format("layers.{}.blocks.{}", i, j), x);
    }
    if (stage_done) stage_done(i, x);
    if (observer) observer(fmt::format("layers.{}", i), x);
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

std::unique_ptr<Backbone> build(bool v2, std::string_view preprocess, const Variant& variant, const Weights& w,
                                const Arguments& arguments) {
  SwinConfig c;
  c.v2 = v2;
  // a model's windows follow from the size that it was published for
  const PreprocessConfig published =
      parse_pretrained_config(variant.preprocess, variant.name, parse_pretrained_config(preprocess, variant.name));
  c.img_size = {published.height, published.width};
  bool dynamic_img_size = false;
  std::string act_layer = "gelu";
  ArgumentReader reader(variant.name, arguments);
  reader.get("img_size", c.img_size)
      .get("patch_size", c.patch_size)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("global_pool", c.global_pool)
      .get("embed_dim", c.embed_dim)
      .get("depths", c.depths)
      .get("num_heads", c.num_heads)
      .get_list("window_size", c.window_size)
      .get_list("mlp_ratio", c.mlp_ratio)
      .get("always_partition", c.always_partition)
      .get("strict_img_size", c.strict_img_size)
      .get("dynamic_img_size", dynamic_img_size)
      .get("qkv_bias", c.qkv_bias)
      .ignore({"drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "weight_init"});
  if (v2)
    reader.get_list("pretrained_window_sizes", c.pretrained_window_sizes).get("act_layer", act_layer);
  else
    reader.get_list("head_dim", c.head_dim);
  reader.finish();
  if (dynamic_img_size) c.strict_img_size = false;
  c.act_layer = parse_activation(act_layer);
  return std::make_unique<Swin>(w, std::move(c), variant.name);
}

constexpr std::string_view kPreprocess = R"({"crop_pct":0.9})";
constexpr std::string_view kPreprocessV2 = R"({"input_size":[3,256,256],"crop_pct":0.9})";

std::unique_ptr<Backbone> build_swin(const Variant& variant, const Weights& w, const Arguments& arguments) {
  return build(false, kPreprocess, variant, w, arguments);
}
std::unique_ptr<Backbone> build_swin_v2(const Variant& variant, const Weights& w, const Arguments& arguments) {
  return build(true, kPreprocessV2, variant, w, arguments);
}

constexpr Variant kConstructors[] = {{"SwinTransformer", "", ""}};
constexpr Variant kConstructorsV2[] = {{"SwinTransformerV2", "", R"({"input_size":[3,224,224]})"}};

// microsoft/Swin-Transformer merges patches at the end of a stage, not at the beginning of the next, and stores tables that
// follow from the window.
#define VITRINE_BUFFERS \
  { R"(.*\.(relative_position_index|relative_coords_table|attn_mask))", "" }
#define VITRINE_MERGING(from, to) \
  { R"(layers\.)" from R"(\.downsample\.(.*))", "layers." to ".downsample.$1" }
constexpr NameRule kOfficial[] = {
    VITRINE_BUFFERS,           VITRINE_MERGING("0", "1"), VITRINE_MERGING("1", "2"),
    VITRINE_MERGING("2", "3"), VITRINE_MERGING("3", "4"), VITRINE_MERGING("4", "5"),
    VITRINE_MERGING("5", "6"), VITRINE_MERGING("6", "7"), {R"(head\.(weight|bias))", "head.fc.$1"},
};
constexpr NameRule kBuffers[] = {VITRINE_BUFFERS};
constexpr NameMap kNames[] = {{"layers.0.downsample.reduction.weight", kOfficial},
                              {"layers.0.blocks.0.attn.relative_position_index", kBuffers}};

}  // namespace

constinit const Family kSwinFamily{.name = "swin",
                                   .source = "arXiv:2103.14030; timm 1.0.31",
                                   .attention = "windows, shifted in turns",
                                   .variants = kSwinVariants,
                                   .build = build_swin,
                                   .constructors = kConstructors,
                                   .preprocess = kPreprocess,
                                   .head = "head.fc",
                                   .pretrained = kSwinPretrained,
                                   .name_maps = kNames};
constinit const Family kSwinV2Family{.name = "swinv2",
                                     .source = "arXiv:2111.09883; timm 1.0.31",
                                     .attention = "windows, shifted in turns, cosine",
                                     .variants = kSwinV2Variants,
                                     .build = build_swin_v2,
                                     .constructors = kConstructorsV2,
                                     .preprocess = kPreprocessV2,
                                     .head = "head.fc",
                                     .pretrained = kSwinV2Pretrained,
                                     .name_maps = kNames};

}  // namespace detail
}  // namespace vitrine
