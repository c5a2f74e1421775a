#include <vitrine/backbones/maxxvit.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/partition.h>
#include <vitrine/backbones/family.h>
#include <vitrine/backbones/maxxvit_variants.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/squeeze_excite.h>

namespace vitrine {

using namespace detail;
using Size = MaxxvitConfig::Size;
using Blocks = std::vector<std::unique_ptr<const Maxxvit::Block>>;

namespace {

// --- parts -------------------------------------------------------------------------------------------------------

// A batch norm that no convolution takes in: scale x + shift, then an activation.
struct ChannelAffine {
  ChannelAffine() = default;
  ChannelAffine(const Weights& w, std::int64_t dim, double eps) : scale(Tensor::empty({dim})), shift(Tensor::empty({dim})) {
    const Tensor weight = w.get("weight", {dim}), bias = w.get("bias", {dim});
    const Tensor mean = w.get("running_mean", {dim}), var = w.get("running_var", {dim});
    for (std::int64_t i = 0; i < dim; ++i) {
      scale.data<float>()[i] = static_cast<float>(weight.data<float>()[i] / std::sqrt(var.data<float>()[i] + eps));
      shift.data<float>()[i] = bias.data<float>()[i] - mean.data<float>()[i] * scale.data<float>()[i];
    }
  }
  // Where maps are; what is to be folded into weights stays on the host.
  ChannelAffine to(Device device) const {
    ChannelAffine there;
    there.scale = scale.to(device);
    there.shift = shift.to(device);
    return there;
  }
  // x is written to; `gates` [B, 1, 1, C], if defined, are a further factor of x.
  Tensor operator()(Tensor x, Activation activation, const Tensor& gates = {}) const {
    const Tensor factor = scale.to(x.dtype());
    multiply_(x, gates.defined() ? multiply(gates, factor) : factor);
    add_(x, shift.to(x.dtype()));
    activate_(x, activation);
    return x;
  }

  Tensor scale, shift;  // f32
};

// The norms of transformer blocks.
struct Norm2d {
  Norm2d() = default;
  Norm2d(const Weights& w, std::int64_t dim, const MaxxvitConfig::Transformer& c) {
    if (c.norm_layer == "batchnorm2d")
      batch = ChannelAffine(w, dim, c.norm_eps).to(w.device());
    else
      layer = LayerNorm(w, dim, c.norm_eps);
  }
  Tensor operator()(const Tensor& x) const { return layer.defined() ? layer(x) : batch(x.clone(), Activation::none); }

  LayerNorm layer;
  ChannelAffine batch;
};

// Halves a map by pooling, then widens it.
struct Downsample {
  Downsample() = default;
  Downsample(const Weights& w, std::int64_t dim, std::int64_t out, std::string_view pool_type, bool bias = true,
             bool same = false)
      : is_max(pool_type.starts_with("max")), same(same), is_defined(true) {
    if (!pool_type.ends_with('2')) pool = {.kernel_h = 3, .kernel_w = 3, .pad_h = 1, .pad_w = 1, .count_include_pad = false};
    if (dim != out) expand = Linear(w / "expand", dim, out, {.bias = bias});
  }
  Tensor operator()(const Tensor& x) const {
    Pool2d p = pool;
    Tensor y = x;
    if (same) {
      const SamePadding rows = same_padding(x.size(1), p.kernel_h, 2), columns = same_padding(x.size(2), p.kernel_w, 2);
      p.pad_h = p.pad_w = 0;
      if (is_max)
        p.pad_h = rows.begin, p.pad_end_h = rows.end, p.pad_w = columns.begin, p.pad_end_w = columns.end;
      else
        y = pad_around(x, rows, columns);  // its zeros count
    }
    y = is_max ? max_pool2d(y, p) : avg_pool2d(y, p);
    return expand.defined() ? expand(y) : y;
  }

