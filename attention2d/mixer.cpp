// A new mechanism: its options, a builder, a row in kMechanisms.
#include <vitrine/attention2d/mixer.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <vitrine/attention2d/agent.h>
#include <vitrine/attention2d/aggregated.h>
#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/bi_level_routing.h>
#include <vitrine/attention2d/channel_attention.h>
#include <vitrine/attention2d/efficient_attention.h>
#include <vitrine/attention2d/fast_attention.h>
#include <vitrine/attention2d/flow_attention.h>
#include <vitrine/attention2d/focal_modulation.h>
#include <vitrine/attention2d/focused_linear_attention.h>
#include <vitrine/attention2d/gnconv.h>
#include <vitrine/attention2d/halo.h>
#include <vitrine/attention2d/heads.h>
#include <vitrine/attention2d/hilo.h>
#include <vitrine/attention2d/inline_attention.h>
#include <vitrine/attention2d/linear_attention.h>
#include <vitrine/attention2d/linfusion.h>
#include <vitrine/attention2d/neighborhood.h>
#include <vitrine/attention2d/partition.h>
#include <vitrine/attention2d/rala.h>
#include <vitrine/attention2d/varied_window.h>
#include <vitrine/attention2d/window.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

Mixer::~Mixer() = default;

namespace {

using Built = std::unique_ptr<const Mixer>;
using Kind = MixerOptionKind;

std::int64_t integer(const MixerConfig& c, std::string_view name) {
  return static_cast<std::int64_t>(c.values.find(name)->second[0]);
}
std::array<std::int64_t, 2> pair(const MixerConfig& c, std::string_view name) {
  const auto& value = c.values.find(name)->second;
  return {static_cast<std::int64_t>(value[0]), static_cast<std::int64_t>(value[1])};
}
double number(const MixerConfig& c, std::string_view name) { return c.values.find(name)->second[0]; }
bool boolean(const MixerConfig& c, std::string_view name) { return number(c, name) != 0; }

std::int64_t head_dim(const MixerConfig& c) { return c.dim / c.num_heads; }

// --- mixers ------------------------------------------------------------------------------------------------------

// A layer on maps [B, H, W, C] that takes a residual and has its layer scale folded in.
template <typename Layer>
class MapMixer final : public Mixer {
 public:
  explicit MapMixer(Layer layer) : layer_(std::move(layer)) {}
  Tensor operator()(const Tensor& x, const TokenMap& map, Tensor residual) const override {
    if (residual.defined()) residual = residual.unflatten(1, {map.height, map.width});
    return layer_(x.unflatten(1, {map.height, map.width}), std::move(residual)).flatten(1, 2);
  }

 private:
  Layer layer_;
};

template <typename Layer>
Built map_mixer(Layer layer) {
  return std::make_unique<MapMixer<Layer>>(std::move(layer));
}

// One that has no single last projection: scale and residual follow on their own.
template <typename Layer>
class PlainMapMixer final : public Mixer {
 public:
  PlainMapMixer(Layer layer, Tensor scale) : layer_(std::move(layer)), scale_(std::move(scale)) {}
  Tensor operator()(const Tensor& x, const TokenMap& map, Tensor residual) const override {
    Tensor y = layer_(x.unflatten(1, {map.height, map.width})).flatten(1, 2);
    if (scale_.defined()) multiply_(y, scale_);
    if (residual.defined()) add_(y, residual);
    return y;
  }

 private:
  Layer layer_;
  Tensor scale_;
};

template <typename Layer>
Built plain_map_mixer(Layer layer, const MixerConfig& c) {
  return std::make_unique<PlainMapMixer<Layer>>(std::move(layer), c.proj.scale);
}

// A layer on tokens [B, N, C], whatever they are.
template <typename Layer>
class TokenSetMixer final : public Mixer {
 public:
  explicit TokenSetMixer(Layer layer) : layer_(std::move(layer)) {}
  Tensor operator()(const Tensor& x, const TokenMap&, Tensor residual) const override { return layer_(x, std::move(residual)); }

