#include <vitrine/backbones/dit.h>

#include <cstring>
#include <numeric>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/backbones/attention_arguments.h>
#include <vitrine/backbones/denoiser_family.h>
#include <vitrine/backbones/tokens.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::require;

namespace {

void validate(const DitConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  const auto check = [&](bool right, std::string_view what) { require(right, c.name, what); };
  check(sane(c.hidden_size) && c.hidden_size % 4 == 0, "hidden_size must be a positive multiple of 4");
  check(sane(c.num_heads) && c.hidden_size % c.num_heads == 0, "hidden_size must be a multiple of num_heads");
  check(sane(c.in_channels) && sane(c.out_channels), "in_channels or out_channels is out of range");
  check(sane(c.patch_size) && c.patch_size <= 256, "patch_size is out of range");
  check(sane(c.input_size[0]) && sane(c.input_size[1]) && c.input_size[0] % c.patch_size == 0 &&
            c.input_size[1] % c.patch_size == 0,
        "input_size must be a positive multiple of patch_size");
  check(c.depth > 0 && c.depth <= 1000, "depth is out of range");
  check(c.mlp_ratio > 0 && c.mlp_ratio <= 64, "mlp_ratio is out of range");
  check(c.label_rows > 0 && c.label_rows <= 1 << 24, "num_classes is out of range");
  const auto blocks = [&](const std::vector<std::int64_t>& heads) { return static_cast<std::int64_t>(heads.size()); };
  check(blocks(c.shared_head) == blocks(c.routed_head) && (c.shared_head.empty() || blocks(c.shared_head) == c.depth),
        "shared_head and routed_head must have a number for each block");
  check(c.shared_head.empty() || c.attention == nullptr, "moh needs global attention");
}

std::int64_t hidden_features(const DitConfig& c) {
  return static_cast<std::int64_t>(static_cast<double>(c.hidden_size) * c.mlp_ratio);
}

// Whether two blocks have the same embedders: files of diffusers hold a copy in each.
bool same_embedders(const Weights& a, const Weights& b, const DitConfig& c) {
  const std::int64_t dim = c.hidden_size, frequencies = detail::TimestepEmbedder::kFrequencies;
  const std::pair<std::string_view, Shape> parameters[] = {{"t_embedder.mlp.0.weight", {dim, frequencies}},
                                                           {"t_embedder.mlp.0.bias", {dim}},
                                                           {"t_embedder.mlp.2.weight", {dim, dim}},
                                                           {"t_embedder.mlp.2.bias", {dim}},
                                                           {"y_embedder.embedding_table.weight", {c.label_rows, dim}}};
  bool same = true;
  for (const auto& [name, shape] : parameters) {  // all are read: so they count as used
    const Tensor x = a.get(name, shape), y = b.get(name, shape);
    same = std::memcmp(x.raw(), y.raw(), x.bytes()) == 0 && same;
  }
  return same;
}

}  // namespace

Dit::Embedder::Embedder(const Weights& w, const DitConfig& c)
    : t_embedder({w / "t_embedder" / "mlp.0", w / "t_embedder" / "mlp.2", detail::TimestepEmbedder::kFrequencies, c.hidden_size,
                  Activation::silu},
                 c.frequency_divisor),
      y_embedder((w / "y_embedder" / "embedding_table").on_device("weight", {c.label_rows, c.hidden_size})) {}