  Pool2d pool;
  bool is_max = false, same = false, is_defined = false;
  Linear expand;
};

struct PaddedConv {
  PaddedConv() = default;
  PaddedConv(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t kernel, std::string_view padding,
             Conv2dOptions options, const Weights* bn = nullptr) {
    if (padding == "same") {
      same = SameConv2d(w, in, out, kernel, options, bn);
      return;
    }
    options.pad_h = options.pad_w = (options.stride_h - 1 + kernel - 1) / 2;
    conv = Conv2d(w, in, out, kernel, kernel, options, bn);
  }
  Tensor operator()(const Tensor& x, Epilogue epilogue = {}) const {
    return same.defined() ? same(x, std::move(epilogue)) : conv(x, std::move(epilogue));
  }

  Conv2d conv;
  SameConv2d same;
};

LinearOptions layer_scale(const Weights& w, std::int64_t dim, const std::optional<double>& init_values, bool bias = true) {
  if (!init_values || *init_values == 0) return {.bias = bias};
  return {.bias = bias, .scale = w.get("gamma", {dim})};
}

std::int64_t times(std::int64_t dim, double ratio) { return static_cast<std::int64_t>(static_cast<double>(dim) * ratio); }

// --- convolution blocks ------------------------------------------------------------------------------------------

// 1x1 and batch norm, taking in the batch norm in front of it where there is nothing between.
Linear fold_linear(const Weights& conv, const ChannelAffine& before, const ChannelAffine& after, std::int64_t in,
                   std::int64_t out) {
  Tensor weight = multiply(conv.get("weight", {out, in, 1, 1}).view({out, in}), after.scale.unsqueeze(1));
  Tensor bias = after.shift;
  if (before.scale.defined()) {
    bias = add(bias, Linear(weight, Tensor(), DType::f32)(before.shift));
    multiply_(weight, before.scale);
  }
  return {weight, bias, conv.dtype(), conv.device()};
}

// Norm, 1x1, depthwise, squeeze-excite, 1x1, and a shortcut.
class MbConv final : public Maxxvit::Block {
 public:
  MbConv(const Weights& w, const MaxxvitConfig::Conv& c, std::int64_t in, std::int64_t out, std::int64_t stride)
      : act_(parse_activation(c.act_layer)), pre_act_(c.pre_norm_act), stride_1x1_(stride == 2 && c.stride_mode == "1x1") {
    const double eps = c.norm_eps.value_or(1e-5);
    const std::int64_t mid = make_divisible(static_cast<double>(c.expand_output ? out : in) * c.expand_ratio);
    const bool same = c.padding == "same", dw = c.stride_mode == "dw";
    if (stride == 2) shortcut_ = Downsample(w / "shortcut", in, out, c.pool_type, c.output_bias, same);
    if (stride == 2 && c.stride_mode == "pool") down_ = Downsample(w / "down", in, in, c.downsample_pool_type, true, same);
    pre_norm_ = ChannelAffine(w / "pre_norm", in, eps);
    const bool folds = !c.pre_norm_act && !down_.is_defined;
    conv1_ = fold_linear(w / "conv1_1x1", folds ? pre_norm_ : ChannelAffine(), ChannelAffine(w / "norm1", mid, eps), in, mid);
    pre_norm_ = folds ? ChannelAffine() : pre_norm_.to(w.device());
    const std::int64_t groups = c.group_size == 0 ? 1 : mid / c.group_size;
    const Conv2dOptions options{.stride_h = dw ? stride : 1,
                                .stride_w = dw ? stride : 1,
                                .groups = groups,
                                .bias = false,
                                .bn_eps = c.attn_early ? 0 : eps};
    const Weights norm2 = w / "norm2";
    conv2_ = PaddedConv(w / "conv2_kxk", mid, mid, c.kernel_size, c.padding, options, c.attn_early ? nullptr : &norm2);
    if (c.attn_early) norm2_ = ChannelAffine(norm2, mid, eps).to(w.device());
    se_ = SqueezeExcite(w / (c.attn_early ? "se_early" : "se"), mid, times(c.expand_output ? out : mid, c.attn_ratio),
                        parse_activation(c.attn_act_layer));
    conv3_ = Linear(w / "conv3_1x1", mid, out, {.bias = c.output_bias});
  }

