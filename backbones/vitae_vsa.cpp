#include <vitrine/backbones/vitae_vsa.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/layers/error.h>

namespace vitrine {
namespace {

constexpr double kReductionEps = 1e-5, kEps = 1e-6, kBatchNormEps = 1e-5;

void check(bool right, const char* what) {
  if (!right) throw Error(fmt::format("vitae_vsa: {}", what));
}

void validate(const VitaeVsaConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const std::size_t stages = c.token_dims.size();
  check(stages >= 1 && stages <= 8, "token_dims, expected one to eight stages");
  for (const auto* list :
       {&c.embed_dims, &c.downsample_ratios, &c.kernel_size, &c.RC_heads, &c.NC_heads, &c.RC_group, &c.NC_group, &c.NC_depth}) {
    check(list->size() >= stages, "a list has fewer entries than token_dims");
    check(std::all_of(list->begin(), list->end(), sane), "lists must be positive");
  }
  check(std::all_of(c.token_dims.begin(), c.token_dims.end(), sane), "token_dims must be positive");
  check(sane(c.img_size) && sane(c.in_chans) && c.window_size > 0 && c.window_size <= 64,
        "img_size, in_chans and window_size must be positive");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  check(c.mlp_ratio > 0 && c.mlp_ratio <= 64, "mlp_ratio is out of range");
  check(c.dilations.size() >= stages, "dilations has fewer entries than token_dims");
  for (std::size_t i = 0; i < stages; ++i) {
    check(c.downsample_ratios[i] == 2 || c.downsample_ratios[i] == 4, "downsample_ratios must be 2 or 4");
    check(
        !c.dilations[i].empty() && c.dilations[i].size() <= 16 && std::all_of(c.dilations[i].begin(), c.dilations[i].end(), sane),
        "dilations must be positive, one to sixteen a stage");
    check(c.token_dims[i] % c.RC_heads[i] == 0 && c.token_dims[i] % c.NC_heads[i] == 0 &&
              c.embed_dims[i] * static_cast<std::int64_t>(c.dilations[i].size()) % c.RC_heads[i] == 0,
          "RC_heads and NC_heads must divide the widths of their stage");
    const std::int64_t from = i == 0 ? c.in_chans : c.token_dims[i - 1],
                       middle = c.wide_pcm ? 2 * c.token_dims[i] : c.embed_dims[i];
    check(from % c.RC_group[i] == 0 && middle % c.RC_group[i] == 0 && c.token_dims[i] % c.RC_group[i] == 0 &&
              c.token_dims[i] % c.NC_group[i] == 0,
          "RC_group and NC_group must divide the widths of their stage");
  }
}

// w.0 and w.1, w.3 and w.4, w.6: convolutions and the batch norms of the first two.
std::array<Conv2d, 3> conv_branch(const Weights& w, const std::array<std::int64_t, 4>& widths,
                                  const std::array<std::int64_t, 3>& strides, std::int64_t groups) {
  std::array<Conv2d, 3> branch;
  for (std::size_t i = 0; i < 3; ++i) {
    const auto index = static_cast<std::int64_t>(3 * i);
    const Weights norm = w / (index + 1);
    Conv2dOptions options{.stride_h = strides[i], .stride_w = strides[i], .pad_h = 1, .pad_w = 1, .groups = groups};
    if (i < 2) options.bn_eps = kBatchNormEps;
    branch[i] = Conv2d(w / index, widths[i], widths[i + 1], 3, 3, options, i < 2 ? &norm : nullptr);
  }
  return branch;
}

Conv2d position_conv(const Weights& w, std::int64_t dim) {
  return {w / "pos", dim, dim, 7, 7, {.pad_h = 3, .pad_w = 3, .groups = dim}};
}

// Its layers keep f32 weights: rounded to bf16, with means of white noise before the head, they alone put the logits 0.015 off
// (of 0.020 in all; PyTorch: 0.024), and the products are a tenth of the model's time.
VariedWindowAttention attention_of(const Weights& w, const VitaeVsaConfig& c, std::int64_t dim, std::int64_t out,
                                   std::int64_t heads) {
  VariedWindowAttentionConfig a;
  a.dim = dim;
  a.out_dim = out;
  a.num_heads = heads;
  a.window_size = {c.window_size, c.window_size};
  return {(w / "attn").in(DType::f32), a};
}

}  // namespace

Tensor VitaeVsa::run_branch(const ConvBranch& branch, const Tensor& x, Tensor residual) {
  const Tensor hidden = branch[1](branch[0](x, {.activation = Activation::silu}), {.activation = Activation::silu});
  return branch[2](hidden, {.residual = std::move(residual)});
}

VitaeVsa::ReductionCell::ReductionCell(const Weights& w, const VitaeVsaConfig& c, std::size_t stage) {
  const std::int64_t from = stage == 0 ? c.in_chans : c.token_dims[stage - 1], embed = c.embed_dims[stage];
  const std::int64_t out = c.token_dims[stage], ratio = c.downsample_ratios[stage], kernel = c.kernel_size[stage];
  const std::int64_t middle = c.wide_pcm ? 2 * out : embed;
  convolutions = conv_branch(w / "PCM", {from, middle, middle, out}, {2, ratio == 4 ? 2 : 1, 1}, c.RC_group[stage]);
  std::int64_t side = c.img_size;  // of the stage's input, which the padding depends on
  for (std::size_t i = 0; i < stage; ++i) side /= c.downsample_ratios[i];
  for (std::size_t i = 0; i < c.dilations[stage].size(); ++i) {
    const std::int64_t dilation = c.dilations[stage][i], reach = (kernel - 1) * dilation + 1;
    const std::int64_t pad = std::max<std::int64_t>(0, (reach - ratio + 1) / 2) + (side % ratio == 0 ? 0 : 1);
    pyramid.emplace_back(
        w / "PRM" / "convs" / static_cast<std::int64_t>(i) / "0", from, embed, kernel, kernel,
        Conv2dOptions{
            .stride_h = ratio, .stride_w = ratio, .pad_h = pad, .pad_w = pad, .dilation_h = dilation, .dilation_w = dilation});
  }
  const auto dim = embed * static_cast<std::int64_t>(pyramid.size());
  if (c.cpe) pos = position_conv(w, dim);
  norm1 = LayerNorm(w / "norm1", dim, kReductionEps);
  attn = attention_of(w, c, dim, out, c.RC_heads[stage]);
  norm2 = LayerNorm(w / "norm2", out, kReductionEps);
  mlp = Mlp(w / "mlp", out, out, Activation::gelu);
}

Tensor VitaeVsa::ReductionCell::operator()(const Tensor& x) const {
  std::vector<Tensor> scales;
  for (const Conv2d& conv : pyramid) scales.push_back(conv(x, {.activation = Activation::gelu}));
  Tensor y = concat(scales, 3);  // [B, H / ratio, W / ratio, dilations embed_dims]
  if (pos.defined()) y = pos(y, {.residual = y});
  Tensor z = attn(norm1(y), run_branch(convolutions, x, {}));  // [B, H / ratio, W / ratio, token_dims]
  const Tensor normed = norm2(z);
  return mlp(normed, std::move(z));
}

VitaeVsa::NormalCell::NormalCell(const Weights& w, const VitaeVsaConfig& c, std::size_t stage) {
  const std::int64_t dim = c.token_dims[stage];
  const auto hidden = static_cast<std::int64_t>(static_cast<double>(dim) * c.mlp_ratio);
  convolutions = conv_branch(w / "PCM", {dim, hidden, dim, dim}, {1, 1, 1}, c.NC_group[stage]);
  if (c.cpe) pos = position_conv(w, dim);
  norm1 = LayerNorm(w / "norm1", dim, kEps);
  attn = attention_of(w, c, dim, dim, c.NC_heads[stage]);
  norm2 = LayerNorm(w / "norm2", dim, kEps);
  mlp = Mlp(w / "mlp", dim, hidden, Activation::gelu);
}

// The position convolution is of the attention's branch only.
Tensor VitaeVsa::NormalCell::operator()(const Tensor& x) const {
  const Tensor y = norm1(pos.defined() ? pos(x, {.residual = x}) : x);
  Tensor z = attn(y, run_branch(convolutions, x, x));
  const Tensor normed = norm2(z);
  return mlp(normed, std::move(z));
}

VitaeVsa::VitaeVsa(const Weights& w, VitaeVsaConfig config) : config_(std::move(config)) {
  validate(config_);
  const VitaeVsaConfig& c = config_;
  std::int64_t stride = 1;
  for (std::size_t i = 0; i < c.token_dims.size(); ++i) {
    const Weights layer = w / "layers" / static_cast<std::int64_t>(i);
    Layer& built = layers_.emplace_back(Layer{ReductionCell(layer / "RC", c, i), {}});
    for (std::int64_t j = 0; j < c.NC_depth[i]; ++j) built.cells.emplace_back(layer / "NC" / j, c, i);
    strides_.push_back(stride *= c.downsample_ratios[i]);
  }
  const std::int64_t features = c.token_dims.back();
  set_head(w / "head", features, c.num_classes);
  in_chans_ = c.in_chans;
  observed_ = detail::ObservedLayout::tokens;
}

Tensor VitaeVsa::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  Tensor x = images;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    x = layers_[i].reduction(x);
    observe(observer, fmt::format("layers.{}.RC", i), x);
    for (const NormalCell& cell : layers_[i].cells) x = cell(x);
    observe(observer, fmt::format("layers.{}", i), x);
    if (stage_done) stage_done(i, x);
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

#define VITRINE_COMMON R"("RC_group": [1, 16, 32, 64], "NC_group": [1, 32, 64, 128], "cpe": true)"
#define VITRINE_S \
  R"("embed_dims": [64, 64, 128, 256], "token_dims": [64, 128, 256, 512], "NC_depth": [2, 2, 8, 2], "NC_heads": [2, 4, 8, 16],)"
#define VITRINE_48M \
  R"("embed_dims": [96, 96, 192, 384], "token_dims": [96, 192, 384, 768], "NC_depth": [2, 2, 11, 2], "NC_heads": [3, 6, 12, 24],)"

#define VITRINE_B                                                                                          \
  R"("embed_dims": [128, 128, 256, 512], "token_dims": [128, 256, 512, 1024], "NC_depth": [2, 2, 12, 2],)" \
  R"("NC_heads": [4, 8, 16, 32], "RC_heads": [4, 8, 16, 32],)" VITRINE_COMMON

constexpr Variant kVitaeVsa[] = {
    {"vitaev2_vsa_s", "{" VITRINE_S R"("wide_pcm": false, "RC_heads": [2, 2, 4, 8],)" VITRINE_COMMON "}", "", "82.7"},
    {"vitaev2_vsa_widepcm_s", "{" VITRINE_S R"("RC_heads": [2, 4, 8, 16],)" VITRINE_COMMON "}", ""},
    {"vitaev2_vsa_widepcm_48m", "{" VITRINE_48M R"("RC_heads": [3, 6, 12, 24],)" VITRINE_COMMON "}", ""},
    {"vitaev2_vsa_widepcm_b", "{" VITRINE_B "}", ""},
    // its last map is smaller than the window below 384 pixels
    {"vitaev2_vsa_widepcm_b_ws12", "{" VITRINE_B R"(, "window_size": 12, "img_size": 384})", R"({"input_size": [3, 384, 384]})"},
};
// The original's spelling, and its class.
constexpr Variant kVitaeVsaConstructors[] = {{"ViTAEv2_VSA_S", kVitaeVsa[0].arguments, ""},
                                             {"ViTAEv2_VSA_widePCM_S", kVitaeVsa[1].arguments, ""},
                                             {"ViTAEv2_VSA_widePCM_48M", kVitaeVsa[2].arguments, ""},
                                             {"ViTAEv2_VSA_widePCM_B", kVitaeVsa[3].arguments, ""},
                                             {"ViTAEv2_VSA_widePCM_B_ws12", kVitaeVsa[4].arguments, ""},
                                             {"ViTAE_VSA_basic", "", ""}};

std::unique_ptr<Backbone> build(const Variant& variant, const Weights& w, const Arguments& arguments) {
  VitaeVsaConfig c;
  auto stages = static_cast<std::int64_t>(c.token_dims.size());
  ArgumentReader(variant.name, arguments)
      .get("img_size", c.img_size)
      .get("in_chans", c.in_chans)
      .get("stages", stages)
      .get("num_classes", c.num_classes)
      .get("window_size", c.window_size)
      .get("embed_dims", c.embed_dims)
      .get("token_dims", c.token_dims)
      .get("downsample_ratios", c.downsample_ratios)
      .get("kernel_size", c.kernel_size)
      .get("dilations", c.dilations)
      .get("RC_heads", c.RC_heads)
      .get("NC_heads", c.NC_heads)
      .get("RC_group", c.RC_group)
      .get("NC_group", c.NC_group)
      .get("NC_depth", c.NC_depth)
      .get("mlp_ratio", c.mlp_ratio)
      .get("wide_pcm", c.wide_pcm)
      .get("cpe", c.cpe)
      // position biases are there whatever relative_pos says
      .ignore({"relative_pos", "drop_rate", "attn_drop_rate", "drop_path_rate", "pretrained"})
      .finish();
  check(stages == static_cast<std::int64_t>(c.token_dims.size()), "stages and token_dims have different lengths");
  return std::make_unique<VitaeVsa>(w, std::move(c));
}

}  // namespace

constinit const Family kVitaeVsaFamily{.name = "vitae_vsa",
                                       .source = "VSA, arXiv:2204.08446; ViTAE-Transformer/ViTAE-VSA",
                                       .attention = "windows of varied place and size",
                                       .variants = kVitaeVsa,
                                       .build = build,
                                       .constructors = kVitaeVsaConstructors};

}  // namespace detail
}  // namespace vitrine