 private:
  Layer layer_;
};

template <typename Layer>
Built token_set_mixer(Layer layer) {
  return std::make_unique<TokenSetMixer<Layer>>(std::move(layer));
}

// Global attention; with fewer heads of keys and values than of queries, these are shared (arXiv:2305.13245).
struct GlobalAttention {
  GlobalAttention(const Weights& w, const MixerConfig& c) : heads(c.num_heads), key_heads(integer(c, "num_kv_heads")) {
    if (key_heads == 0) key_heads = heads;
    if (heads % key_heads != 0)
      throw Error(fmt::format("{}: {} heads are not a multiple of num_kv_heads {}", w.path(), heads, key_heads));
    qkv = Linear(w / "qkv", c.dim, (heads + 2 * key_heads) * head_dim(c), {.bias = c.qkv_bias, .scale = {}});
    proj = Linear(w / "proj", c.dim, c.dim, c.proj);
  }
  Tensor operator()(const Tensor& x, Tensor residual) const {
    const Tensor all = qkv(x).unflatten(2, {heads + 2 * key_heads, proj.in_features() / heads});  // [B, N, heads, D]
    const Tensor q = all.slice(2, 0, heads), k = all.slice(2, heads, heads + key_heads),
                 v = all.slice(2, heads + key_heads, heads + 2 * key_heads);
    return proj(attention(q, k, v).flatten(2, 3), {.activation = Activation::none, .residual = std::move(residual)});
  }

  std::int64_t heads, key_heads;
  Linear qkv, proj;
};

// FAST between the projections of other layers; its paper has no code, and with it no names of its own.
struct FastLayer {
  FastLayer(const Weights& w, const MixerConfig& c)
      : heads(c.num_heads),
        options{.order = static_cast<int>(integer(c, "order")), .scale = static_cast<float>(number(c, "scale"))},
        qkv(w / "qkv", c.dim, 3 * c.dim, {.bias = c.qkv_bias, .scale = {}}),
        proj(w / "proj", c.dim, c.dim, c.proj) {}
  Tensor operator()(const Tensor& x, Tensor residual) const {
    const auto [q, k, v] = detail::split_qkv("fast_attention", qkv, x, heads);  // [B, N, heads, D]
    const Tensor y = fast_attention(q, k, v, options);
    return proj(y.flatten(2, 3), {.activation = Activation::none, .residual = std::move(residual)});
  }

  std::int64_t heads;
  FastAttentionOptions options;
  Linear qkv, proj;
};

// Prefix tokens are additional keys of every patch, and see all tokens themselves.
class NeighborhoodMixer final : public Mixer {
 public:
  explicit NeighborhoodMixer(NeighborhoodAttention layer) : layer_(std::move(layer)) {}
  Tensor operator()(const Tensor& x, const TokenMap& map, Tensor residual) const override {
    const NeighborhoodAttentionConfig& c = layer_.config;
    if (map.prefix == 0) {
      if (residual.defined()) residual = residual.unflatten(1, {map.height, map.width});
      return layer_(x.unflatten(1, {map.height, map.width}), std::move(residual)).flatten(1, 2);
    }
    const Tensor parts = layer_.qkv(x).unflatten(2, {3, c.num_heads, c.dim / c.num_heads});  // [B, N, 3, heads, D]
    const Tensor prefix = parts.slice(1, 0, map.prefix);
    const Tensor patches = parts.slice(1, map.prefix, parts.size(1)).unflatten(1, {map.height, map.width});
    NeighborhoodOptions options;
    std::copy(c.kernel_size.begin(), c.kernel_size.end(), options.kernel_size.begin());
    std::copy(c.dilation.begin(), c.dilation.end(), options.dilation.begin());
    options.scale = c.scale;
    options.rpb = layer_.rpb;
    options.additional_keys = prefix.select(2, 1);
    options.additional_values = prefix.select(2, 2);
    const Tensor outputs[] = {
        attention(prefix.select(2, 0), parts.select(2, 1), parts.select(2, 2), {.scale = c.scale}),
        neighborhood_attention(patches.select(3, 0), patches.select(3, 1), patches.select(3, 2), options).flatten(1, 2)};
    return layer_.proj(concat(outputs, 1).flatten(2, 3), {.activation = Activation::none, .residual = std::move(residual)});
  }