  Tensor operator()(Tensor x) const override {
    Tensor shortcut = shortcut_.is_defined ? shortcut_(x) : x;
    if (pre_norm_.scale.defined()) x = pre_norm_(x.clone(), pre_act_ ? act_ : Activation::none);
    if (down_.is_defined) x = down_(x);
    if (stride_1x1_) x = avg_pool2d(x, {.kernel_h = 1, .kernel_w = 1});
    x = conv1_(x, {.activation = act_});
    if (norm2_.scale.defined()) {
      Tensor y = conv2_(x);
      const Tensor gates = se_.gates(y);
      x = norm2_(std::move(y), act_, gates);
    } else {
      x = conv2_(x, {.activation = act_});
      multiply_(x, se_.gates(x));
    }
    return conv3_(x, {.residual = std::move(shortcut)});
  }

 private:
  Activation act_;
  bool pre_act_, stride_1x1_;
  Downsample shortcut_, down_;
  ChannelAffine pre_norm_, norm2_;
  Linear conv1_, conv3_;
  PaddedConv conv2_;
  SqueezeExcite se_;
};

class ConvNextBlock final : public Maxxvit::Block {
 public:
  ConvNextBlock(const Weights& w, const MaxxvitConfig::Conv& c, std::int64_t in, std::int64_t out, std::int64_t stride) {
    constexpr std::int64_t kKernel = 7;
    const bool pool = c.stride_mode == "pool";
    if (stride == 2) shortcut_ = Downsample(w / "shortcut", in, out, "avg2");
    if (stride == 1 && in != out) widen_ = Linear(w / "shortcut", in, out, {.bias = c.output_bias});
    if (stride == 2 && pool) down_ = Downsample(w / "down", in, in, c.downsample_pool_type);
    const std::int64_t s = pool ? 1 : stride;
    conv_dw_ =
        PaddedConv(w / "conv_dw", in, out, kKernel, "", {.stride_h = s, .stride_w = s, .groups = in, .bias = c.output_bias});
    norm_ = LayerNorm(w / "norm", out, c.norm_eps.value_or(1e-6));
    const std::int64_t hidden = times(out, c.expand_ratio);
    mlp_.activation = parse_activation(c.act_layer);
    mlp_.fc1 = Linear(w / "mlp" / "fc1", out, hidden, {.bias = c.output_bias});
    mlp_.fc2 = Linear(w / "mlp" / "fc2", hidden, out, layer_scale(w / "ls", out, c.init_values, c.output_bias));
  }

  Tensor operator()(Tensor x) const override {
    Tensor shortcut = shortcut_.is_defined ? shortcut_(x) : widen_.defined() ? widen_(x) : x;
    if (down_.is_defined) x = down_(x);
    return mlp_(norm_(conv_dw_(x)), std::move(shortcut));
  }

