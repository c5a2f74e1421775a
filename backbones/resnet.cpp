#include <vitrine/backbones/resnet.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/backbones/resnet_variants.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::require;

namespace {

constexpr std::int64_t kGroups = 32;  // of group norm

std::int64_t expansion(ResNetBlock block) { return block == ResNetBlock::basic ? 1 : 4; }

void validate(const ResNetConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto check = [&](bool right, std::string_view what) { require(right, c.name, what); };
  check(!c.layers.empty() && c.layers.size() <= 8, "layers, expected one to eight stages");
  check(c.channels.size() == c.layers.size(), "channels and layers have different lengths");
  check(c.block.size() == 1 || c.block.size() == c.layers.size(), "block and layers have different lengths");
  check(std::all_of(c.layers.begin(), c.layers.end(), sane) && std::all_of(c.channels.begin(), c.channels.end(), sane),
        "layers and channels must be positive");
  check(sane(c.in_chans) && sane(c.stem_width) && sane(c.cardinality) && sane(c.base_width) && sane(c.block_reduce_first),
        "in_chans, stem_width, cardinality, base_width and block_reduce_first must be positive");
  check(c.stem != ResNetStem::tiered || c.stem_width >= 4, "stem_width of a tiered stem must be 4 at least");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  check(c.output_stride == 8 || c.output_stride == 16 || c.output_stride == 32, "output_stride, expected 8, 16 or 32");
  check(c.down_kernel_size == 1 || c.down_kernel_size == 3, "down_kernel_size, expected 1 or 3");
  check(c.rd_ratio > 0 && c.rd_ratio <= 16, "rd_ratio is out of range");
  const bool basic = std::find(c.block.begin(), c.block.end(), ResNetBlock::basic) != c.block.end();
  check(!basic || (c.cardinality == 1 && c.base_width == 64), "BasicBlock has no cardinality and no base_width");
}

// A 3x3 or 1x1 convolution that keeps the size but for its stride.
Conv2dOptions same(std::int64_t kernel, std::int64_t stride, std::int64_t dilation, std::int64_t groups = 1) {
  const std::int64_t pad = (stride - 1 + dilation * (kernel - 1)) / 2;
  return {.stride_h = stride,
          .stride_w = stride,
          .pad_h = pad,
          .pad_w = pad,
          .dilation_h = dilation,
          .dilation_w = dilation,
          .groups = groups,
          .bias = false};
}

Tensor anti_aliased(const Tensor& x, AntiAlias kind, std::int64_t stride) {
  if (kind == AntiAlias::blur) return blur_pool2d(x, stride);
  return stride == 1 ? x : avg_pool2d(x, {.kernel_h = stride, .kernel_w = stride, .stride_h = stride, .stride_w = stride});
}

}  // namespace