 private:
  NeighborhoodAttention layer_;
};

// A layer on tokens that is built for one size of map.
template <typename Layer>
class SizedMixer final : public Mixer {
 public:
  SizedMixer(std::string_view name, Layer layer, const TokenMap& built) : name_(name), layer_(std::move(layer)), built_(built) {}
  Tensor operator()(const Tensor& x, const TokenMap& map, Tensor residual) const override {
    if (map.height != built_.height || map.width != built_.width)
      throw Error(fmt::format("attention '{}': a map of {} x {} tokens, the model is built for {} x {}; give img_size", name_,
                              map.height, map.width, built_.height, built_.width));
    return layer_(x, std::move(residual));
  }

 private:
  std::string_view name_;
  Layer layer_;
  TokenMap built_;
};

template <typename Layer>
Built sized_mixer(std::string_view name, Layer layer, const MixerConfig& c) {
  return std::make_unique<SizedMixer<Layer>>(name, std::move(layer), c.tokens);
}

void expect_class_token_at_most(std::string_view name, const MixerConfig& c) {
  if (c.tokens.prefix > 1)
    throw Error(fmt::format("attention '{}': {} prefix tokens, expected a class token or none", name, c.tokens.prefix));
}

// --- options and builders ----------------------------------------------------------------------------------------

constexpr double kMostSize = 1024;

constexpr MixerOption kGlobalOptions[] = {
    {"num_kv_heads", Kind::integer, 0, 0, kMostSize, "heads of keys and values, shared by the others; 0: all, 1: multi-query"}};
Built build_global(const Weights& w, const MixerConfig& c) { return token_set_mixer(GlobalAttention(w, c)); }

constexpr MixerOption kNeighborhoodOptions[] = {{"kernel_size", Kind::pair, 7, 1, kMostSize, "tokens of the window"},
                                                {"dilation", Kind::pair, 1, 1, kMostSize, "distance of the window's tokens"},
                                                {"rel_pos_bias", Kind::boolean, 1, 0, 1, "relative position bias"}};
Built build_neighborhood(const Weights& w, const MixerConfig& c) {
  NeighborhoodAttentionConfig config{.dim = c.dim, .num_heads = c.num_heads};
  config.kernel_size = pair(c, "kernel_size");
  config.dilation = pair(c, "dilation");
  config.qkv_bias = c.qkv_bias;
  config.rel_pos_bias = boolean(c, "rel_pos_bias");
  return std::make_unique<NeighborhoodMixer>(NeighborhoodAttention(w, config, c.proj));
}

constexpr std::string_view kPads[] = {"roll_then_pad", "pad_then_roll"};
constexpr MixerOption kWindowOptions[] = {
    {"window_size", Kind::pair, 7, 1, kMostSize, "tokens of a window; the map is padded to a multiple"},
    {"shift_size", Kind::pair, 0, 0, kMostSize, "shift of the windows in every second block"},
    {"pad", Kind::choice, 0, 0, 1, "which comes first where a shifted map is padded", kPads}};
template <typename Config>
Config window_config(const MixerConfig& c) {
  Config config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.window_size = pair(c, "window_size");
  if (c.block % 2 == 1) config.shift_size = pair(c, "shift_size");
  config.pad = static_cast<WindowPad>(integer(c, "pad"));
  config.qkv_bias = c.qkv_bias;
  return config;
}
Built build_window(const Weights& w, const MixerConfig& c) {
  return map_mixer(WindowAttention(w, window_config<WindowAttentionConfig>(c), c.proj));
}

constexpr MixerOption kWindowV2Options[] = {
    {"window_size", Kind::pair, 8, 1, kMostSize, "tokens of a window; the map is padded to a multiple"},
    {"shift_size", Kind::pair, 0, 0, kMostSize, "shift of the windows in every second block"},
    {"pretrained_window_size", Kind::pair, 0, 0, kMostSize, "the window that the position bias was made for; 0: this one"},
    {"pad", Kind::choice, 0, 0, 1, "which comes first where a shifted map is padded", kPads}};
Built build_window_v2(const Weights& w, const MixerConfig& c) {
  auto config = window_config<WindowAttentionV2Config>(c);
  config.pretrained_window_size = pair(c, "pretrained_window_size");
  return map_mixer(WindowAttentionV2(w, config, c.proj));
}

constexpr std::string_view kPartitions[] = {"block", "grid", "both"};
constexpr MixerOption kPartitionOptions[] = {
    {"size", Kind::pair, 7, 1, kMostSize, "tokens of a block or grid; it must divide the map"},
    {"partition", Kind::choice, 2, 0, 2, "blocks, grids, or blocks and grids in turn", kPartitions}};
Built build_partition(const Weights& w, const MixerConfig& c) {
  PartitionAttentionConfig config;
  config.dim = c.dim;
  config.head_dim = head_dim(c);
  const std::int64_t choice = integer(c, "partition");
  config.partition = static_cast<PartitionKind>(choice == 2 ? c.block % 2 : choice);
  config.size = pair(c, "size");
  config.qkv_bias = c.qkv_bias;
  return map_mixer(PartitionAttention(w, config, c.proj));
}

constexpr MixerOption kHaloOptions[] = {
    {"block_size", Kind::integer, 7, 1, kMostSize, "tokens of a block of queries; it must divide the map"},
    {"halo_size", Kind::integer, 3, 0, kMostSize, "tokens around the block that are keys, too"}};
Built build_halo(const Weights& w, const MixerConfig& c) {
  HaloAttentionConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.head_dim = config.value_head_dim = head_dim(c);
  config.block_size = integer(c, "block_size");
  config.halo_size = integer(c, "halo_size");
  return plain_map_mixer(HaloAttention(w, config), c);
}

constexpr MixerOption kRoutingOptions[] = {
    {"n_win", Kind::integer, 7, 1, kMostSize, "regions on each side"},
    {"topk", Kind::integer, 4, 1, kMostSize* kMostSize, "regions that a region attends to"},
    {"side_dwconv", Kind::integer, 5, 0, 63, "kernel of the depth-wise convolution of values, odd; 0: none"},
    {"auto_pad", Kind::boolean, 1, 0, 1, "pad maps that n_win does not divide; else they are an error"}};
Built build_routing(const Weights& w, const MixerConfig& c) {
  BiLevelRoutingConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.n_win = integer(c, "n_win");
  config.topk = integer(c, "topk");
  config.side_dwconv = integer(c, "side_dwconv");
  if (boolean(c, "auto_pad")) config.uneven = BiLevelRoutingConfig::Uneven::pad;
  return map_mixer(BiLevelRoutingAttention(w, config, c.proj));
}

constexpr MixerOption kAgentOptions[] = {{"agent_num", Kind::integer, 49, 1, 4096, "agent tokens, a square number"}};
Built build_agent(const Weights& w, const MixerConfig& c) {
  expect_class_token_at_most("agent", c);
  AgentAttentionConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.agent_num = integer(c, "agent_num");
  config.height = c.tokens.height;
  config.width = c.tokens.width;
  config.class_token = c.tokens.prefix == 1;
  config.qkv_bias = c.qkv_bias;
  return sized_mixer("agent", AgentAttention(w, config, c.proj), c);
}

constexpr MixerOption kHiLoOptions[] = {
    {"alpha", Kind::number, 0.5, 0, 1, "share of the heads in the low branch"},
    {"window_size", Kind::integer, 2, 1, kMostSize, "tokens of a window of the high branch; it must divide the map"}};
Built build_hilo(const Weights& w, const MixerConfig& c) {
  HiLoConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.window_size = integer(c, "window_size");
  config.alpha = number(c, "alpha");
  config.qkv_bias = c.qkv_bias;
  return plain_map_mixer(HiLoAttention(w, config), c);
}

constexpr MixerOption kFocalOptions[] = {
    {"focal_level", Kind::integer, 2, 0, 64, "levels of context beside that of the whole map"},
    {"focal_window", Kind::integer, 3, 1, 255, "kernel of the first level, odd"},
    {"focal_factor", Kind::integer, 2, 0, 64, "growth of the kernel a level, even"},
    {"normalize_modulator", Kind::boolean, 0, 0, 1, "divide the sum of the levels by their number"}};
Built build_focal(const Weights& w, const MixerConfig& c) {
  FocalModulationConfig config;
  config.dim = c.dim;
  config.focal_level = integer(c, "focal_level");
  config.focal_window = integer(c, "focal_window");
  config.focal_factor = integer(c, "focal_factor");
  config.normalize_modulator = boolean(c, "normalize_modulator");
  return map_mixer(FocalModulation(w, config, c.proj));
}

constexpr MixerOption kGnConvOptions[] = {
    {"order", Kind::integer, 5, 1, 30, "order of the products; 2^(order - 1) must divide embed_dim"},
    {"scale", Kind::number, 1, -1e6, 1e6, "factor of the convolution's output"}};
Built build_gnconv(const Weights& w, const MixerConfig& c) {
  GnConvConfig config;
  config.dim = c.dim;
  config.order = integer(c, "order");
  config.scale = static_cast<float>(number(c, "scale"));
  return map_mixer(GnConv(w, config, c.proj));
}

constexpr MixerOption kAggregatedOptions[] = {
    {"window_size", Kind::integer, 3, 1, 255, "tokens of the local window"},
    {"sr_ratio", Kind::integer, 2, 1, kMostSize, "how many times smaller a side of the pooled map is"}};
Built build_aggregated(const Weights& w, const MixerConfig& c) {
  AggregatedAttentionConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.window_size = integer(c, "window_size");
  config.sr_ratio = integer(c, "sr_ratio");
  config.qkv_bias = c.qkv_bias;
  return map_mixer(AggregatedAttention(w, config, c.proj));
}

constexpr std::string_view kFeatureMaps[] = {"identity", "relu", "elu1", "leaky_relu", "exp", "sigmoid", "channel_softmax"};
constexpr std::string_view kNormalizers[] = {"none", "sum", "mean"};
constexpr MixerOption kLinearOptions[] = {{"feature_map", Kind::choice, 1, 0, 6, "of queries and keys", kFeatureMaps},
                                          {"normalizer", Kind::choice, 1, 0, 2, "of the sum over the keys", kNormalizers},
                                          {"eps", Kind::number, 1e-6, 0, 1, "added to the normalizer"}};
Built build_linear(const Weights& w, const MixerConfig& c) {
  LinearAttentionConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.feature_map = static_cast<FeatureMap>(integer(c, "feature_map"));
  config.normalizer = static_cast<LinearNormalizer>(integer(c, "normalizer"));
  config.eps = static_cast<float>(number(c, "eps"));
  config.qkv_bias = c.qkv_bias;
  return token_set_mixer(LinearAttention(w, config, c.proj));
}

constexpr MixerOption kLinFusionOptions[] = {
    {"hidden", Kind::integer, 0, 0, 65536, "width within to_q_ and to_k_; 0: the identity"}};
Built build_linfusion(const Weights& w, const MixerConfig& c) {
  LinFusionAttentionConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.query_hidden = config.key_hidden = integer(c, "hidden");
  return token_set_mixer([layer = LinFusionAttention(w, config, c.proj)](const Tensor& x, Tensor residual) {
    return layer(x, {}, std::move(residual));
  });
}

constexpr MixerOption kEfficientOptions[] = {
    {"key_dim", Kind::integer, 0, 0, 65536, "channels of all heads' queries and keys; 0: embed_dim"},
    {"value_dim", Kind::integer, 0, 0, 65536, "channels of all heads' values; 0: embed_dim"}};
Built build_efficient(const Weights& w, const MixerConfig& c) {
  EfficientAttentionConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.key_dim = integer(c, "key_dim") > 0 ? integer(c, "key_dim") : c.dim;
  config.value_dim = integer(c, "value_dim") > 0 ? integer(c, "value_dim") : c.dim;
  return token_set_mixer([layer = EfficientAttention(w, config), scale = c.proj.scale](const Tensor& x, const Tensor& residual) {
    Tensor y = layer(x);  // with a residual x of its own
    if (scale.defined()) multiply_(y, scale);
    if (residual.defined()) add_(y, residual);
    return y;
  });
}

Built build_flow(const Weights& w, const MixerConfig& c) {
  FlowAttentionConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.qkv_bias = c.qkv_bias;
  return token_set_mixer(FlowAttention(w, config, c.proj));
}

constexpr MixerOption kFastOptions[] = {{"order", Kind::integer, 2, 1, 2, "terms of the exponential's series beside 1"},
                                        {"scale", Kind::number, 1, 1e-6, 1e6, "factor of the products"}};
Built build_fast(const Weights& w, const MixerConfig& c) { return token_set_mixer(FastLayer(w, c)); }

constexpr MixerOption kChannelOptions[] = {
    {"version", Kind::integer, 1, 1, 2, "timm's ChannelAttention or ChannelAttentionV2"},
    {"dynamic_scale", Kind::boolean, 1, 0, 1, "version 2: scale by the number of tokens, else by the head's width"}};
Built build_channel(const Weights& w, const MixerConfig& c) {
  ChannelAttentionConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.version = static_cast<int>(integer(c, "version"));
  config.dynamic_scale = boolean(c, "dynamic_scale");
  config.qkv_bias = c.qkv_bias;
  return token_set_mixer(ChannelAttention(w, config, c.proj));
}

constexpr MixerOption kVariedWindowOptions[] = {
    {"window_size", Kind::pair, 7, 1, kMostSize, "tokens of a window; the map is padded to a multiple"}};
Built build_varied_window(const Weights& w, const MixerConfig& c) {
  VariedWindowAttentionConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.window_size = pair(c, "window_size");
  config.qkv_bias = c.qkv_bias;
  return map_mixer(VariedWindowAttention(w, config, c.proj));
}

constexpr std::string_view kInlineMaps[] = {"identity", "relu", "leakyrelu", "exp"};
constexpr MixerOption kInlineOptions[] = {
    {"kernel_func", Kind::choice, 0, 0, 3, "feature map of queries and keys; exp is exp(0.2 x)", kInlineMaps}};
Built build_inline(const Weights& w, const MixerConfig& c) {
  expect_class_token_at_most("inline", c);
  InlineAttentionConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.window_size = {c.tokens.height, c.tokens.width};
  config.class_token = c.tokens.prefix == 1;
  constexpr FeatureMap kMaps[] = {FeatureMap::identity, FeatureMap::relu, FeatureMap::leaky_relu, FeatureMap::exp};
  config.feature_map = kMaps[integer(c, "kernel_func")];
  if (config.feature_map == FeatureMap::exp) config.feature_scale = 0.2f;
  config.qkv_bias = c.qkv_bias;
  return sized_mixer("inline", InlineAttention(w, config, c.proj), c);
}

constexpr MixerOption kRalaOptions[] = {
    {"linear", Kind::boolean, 1, 0, 1, "rank-augmented linear attention; false: softmax, the deep stages' form"}};
Built build_rala(const Weights& w, const MixerConfig& c) {
  RalaAttentionConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.linear = boolean(c, "linear");
  return map_mixer(RalaAttention(w, config, c.proj));
}

constexpr MixerOption kFocusedOptions[] = {
    {"focusing_factor", Kind::number, 3, 1e-3, 100, "power that sharpens the features"},
    {"kernel_size", Kind::integer, 5, 1, 63, "of the depth-wise convolution of values, odd"}};
Built build_focused(const Weights& w, const MixerConfig& c) {
  FocusedLinearAttentionConfig config;
  config.dim = c.dim;
  config.num_heads = c.num_heads;
  config.window_size = {c.tokens.height, c.tokens.width};
  config.focusing_factor = number(c, "focusing_factor");
  config.kernel_size = integer(c, "kernel_size");
  config.qkv_bias = c.qkv_bias;
  return sized_mixer("focused", FocusedLinearAttention(w, config, c.proj), c);
}

constexpr Mechanism kMechanisms[] = {
    {"global", "every token attends to all (Transformer)", true, kGlobalOptions, build_global},
    {"neighborhood", "a window around each token (NAT, DiNAT); prefix tokens see and are seen by all", true, kNeighborhoodOptions,
     build_neighborhood},
    {"window", "windows side by side, shifted in every second block (Swin)", false, kWindowOptions, build_window},
    {"window_v2", "the same by cosines and a continuous position bias (Swin V2)", false, kWindowV2Options, build_window_v2},
    {"partition", "blocks and grids in turn (MaxViT)", false, kPartitionOptions, build_partition},
    {"halo", "blocks of queries with a halo of keys (HaloNet); no output projection", false, kHaloOptions, build_halo},
    {"vsa", "windows whose keys come from boxes that the window's mean places (VSA)", false, kVariedWindowOptions,
     build_varied_window},
    {"bi_level_routing", "regions choose the regions that they attend to (BiFormer)", false, kRoutingOptions, build_routing},
    {"agent", "a few agents gather from all tokens and spread to them (Agent Attention)", true, kAgentOptions, build_agent},
    {"hilo", "windows for some heads, averaged windows for the others (LITv2)", false, kHiLoOptions, build_hilo},
    {"linear", "a feature map in the place of softmax (linear attention, EfficientViT)", true, kLinearOptions, build_linear},
    {"linfusion", "linear attention of LinFusion", true, kLinFusionOptions, build_linfusion},
    {"inline", "injective linear attention: weights sum to one by subtraction (InLine)", true, kInlineOptions, build_inline},
    {"rala", "rank-augmented linear attention with rotary positions and a gate (RALA)", false, kRalaOptions, build_rala},
    {"focused", "focused linear attention over the whole map (FLatten)", false, kFocusedOptions, build_focused},
    {"efficient", "softmax of queries and of keys on their own (efficient attention), a residual within", true, kEfficientOptions,
     build_efficient},
    {"flow", "conserved flows between queries and keys (Flowformer)", true, {}, build_flow},
    {"fast", "the first terms of the exponential's series (FAST)", true, kFastOptions, build_fast},
    {"channel", "channels attend to channels (DaViT)", true, kChannelOptions, build_channel},
    {"focal", "focal modulation: gated contexts of growing size (FocalNet)", false, kFocalOptions, build_focal},
    {"gnconv", "recursive gated convolution (HorNet)", false, kGnConvOptions, build_gnconv},
    {"aggregated", "a local window and a pooled map under one softmax (TransNeXt)", false, kAggregatedOptions, build_aggregated},
};

std::string text_of(const MixerOption& option, double value) {
  return option.kind == Kind::choice ? std::string(option.choices[static_cast<std::size_t>(value)])
                                     : fmt::format("{:.10g}", value);
}

void check_value(const Mechanism& mechanism, const MixerOption& option, double value) {
  const bool whole = option.kind == Kind::number || value == std::floor(value);
  if (!(value >= option.least && value <= option.most) || !whole)
    throw Error(fmt::format("attention '{}': {} is {:.10g}, expected {}{} to {}", mechanism.name, option.name, value,
                            option.kind == Kind::number ? "" : "an integer from ", text_of(option, option.least),
                            text_of(option, option.most)));
}

}  // namespace