 private:
  Downsample shortcut_, down_;
  Linear widen_;
  PaddedConv conv_dw_;
  LayerNorm norm_;
  Mlp mlp_;
};

// --- attention blocks --------------------------------------------------------------------------------------------

PartitionAttentionConfig attention_config(const MaxxvitConfig::Transformer& c, std::int64_t dim, PartitionKind kind,
                                          const Size& size) {
  PartitionAttentionConfig a{.dim = dim,
                             .head_dim = c.dim_head,
                             .partition = kind,
                             .size = size,
                             .head_first = c.head_first,
                             .qkv_bias = c.attn_bias,
                             .rel_pos_hidden = c.rel_pos_dim};
  a.rel_pos = c.rel_pos_type == "bias"      ? RelativePosition::table
              : c.rel_pos_type == "bias_tf" ? RelativePosition::table_by_head
              : c.rel_pos_type == "mlp"     ? RelativePosition::mlp
                                            : RelativePosition::none;
  return a;
}

Mlp transformer_mlp(const Weights& w, const MaxxvitConfig::Transformer& c, std::int64_t dim) {
  return {w / "mlp", dim, times(dim, c.expand_ratio), parse_activation(c.act_layer), layer_scale(w / "ls2", dim, c.init_values)};
}

// CoAtNet's: attention over the whole map.
class TransformerBlock final : public Maxxvit::Block {
 public:
  TransformerBlock(const Weights& w, const MaxxvitConfig::Transformer& c, std::int64_t in, std::int64_t out, std::int64_t stride,
                   const Size& map)
      : map_(map) {
    if (stride == 2) {
      shortcut_ = Downsample(w / "shortcut", in, out, c.pool_type, c.shortcut_bias);
      down_ = Downsample(w / "norm1" / "down", in, in, c.pool_type);
    }
    norm1_ = Norm2d(stride == 2 ? w / "norm1" / "norm" : w / "norm1", in, c);
    PartitionAttentionConfig a = attention_config(c, in, PartitionKind::block, map);
    a.head_first = true;  // whatever the argument says, as in the original
    a.attn_dim = c.expand_first ? out : in;
    a.dim_out = out;
    attn_ = PartitionAttention(w / "attn", a, layer_scale(w / "ls1", out, c.init_values, c.attn_bias));
    norm2_ = Norm2d(w / "norm2", out, c);
    mlp_ = transformer_mlp(w, c, out);
  }

  Tensor operator()(Tensor x) const override {
    Tensor y = norm1_(x);
    if (down_.is_defined) y = down_(y);
    if (y.size(1) != map_[0] || y.size(2) != map_[1])
      throw Error(fmt::format("coatnet: a map of {}x{}, expected {}x{}: position biases are of that size; give another img_size",
                              y.size(1), y.size(2), map_[0], map_[1]));
    x = attn_(y, shortcut_.is_defined ? shortcut_(x) : std::move(x));
    const Tensor z = norm2_(x);
    return mlp_(z, std::move(x));
  }

 private:
  Size map_;
  Downsample shortcut_, down_;
  Norm2d norm1_, norm2_;
  PartitionAttention attn_;
  Mlp mlp_;
};

// MaxViT's: attention in blocks, or in grids, and a feed-forward.
class PartitionBlock final : public Maxxvit::Block {
 public:
  PartitionBlock(const Weights& w, const MaxxvitConfig::Transformer& c, std::int64_t dim, PartitionKind kind)
      : norm1_(w / "norm1", dim, c),
        attn_(w / "attn", attention_config(c, dim, kind, kind == PartitionKind::grid ? *c.grid_size : *c.window_size),
              layer_scale(w / "ls1", dim, c.init_values, c.attn_bias)),
        norm2_(w / "norm2", dim, c),
        mlp_(transformer_mlp(w, c, dim)) {}

  Tensor operator()(Tensor x) const override {
    const Tensor y = norm1_(x);
    x = attn_(y, std::move(x));
    const Tensor z = norm2_(x);
    return mlp_(z, std::move(x));
  }