ResNet::Block::Block(const Weights& w, const ResNetConfig& c, const Place& p) : stride(p.stride), activation(c.activation) {
  const std::int64_t out = p.planes * expansion(p.kind);
  if (c.anti_alias != AntiAlias::none && (p.stride == 2 || p.first_dilation != p.dilation)) anti_alias = c.anti_alias;
  const std::int64_t conv_stride = anti_alias == AntiAlias::none ? p.stride : 1;
  const auto add = [&](std::int64_t from, std::int64_t to, std::int64_t kernel, const Conv2dOptions& options) {
    const std::size_t i = convs.size() + 1;
    convs.emplace_back(w / fmt::format("conv{}", i), w / fmt::format("bn{}", i), from, to, kernel, options, c.norm);
  };
  // timm pads by the dilation whatever the stride.
  if (p.kind == ResNetBlock::basic) {
    const std::int64_t first = p.planes / c.block_reduce_first;
    add(p.in, first, 3, same(3, conv_stride, p.first_dilation));
    add(first, out, 3, same(3, 1, p.dilation));
    strided = 0;
  } else {
    const double factor = static_cast<double>(c.base_width) / 64;
    const std::int64_t width = static_cast<std::int64_t>(std::floor(static_cast<double>(p.planes) * factor)) * c.cardinality;
    const std::int64_t first = width / c.block_reduce_first;
    add(p.in, first, 1, same(1, 1, 1));
    add(first, width, 3, same(3, conv_stride, p.first_dilation, c.cardinality));
    add(width, out, 1, same(1, 1, 1));
    strided = 1;
  }
  if (c.gate == ResNetGate::squeeze_excite)
    squeeze_excite = SqueezeExcite(w / "se", out, make_divisible(static_cast<double>(out) * c.rd_ratio, 8, 0));
  if (c.gate == ResNetGate::efficient) efficient = EfficientChannelAttention(w / "se", out);
  if (!p.downsample) return;
  const Weights d = w / "downsample";
  if (c.avg_down) {
    pools = p.stride != 1 || p.dilation != 1;
    const std::int64_t step = p.dilation == 1 ? p.stride : 1;
    downsample_pool = {.stride_h = step, .stride_w = step, .count_include_pad = false, .ceil_mode = true};
    if (step == 1) {  // keeps the size: timm pads with a row and a column of zeros that count
      downsample_pool.pad_end_h = downsample_pool.pad_end_w = 1;
      downsample_pool.count_include_pad = true;
    }
    downsample = ConvNorm(d / 1, d / 2, p.in, out, 1, same(1, 1, 1), c.norm);
  } else {
    const std::int64_t kernel = p.stride == 1 && p.dilation == 1 ? 1 : c.down_kernel_size;
    downsample = ConvNorm(d / 0, d / 1, p.in, out, kernel, same(kernel, p.stride, kernel > 1 ? p.first_dilation : 1), c.norm);
  }
}

Tensor ResNet::Block::operator()(Tensor x) const {
  Tensor y = x;
  for (std::size_t i = 0; i + 1 < convs.size(); ++i) {
    y = convs[i](y, {.activation = activation});
    if (i == strided && anti_alias != AntiAlias::none) y = anti_aliased(y, anti_alias, stride);
  }
  if (downsample.defined()) x = downsample(pools ? avg_pool2d(x, downsample_pool) : x);
  const ConvNorm& last = convs.back();
  const bool gated = squeeze_excite.defined() || efficient.defined();
  if (!gated) return last(y, {.activation = activation, .residual = std::move(x), .activate_sum = true});
  y = last(y);
  y = squeeze_excite.defined() ? squeeze_excite(y) : multiply(y, efficient.gates(y));
  add_(y, x);
  activate_(y, activation);
  return y;
}

