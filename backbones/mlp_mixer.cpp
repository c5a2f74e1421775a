#include <vitrine/backbones/mlp_mixer.h>

#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/backbones/mlp_mixer_variants.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::require;

namespace {

void validate(const MlpMixerConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto check = [&](bool right, std::string_view what) { require(right, c.name, what); };
  check(sane(c.in_chans) && sane(c.patch_size) && sane(c.num_blocks) && sane(c.embed_dim),
        "in_chans, patch_size, num_blocks and embed_dim must be positive");
  check(sane(c.img_size[0]) && sane(c.img_size[1]) && c.img_size[0] >= c.patch_size && c.img_size[1] >= c.patch_size,
        "img_size must hold a patch");
  check((c.img_size[0] / c.patch_size) * (c.img_size[1] / c.patch_size) <= kMost, "img_size has too many patches");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  for (const double ratio : c.mlp_ratio)
    check(ratio > 0 && ratio <= 64 && static_cast<std::int64_t>(ratio * static_cast<double>(c.embed_dim)) >= 2,
          "mlp_ratio is out of range");
  check(c.norm_eps >= 0 && c.norm_eps < 1, "norm_eps is out of range");
  const auto even = [&](double ratio) { return static_cast<std::int64_t>(ratio * static_cast<double>(c.embed_dim)) % 2 == 0; };
  const bool halves = c.block == MlpMixerBlock::gating || c.glu;
  check(!halves || (even(c.mlp_ratio[1]) && (c.block != MlpMixerBlock::mixer || even(c.mlp_ratio[0]))),
        "mlp_ratio, expected an even hidden width for a gate");
}

// [B, N, C] -> [B, C, N]
Tensor transposed(const Tensor& x) {
  const int axes[] = {0, 2, 1};
  return permute(x, axes);
}

}  // namespace

MlpMixer::Norm::Norm(const Weights& w, const MlpMixerConfig& c) : affine(c.affine), eps(c.norm_eps) {
  const std::int64_t dim = c.embed_dim;
  gain = affine ? w.on_device("alpha", {1, 1, dim}).view({dim}) : w.on_device("weight", {dim});
  offset = affine ? w.on_device("beta", {1, 1, dim}).view({dim}) : w.on_device("bias", {dim});
}

Tensor MlpMixer::Norm::operator()(const Tensor& x) const {
  if (!defined()) return x;
  if (!affine) return layer_norm(x, gain, offset, eps);
  Tensor y = multiply(x, gain);
  add_(y, offset);
  return y;
}

MlpMixer::Block::Block(const Weights& w, const MlpMixerConfig& c, std::int64_t count) : kind(c.block), activation(c.activation) {
  const std::int64_t dim = c.embed_dim;
  const auto width = [&](double ratio) { return static_cast<std::int64_t>(ratio * static_cast<double>(dim)); };
  if (kind == MlpMixerBlock::gating) {
    const std::int64_t hidden = width(c.mlp_ratio[1]);
    const Weights mlp = w / "mlp_channels", gate = mlp / "gate";
    norm1 = Norm(w / "norm", c);
    fc1 = Linear(mlp / "fc1", dim, hidden);
    gate_norm = LayerNorm(gate / "norm", hidden / 2, 1e-5);
    tokens = Linear(gate / "proj", count, count);
    fc2 = Linear(mlp / "fc2", hidden / 2, dim);
    return;
  }
  norm1 = Norm(w / "norm1", c);
  norm2 = Norm(w / "norm2", c);
  detail::FeedForwardConfig mlp;
  mlp.kind = c.glu ? detail::MlpKind::glu : detail::MlpKind::plain;
  mlp.activation = c.activation;
  mlp.dim = count;
  mlp.hidden = width(c.mlp_ratio[0]);
  Tensor scale;
  if (kind == MlpMixerBlock::mixer) {
    mlp_tokens = detail::FeedForward(w / "mlp_tokens", mlp);
  } else {
    tokens = Linear(w / "linear_tokens", count, count);
    gate_scale = w.on_device("ls1", {dim});
    scale = w.get("ls2", {dim});
  }
  mlp.dim = dim;
  mlp.hidden = width(c.mlp_ratio[1]);
  mlp_channels = detail::FeedForward(w / "mlp_channels", mlp, scale);
}

Tensor MlpMixer::Block::operator()(Tensor x) const {
  if (kind == MlpMixerBlock::gating) {
    const Tensor hidden = fc1(norm1(x), {.activation = activation});  // [B, N, 2 H]
    const std::int64_t half = hidden.size(2) / 2;
    Tensor gate = transposed(tokens(transposed(gate_norm(hidden.slice(2, half, 2 * half)))));  // [B, N, H]
    multiply_(gate, hidden.slice(2, 0, half));
    return fc2(gate, {.residual = std::move(x)});
  }
  const Tensor across = transposed(norm1(x));  // [B, C, N]
  Tensor mixed = transposed(kind == MlpMixerBlock::mixer ? mlp_tokens(across) : tokens(across));
  if (gate_scale.defined()) multiply_(mixed, gate_scale);
  add_(mixed, x);
  x = Tensor();
  const Tensor y = norm2(mixed);
  return mlp_channels(y, std::move(mixed));
}