 private:
  Norm2d norm1_;
  PartitionAttention attn_;
  Norm2d norm2_;
  Mlp mlp_;
};

// Blocks and grids side by side, each giving half of the channels.
class ParallelPartitionBlock final : public Maxxvit::Block {
 public:
  ParallelPartitionBlock(const Weights& w, const MaxxvitConfig::Transformer& c, std::int64_t dim) : norm1_(w / "norm1", dim, c) {
    const LinearOptions scaled = layer_scale(w / "ls1", dim, c.init_values, c.attn_bias);
    for (const auto kind : {PartitionKind::block, PartitionKind::grid}) {
      const bool first = kind == PartitionKind::block;
      PartitionAttentionConfig a = attention_config(c, dim, kind, *c.window_size);
      a.dim_out = dim / 2;
      LinearOptions half = scaled;
      if (half.scale.defined()) half.scale = scaled.scale.slice(0, first ? 0 : dim / 2, first ? dim / 2 : dim).clone();
      (first ? block_ : grid_) = PartitionAttention(w / (first ? "attn_block" : "attn_grid"), a, half);
    }
    norm2_ = Norm2d(w / "norm2", dim, c);
    mlp_ = transformer_mlp(w, c, dim);
  }

  Tensor operator()(Tensor x) const override {
    const Tensor y = norm1_(x);
    x = sum(std::move(x), concat(std::array{block_(y), grid_(y)}, 3));
    const Tensor z = norm2_(x);
    return mlp_(z, std::move(x));
  }

 private:
  Norm2d norm1_, norm2_;
  PartitionAttention block_, grid_;
  Mlp mlp_;
};

// --- stages ------------------------------------------------------------------------------------------------------

// Blocks one after the other.
class Sequence final : public Maxxvit::Block {
 public:
  explicit Sequence(Blocks blocks) : blocks_(std::move(blocks)) {}
  Tensor operator()(Tensor x) const override {
    for (const auto& block : blocks_) x = (*block)(std::move(x));
    return x;
  }