Dit::Block::Block(const Weights& w, const DitConfig& c, std::int64_t index)
    : modulation(w / "adaLN_modulation.1", c.hidden_size, 6, c.hidden_size),
      num_heads(c.num_heads),
      mlp_norm_eps(c.mlp_norm_eps),
      mlp(w / "mlp.fc1", w / "mlp.fc2", c.hidden_size, hidden_features(c), c.activation_fn, c.name) {
  const std::int64_t dim = c.hidden_size;
  if (c.mlp_norm_affine) {
    norm2_weight = (w / "norm2").on_device("weight", {dim});
    norm2_bias = (w / "norm2").on_device("bias", {dim});
  }
  if (c.attention == nullptr) {
    qkv = Linear(w / "attn.qkv", dim, 3 * dim, {.bias = c.qkv_bias, .scale = {}});
    proj = Linear(w / "attn.proj", dim, dim);
    const auto i = static_cast<std::size_t>(index);
    if (!c.shared_head.empty())
      gates = HeadGates(w / "attn",
                        {.dim = dim, .num_heads = c.num_heads, .shared_head = c.shared_head[i], .routed_head = c.routed_head[i]});
    return;
  }
  MixerConfig m;
  m.dim = dim;
  m.num_heads = c.num_heads;
  m.block = index;
  m.tokens.height = c.input_size[0] / c.patch_size;
  m.tokens.width = c.input_size[1] / c.patch_size;
  m.qkv_bias = c.qkv_bias;
  m.values = c.attention_options;
  mixer = make_mixer(*c.attention, w / "attn", m);
}

void Dit::Block::operator()(Tensor& x, const Tensor& steer, const TokenMap& map) const {
  const Tensor m = modulation(steer);  // [B, 6, dim]: shift, scale, gate of attention, then of the MLP
  const Tensor y = detail::modulated_norm(x, m, 0);
  if (mixer) {
    Tensor mixed = (*mixer)(y, map);
    multiply_(mixed, m.slice(1, 2, 3));
    add_(x, mixed);
  } else {
    const Tensor heads = qkv(y).unflatten(2, {3, num_heads, x.size(2) / num_heads});          // [B, N, 3, heads, D]
    Tensor attended = attention(heads.select(2, 0), heads.select(2, 1), heads.select(2, 2));  // [B, N, heads, D]
    if (gates.defined()) multiply_(attended, gates(y).unsqueeze(3));
    proj.add_to(x, attended.flatten(2, 3), m.select(1, 2));
  }
  mlp.add_to(x, layer_norm(x, norm2_weight, norm2_bias, mlp_norm_eps, m.select(1, 4), m.select(1, 3)), m.select(1, 5));
}

Dit::Dit(const Weights& w, DitConfig config) : config_(std::move(config)) {
  const DitConfig& c = config_;
  validate(c);
  const std::int64_t dim = c.hidden_size, patch = c.patch_size;
  const std::int64_t tokens = (c.input_size[0] / patch) * (c.input_size[1] / patch);
  x_embedder_ = PatchEmbed(w / "x_embedder.proj", c.in_channels, dim, patch, patch);
  if (!w.source().is_open() && w.has("pos_embed")) pos_embed_ = w.on_device("pos_embed", {1, tokens, dim});
  if (!c.embedders_in_blocks) embedder_ = std::make_shared<Embedder>(w, c);
  for (std::int64_t i = 0; i < c.depth; ++i) {
    const Weights block = w / "blocks" / i;
    blocks_.emplace_back(block, c, i);
    if (!c.embedders_in_blocks) continue;
    const bool is_copy = i > 0 && same_embedders(block, w / "blocks" / std::int64_t{0}, c);
    blocks_.back().embedder = is_copy ? embedder_ : std::make_shared<Embedder>(block, c);
    if (i == 0) embedder_ = blocks_.back().embedder;
  }
  final_modulation_ = detail::Modulation(w / "final_layer.adaLN_modulation.1", dim, 2, dim);
  final_linear_ = Linear(w / "final_layer.linear", dim, patch * patch * c.out_channels);
  dtype_ = w.dtype();
  info_.name = c.name;
  info_.in_channels = c.in_channels;
  info_.out_channels = c.out_channels;
  info_.height = c.input_size[0];
  info_.width = c.input_size[1];
  info_.multiple = patch;
  info_.num_classes = c.num_classes;
  info_.guided_channels = std::min(c.guided_channels, c.out_channels);
}