MlpMixer::MlpMixer(const Weights& w, MlpMixerConfig config) : config_(std::move(config)) {
  validate(config_);
  const MlpMixerConfig& c = config_;
  stem_ = PatchEmbed(w / "stem" / "proj", c.in_chans, c.embed_dim, c.patch_size, c.patch_size);
  if (c.stem_norm) stem_norm_ = Norm(w / "stem" / "norm", c);
  const std::int64_t tokens = (c.img_size[0] / c.patch_size) * (c.img_size[1] / c.patch_size);
  for (std::int64_t i = 0; i < c.num_blocks; ++i) blocks_.emplace_back(w / "blocks" / i, c, tokens);
  norm_ = Norm(w / "norm", c);
  set_head(w / "head", c.embed_dim, c.num_classes);
  in_chans_ = c.in_chans;
  strides_.assign(blocks_.size(), c.patch_size);
}

Tensor MlpMixer::run_stages(const Tensor& images, const Observer& observer, const StageDone& stage_done) const {
  const MlpMixerConfig& c = config_;
  check_image_size(images, c.img_size, "the matrices over the tokens are");
  const std::int64_t H = c.img_size[0] / c.patch_size, W = c.img_size[1] / c.patch_size;
  const Tensor whole = images.slice(1, 0, H * c.patch_size).slice(2, 0, W * c.patch_size);
  Tensor x = stem_norm_(stem_(whole)).flatten(1, 2);  // [B, N, C]
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    x = blocks_[i](std::move(x));
    if (observer) observer(fmt::format("blocks.{}", i), x);
    if (stage_done) stage_done(i, x.unflatten(1, {H, W}));
  }
  return x.unflatten(1, {H, W});
}

// Unlike in models of stages, every block's map has the width of the final norm.
std::vector<IntermediateMap> MlpMixer::forward_intermediates(const Tensor& images, const IntermediatesOptions& options) const {
  auto maps = HierarchicalBackbone::forward_intermediates(images, {.indices = options.indices, .norm = false});
  if (options.norm)
    for (IntermediateMap& map : maps) map.map = norm_(map.map);
  return maps;
}

// --- arguments ---------------------------------------------------------------------------------------------------

namespace detail {
namespace {

std::unique_ptr<Backbone> build_mlp_mixer(const Variant& variant, const Weights& w, const Arguments& arguments) {
  MlpMixerConfig c;
  c.name = variant.name;
  std::string block_layer = "MixerBlock", mlp_layer = "Mlp", norm_layer = "LayerNorm", act_layer = "gelu", pool = "avg";
  ArgumentReader reader(variant.name, arguments);
  reader.get("num_classes", c.num_classes)
      .get("img_size", c.img_size)
      .get("in_chans", c.in_chans)
      .get("patch_size", c.patch_size)
      .get("num_blocks", c.num_blocks)
      .get("embed_dim", c.embed_dim)
      .get("block_layer", block_layer)
      .get("mlp_layer", mlp_layer)
      .get("norm_layer", norm_layer)
      .get("norm_eps", c.norm_eps)  // timm binds it into norm_layer
      .get("act_layer", act_layer)
      .get("stem_norm", c.stem_norm)
      .get("global_pool", pool)
      .ignore({"drop_rate", "proj_drop_rate", "drop_path_rate", "nlhb", "init_values"});
  const auto ratio = arguments.find("mlp_ratio");  // of the channels, or of tokens and channels
  if (ratio != arguments.end() && ratio->second.starts_with('[')) {
    std::vector<double> both;
    reader.get("mlp_ratio", both);
    require(both.size() == 2, c.name, "mlp_ratio, expected one number or two");
    c.mlp_ratio = {both[0], both[1]};
  } else if (ratio != arguments.end()) {
    reader.get("mlp_ratio", c.mlp_ratio[1]);
    c.mlp_ratio[0] = c.mlp_ratio[1];
  }
  reader.finish();
  require(pool == "avg", c.name, "global_pool, expected avg");
  c.block = static_cast<MlpMixerBlock>(
      parse_choice(c.name, "block_layer", block_layer, {"MixerBlock", "ResBlock", "SpatialGatingBlock"}));
  const std::size_t mlp = parse_choice(c.name, "mlp_layer", mlp_layer, {"Mlp", "GluMlp", "GatedMlp"});
  require((c.block == MlpMixerBlock::gating) == (mlp == 2), c.name,
          "mlp_layer GatedMlp and block_layer SpatialGatingBlock go together");
  c.glu = mlp == 1;
  c.affine = parse_choice(c.name, "norm_layer", norm_layer, {"LayerNorm", "layernorm", "Affine"}) == 2;
  c.activation = parse_activation(act_layer);
  return std::make_unique<MlpMixer>(w, std::move(c));
}

constexpr Variant kMlpMixerConstructors[] = {{"MlpMixer", "", ""}};

}  // namespace

constinit const Family kMlpMixerFamily{.name = "mlp_mixer",
                                       .source = "arXiv:2105.01601, arXiv:2105.03404, arXiv:2105.08050; timm 1.0.31 mlp_mixer.py",
                                       .attention = "none: layers across tokens",
                                       .variants = kMlpMixerVariants,
                                       .build = build_mlp_mixer,
                                       .constructors = kMlpMixerConstructors,
                                       .preprocess = R"({"mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5]})",
                                       .pretrained = kMlpMixerPretrained};

}  // namespace detail
}  // namespace vitrine