 private:
  Blocks blocks_;
};

std::unique_ptr<const Maxxvit::Block> conv_block(const Weights& w, const MaxxvitConfig::Conv& c, std::int64_t in,
                                                 std::int64_t out, std::int64_t stride) {
  if (c.block_type == "convnext") return std::make_unique<ConvNextBlock>(w, c, in, out, stride);
  return std::make_unique<MbConv>(w, c, in, out, stride);
}

std::unique_ptr<const Maxxvit::Block> make_block(const Weights& w, const MaxxvitConfig& c, const std::string& type,
                                                 std::int64_t in, std::int64_t out, std::int64_t stride, const Size& map) {
  const MaxxvitConfig::Transformer& t = c.transformer;
  if (type == "C") return conv_block(w, c.conv, in, out, stride);
  if (type == "T") return std::make_unique<TransformerBlock>(w, t, in, out, stride, map);
  Blocks parts;
  if (type == "M") {
    parts.push_back(conv_block(w / "conv", c.conv, in, out, stride));
    if (!t.no_block_attn) parts.push_back(std::make_unique<PartitionBlock>(w / "attn_block", t, out, PartitionKind::block));
    parts.push_back(std::make_unique<PartitionBlock>(w / "attn_grid", t, out, PartitionKind::grid));
  } else {  // PM
    parts.push_back(conv_block(w / "conv" / "0", c.conv, in, out, stride));
    parts.push_back(conv_block(w / "conv" / "1", c.conv, out, out, 1));
    parts.push_back(std::make_unique<ParallelPartitionBlock>(w / "attn", t, out));
  }
  return std::make_unique<Sequence>(std::move(parts));
}

void validate(const MaxxvitConfig& c, std::string_view model) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto ratio = [](double r) { return r > 0 && r <= 64; };
  const auto choice = [&](std::string_view argument, std::string_view value, std::initializer_list<std::string_view> choices) {
    parse_choice(model, argument, value, choices);
  };
  require(!c.depths.empty() && c.depths.size() <= 8, model, "depths, expected one to eight stages");
  require(c.embed_dim.size() == c.depths.size(), model, "embed_dim and depths have different lengths");
  require(c.block_type.size() >= c.depths.size(), model, "block_type has fewer entries than depths");
  for (std::size_t i = 0; i < c.depths.size(); ++i) {
    require(sane(c.embed_dim[i]) && c.depths[i] >= 0 && c.depths[i] <= 1000, model, "embed_dim and depths are out of range");
    require(!c.block_type[i].empty(), model, "block_type has an empty entry");
    for (const std::string& type : c.block_type[i]) choice("block_type", type, {"C", "T", "M", "PM"});
  }
  require(sane(c.in_chans) && sane(c.img_size[0]) && sane(c.img_size[1]), model, "in_chans and img_size must be positive");
  require(c.num_classes >= 0 && c.num_classes <= 1 << 24, model, "num_classes is out of range");
  require(!c.stem_width.empty() && c.stem_width.size() <= 2 && std::all_of(c.stem_width.begin(), c.stem_width.end(), sane), model,
          "stem_width, expected one or two widths");
  require(c.head_hidden_size >= 0 && c.head_hidden_size <= kMost, model, "head_hidden_size is out of range");
  const auto& v = c.conv;
  choice("conv_block_type", v.block_type, {"mbconv", "convnext"});
  choice("conv_stride_mode", v.stride_mode, {"pool", "1x1", "dw"});
  choice("conv_padding", v.padding, {"", "same"});
  choice("conv_attn_layer", v.attn_layer, {"se"});
  choice("conv_norm_layer", v.norm_layer, {"", v.block_type == "mbconv" ? "batchnorm2d" : "layernorm2d"});
  require(ratio(v.expand_ratio) && ratio(v.attn_ratio) && sane(v.kernel_size) && v.kernel_size <= 64 && v.group_size >= 0, model,
          "conv_expand_ratio, conv_attn_ratio, conv_kernel_size and conv_group_size must be positive");
  const auto& t = c.transformer;
  for (const auto& pool : {v.pool_type, v.downsample_pool_type, t.pool_type})
    choice("pool_type", pool, {"max", "max2", "avg", "avg2"});
  choice("transformer_rel_pos_type", t.rel_pos_type, {"bias", "bias_tf", "mlp", "none", ""});
  choice("transformer_norm_layer", t.norm_layer, {"layernorm2d", "batchnorm2d"});
  require(sane(t.dim_head) && sane(t.rel_pos_dim) && sane(t.partition_ratio) && ratio(t.expand_ratio), model,
          "transformer_dim_head, transformer_rel_pos_dim and transformer_partition_ratio must be positive");
  for (const Size& size : {*t.window_size, *t.grid_size})
    require(
        size[0] > 0 && size[1] > 0 && size[0] <= 256 && size[1] <= 256, model,
        fmt::format("window of {}x{}, expected 1 to 256; img_size over transformer_partition_ratio gives it", size[0], size[1]));
}

// The window follows from img_size, and the grid from the window.
void complete(MaxxvitConfig& c) {
  auto& t = c.transformer;
  const std::int64_t ratio = std::max<std::int64_t>(t.partition_ratio, 1);
  if (t.window_size && !t.grid_size) t.grid_size = t.window_size;
  if (!t.window_size) t.window_size = t.grid_size = Size{c.img_size[0] / ratio, c.img_size[1] / ratio};
}

}  // namespace

// Two convolutions, the first of stride 2, with a norm between.
struct Maxxvit::Stem {
  PaddedConv conv1, conv2;
  LayerNorm norm1;  // of convnext; batch norms are in conv1
  Activation act;
};

struct Maxxvit::Head {
  Norm2d norm;
  Linear hidden;  // MaxViT's: mean, norm, linear layer, tanh; else norm, mean
  GlobalPool pool = GlobalPool::avg;
};