Tensor Dit::positions(std::int64_t height, std::int64_t width) const {
  const DitConfig& c = config_;
  const std::int64_t built_h = c.input_size[0] / c.patch_size, built_w = c.input_size[1] / c.patch_size;
  const bool is_built = height == built_h && width == built_w;
  if (is_built && pos_embed_.defined()) return pos_embed_;
  if (!is_built && !c.any_size)
    throw Error(fmt::format("{}: latents of {}x{}, expected {}x{}; give input_size", c.name, height * c.patch_size,
                            width * c.patch_size, c.input_size[0], c.input_size[1]));
  return computed_positions_.get(height, width, [&] {
    // The side of the built grid, in which the originals' positions are counted.
    const auto base = static_cast<double>(built_h);
    return detail::scaled_positions(c.hidden_size, height, width, c.any_size ? base : static_cast<double>(height), 1)
        .unsqueeze(0)
        .to(device_);
  });
}

Tensor Dit::forward(const Tensor& latents, const Tensor& timesteps, const Conditioning& conditioning,
                    const Observer& observer) const {
  detail::check_latents(info_, latents, timesteps);
  const Tensor& labels = detail::required(info_, "labels", conditioning.labels, {latents.size(0)});
  const auto observe = [&](std::string_view path, const Tensor& output) {
    if (observer) observer(path, output);
  };
  const std::int64_t patch = config_.patch_size, height = latents.size(1) / patch, width = latents.size(2) / patch;
  const TokenMap map{0, height, width};
  const Tensor position = positions(height, width);
  Tensor x = x_embedder_(latents.to(dtype_)).flatten(1, 2);  // [B, N, dim]
  observe("pos_embed", position);
  observe("x_embedder", x);
  add_(x, position);

  Tensor steer;  // [B, dim]
  const Embedder* steering = nullptr;
  const auto steer_by = [&](const Embedder& embedder) {
    if (&embedder == steering) return;
    const Tensor time = embedder.t_embedder(timesteps);
    if (steering == nullptr) observe("t_embedder", time);
    steering = &embedder;
    steer = activate(embedder(time, labels), Activation::silu);
  };
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    steer_by(block.embedder ? *block.embedder : *embedder_);
    block(x, steer, map);
    if (observer) observer(fmt::format("blocks.{}", i), x);
  }
  steer_by(*embedder_);
  const Tensor y = final_linear_(detail::modulated_norm(x, final_modulation_(steer), 0));  // [B, N, patch patch C]
  return detail::unpatchify(y, height, width, patch).to(latents.dtype());
}

// --- arguments ---------------------------------------------------------------------------------------------------