ResNet::ResNet(const Weights& w, ResNetConfig config) : config_(std::move(config)) {
  validate(config_);
  const ResNetConfig& c = config_;
  const bool deep = c.stem != ResNetStem::plain;
  const std::int64_t width = deep ? 2 * c.stem_width : 64;
  if (deep) {
    const std::int64_t first = c.stem == ResNetStem::tiered ? 3 * (c.stem_width / 4) : c.stem_width;
    const Weights stem = w / "conv1";
    stem_.emplace_back(stem / 0, stem / 1, c.in_chans, first, 3, same(3, 2, 1), c.norm);
    stem_.emplace_back(stem / 3, stem / 4, first, c.stem_width, 3, same(3, 1, 1), c.norm);
    stem_.emplace_back(stem / 6, w / "bn1", c.stem_width, width, 3, same(3, 1, 1), c.norm);
  } else {
    stem_.emplace_back(w / "conv1", w / "bn1", c.in_chans, width, 7, same(7, 2, 1), c.norm);
  }
  // The norm follows the anti-aliasing there, with which it commutes where it is folded; group norm does not.
  const bool aliased = c.anti_alias == AntiAlias::none;
  if (c.replace_stem_pool) {
    require(aliased || c.norm.groups == 0, c.name, "replace_stem_pool with aa_layer needs batch norm");
    stem_reduce_ =
        ConvNorm(w / "maxpool" / 0, w / "maxpool" / (aliased ? 1 : 2), width, width, 3, same(3, aliased ? 2 : 1, 1), c.norm);
  }

  strides_.push_back(2);
  std::int64_t in = width, reduction = 4, dilation = 1, previous = 1;
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    const ResNetBlock kind = c.block[c.block.size() == 1 ? 0 : i];
    std::int64_t stride = i == 0 ? 1 : 2;
    if (reduction >= c.output_stride) {
      dilation *= stride;
      stride = 1;
    }
    reduction *= stride;
    const std::int64_t out = c.channels[i] * expansion(kind);
    const Weights stage = w / fmt::format("layer{}", i + 1);
    std::vector<Block>& blocks = stages_.emplace_back();
    for (std::int64_t j = 0; j < c.layers[i]; ++j) {
      const bool first = j == 0;
      blocks.emplace_back(stage / j, c,
                          Place{.kind = kind,
                                .in = in,
                                .planes = c.channels[i],
                                .stride = first ? stride : 1,
                                .dilation = dilation,
                                .first_dilation = previous,
                                .downsample = first && (stride != 1 || in != out)});
      previous = dilation;
      in = out;
    }
    strides_.push_back(reduction);
  }
  const std::int64_t pooled = c.global_pool == detail::GlobalPool::catavgmax ? 2 * in : in;
  set_head(w / "fc", pooled, c.num_classes);
  in_chans_ = c.in_chans;
}

Tensor ResNet::stem(const Tensor& images) const {  // [B, H, W, in_chans] -> [B, H / 2, W / 2, width]
  Tensor x = images;
  for (const ConvNorm& conv : stem_) x = conv(x, {.activation = config_.activation});
  return x;
}

Tensor ResNet::reduce(const Tensor& x) const {  // [B, H, W, C] -> [B, H / 2, W / 2, C]
  const bool aliased = config_.anti_alias == AntiAlias::none;
  if (stem_reduce_.defined()) {
    if (aliased) return stem_reduce_(x, {.activation = config_.activation});
    return activate(anti_aliased(stem_reduce_(x), config_.anti_alias, 2), config_.activation);
  }
  if (config_.anti_alias == AntiAlias::average) return anti_aliased(x, AntiAlias::average, 2);
  const std::int64_t stride = aliased ? 2 : 1;
  const Tensor highest =
      max_pool2d(x, {.kernel_h = 3, .kernel_w = 3, .stride_h = stride, .stride_w = stride, .pad_h = 1, .pad_w = 1});
  return aliased ? highest : blur_pool2d(highest, 2);
}

Tensor ResNet::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  Tensor x = stem(images);
  detail::observe_nchw(observer, "act1", x);
  if (stage_done) stage_done(0, x);
  x = reduce(x);
  detail::observe_nchw(observer, "maxpool", x);
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    for (std::size_t j = 0; j < stages_[i].size(); ++j) {
      x = stages_[i][j](std::move(x));
      if (observer) detail::observe_nchw(observer, fmt::format("layer{}.{}", i + 1, j), x);
    }
    if (observer) detail::observe_nchw(observer, fmt::format("layer{}", i + 1), x);
    if (stage_done) stage_done(i + 1, x);
  }
  return x;
}

// --- arguments ---------------------------------------------------------------------------------------------------