Maxxvit::Maxxvit(const Weights& w, MaxxvitConfig config, std::string_view model) : config_(std::move(config)) {
  complete(config_);
  validate(config_, model);
  const MaxxvitConfig& c = config_;
  const bool is_mbconv = c.conv.block_type == "mbconv";
  const double eps = c.conv.norm_eps.value_or(is_mbconv ? 1e-5 : 1e-6);
  const std::int64_t first = c.stem_width[0], last = c.stem_width.back();
  const Weights stem = w / "stem", norm1 = stem / "norm1";
  Stem s;
  s.act = parse_activation(c.conv.act_layer);
  const Conv2dOptions halve{.stride_h = 2, .stride_w = 2, .bias = c.stem_bias, .bn_eps = is_mbconv ? eps : 0};
  s.conv1 = PaddedConv(stem / "conv1", c.in_chans, first, 3, c.conv.padding, halve, is_mbconv ? &norm1 : nullptr);
  if (!is_mbconv) s.norm1 = LayerNorm(norm1, first, eps);
  s.conv2 = PaddedConv(stem / "conv2", first, last, 3, c.conv.padding, {.bias = c.stem_bias});
  stem_ = std::make_shared<const Stem>(std::move(s));
  strides_.push_back(2);

  Size map{c.img_size[0] / 2, c.img_size[1] / 2};
  std::int64_t dim = last;
  for (std::size_t i = 0; i < c.depths.size(); ++i) {
    map = {(map[0] - 1) / 2 + 1, (map[1] - 1) / 2 + 1};
    const Weights blocks = w / "stages" / static_cast<std::int64_t>(i) / "blocks";
    auto& built = stages_.emplace_back();
    for (std::int64_t j = 0; j < c.depths[i]; ++j) {
      const auto& types = c.block_type[i];
      const std::string& type = types[std::min(static_cast<std::size_t>(j), types.size() - 1)];
      built.push_back(make_block(blocks / j, c, type, dim, c.embed_dim[i], j == 0 ? 2 : 1, map));
      dim = c.embed_dim[i];
    }
    strides_.push_back(std::int64_t{4} << i);
  }

  Head head;
  head.pool = parse_global_pool(model, c.global_pool);
  const bool has_hidden = c.head_hidden_size > 0;
  require(!has_hidden || head.pool != GlobalPool::catavgmax, model, "global_pool=catavgmax does not go with head_hidden_size");
  head.norm = Norm2d(has_hidden ? w / "head" / "norm" : w / "norm", dim, c.transformer);
  if (has_hidden) head.hidden = Linear(w / "head" / "pre_logits" / "fc", dim, c.head_hidden_size);
  const std::int64_t pooled = head.pool == GlobalPool::catavgmax ? 2 * dim : dim;
  top_ = std::make_shared<const Head>(std::move(head));
  set_head(w / "head" / "fc", has_hidden ? c.head_hidden_size : pooled, c.num_classes);
  in_chans_ = c.in_chans;
}

Tensor Maxxvit::final_norm(const Tensor& x) const { return top_->hidden.defined() ? x : top_->norm(x); }

Tensor Maxxvit::pool(const Tensor& features) const {
  const Tensor pooled = global_pool(features, top_->pool);
  return top_->hidden.defined() ? top_->hidden(top_->norm(pooled), {.activation = Activation::tanh}) : pooled;
}

Tensor Maxxvit::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  const Stem& stem = *stem_;
  Tensor x = stem.conv1(images, {.activation = stem.norm1.defined() ? Activation::none : stem.act});
  if (stem.norm1.defined()) {
    x = stem.norm1(x);
    activate_(x, stem.act);
  }
  x = stem.conv2(x);
  if (stage_done) stage_done(0, x);
  if (observer) observer("stem", x);
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    for (std::size_t j = 0; j < stages_[i].size(); ++j) {
      x = (*stages_[i][j])(std::move(x));
      if (observer) observer(fmt::format("stages.{}.blocks.{}", i, j), x);
    }
    if (stage_done) stage_done(i + 1, x);
    if (observer) observer(fmt::format("stages.{}", i), x);
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

constexpr std::string_view kPreprocess = R"({"crop_pct":0.95,"mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5]})";

