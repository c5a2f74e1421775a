#include <vitrine/backbones/halonet.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

using namespace detail;

namespace {

ConvNorm conv_norm(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride = 1,
                   std::int64_t groups = 1) {
  return {w / "conv",
          w / "bn",
          in,
          out,
          kernel,
          {.stride_h = stride, .stride_w = stride, .pad_h = kernel / 2, .pad_w = kernel / 2, .groups = groups, .bias = false}};
}

void validate(const HaloNetConfig& c, std::string_view model) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  require(!c.stages.empty() && c.stages.size() <= 8, model, "stages, expected one to eight");
  for (const HaloStage& s : c.stages) {
    require(!s.blocks.empty() && s.blocks.size() <= 1000 && s.blocks.find_first_not_of("ab") == std::string::npos, model,
            "blocks, expected a letter for each, a or b");
    require(sane(s.width) && (s.stride == 1 || s.stride == 2) && sane(s.num_heads), model,
            "widths, strides and num_heads are out of range");
  }
  require(c.bottle_ratio.size() == c.stages.size(), model, "bottle_ratio, expected one or one a stage");
  for (const double r : c.bottle_ratio) require(r > 0 && r <= 64, model, "bottle_ratio is out of range");
  require(sane(c.in_chans) && sane(c.stem_width), model, "in_chans and stem_chs must be positive");
  require(c.num_classes >= 0 && c.num_classes <= 1 << 24, model, "num_classes is out of range");
  require(c.num_features >= 0 && c.num_features <= kMost, model, "num_features is out of range");
  require(c.group_size >= 0 && c.dim_head >= 0 && c.dim_head <= kMost, model, "group_size and dim_head are out of range");
  require(c.block_size > 0 && c.block_size <= 64 && c.halo_size >= 0 && c.halo_size <= 64, model,
          "block_size and halo_size are out of range");
  require(c.qk_ratio > 0 && c.qk_ratio <= 16 && c.rd_ratio > 0 && c.rd_ratio <= 16, model,
          "qk_ratio and rd_ratio are out of range");
  parse_choice(model, "stem_type", c.stem_type, {"tiered", "7x7", "3x3", ""});
  parse_choice(model, "stem_pool", c.stem_pool, {"maxpool", ""});
  parse_choice(model, "downsample", c.downsample, {"conv1x1", "avg", ""});
  parse_choice(model, "attn_layer", c.attn_layer, {"", "se", "eca"});
}

}  // namespace

Tensor HaloNet::Block::middle(const Tensor& x) const {
  if (!attention.q.defined()) {
    Tensor y = conv2(x, {.activation = act});
    if (se.defined()) multiply_(y, se.gates(y));
    if (eca.defined()) multiply_(y, eca.gates(y));
    return y;
  }
  Tensor y = attention(x);
  if (pools_attention) y = avg_pool2d(y, {});
  multiply_(y, scale.to(y.dtype()));
  add_(y, shift.to(y.dtype()));
  activate_(y, act);
  return y;
}

Tensor HaloNet::Block::operator()(Tensor x) const {
  const Tensor y = middle(conv1(x, {.activation = act}));
  if (!has_shortcut) return conv3(y, {.activation = last_act});
  if (pools_shortcut) x = avg_pool2d(x, {.count_include_pad = false, .ceil_mode = true});
  if (shortcut.defined()) x = shortcut(x);
  return conv3(y, {.activation = last_act, .residual = std::move(x), .activate_sum = true});
}

