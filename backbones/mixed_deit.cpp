#include <vitrine/backbones/mixed_deit.h>

#include <array>
#include <utility>

#include <fmt/format.h>

#include <vitrine/backbones/family.h>
#include <vitrine/layers/error.h>

namespace vitrine {

using detail::MixedKind;

namespace {

constexpr std::array<std::size_t, 6> kAgentStage{0, 1, 2, 2, 2, 3};  // of each two blocks

void check(bool right, const char* what) {
  if (!right) throw Error(fmt::format("deit: {}", what));
}

void validate(const MixedDeitConfig& c) {
  constexpr std::int64_t kMost = 1 << 16;  // far above any model, and safe to multiply
  const auto sane = [](std::int64_t n) { return n > 0 && n <= kMost; };
  check(sane(c.img_size) && sane(c.patch_size) && c.img_size % c.patch_size == 0, "img_size must be a multiple of patch_size");
  check(sane(c.in_chans) && sane(c.embed_dim) && sane(c.depth), "in_chans, embed_dim and depth must be positive");
  check(c.num_classes >= 0 && c.num_classes <= 1 << 24, "num_classes is out of range");
  check(c.mlp_ratio > 0 && c.mlp_ratio <= 64, "mlp_ratio is out of range");
  check(sane(c.num_heads) && c.embed_dim % c.num_heads == 0, "num_heads must divide embed_dim");
  if (c.kind != MixedKind::agent) return;
  check(c.agent_num.size() >= 4, "agent_num, expected four numbers");
  check(c.depth <= static_cast<std::int64_t>(2 * kAgentStage.size()), "depth is above 12, which agent_num is for");
}

}  // namespace

MixedDeit::Block MixedDeit::make_block(const Weights& w, std::int64_t index) const {
  const MixedDeitConfig& c = config_;
  const auto attention = [&]() -> std::variant<detail::MixedAttention, detail::SelfAttention> {
    if (c.kind == MixedKind::agent && c.agent_layer > 0 && index >= c.agent_layer) {
      detail::SelfAttentionConfig plain;
      plain.dim = c.embed_dim;
      plain.num_heads = c.num_heads;
      plain.qkv_bias = c.qkv_bias;
      return detail::SelfAttention(w / "attn", plain);
    }
    detail::MixedAttentionConfig mixed;
    mixed.kind = c.kind;
    mixed.dim = c.embed_dim;
    mixed.num_heads = c.num_heads;
    mixed.window_size = {c.img_size / c.patch_size, c.img_size / c.patch_size};
    mixed.class_token = true;
    mixed.qkv_bias = c.qkv_bias;
    if (c.kind == MixedKind::agent) mixed.agent_num = c.agent_num[kAgentStage[static_cast<std::size_t>(index / 2)]];
    return detail::MixedAttention(w / "attn", mixed);
  };
  detail::FeedForwardConfig mlp;
  mlp.dim = c.embed_dim;
  mlp.hidden = static_cast<std::int64_t>(static_cast<double>(c.embed_dim) * c.mlp_ratio);
  return {detail::Norm(w / "norm1", c.embed_dim, {}), detail::Norm(w / "norm2", c.embed_dim, {}), attention(),
          detail::FeedForward(w / "mlp", mlp)};
}

MixedDeit::MixedDeit(const Weights& w, MixedDeitConfig config) : config_(std::move(config)) {
  validate(config_);
  const MixedDeitConfig& c = config_;
  detail::EmbeddingConfig embedding;
  embedding.img_size = {c.img_size, c.img_size};
  embedding.patch_size = {c.patch_size, c.patch_size};
  embedding.in_chans = c.in_chans;
  embedding.dim = c.embed_dim;
  embedding.prefix = {"cls_token"};
  embed_ = detail::Embedding(w, embedding, "deit");
  for (std::int64_t i = 0; i < c.depth; ++i) blocks_.push_back(make_block(w / "blocks" / i, i));
  norm_ = detail::Norm(w / "norm", c.embed_dim, {});
  detail::HeadConfig head;
  head.dim = c.embed_dim;
  head.num_classes = c.num_classes;
  head.num_heads = c.num_heads;
  head_ = detail::Head(w, head, std::nullopt);
  dtype_ = w.dtype();
  info_.num_classes = c.num_classes;
  info_.num_features = c.embed_dim;
}

Tensor MixedDeit::run_block(std::int64_t index, Tensor x, const detail::Positions& positions) const {  // [B, 1 + N, C]
  const Block& block = blocks_[static_cast<std::size_t>(index)];
  const Tensor y = block.norm1(x);
  if (const auto* plain = std::get_if<detail::SelfAttention>(&block.attn))
    x = (*plain)(y, positions, std::move(x));
  else
    x = std::get<detail::MixedAttention>(block.attn)(y, positions.height, positions.width, std::move(x));
  const Tensor z = block.norm2(x);
  return block.mlp(z, std::move(x));
}

// --- variants ----------------------------------------------------------------------------------------------------

namespace detail {
namespace {

// Sizes and numbers of agents are those of the published checkpoints.
constexpr Variant kAgent[] = {
    {"agent_deit_tiny", R"({"embed_dim": 192, "num_heads": 3})", "", "74.9"},
    {"agent_deit_small", R"({"embed_dim": 384, "num_heads": 6})", "", "80.5"},
    {"agent_deit_small_448", R"({"embed_dim": 384, "num_heads": 6, "img_size": 448})", R"({"input_size": [3, 448, 448]})",
     "83.1"},
    {"agent_deit_base", R"({"embed_dim": 768, "num_heads": 12, "agent_layer": 4, "agent_num": [81, 81, 81, 81]})", "", "82.0"},
};
constexpr Variant kInline[] = {
    {"inline_deit_tiny", R"({"embed_dim": 192, "num_heads": 6})", "", "74.5"},
    {"inline_deit_small", R"({"embed_dim": 320, "num_heads": 10, "img_size": 288})", R"({"input_size": [3, 288, 288]})", "80.2"},
    {"inline_deit_base", R"({"embed_dim": 384, "num_heads": 12, "img_size": 448})", R"({"input_size": [3, 448, 448]})", "82.3"},
};

std::unique_ptr<Backbone> build(const Variant& variant, const Weights& w, const Arguments& arguments) {
  MixedDeitConfig c;
  c.kind = kind_of_name(variant.name);
  ArgumentReader reader(variant.name, arguments);
  reader.get("img_size", c.img_size)
      .get("patch_size", c.patch_size)
      .get("in_chans", c.in_chans)
      .get("num_classes", c.num_classes)
      .get("embed_dim", c.embed_dim)
      .get("depth", c.depth)
      .get("num_heads", c.num_heads)
      .get("mlp_ratio", c.mlp_ratio)
      .get("qkv_bias", c.qkv_bias)
      .ignore({"drop_rate", "attn_drop_rate", "drop_path_rate", "weight_init", "pretrained"});
  if (c.kind == MixedKind::agent) reader.get("agent_num", c.agent_num).get("agent_layer", c.agent_layer);
  reader.finish();
  return std::make_unique<MixedDeit>(w, std::move(c));
}

}  // namespace

constinit const Family kAgentDeitFamily{.name = "agent_deit",
                                        .source = "Agent Attention, arXiv:2312.08874; LeapLabTHU/Agent-Attention",
                                        .attention = "agents",
                                        .variants = kAgent,
                                        .build = build};
constinit const Family kInlineDeitFamily{.name = "inline_deit",
                                         .source = "InLine, arXiv:2412.06590; LeapLabTHU/InLine",
                                         .attention = "InLine, linear",
                                         .variants = kInline,
                                         .build = build};

}  // namespace detail
}  // namespace vitrine
