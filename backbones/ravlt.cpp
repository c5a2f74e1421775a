#include <vitrine/backbones/ravlt.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/layers/error.h>

namespace vitrine {
namespace {

constexpr double kEps = 1e-6, kBatchNormEps = 1e-5;

void check(bool right, const char* what) {
  if (!right) throw Error(fmt::format("ravlt: {}", what));
}

void validate(const RavltConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const std::size_t stages = c.depths.size();
  check(stages >= 1 && stages <= 8, "depths, expected one to eight stages");
  check(c.embed_dims.size() == stages && c.num_heads.size() >= stages && c.mlp_ratios.size() >= stages &&
            c.layerscales.size() >= stages && c.flagss.size() >= stages,
        "embed_dims, num_heads, mlp_ratios, layerscales and flagss need an entry for each stage of depths");
  check(sane(c.in_chans) && sane(c.projection), "in_chans and projection must be positive");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  check(c.embed_dims[0] % 2 == 0, "embed_dims must start with an even number");
  for (std::size_t i = 0; i < stages; ++i) {
    check(sane(c.depths[i]) && sane(c.embed_dims[i]) && sane(c.num_heads[i]),
          "depths, embed_dims and num_heads must be positive");
    check(c.embed_dims[i] % (4 * c.num_heads[i]) == 0, "embed_dims must be a multiple of four times num_heads");
    check(c.mlp_ratios[i] > 0 && c.mlp_ratios[i] <= 64, "mlp_ratios are out of range");
    check(static_cast<std::int64_t>(c.flagss[i].size()) >= c.depths[i], "flagss has fewer entries than a stage has blocks");
    check(std::all_of(c.flagss[i].begin(), c.flagss[i].end(), [](const std::string& f) { return f == "l" || f == "v"; }),
          "flagss must be \"l\" or \"v\"");
  }
}

Conv2dOptions depthwise(std::int64_t channels) { return {.pad_h = 1, .pad_w = 1, .groups = channels}; }

// A 3x3 convolution and its batch norm.
Conv2d normed(const Weights& w, const Weights& norm, std::int64_t in, std::int64_t out, std::int64_t stride) {
  return {w, in, out, 3, 3, {.stride_h = stride, .stride_w = stride, .pad_h = 1, .pad_w = 1, .bn_eps = kBatchNormEps}, &norm};
}

}  // namespace

Ravlt::Block::Block(const Weights& w, const RavltConfig& c, std::size_t stage, std::size_t index) {
  const std::int64_t dim = c.embed_dims[stage];
  const auto hidden = static_cast<std::int64_t>(c.mlp_ratios[stage] * static_cast<double>(dim));
  const Weights ffn = w / "ffn";
  LinearOptions scale1, scale2;
  if (c.layerscales[stage]) {
    scale1.scale = w.get("gamma_1", {1, dim, 1, 1}).view({dim});
    scale2.scale = w.get("gamma_2", {1, dim, 1, 1}).view({dim});
  }
  pos = Conv2d(w / "pos", dim, dim, 3, 3, depthwise(dim));
  norm1 = LayerNorm(w / "norm1" / "norm", dim, kEps);
  attn =
      RalaAttention(w / "attn", {.dim = dim, .num_heads = c.num_heads[stage], .linear = c.flagss[stage][index] == "l"}, scale1);
  norm2 = LayerNorm(w / "norm2" / "norm", dim, kEps);
  fc1 = Linear(ffn / "fc1", dim, hidden);
  dwconv = Conv2d(ffn / "dwconv", hidden, hidden, 3, 3, depthwise(hidden));
  fc2 = Linear(ffn / "fc2", hidden, dim, scale2);
}

Tensor Ravlt::Block::operator()(Tensor x) const {  // [B, H, W, C]
  x = pos(x, {.residual = x});
  const Tensor y = norm1(x);
  x = attn(y, std::move(x));
  const Tensor hidden = fc1(norm2(x), {.activation = Activation::gelu});  // [B, H, W, mlp_ratio C]
  return fc2(dwconv(hidden, {.residual = hidden}), {.residual = std::move(x)});
}

Ravlt::Ravlt(const Weights& w, RavltConfig config) : config_(std::move(config)) {
  if (config_.flagss.empty())
    for (std::size_t i = 0; i < config_.depths.size(); ++i)
      config_.flagss.emplace_back(static_cast<std::size_t>(std::clamp<std::int64_t>(config_.depths[i], 0, 1 << 16)),
                                  i < 2 ? "l" : "v");
  validate(config_);
  const RavltConfig& c = config_;
  const Weights embed = w / "patch_embed" / "proj";
  const std::int64_t half = c.embed_dims[0] / 2;
  patch_embed_ = {normed(embed / "0", embed / "1", c.in_chans, half, 2), normed(embed / "3", embed / "4", half, half, 1),
                  normed(embed / "6", embed / "7", half, half, 1), normed(embed / "9", embed / "10", half, c.embed_dims[0], 2)};
  for (std::size_t i = 0; i < c.depths.size(); ++i) {
    const Weights layer = w / "layers" / static_cast<std::int64_t>(i), down = layer / "downsample";
    Layer& built = layers_.emplace_back();
    for (std::int64_t j = 0; j < c.depths[i]; ++j)
      built.blocks.emplace_back(layer / "blocks" / j, c, i, static_cast<std::size_t>(j));
    if (i + 1 < c.depths.size())
      built.downsample = normed(down / "reduction", down / "norm", c.embed_dims[i], c.embed_dims[i + 1], 2);
    (layer / "RoPE").ignore("angle");  // a buffer of files
    strides_.push_back(std::int64_t{4} << i);
  }
  const Weights norm = w / "norm";
  proj_ = Conv2d(w / "proj", c.embed_dims.back(), c.projection, 1, 1, {.bn_eps = kBatchNormEps}, &norm);
  set_head(w / "head", c.projection, c.num_classes);
  in_chans_ = c.in_chans;
  observed_ = detail::ObservedLayout::nchw;
  final_name_ = "swish";
}

// A layer's map is taken before the downsampling, the observer sees it after.
Tensor Ravlt::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  Tensor x = images;
  for (std::size_t i = 0; i < patch_embed_.size(); ++i)
    x = patch_embed_[i](x, {.activation = i + 1 < patch_embed_.size() ? Activation::gelu : Activation::none});
  observe(observer, "patch_embed", x);  // [B, H / 4, W / 4, embed_dims[0]]
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    for (std::size_t j = 0; j < layers_[i].blocks.size(); ++j) {
      x = layers_[i].blocks[j](std::move(x));
      observe(observer, fmt::format("layers.{}.blocks.{}", i, j), x);
    }
    if (stage_done) stage_done(i, x);
    if (layers_[i].downsample.defined()) x = layers_[i].downsample(x);
    observe(observer, fmt::format("layers.{}", i), x);
  }
  return x;
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