namespace detail {
namespace {

// block: a class name, or one a stage.
std::vector<ResNetBlock> parse_blocks(std::string_view model, const Arguments& arguments) {
  const auto given = arguments.find("block");
  if (given == arguments.end()) throw Error(fmt::format("{}: argument block is missing: BasicBlock or Bottleneck", model));
  std::vector<std::string> names(1);
  ArgumentReader reader(model, arguments);
  given->second.starts_with('[') ? reader.get("block", names) : reader.get("block", names[0]);
  std::vector<ResNetBlock> blocks;
  for (const std::string& name : names)
    blocks.push_back(static_cast<ResNetBlock>(parse_choice(model, "block", name, {"BasicBlock", "Bottleneck"})));
  return blocks;
}

// block_args: {"attn_layer": "se" or "eca", "rd_ratio": 0.25}; timm binds the ratio into the layer.
void parse_block_args(std::string_view model, const Arguments& arguments, ResNetConfig& c) {
  const auto given = arguments.find("block_args");
  if (given == arguments.end() || given->second == "null") return;
  const Arguments block_args = parse_json_arguments(given->second, fmt::format("{}: block_args", model));
  std::string attn_layer;
  ArgumentReader(model, block_args).get("attn_layer", attn_layer).get("rd_ratio", c.rd_ratio).finish();
  c.gate = static_cast<ResNetGate>(parse_choice(model, "attn_layer", attn_layer, {"", "se", "eca"}));
}

std::unique_ptr<Backbone> build_resnet(const Variant& variant, const Weights& w, const Arguments& arguments) {
  ResNetConfig c;
  c.name = variant.name;
  std::string pool = "avg", stem_type, act_layer = "relu", norm_layer = "batchnorm2d", aa_layer;
  double norm_eps = c.norm.eps;
  ArgumentReader(variant.name, arguments)
      .get("layers", c.layers)
      .get("num_classes", c.num_classes)
      .get("in_chans", c.in_chans)
      .get("output_stride", c.output_stride)
      .get("global_pool", pool)
      .get("cardinality", c.cardinality)
      .get("base_width", c.base_width)
      .get("stem_width", c.stem_width)
      .get("stem_type", stem_type)
      .get("replace_stem_pool", c.replace_stem_pool)
      .get("block_reduce_first", c.block_reduce_first)
      .get("down_kernel_size", c.down_kernel_size)
      .get("avg_down", c.avg_down)
      .get("channels", c.channels)
      .get("act_layer", act_layer)
      .get("norm_layer", norm_layer)
      .get("norm_eps", norm_eps)
      .get("aa_layer", aa_layer)
      .ignore({"block", "block_args", "drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last", "img_size"})
      .finish();
  c.block = parse_blocks(c.name, arguments);
  parse_block_args(c.name, arguments, c);
  c.global_pool = parse_global_pool(c.name, pool);
  c.stem = static_cast<ResNetStem>(parse_choice(c.name, "stem_type", stem_type, {"", "deep", "deep_tiered"}));
  c.activation = parse_activation(act_layer);
  require(norm_eps > 0 && norm_eps < 1, c.name, "norm_eps is out of range");
  constexpr std::int64_t kNormGroups[] = {0, 0, 0, kGroups, kGroups, 1, 1};
  c.norm = {norm_eps, kNormGroups[parse_choice(
                          c.name, "norm_layer", norm_layer,
                          {"batchnorm2d", "BatchNorm2d", "batchnorm", "groupnorm", "GroupNorm", "groupnorm1", "GroupNorm1"})]};
  constexpr AntiAlias kAntiAliases[] = {AntiAlias::none, AntiAlias::average, AntiAlias::average, AntiAlias::average,
                                        AntiAlias::blur, AntiAlias::blur,    AntiAlias::blur};
  c.anti_alias = kAntiAliases[parse_choice(c.name, "aa_layer", aa_layer,
                                           {"", "avg", "avgpool", "AvgPool2d", "blur", "blurpool", "BlurPool2d"})];
  return std::make_unique<ResNet>(w, std::move(c));
}

constexpr Variant kResNetConstructors[] = {{"ResNet", "", ""}};

}  // namespace

constinit const Family kResNetFamily{.name = "resnet",
                                     .source = "arXiv:1512.03385; timm 1.0.31 resnet.py",
                                     .attention = "none: convolutions",
                                     .variants = kResNetVariants,
                                     .build = build_resnet,
                                     .constructors = kResNetConstructors,
                                     .head = "fc",
                                     .pretrained = kResNetPretrained};

}  // namespace detail
}  // namespace vitrine