HaloNet::Block HaloNet::make_block(const Weights& w, std::size_t stage, char type, std::int64_t in, std::int64_t stride) const {
  const HaloNetConfig& c = config_;
  const HaloStage& s = c.stages[stage];
  const std::int64_t out = make_divisible(static_cast<double>(s.width));
  const std::int64_t mid = make_divisible(static_cast<double>(c.bottle_in ? in : out) * c.bottle_ratio[stage]);
  Block block;
  block.act = act_;
  block.last_act = c.linear_out ? Activation::none : act_;
  if (in != out || stride != 1) {
    block.has_shortcut = !c.downsample.empty();
    block.pools_shortcut = c.downsample == "avg" && stride > 1;
    if (block.has_shortcut) {
      const Weights below = c.downsample == "avg" ? w / "shortcut" / "conv" : w / "shortcut";
      block.shortcut = conv_norm(below, in, out, 1, c.downsample == "avg" ? 1 : stride);
    }
  }
  block.conv1 = conv_norm(w / "conv1_1x1", in, mid, 1);
  if (type == 'b') {
    require(c.group_size == 0 || mid % c.group_size == 0, model_, "group_size must divide the bottleneck's width");
    block.conv2 = conv_norm(w / "conv2_kxk", mid, mid, 3, stride, c.group_size == 0 ? 1 : mid / c.group_size);
    if (c.attn_layer == "se")
      block.se = SqueezeExcite(w / "attn", mid, make_divisible(static_cast<double>(mid) * c.rd_ratio, 8, 0.0));
    if (c.attn_layer == "eca") block.eca = EfficientChannelAttention(w / "attn", mid);
  } else {
    require(mid % s.num_heads == 0, model_, fmt::format("{} heads do not divide a width of {}", s.num_heads, mid));
    block.pools_attention = c.block_size % stride != 0;
    HaloAttentionConfig a{.dim = mid, .num_heads = s.num_heads};
    a.head_dim = c.dim_head > 0 ? c.dim_head : make_divisible(static_cast<double>(mid) * c.qk_ratio) / s.num_heads;
    a.value_head_dim = mid / s.num_heads;
    a.block_size = c.block_size;
    a.halo_size = c.halo_size;
    a.stride = block.pools_attention ? 1 : stride;
    block.attention = HaloAttention(w / "self_attn", a);
    const Weights norm = w / "post_attn";
    const Tensor weight = norm.get("weight", {mid}), bias = norm.get("bias", {mid});
    const Tensor mean = norm.get("running_mean", {mid}), var = norm.get("running_var", {mid});
    block.scale = Tensor::empty({mid}), block.shift = Tensor::empty({mid});
    for (std::int64_t i = 0; i < mid; ++i) {
      const double scale = weight.data<float>()[i] / std::sqrt(var.data<float>()[i] + 1e-5);
      block.scale.data<float>()[i] = static_cast<float>(scale);
      block.shift.data<float>()[i] = static_cast<float>(bias.data<float>()[i] - mean.data<float>()[i] * scale);
    }
    block.scale = block.scale.to(w.device());
    block.shift = block.shift.to(w.device());
  }
  block.conv3 = conv_norm(w / "conv3_1x1", mid, out, 1);
  return block;
}

// Convolutions of which the first and, where no pooling follows, the last halve the map.
void HaloNet::build_stem(const Weights& w) {
  const HaloNetConfig& c = config_;
  const bool tiered = c.stem_type == "tiered", single = !tiered && c.stem_pool.empty();
  const std::vector<std::int64_t> widths =
      tiered ? std::vector{3 * c.stem_width / 8, c.stem_width / 2, c.stem_width} : std::vector{c.stem_width};
  std::int64_t in = c.in_chans;
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const bool halves = i == 0 || (i + 1 == widths.size() && c.stem_pool.empty());
    const Weights conv = single ? w : w / fmt::format("conv{}", i + 1);
    stem_.push_back(conv_norm(conv, in, widths[i], c.stem_type == "7x7" ? 7 : 3, halves ? 2 : 1));
    in = widths[i];
  }
}

HaloNet::HaloNet(const Weights& w, HaloNetConfig config, std::string_view model) : config_(std::move(config)), model_(model) {
  HaloNetConfig& c = config_;
  if (c.bottle_ratio.size() == 1) c.bottle_ratio.resize(c.stages.size(), c.bottle_ratio[0]);
  validate(c, model);
  pool_ = parse_global_pool(model, c.global_pool);
  act_ = parse_activation(c.act_layer);
  build_stem(w / "stem");
  const bool tapped = stem_.size() > 1 || !c.stem_pool.empty();  // the stem has a map of stride 2 inside
  std::int64_t dim = c.stem_width, stride = tapped ? 4 : 2;
  strides_.push_back(2);
  for (std::size_t i = 0; i < c.stages.size(); ++i) {
    const Weights stage = w / "stages" / static_cast<std::int64_t>(i);
    auto& blocks = stages_.emplace_back();
    for (const char type : c.stages[i].blocks) {
      blocks.push_back(
          make_block(stage / static_cast<std::int64_t>(blocks.size()), i, type, dim, blocks.empty() ? c.stages[i].stride : 1));
      dim = make_divisible(static_cast<double>(c.stages[i].width));
    }
    strides_.push_back(stride *= c.stages[i].stride);
  }
  if (c.num_features > 0) {
    final_conv_ = conv_norm(w / "final_conv", dim, c.num_features, 1);
    dim = c.num_features;
  }
  set_head(w / "head" / "fc", pool_ == GlobalPool::catavgmax ? 2 * dim : dim, c.num_classes);
  in_chans_ = c.in_chans;
}

Tensor HaloNet::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  const bool pools = !config_.stem_pool.empty();
  Tensor x = images;
  for (std::size_t i = 0; i < stem_.size(); ++i) {
    x = stem_[i](x, {.activation = act_});
    const std::size_t tap = pools || stem_.size() == 1 ? stem_.size() - 1 : stem_.size() - 2;
    if (i == tap && stage_done) stage_done(0, x);
  }
  if (pools) x = max_pool2d(x, {.kernel_h = 3, .kernel_w = 3, .pad_h = 1, .pad_w = 1});
  if (observer) observer("stem", x);
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    for (std::size_t j = 0; j < stages_[i].size(); ++j) {
      x = stages_[i][j](std::move(x));
      if (observer) observer(fmt::format("stages.{}.{}", i, j), x);
    }
    if (observer) observer(fmt::format("stages.{}", i), x);
    if (i + 1 == stages_.size() && final_conv_.defined()) x = final_conv_(x, {.activation = act_});
    if (stage_done) stage_done(i + 1, x);
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

