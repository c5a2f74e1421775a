#include <vitrine/backbones/convnext.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/convnext_variants.h>
#include <vitrine/backbones/family.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/squeeze_excite.h>

namespace vitrine {

using detail::require;

namespace {

void validate(const ConvNeXtConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto check = [&](bool right, std::string_view what) { require(right, c.name, what); };
  check(c.depths.size() == 4 && c.dims.size() == 4 && c.kernel_sizes.size() == 4,
        "depths, dims and kernel_sizes, expected four stages");
  check(std::all_of(c.depths.begin(), c.depths.end(), sane) && std::all_of(c.dims.begin(), c.dims.end(), sane),
        "depths and dims must be positive");
  check(std::all_of(c.kernel_sizes.begin(), c.kernel_sizes.end(), [](std::int64_t k) { return k > 0 && k < 1024 && k % 2 == 1; }),
        "kernel_sizes, expected odd ones");
  check(sane(c.in_chans) && sane(c.patch_size), "in_chans and patch_size must be positive");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  check(c.head_hidden_size >= 0 && c.head_hidden_size <= kMost, "head_hidden_size is out of range");
  check(c.output_stride == 8 || c.output_stride == 16 || c.output_stride == 32, "output_stride, expected 8, 16 or 32");
  check(!c.head_norm_first || c.head_hidden_size == 0, "head_norm_first has no head_hidden_size");
  check(c.head_norm_first || c.global_pool != detail::GlobalPool::catavgmax, "global_pool catavgmax needs head_norm_first");
}

// [dim], which the official files keep as [1, 1, 1, dim].
Tensor read_channels(const Weights& w, std::string_view name, std::int64_t dim) {
  const auto stored = w.shape_of(name);
  return w.on_device(name, stored == Shape{1, 1, 1, dim} ? *stored : Shape{dim}).view({dim});
}

}  // namespace

ConvNeXt::Block::Block(const Weights& w, const ConvNeXtConfig& c, std::int64_t dim, std::int64_t kernel, std::int64_t dilation)
    : norm(w / "norm", dim, c.norm), activation(c.activation) {
  const std::int64_t pad = dilation * (kernel - 1) / 2;
  conv_dw =
      Conv2d(w / "conv_dw", dim, dim, kernel, kernel,
             {.pad_h = pad, .pad_w = pad, .dilation_h = dilation, .dilation_w = dilation, .groups = dim, .bias = c.conv_bias});
  const Weights mlp = w / "mlp";
  fc1 = Linear(mlp / "fc1", dim, 4 * dim);
  LinearOptions scaled;
  if (c.layer_scale) scaled.scale = w.get("gamma", {dim});
  fc2 = Linear(mlp / "fc2", 4 * dim, dim, scaled);
  if (!c.use_grn) return;
  grn_weight = read_channels(mlp / "grn", "weight", 4 * dim);
  grn_bias = read_channels(mlp / "grn", "bias", 4 * dim);
}

Tensor ConvNeXt::Block::operator()(Tensor x) const {
  Tensor y = fc1(norm(conv_dw(x)), {.activation = activation});  // [B, H, W, 4 C]
  if (grn_weight.defined()) y = global_response_norm(y, grn_weight, grn_bias);
  return fc2(y, {.residual = std::move(x)});
}

Tensor ConvNeXt::Downsample::operator()(const Tensor& x) const {
  const Tensor y = norm(x);
  return conv.defined() ? conv(y) : patches(detail::whole_patches(y, 2, "convnext"));
}

ConvNeXt::ConvNeXt(const Weights& w, ConvNeXtConfig config) : config_(std::move(config)) {
  validate(config_);
  const ConvNeXtConfig& c = config_;
  const Weights stem = w / "stem";
  std::int64_t reduction = 4, dilation = 1, dim = c.dims[0];
  if (c.stem == ConvNeXtStem::patch) {
    patches_ = PatchEmbed(stem / 0, c.in_chans, dim, c.patch_size, c.patch_size, c.conv_bias);
    stem_norm_ = detail::Norm(stem / 1, dim, c.norm);
    reduction = c.patch_size;
  } else {
    const Conv2dOptions half{.stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1, .bias = c.conv_bias};
    const std::int64_t between = c.stem == ConvNeXtStem::tiered ? make_divisible(static_cast<double>(dim / 2)) : dim;
    const std::int64_t second = c.stem == ConvNeXtStem::act ? 2 : 1;
    stem1_ = Conv2d(stem / 0, c.in_chans, between, 3, 3, half);
    stem2_ = Conv2d(stem / second, between, dim, 3, 3, half);
    stem_norm_ = detail::Norm(stem / (second + 1), dim, c.norm);
  }
  for (std::size_t i = 0; i < 4; ++i) {
    std::int64_t stride = reduction == 2 || i > 0 ? 2 : 1;
    if (reduction >= c.output_stride && stride > 1) {
      dilation *= stride;
      stride = 1;
    }
    reduction *= stride;
    const std::int64_t first_dilation = dilation <= 2 ? 1 : 2, out = c.dims[i];
    const Weights stage = w / "stages" / static_cast<std::int64_t>(i);
    Stage& built = stages_.emplace_back();
    if (dim != out || stride > 1 || first_dilation != dilation) {
      const Weights down = stage / "downsample";
      built.downsample.norm = detail::Norm(down / 0, dim, c.norm);
      if (stride > 1) {
        built.downsample.patches = PatchEmbed(down / 1, dim, out, 2, 2, c.conv_bias);
      } else {
        // 2x2 taps `first_dilation` apart, padded to keep the size: the larger part at the end.
        const std::int64_t kernel = first_dilation != dilation ? 2 : 1, pads = dilation > 1 ? first_dilation * (kernel - 1) : 0;
        built.downsample.conv = Conv2d(down / 1, dim, out, kernel, kernel,
                                       {.pad_h = pads / 2,
                                        .pad_w = pads / 2,
                                        .pad_end_h = pads - pads / 2,
                                        .pad_end_w = pads - pads / 2,
                                        .dilation_h = first_dilation,
                                        .dilation_w = first_dilation,
                                        .bias = c.conv_bias});
      }
    }
    for (std::int64_t j = 0; j < c.depths[i]; ++j)
      built.blocks.emplace_back(stage / "blocks" / j, c, out, c.kernel_sizes[i], dilation);
    strides_.push_back(reduction);
    dim = out;
  }
  const Weights head = w / "head";
  if (c.head_norm_first) {
    norm_pre_ = detail::Norm(w / "norm_pre", dim, c.norm);
    if (c.global_pool == detail::GlobalPool::catavgmax) dim *= 2;
  } else {
    head_norm_ = detail::Norm(head / "norm", dim, c.norm);
  }
  if (c.head_hidden_size > 0) {
    pre_logits_ = Linear(head / "pre_logits" / "fc", dim, c.head_hidden_size);
    dim = c.head_hidden_size;
  }
  set_head(head / "fc", dim, c.num_classes);
  in_chans_ = c.in_chans;
}

Tensor ConvNeXt::stem(const Tensor& images) const {  // [B, H, W, in_chans] -> [B, H / 4, W / 4, C]
  if (patches_.proj.defined()) return stem_norm_(patches_(detail::whole_patches(images, config_.patch_size, info_.name)));
  const Activation between = config_.stem == ConvNeXtStem::act ? config_.activation : Activation::none;
  return stem_norm_(stem2_(stem1_(images, {.activation = between})));
}

Tensor ConvNeXt::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  Tensor x = stem(images);
  detail::observe_nchw(observer, "stem", x);
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    const Stage& stage = stages_[i];
    if (stage.downsample.defined()) x = stage.downsample(x);
    for (std::size_t j = 0; j < stage.blocks.size(); ++j) {
      x = stage.blocks[j](std::move(x));
      if (observer) detail::observe_nchw(observer, fmt::format("stages.{}.blocks.{}", i, j), x);
    }
    if (observer) detail::observe_nchw(observer, fmt::format("stages.{}", i), x);
    if (stage_done) stage_done(i, x);
  }
  return x;
}