std::span<const Mechanism> mechanisms() { return kMechanisms; }

const Mechanism& find_mechanism(std::string_view name) {
  std::vector<std::string> names;
  for (const Mechanism& mechanism : kMechanisms) {
    if (mechanism.name == name) return mechanism;
    names.emplace_back(mechanism.name);
  }
  throw Error(
      fmt::format("unknown attention '{}'{}; `vitrine models --attention` lists all", name, detail::suggest_names(name, names)));
}

Built make_mixer(const Mechanism& mechanism, const Weights& w, const MixerConfig& config) {
  if (config.num_heads < 1 || config.dim < 1 || config.dim % config.num_heads != 0)
    throw Error(
        fmt::format("attention '{}': dim {} is not a multiple of {} heads", mechanism.name, config.dim, config.num_heads));
  if (config.tokens.prefix > 0 && !mechanism.takes_prefix)
    throw Error(fmt::format("attention '{}': it works on maps only; class_token must be false and reg_tokens 0", mechanism.name));
  MixerConfig complete = config;
  for (const auto& [name, value] : config.values) {
    const auto option =
        std::find_if(mechanism.options.begin(), mechanism.options.end(), [&](const auto& o) { return o.name == name; });
    if (option == mechanism.options.end())
      throw Error(fmt::format("attention '{}': it has no option '{}'", mechanism.name, name));
    for (const double one : value) check_value(mechanism, *option, one);
  }
  for (const MixerOption& option : mechanism.options)
    complete.values.try_emplace(std::string(option.name), std::array{option.otherwise, option.otherwise});
  return mechanism.build(w, complete);
}

}  // namespace vitrine