#define VITRINE_SCALED R"("mlp_ratios": [3.5, 3.5, 3.5, 3.5], "layerscales": [true, true, true, true])"

constexpr Variant kRavlt[] = {
    {"ravlt_t", R"({"embed_dims": [64, 128, 256, 512], "depths": [2, 2, 6, 2], "num_heads": [1, 2, 4, 8],)" VITRINE_SCALED "}",
     ""},
    {"ravlt_s", R"({"embed_dims": [64, 128, 320, 512], "depths": [3, 5, 9, 3], "num_heads": [1, 2, 5, 8],)" VITRINE_SCALED "}",
     "", "84.4"},
    {"ravlt_b", R"({"embed_dims": [96, 192, 384, 512], "depths": [4, 6, 12, 6], "num_heads": [1, 2, 6, 8],)" VITRINE_SCALED "}",
     ""},
    {"ravlt_l", R"({"embed_dims": [96, 192, 448, 640], "depths": [4, 7, 19, 8], "num_heads": [1, 2, 7, 10],)" VITRINE_SCALED "}",
     ""},
};
// The original's spelling, and its class.
constexpr Variant kRavltConstructors[] = {{"RAVLT_T", kRavlt[0].arguments, ""},
                                          {"RAVLT_S", kRavlt[1].arguments, ""},
                                          {"RAVLT_B", kRavlt[2].arguments, ""},
                                          {"RAVLT_L", kRavlt[3].arguments, ""},
                                          {"RAVLT", "", ""}};

std::unique_ptr<Backbone> build(const Variant& variant, const Weights& w, const Arguments& arguments) {
  RavltConfig c;
  ArgumentReader(variant.name, arguments)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("projection", c.projection)
      .get("flagss", c.flagss)
      .get("embed_dims", c.embed_dims)
      .get("depths", c.depths)
      .get("num_heads", c.num_heads)
      .get("mlp_ratios", c.mlp_ratios)
      .get("layerscales", c.layerscales)
      .ignore({"layer_init_values", "drop_path_rate", "args", "img_size"})
      .finish();
  return std::make_unique<Ravlt>(w, std::move(c));
}

}  // namespace

constinit const Family kRavltFamily{.name = "ravlt",
                                    .source = "RALA, arXiv:2411.07635; qhfan/RALA",
                                    .attention = "rank-augmented linear, then softmax",
                                    .variants = kRavlt,
                                    .build = build,
                                    .constructors = kRavltConstructors};

}  // namespace detail
}  // namespace vitrine