std::unique_ptr<Backbone> build(const Variant& variant, const Weights& w, const Arguments& arguments) {
  MaxxvitConfig c;
  // a model's windows follow from the size that it was published for
  const PreprocessConfig published =
      parse_pretrained_config(variant.preprocess, variant.name, parse_pretrained_config(kPreprocess, variant.name));
  c.img_size = {published.height, published.width};
  std::string norm_layer_cl = "layernorm";
  auto& v = c.conv;
  auto& t = c.transformer;
  ArgumentReader(variant.name, arguments)
      .get("img_size", c.img_size)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("global_pool", c.global_pool)
      .get("embed_dim", c.embed_dim)
      .get("depths", c.depths)
      .get("block_type", c.block_type)
      .get_list("stem_width", c.stem_width)
      .get("stem_bias", c.stem_bias)
      .get("head_hidden_size", c.head_hidden_size)
      .get("conv_block_type", v.block_type)
      .get("conv_expand_ratio", v.expand_ratio)
      .get("conv_expand_output", v.expand_output)
      .get("conv_kernel_size", v.kernel_size)
      .get("conv_group_size", v.group_size)
      .get("conv_pre_norm_act", v.pre_norm_act)
      .get("conv_output_bias", v.output_bias)
      .get("conv_stride_mode", v.stride_mode)
      .get("conv_pool_type", v.pool_type)
      .get("conv_downsample_pool_type", v.downsample_pool_type)
      .get("conv_padding", v.padding)
      .get("conv_attn_early", v.attn_early)
      .get("conv_attn_layer", v.attn_layer)
      .get("conv_attn_act_layer", v.attn_act_layer)
      .get("conv_attn_ratio", v.attn_ratio)
      .get("conv_init_values", v.init_values)
      .get("conv_act_layer", v.act_layer)
      .get("conv_norm_layer", v.norm_layer)
      .get("conv_norm_eps", v.norm_eps)
      .get("transformer_dim_head", t.dim_head)
      .get("transformer_head_first", t.head_first)
      .get("transformer_expand_ratio", t.expand_ratio)
      .get("transformer_expand_first", t.expand_first)
      .get("transformer_shortcut_bias", t.shortcut_bias)
      .get("transformer_attn_bias", t.attn_bias)
      .get("transformer_pool_type", t.pool_type)
      .get("transformer_rel_pos_type", t.rel_pos_type)
      .get("transformer_rel_pos_dim", t.rel_pos_dim)
      .get("transformer_partition_ratio", t.partition_ratio)
      .get("transformer_window_size", t.window_size)
      .get("transformer_grid_size", t.grid_size)
      .get("transformer_no_block_attn", t.no_block_attn)
      .get("transformer_use_nchw_attn", t.use_nchw_attn)
      .get("transformer_init_values", t.init_values)
      .get("transformer_act_layer", t.act_layer)
      .get("transformer_norm_layer", t.norm_layer)
      .get("transformer_norm_layer_cl", norm_layer_cl)
      .get("transformer_norm_eps", t.norm_eps)
      .ignore(
          {"drop_rate", "drop_path_rate", "weight_init", "conv_norm_layer_cl", "transformer_attn_drop", "transformer_proj_drop"})
      .finish();
  parse_choice(variant.name, "transformer_norm_layer_cl", norm_layer_cl, {"layernorm"});
  return std::make_unique<Maxxvit>(w, std::move(c), variant.name);
}

constexpr Variant kConstructors[] = {{"MaxxVit", "", ""}};

}  // namespace

constinit const Family kMaxxvitFamily{.name = "maxvit",
                                      .source = "arXiv:2204.01697, arXiv:2106.04803; timm 1.0.31",
                                      .attention = "blocks and grids (MaxViT), global with relative positions (CoAtNet)",
                                      .variants = kMaxxvitVariants,
                                      .build = build,
                                      .constructors = kConstructors,
                                      .preprocess = kPreprocess,
                                      .head = "head.fc",
                                      .pretrained = kMaxxvitPretrained};

}  // namespace detail
}  // namespace vitrine