namespace detail {
namespace {

// What a checkpoint says where the arguments do not: rows of the label table and channels of the last layer.
void read_sizes(const Weights& w, DitConfig& c, std::optional<std::int64_t> num_classes, bool has_null_class,
                std::optional<std::int64_t> out_channels) {
  const auto rows_of = [&](const Weights& at) -> std::int64_t {
    const auto shape = w.source().is_open() ? std::nullopt : at.shape_of("weight");
    return shape && shape->rank() == 2 ? (*shape)[0] : 0;
  };
  const std::int64_t null_class = has_null_class ? 1 : 0;
  const std::int64_t labels = rows_of((c.embedders_in_blocks ? w / "blocks.0" : w) / "y_embedder" / "embedding_table");
  c.label_rows = !num_classes && labels > null_class ? labels : num_classes.value_or(1000) + null_class;
  c.num_classes = c.label_rows - null_class;
  const std::int64_t channels = rows_of(w / "final_layer.linear") / (c.patch_size * c.patch_size);
  c.out_channels = out_channels.value_or(channels == c.in_channels ? c.in_channels : 2 * c.in_channels);
}

bool embedders_in_blocks(const Weights& w, bool otherwise) {
  return w.source().is_open() ? otherwise : w.has("blocks.0.t_embedder.mlp.0.weight");
}

std::unique_ptr<Denoiser> build_dit(std::string_view name, const Weights& w, const Arguments& arguments) {
  DitConfig c;
  c.name = name;
  double class_dropout_prob = 0.1;
  bool moh = false;
  std::optional<bool> learn_sigma;
  std::optional<std::int64_t> num_classes;
  ArgumentReader reader(name, arguments);
  c.attention = read_attention(reader, c.attention_options);
  reader.get("input_size", c.input_size)
      .get("patch_size", c.patch_size)
      .get("in_channels", c.in_channels)
      .get("hidden_size", c.hidden_size)
      .get("depth", c.depth)
      .get("num_heads", c.num_heads)
      .get("mlp_ratio", c.mlp_ratio)
      .get("class_dropout_prob", class_dropout_prob)
      .get("num_classes", num_classes)
      .get("learn_sigma", learn_sigma)
      .get("moh", moh)
      .get("shared_head", c.shared_head)
      .get("routed_head", c.routed_head)
      .finish();
  if (!moh) c.shared_head = c.routed_head = {};
  require(c.patch_size > 0 && c.patch_size <= 256, name, "patch_size is out of range");
  c.embedders_in_blocks = embedders_in_blocks(w, false);
  read_sizes(w, c, num_classes, class_dropout_prob > 0,
             learn_sigma ? std::optional(*learn_sigma ? 2 * c.in_channels : c.in_channels) : std::nullopt);
  return std::make_unique<Dit>(w, std::move(c));
}

std::unique_ptr<Denoiser> build_diffusers(std::string_view name, const Weights& w, const Arguments& arguments) {
  DitConfig c;
  c.name = name;
  c.frequency_divisor = 127;
  c.mlp_norm_eps = 1e-5;
  c.any_size = true;
  c.num_heads = 16;
  std::int64_t head_dim = 72, sample_size = 32;
  std::optional<std::int64_t> out_channels, num_classes = 1000;
  std::string norm_type = "ada_norm_zero";
  ArgumentReader reader(name, arguments);
  c.attention = read_attention(reader, c.attention_options);
  reader.get("num_attention_heads", c.num_heads)
      .get("attention_head_dim", head_dim)
      .get("in_channels", c.in_channels)
      .get("out_channels", out_channels)
      .get("num_layers", c.depth)
      .get("attention_bias", c.qkv_bias)
      .get("sample_size", sample_size)
      .get("patch_size", c.patch_size)
      .get("activation_fn", c.activation_fn)
      .get("num_embeds_ada_norm", num_classes)
      .get("norm_type", norm_type)
      .get("norm_elementwise_affine", c.mlp_norm_affine)
      .get("norm_eps", c.mlp_norm_eps)
      // Without effect in this class.
      .ignore({"dropout", "norm_num_groups", "upcast_attention"})
      .finish();
  parse_choice(name, "norm_type", norm_type, {"ada_norm_zero"});
  require(num_classes.has_value(), name, "num_embeds_ada_norm must be given");
  require(c.patch_size > 0 && c.patch_size <= 256, name, "patch_size is out of range");
  require(c.mlp_norm_eps >= 0 && c.mlp_norm_eps < 1, name, "norm_eps is out of range");
  require(head_dim > 0 && head_dim <= 1 << 16 && c.num_heads > 0 && c.num_heads <= 1 << 16, name,
          "num_attention_heads or attention_head_dim is out of range");
  c.hidden_size = c.num_heads * head_dim;
  c.input_size = {sample_size, sample_size};
  c.guided_channels = c.in_channels;
  c.embedders_in_blocks = embedders_in_blocks(w, true);
  read_sizes(w, c, num_classes, true, out_channels.value_or(c.in_channels));
  return std::make_unique<Dit>(w, std::move(c));
}

#define VITRINE_DIT(size, depth, dim, heads)                                                                         \
  {"DiT-" size "/2", R"({"patch_size":2,"depth":)" depth R"(,"hidden_size":)" dim R"(,"num_heads":)" heads "}"},     \
      {"DiT-" size "/4", R"({"patch_size":4,"depth":)" depth R"(,"hidden_size":)" dim R"(,"num_heads":)" heads "}"}, \
      {"DiT-" size "/8", R"({"patch_size":8,"depth":)" depth R"(,"hidden_size":)" dim R"(,"num_heads":)" heads "}"},

constexpr DenoiserVariant kVariants[] = {
    // clang-format off
    VITRINE_DIT("S", "12", "384", "6")
    VITRINE_DIT("B", "12", "768", "12")
    VITRINE_DIT("L", "24", "1024", "16")
    VITRINE_DIT("XL", "28", "1152", "16")
    // clang-format on
    // Draws clothes of Fashion-MNIST, pixels instead of latents.
    {"dit_fashion", R"({"input_size":28,"patch_size":4,"in_channels":1,"hidden_size":128,"depth":6,"num_heads":4,)"
                    R"("num_classes":10,"learn_sigma":false})"},
};
#undef VITRINE_DIT

constexpr DenoiserVariant kConstructors[] = {{"DiT", ""}}, kDiffusersConstructors[] = {{"DiTTransformer2DModel", ""}};

constexpr NameRule kDiffusersRules[] = {
    {"pos_embed\\.proj\\.(.*)", "x_embedder.proj.$1"},
    {"transformer_blocks\\.(\\d+)\\.norm1\\.emb\\.timestep_embedder\\.linear_1\\.(.*)", "blocks.$1.t_embedder.mlp.0.$2"},
    {"transformer_blocks\\.(\\d+)\\.norm1\\.emb\\.timestep_embedder\\.linear_2\\.(.*)", "blocks.$1.t_embedder.mlp.2.$2"},
    {"transformer_blocks\\.(\\d+)\\.norm1\\.emb\\.class_embedder\\.(.*)", "blocks.$1.y_embedder.$2"},
    {"transformer_blocks\\.(\\d+)\\.norm1\\.linear\\.(.*)", "blocks.$1.adaLN_modulation.1.$2"},
    {"transformer_blocks\\.(\\d+)\\.norm3\\.(.*)", "blocks.$1.norm2.$2"},
    {"transformer_blocks\\.(\\d+)\\.attn1\\.to_q\\.(.*)", "blocks.$1.attn.qkv[0].$2"},
    {"transformer_blocks\\.(\\d+)\\.attn1\\.to_k\\.(.*)", "blocks.$1.attn.qkv[1].$2"},
    {"transformer_blocks\\.(\\d+)\\.attn1\\.to_v\\.(.*)", "blocks.$1.attn.qkv[2].$2"},
    {"transformer_blocks\\.(\\d+)\\.attn1\\.to_out\\.0\\.(.*)", "blocks.$1.attn.proj.$2"},
    {"transformer_blocks\\.(\\d+)\\.ff\\.net\\.0\\.proj\\.(.*)", "blocks.$1.mlp.fc1.$2"},
    {"transformer_blocks\\.(\\d+)\\.ff\\.net\\.2\\.(.*)", "blocks.$1.mlp.fc2.$2"},
    {"proj_out_1\\.(.*)", "final_layer.adaLN_modulation.1.$1"},
    {"proj_out_2\\.(.*)", "final_layer.linear.$1"},
};
constexpr NameMap kNames[] = {{"proj_out_2.weight", kDiffusersRules}};

}  // namespace

constinit const DenoiserFamily kDitFamily{
    "dit", "arXiv:2212.09748; facebookresearch/DiT models.py", kVariants, kConstructors, build_dit, kNames};
constinit const DenoiserFamily kDitDiffusersFamily{
    "dit_diffusers", "arXiv:2212.09748; diffusers 0.42 dit_transformer_2d.py", {}, kDiffusersConstructors, build_diffusers,
    kNames};

}  // namespace detail
}  // namespace vitrine