Tensor ConvNeXt::pool(const Tensor& features) const {
  const Tensor x = head_norm_(detail::global_pool(features, config_.global_pool));
  return pre_logits_.defined() ? pre_logits_(x, {.activation = Activation::gelu}) : x;
}

// --- arguments ---------------------------------------------------------------------------------------------------

namespace detail {
namespace {

std::unique_ptr<Backbone> build_convnext(const Variant& variant, const Weights& w, const Arguments& arguments) {
  ConvNeXtConfig c;
  c.name = variant.name;
  std::string pool = "avg", stem_type = "patch", act_layer = "gelu", norm_layer = "layernorm";
  std::optional<double> ls_init_value = 1e-6;
  std::optional<std::int64_t> head_hidden_size;
  double norm_eps = 1e-6;
  ArgumentReader reader(variant.name, arguments);
  reader.get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("global_pool", pool)
      .get("output_stride", c.output_stride)
      .get("depths", c.depths)
      .get("dims", c.dims)
      .get("ls_init_value", ls_init_value)
      .get("stem_type", stem_type)
      .get("patch_size", c.patch_size)
      .get("head_norm_first", c.head_norm_first)
      .get("head_hidden_size", head_hidden_size)
      .get("conv_bias", c.conv_bias)
      .get("use_grn", c.use_grn)
      .get("act_layer", act_layer)
      .get("norm_layer", norm_layer)
      .get("norm_eps", norm_eps)
      // conv_mlp: the same layers as 1x1 convolutions
      .ignore({"conv_mlp", "head_init_scale", "drop_rate", "drop_path_rate", "img_size"});
  const auto kernels = arguments.find("kernel_sizes");  // one for all, or one a stage
  if (kernels != arguments.end() && kernels->second.starts_with('[')) {
    reader.get("kernel_sizes", c.kernel_sizes);
  } else {
    std::int64_t kernel = 7;
    reader.get("kernel_sizes", kernel);
    c.kernel_sizes.assign(4, kernel);
  }
  reader.finish();
  c.global_pool = parse_global_pool(c.name, pool);
  c.stem = static_cast<ConvNeXtStem>(
      parse_choice(c.name, "stem_type", stem_type, {"patch", "overlap", "overlap_tiered", "overlap_act"}));
  c.activation = parse_activation(act_layer);
  c.norm = parse_norm(c.name, "norm_layer", norm_layer, norm_eps);
  c.layer_scale = ls_init_value.has_value();
  c.head_hidden_size = head_hidden_size.value_or(0);
  return std::make_unique<ConvNeXt>(w, std::move(c));
}

constexpr Variant kConvNeXtConstructors[] = {{"ConvNeXt", "", ""}};

// facebookresearch/ConvNeXt and ConvNeXt-V2.
#define VITRINE_BLOCK R"(stages\.(\d+)\.(\d+)\.)"
constexpr NameRule kOfficial[] = {
    {R"(downsample_layers\.0\.(.*))", "stem.$1"},
    {R"(downsample_layers\.(\d+)\.(.*))", "stages.$1.downsample.$2"},
    {VITRINE_BLOCK R"(dwconv\.(.*))", "stages.$1.blocks.$2.conv_dw.$3"},
    {VITRINE_BLOCK R"(pwconv([12])\.(.*))", "stages.$1.blocks.$2.mlp.fc$3.$4"},
    {VITRINE_BLOCK R"(grn\.gamma)", "stages.$1.blocks.$2.mlp.grn.weight"},
    {VITRINE_BLOCK R"(grn\.beta)", "stages.$1.blocks.$2.mlp.grn.bias"},
    {VITRINE_BLOCK "(.*)", "stages.$1.blocks.$2.$3"},  // norm, gamma
    {R"(norm\.(.*))", "head.norm.$1"},
    {R"(head\.(weight|bias))", "head.fc.$1"},
};
#undef VITRINE_BLOCK
constexpr NameMap kNames[] = {{"downsample_layers.0.0.weight", kOfficial}};

}  // namespace

constinit const Family kConvNeXtFamily{.name = "convnext",
                                       .source = "arXiv:2201.03545, arXiv:2301.00808; timm 1.0.31 convnext.py",
                                       .attention = "none: depth-wise convolutions",
                                       .variants = kConvNeXtVariants,
                                       .build = build_convnext,
                                       .constructors = kConvNeXtConstructors,
                                       .head = "head.fc",
                                       .pretrained = kConvNeXtPretrained,
                                       .name_maps = kNames};

}  // namespace detail
}  // namespace vitrine
