#include <vitrine/backbones/mixed_attention.h>

#include <charconv>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/agent.h>
#include <vitrine/attention2d/focused_linear_attention.h>
#include <vitrine/attention2d/inline_attention.h>
#include <vitrine/attention2d/partition.h>
#include <vitrine/layers/error.h>

namespace vitrine::detail {

MixedKind kind_of_name(std::string_view name) {
  switch (name.front()) {
    case 'a':
    case 'A':
      return MixedKind::agent;
    case 'i':
    case 'I':
      return MixedKind::injective;
    default:
      return MixedKind::focused;
  }
}

AttentionTypes::AttentionTypes(MixedKind kind, std::string_view text, std::size_t stages, std::string_view model) {
  const std::string_view letters = kind == MixedKind::agent ? "ABM" : kind == MixedKind::injective ? "ISM" : "LSM";
  const auto fail = [&](std::string_view what) { throw Error(fmt::format("{}: attn_type is '{}', {}", model, text, what)); };
  if (text.size() < stages) fail(fmt::format("expected {} letters", stages));
  stages_ = text.substr(0, stages);
  if (stages_.find_first_not_of(letters) != std::string::npos) fail(fmt::format("expected letters of {}", letters));
  if (stages_.find('M') == std::string::npos) return;
  const char* end = text.data() + text.size();
  const auto [parsed, error] = std::from_chars(text.data() + stages, end, first_blocks_);
  if (error != std::errc() || parsed != end || first_blocks_ < 0) fail("expected a number of blocks after a stage M");
}

bool AttentionTypes::replaced(std::size_t stage, std::int64_t block) const {
  return stages_[stage] == 'M' ? block < first_blocks_ : replaced_anywhere(stage);
}

namespace {

AgentAttentionConfig agent_config(const MixedAttentionConfig& c) {
  return {.dim = c.dim,
          .num_heads = c.num_heads,
          .agent_num = c.agent_num,
          .height = c.window_size[0],
          .width = c.window_size[1],
          .class_token = c.class_token,
          .qkv_bias = c.qkv_bias,
          .sr_ratio = c.sr_ratio};
}

InlineAttentionConfig inline_config(const MixedAttentionConfig& c) {
  if (c.sr_ratio != 1) throw Error(fmt::format("inline_attention: la_sr_ratios is {}, expected 1", c.sr_ratio));
  return {.dim = c.dim,
          .num_heads = c.num_heads,
          .window_size = c.window_size,
          .class_token = c.class_token,
          .qkv_bias = c.qkv_bias,
          .separate_kv = c.pvt};
}

FocusedLinearAttentionConfig focused_config(const MixedAttentionConfig& c) {
  return {.dim = c.dim,
          .num_heads = c.num_heads,
          .window_size = c.window_size,
          .focusing_factor = c.focusing_factor,
          .kernel_size = c.kernel_size,
          .qkv_bias = c.qkv_bias,
          .separate_kv = c.pvt,
          .sr_ratio = c.sr_ratio,
          .linear = c.linear};
}

}  // namespace

namespace {

// Those whose own size is the only one.
template <typename Attention>
auto of_one_size(Attention attention) {
  return [attention = std::move(attention)](const Tensor& x, std::int64_t, std::int64_t, Tensor residual) {
    return attention(x, std::move(residual));
  };
}

}  // namespace

MixedAttention::MixedAttention(const Weights& w, const MixedAttentionConfig& c) {
  switch (c.kind) {
    case MixedKind::agent:
      if (c.pvt)
        attention_ = of_one_size(AgentAttentionPvt(w, agent_config(c)));
      else
        attention_ = of_one_size(AgentAttention(w, agent_config(c)));
      break;
    case MixedKind::injective:
      attention_ = InlineAttention(w, inline_config(c));
      break;
    case MixedKind::focused:
      attention_ = of_one_size(FocusedLinearAttention(w, focused_config(c)));
      break;
  }
}

MixedMixer::MixedMixer(const Weights& w, const MixedAttentionConfig& c) {
  using Size = std::int64_t;
  if (c.kind == MixedKind::agent) {
    AgentAttentionConfig config = agent_config(c);
    config.mix_only = true;
    const auto size = c.window_size;
    mix_ = [agent = AgentAttention(w, config), size](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor&,
                                                     Size height, Size width) {
      const auto windows = [&](const Tensor& t) { return cut_windows(t.unflatten(1, {height, width}), size); };
      return join_windows(agent.mix(windows(q), windows(k), windows(v)), height, width, size).flatten(1, 2);
    };
  } else if (c.kind == MixedKind::injective) {
    InlineAttentionConfig config = inline_config(c);
    config.mix_only = true;
    mix_ = [attention = InlineAttention(w, config)](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& token,
                                                    Size height,
                                                    Size width) { return attention.mix(q, k, v, token, height, width); };
  } else {
    FocusedLinearAttentionConfig config = focused_config(c);
    config.mix_only = true;
    mix_ = [attention = FocusedLinearAttention(w, config)](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor&, Size,
                                                           Size) { return attention.mix(q, k, v); };
  }
}

}  // namespace vitrine::detail