std::unique_ptr<Backbone> build(const Variant& variant, const Weights& w, const Arguments& arguments) {
  HaloNetConfig c;
  std::vector<std::string> blocks;
  std::vector<std::int64_t> widths, strides{1, 2, 2, 2}, num_heads{8};
  ArgumentReader(variant.name, arguments)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("global_pool", c.global_pool)
      .get("blocks", blocks)
      .get("widths", widths)
      .get("strides", strides)
      .get_list("num_heads", num_heads)
      .get("group_size", c.group_size)
      .get_list("bottle_ratio", c.bottle_ratio)
      .get("bottle_in", c.bottle_in)
      .get("linear_out", c.linear_out)
      .get("downsample", c.downsample)
      .get("stem_chs", c.stem_width)
      .get("stem_type", c.stem_type)
      .get("stem_pool", c.stem_pool)
      .get("act_layer", c.act_layer)
      .get("attn_layer", c.attn_layer)
      .get("rd_ratio", c.rd_ratio)
      .get("num_features", c.num_features)
      .get("block_size", c.block_size)
      .get("halo_size", c.halo_size)
      .get("dim_head", c.dim_head)
      .get("qk_ratio", c.qk_ratio)
      .ignore(
          {"drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last", "img_size"})  // any whole number of blocks fits
      .finish();
  if (num_heads.size() == 1) num_heads.resize(blocks.size(), num_heads[0]);
  require(widths.size() == blocks.size() && strides.size() == blocks.size() && num_heads.size() == blocks.size(), variant.name,
          "blocks, widths, strides and num_heads have different lengths");
  for (std::size_t i = 0; i < blocks.size(); ++i) c.stages.push_back({blocks[i], widths[i], strides[i], num_heads[i]});
  return std::make_unique<HaloNet>(w, std::move(c), variant.name);
}

// Where attention is: the blocks of timm's configurations, written out.
constexpr Variant kVariants[] = {
    {"eca_halonext26ts",
     R"({"blocks":["bb","bb","ba","aa"],"widths":[256,512,1024,2048],"group_size":16,"act_layer":"silu","attn_layer":"eca",)"
     R"("halo_size":2,"dim_head":16})",
     R"({"input_size":[3,256,256],"crop_pct":0.94})"},
    {"halonet26t", R"({"blocks":["bb","bb","ba","aa"],"widths":[256,512,1024,2048],"halo_size":2})",
     R"({"input_size":[3,256,256]})"},
    {"halonet50ts",
     R"({"blocks":["bbb","bbba","bababa","bab"],"widths":[256,512,1024,2048],"num_heads":[8,4,8,8],"act_layer":"silu"})",
     R"({"input_size":[3,256,256],"crop_pct":0.94})"},
    {"halonet_h1", R"({"blocks":["aaa","aaa","aaaaaaaaaa","aaa"],"widths":[64,128,256,512],"bottle_ratio":1,"stem_type":"7x7"})",
     R"({"input_size":[3,256,256]})"},
    {"haloregnetz_b",
     R"({"blocks":["bb","bbbbbb","bbbabbbabbba","aa"],"widths":[48,96,192,288],"strides":[2,2,2,2],"group_size":16,)"
     R"("bottle_ratio":3,"bottle_in":true,"linear_out":true,"stem_chs":32,"stem_type":"3x3","stem_pool":"","downsample":"",)"
     R"("num_features":1536,"act_layer":"silu","attn_layer":"se","rd_ratio":0.25,"block_size":7,"halo_size":2,"qk_ratio":0.33})",
     R"({"crop_pct":0.94,"mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5]})"},
    {"sehalonet33ts",
     R"({"blocks":["bb","bba","bba","aa"],"widths":[256,512,1024,1536],"bottle_ratio":[0.25,0.25,0.25,0.333],"stem_pool":"",)"
     R"("num_features":1280,"act_layer":"silu","attn_layer":"se"})",
     R"({"input_size":[3,256,256],"crop_pct":0.94})"},
};

constexpr Variant kPretrained[] = {
    {"eca_halonext26ts.c1_in1k", "", ""}, {"halonet26t.a1h_in1k", "", ""},    {"halonet50ts.a1h_in1k", "", ""},
    {"halonet_h1.untrained", "", ""},     {"haloregnetz_b.ra3_in1k", "", ""}, {"sehalonet33ts.ra2_in1k", "", ""},
};

}  // namespace

constinit const Family kHaloNetFamily{.name = "halonet",
                                      .source = "arXiv:2103.12731; timm 1.0.31",
                                      .attention = "blocks with halos",
                                      .variants = kVariants,
                                      .build = build,
                                      .preprocess = R"({"crop_pct":0.95})",
                                      .head = "head.fc",
                                      .pretrained = kPretrained};

}  // namespace detail
}  // namespace vitrine
