// A new kind of case: a builder, and its row in kKinds.
#include <vitrine/pipelines/attention_cases.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include <vitrine/attention2d/agent.h>
#include <vitrine/attention2d/aggregated.h>
#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/bi_level_routing.h>
#include <vitrine/attention2d/channel_attention.h>
#include <vitrine/attention2d/clear.h>
#include <vitrine/attention2d/efficient_attention.h>
#include <vitrine/attention2d/fast_attention.h>
#include <vitrine/attention2d/flow_attention.h>
#include <vitrine/attention2d/focal_modulation.h>
#include <vitrine/attention2d/focused_linear_attention.h>
#include <vitrine/attention2d/gnconv.h>
#include <vitrine/attention2d/halo.h>
#include <vitrine/attention2d/hilo.h>
#include <vitrine/attention2d/inline_attention.h>
#include <vitrine/attention2d/linear_attention.h>
#include <vitrine/attention2d/linfusion.h>
#include <vitrine/attention2d/neighborhood.h>
#include <vitrine/attention2d/partition.h>
#include <vitrine/attention2d/rala.h>
#include <vitrine/attention2d/varied_window.h>
#include <vitrine/attention2d/window.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0;;) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    if (end == text.size()) return parts;
    begin = end + 1;
  }
}

std::optional<std::int64_t> parse_number(std::string_view text) {
  std::int64_t value = 0;
  constexpr std::int64_t kMost = 1 << 24;  // safe to multiply by another
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > kMost) return std::nullopt;
  return value;
}

// "56x56" as numbers; empty where it is something else.
std::vector<std::int64_t> parse_sizes(std::string_view text) {
  std::vector<std::int64_t> sizes;
  for (const std::string_view part : split(text, 'x')) {
    const auto size = part.empty() || !is_digit(part[0]) ? std::nullopt : parse_number(part);
    if (!size) return {};
    sizes.push_back(*size);
  }
  return sizes;
}

// A case's text taken apart. Each part must be asked for by somebody: finish() refuses the others.
class CaseText {
 public:
  CaseText(const std::string& text, const AttentionForm& form, std::int64_t batch, DType dtype)
      : batch(batch), dtype(dtype), text_(text), form_(form) {
    const auto parts = split(text, '_');
    for (std::size_t i = 1; i < parts.size(); ++i) {
      const std::string_view part = parts[i];
      if (i == 1 && !part.empty() && is_digit(part[0])) {
        sizes_ = parse_sizes(part);
        if (sizes_.empty()) fail(fmt::format("'{}' are no sizes", part));
        continue;
      }
      const std::size_t letters = std::find_if(part.begin(), part.end(), is_digit) - part.begin();
      const auto value = letters == part.size() ? std::optional(kFlag) : parse_number(part.substr(letters));
      if (letters == 0 || !value) fail(fmt::format("'{}' is no LETTER and NUMBER", part));
      if (!numbers_.emplace(part.substr(0, letters), *value).second) fail(fmt::format("'{}' twice", part.substr(0, letters)));
    }
  }

  std::int64_t number(std::string_view letter) {
    const auto value = find(letter);
    if (!value || *value == kFlag) fail(fmt::format("no {}NUMBER", letter));
    return *value;
  }
  // How many tokens, heads, channels there are.
  std::int64_t count(std::string_view letter) {
    const std::int64_t value = number(letter);
    if (value < 1) fail(fmt::format("{} is 0", letter));
    return value;
  }
  std::int64_t number(std::string_view letter, std::int64_t otherwise) {
    return numbers_.contains(letter) ? number(letter) : find(letter).value_or(otherwise);
  }
  bool flag(std::string_view name) { return find(name).has_value(); }

  const std::vector<std::int64_t>& sizes(std::size_t axes) const {
    if (sizes_.size() != axes) fail(fmt::format("{} sizes, expected {}", sizes_.size(), axes));
    if (*std::min_element(sizes_.begin(), sizes_.end()) < 1) fail("a size of 0");
    return sizes_;
  }
  void finish(std::size_t axes) const {
    if (axes == 0 && !sizes_.empty()) fail("sizes of a map");
    for (const auto& [letter, value] : numbers_)
      if (std::find(known_.begin(), known_.end(), letter) == known_.end())
        fail(value == kFlag ? fmt::format("unknown '{}'", letter) : fmt::format("unknown '{}{}'", letter, value));
  }

  [[noreturn]] void fail(const std::string& why) const {
    throw Error(fmt::format("attention case '{}': {}; expected the form of {} ({})", text_, why, form_.example, form_.what));
  }

  static Device device() { return Context::current().device(); }
  Tensor input(Shape shape) const { return synthetic_tensor("bench.x", shape).to(dtype).to(device()); }
  Weights weights() const { return Weights(synthetic_weights(), {.dtype = dtype, .device = device()}); }

  std::int64_t batch;
  DType dtype;

 private:
  std::optional<std::int64_t> find(std::string_view letter) {
    known_.push_back(letter);
    const auto found = numbers_.find(letter);
    return found == numbers_.end() ? std::nullopt : std::optional(found->second);
  }

  static constexpr std::int64_t kFlag = -1;  // the value of letters without a number

  const std::string& text_;
  const AttentionForm& form_;
  std::vector<std::int64_t> sizes_;
  std::map<std::string_view, std::int64_t> numbers_;
  std::vector<std::string_view> known_;
};

constexpr std::int64_t kPiece = 1 << 14;  // tokens

// q, k and v as views of one fused projection [B, tokens..., 3, heads, dim], as in a model.
Tensor projection(const CaseText& c, const std::vector<std::int64_t>& tokens, std::int64_t heads, std::int64_t dim) {
  Shape shape{c.batch};
  for (const std::int64_t size : tokens) shape.push_back(size);
  for (const std::int64_t size : {std::int64_t{3}, heads, dim}) shape.push_back(size);
  const std::int64_t n = shape.numel() / (c.batch * 3 * heads * dim);
  if (n <= kPiece) return synthetic_tensor("bench.qkv", shape).to(c.dtype).to(c.device());
  // The tokens of large maps repeat: all of them in f32 first would take as much memory again and more.
  Tensor all = Tensor::empty({c.batch, n, 3, heads, dim}, c.dtype);
  const Tensor piece = synthetic_tensor("bench.qkv", {c.batch, kPiece, 3, heads, dim}).to(c.dtype);
  for (std::int64_t at = 0; at < n; at += kPiece) {
    const std::int64_t count = std::min(kPiece, n - at);
    Tensor to = all.slice(1, at, at + count);
    copy_(to, piece.slice(1, 0, count));
  }
  return all.view(shape).to(c.device());
}

// An operator on given q, k and v of a line of tokens.
template <typename Attend>
AttentionProblem on_given_tokens(CaseText& c, const Attend& attend) {
  const std::int64_t h = c.count("h"), n = c.count("n"), d = c.count("d");
  c.finish(0);
  const Tensor qkv = projection(c, {n}, h, d);
  return {.run = [=](std::string_view impl) { return attend(qkv.select(2, 0), qkv.select(2, 1), qkv.select(2, 2), impl); },
          .takes_impl = true,
          .tokens = {n}};
}

AttentionProblem make_sdpa(CaseText& c) {
  return on_given_tokens(c, [](const Tensor& q, const Tensor& k, const Tensor& v, std::string_view impl) {
    return attention(q, k, v, {.impl = impl});
  });
}

// Linear attention as LinFusion has it.
AttentionProblem make_elu(CaseText& c) { return on_given_tokens(c, linfusion_attention); }

template <int kAxes>
AttentionProblem make_neighborhood(CaseText& c) {
  const auto& sizes = c.sizes(kAxes);
  const std::int64_t h = c.count("h"), d = c.count("d"), k = c.number("k"), dilation = c.number("dil", 1);
  const bool rpb = c.flag("rpb");
  const std::int64_t text = kAxes == 2 ? c.number("t", 0) : 0;
  c.finish(kAxes);
  if (text > 0 && rpb) c.fail("t and rpb exclude each other");
  NeighborhoodOptions options;
  options.kernel_size.fill(k);
  options.dilation.fill(dilation);
  if (rpb) options.rpb = synthetic_parameter("bench.rpb", {h, 2 * k - 1, 2 * k - 1});
  if (text > 0) {
    const Tensor qkv = projection(c, {text + sizes[0] * sizes[1]}, h, d);
    return {.run =
                [=](std::string_view impl) {
                  NeighborhoodOptions o = options;
                  o.impl = impl;
                  return joint_neighborhood_attention(qkv.select(2, 0), qkv.select(2, 1), qkv.select(2, 2), text, sizes[0],
                                                      sizes[1], o);
                },
            .takes_impl = true,
            .tokens = sizes};
  }
  const Tensor qkv = projection(c, sizes, h, d);
  return {.run =
              [=](std::string_view impl) {
                NeighborhoodOptions o = options;
                o.impl = impl;
                return neighborhood_attention(qkv.select(-3, 0), qkv.select(-3, 1), qkv.select(-3, 2), o);
              },
          .takes_impl = true,
          .tokens = sizes};
}

// A layer on a map x [B, H, W, C], or on tokens [B, N, C].
template <typename Make>
AttentionProblem layer_problem(const CaseText& c, const std::vector<std::int64_t>& tokens, std::int64_t dim, const Make& make) {
  Shape shape{c.batch};
  for (const std::int64_t size : tokens) shape.push_back(size);
  shape.push_back(dim);
  const Weights w = c.weights();
  return {.run = [layer = make(w), x = c.input(shape)](std::string_view) { return layer(x); },
          .takes_impl = false,
          .tokens = tokens,
          .parameters = w.parameters()};
}

AttentionProblem make_focal(CaseText& c) {
  const FocalModulationConfig config{
      .dim = c.count("c"), .focal_level = c.number("l"), .focal_window = c.number("w"), .focal_factor = c.number("f", 2)};
  c.finish(2);
  return layer_problem(c, c.sizes(2), config.dim, [&](const Weights& w) { return FocalModulation(w, config); });
}

AttentionProblem make_gnconv(CaseText& c) {
  const GnConvConfig config{.dim = c.count("c"), .order = c.number("o")};
  c.finish(2);
  return layer_problem(c, c.sizes(2), config.dim, [&](const Weights& w) { return GnConv(w, config); });
}

AttentionProblem make_aggregated(CaseText& c) {
  const AggregatedAttentionConfig config{
      .dim = c.count("c"), .num_heads = c.count("h"), .window_size = c.number("w"), .sr_ratio = c.number("r")};
  c.finish(2);
  return layer_problem(c, c.sizes(2), config.dim, [&](const Weights& w) { return AggregatedAttention(w, config); });
}

AttentionProblem make_window(CaseText& c) {
  const std::int64_t window = c.number("w"), shift = c.number("s");
  const WindowAttentionConfig config{
      .dim = c.count("c"), .num_heads = c.count("h"), .window_size = {window, window}, .shift_size = {shift, shift}};
  c.finish(2);
  return layer_problem(c, c.sizes(2), config.dim, [&](const Weights& w) { return WindowAttention(w, config); });
}

AttentionProblem make_window_v2(CaseText& c) {
  const std::int64_t window = c.number("w"), shift = c.number("s");
  const WindowAttentionV2Config config{
      .dim = c.count("c"), .num_heads = c.count("h"), .window_size = {window, window}, .shift_size = {shift, shift}};
  c.finish(2);
  return layer_problem(c, c.sizes(2), config.dim, [&](const Weights& w) { return WindowAttentionV2(w, config); });
}

template <PartitionKind kKind>
AttentionProblem make_partition(CaseText& c) {
  const std::int64_t size = c.number("w");
  const PartitionAttentionConfig config{.dim = c.count("c"), .head_dim = c.count("d"), .partition = kKind, .size = {size, size}};
  c.finish(2);
  return layer_problem(c, c.sizes(2), config.dim, [&](const Weights& w) { return PartitionAttention(w, config); });
}

AttentionProblem make_halo(CaseText& c) {
  HaloAttentionConfig config{.dim = c.count("c"), .num_heads = c.count("h")};
  config.head_dim = config.value_head_dim = c.count("d");
  config.block_size = c.number("w");
  config.halo_size = c.number("r");
  c.finish(2);
  return layer_problem(c, c.sizes(2), config.dim, [&](const Weights& w) { return HaloAttention(w, config); });
}

AttentionProblem make_bi_level_routing(CaseText& c) {
  const BiLevelRoutingConfig config{
      .dim = c.count("c"), .num_heads = c.count("h"), .n_win = c.number("p"), .topk = c.number("t")};
  c.finish(2);
  return layer_problem(c, c.sizes(2), config.dim, [&](const Weights& w) { return BiLevelRoutingAttention(w, config); });
}

AttentionProblem make_agent(CaseText& c) {
  const auto& map = c.sizes(2);
  const std::int64_t side = c.number("a");
  const AgentAttentionConfig config{
      .dim = c.count("c"), .num_heads = c.count("h"), .agent_num = side * side, .height = map[0], .width = map[1]};
  c.finish(2);
  AttentionProblem problem =
      layer_problem(c, {map[0] * map[1]}, config.dim, [&](const Weights& w) { return AgentAttention(w, config); });
  problem.tokens = map;
  return problem;
}

AttentionProblem make_hilo(CaseText& c) {
  HiLoConfig config{.dim = c.count("c"), .num_heads = c.count("h"), .window_size = c.number("w")};
  const std::int64_t tenths = c.number("a");
  if (tenths > 10) c.fail(fmt::format("{} tenths of the heads", tenths));
  config.alpha = static_cast<double>(tenths) / 10 + (tenths < 10 ? 1e-9 : 0);  // of the heads, rounded down
  config.qkv_bias = true;
  c.finish(2);
  return layer_problem(c, c.sizes(2), config.dim, [&](const Weights& w) { return HiLoAttention(w, config); });
}

// The axes of x [B, N, C].
std::vector<std::int64_t> token_count(CaseText& c) { return {c.count("n")}; }

AttentionProblem make_linear(CaseText& c) {
  const std::vector<std::int64_t> tokens = token_count(c);
  const LinearAttentionConfig config{.dim = c.count("c"), .num_heads = c.count("h")};
  c.finish(0);
  return layer_problem(c, tokens, config.dim, [&](const Weights& w) { return LinearAttention(w, config); });
}

AttentionProblem make_linfusion(CaseText& c) {
  const std::vector<std::int64_t> tokens = token_count(c);
  LinFusionAttentionConfig config{.dim = c.count("c"), .num_heads = c.count("h")};
  config.query_hidden = config.key_hidden = c.number("m", 0);
  c.finish(0);
  return layer_problem(c, tokens, config.dim, [&](const Weights& w) { return LinFusionAttention(w, config); });
}

AttentionProblem make_efficient(CaseText& c) {
  const std::vector<std::int64_t> tokens = token_count(c);
  const std::int64_t dim = c.count("c");
  const EfficientAttentionConfig config{.dim = dim, .key_dim = dim, .value_dim = dim, .num_heads = c.count("h")};
  c.finish(0);
  return layer_problem(c, tokens, dim, [&](const Weights& w) { return EfficientAttention(w, config); });
}

AttentionProblem make_flow(CaseText& c) {
  const std::vector<std::int64_t> tokens = token_count(c);
  const FlowAttentionConfig config{.dim = c.count("c"), .num_heads = c.count("h")};
  c.finish(0);
  return layer_problem(c, tokens, config.dim, [&](const Weights& w) { return FlowAttention(w, config); });
}

AttentionProblem make_fast(CaseText& c) {
  const std::int64_t n = c.count("n"), h = c.count("h"), d = c.count("d"), order = c.number("o", 2);
  c.finish(0);
  const Tensor qkv = projection(c, {n}, h, d);
  return {.run =
              [=](std::string_view impl) {
                FastAttentionOptions options;
                options.order = static_cast<int>(order);
                options.impl = impl;
                return fast_attention(qkv.select(2, 0), qkv.select(2, 1), qkv.select(2, 2), options);
              },
          .takes_impl = true,
          .tokens = {n}};
}

AttentionProblem make_channel(CaseText& c) {
  const std::vector<std::int64_t> tokens = token_count(c);
  ChannelAttentionConfig config{.dim = c.count("c"), .num_heads = c.count("h")};
  config.version = static_cast<int>(c.number("v", 1));
  c.finish(0);
  return layer_problem(c, tokens, config.dim, [&](const Weights& w) { return ChannelAttention(w, config); });
}

AttentionProblem make_varied_window(CaseText& c) {
  const std::int64_t window = c.number("w");
  const VariedWindowAttentionConfig config{.dim = c.count("c"), .num_heads = c.count("h"), .window_size = {window, window}};
  c.finish(2);
  return layer_problem(c, c.sizes(2), config.dim, [&](const Weights& w) { return VariedWindowAttention(w, config); });
}

// A layer on the tokens of a whole map, whose sides it knows as its window.
template <typename Config, typename Make>
AttentionProblem whole_map_problem(CaseText& c, Config config, const Make& make) {
  const auto& map = c.sizes(2);
  config.dim = c.count("c");
  config.num_heads = c.count("h");
  config.window_size = {map[0], map[1]};
  c.finish(2);
  AttentionProblem problem = layer_problem(c, {map[0] * map[1]}, config.dim, [&](const Weights& w) { return make(w, config); });
  problem.tokens = map;
  return problem;
}

AttentionProblem make_inline(CaseText& c) {
  return whole_map_problem(c, InlineAttentionConfig{},
                           [](const Weights& w, const InlineAttentionConfig& config) { return InlineAttention(w, config); });
}

AttentionProblem make_focused(CaseText& c) {
  return whole_map_problem(c, FocusedLinearAttentionConfig{}, [](const Weights& w, const FocusedLinearAttentionConfig& config) {
    return FocusedLinearAttention(w, config);
  });
}

AttentionProblem make_rala(CaseText& c) {
  const RalaAttentionConfig config{.dim = c.count("c"), .num_heads = c.count("h")};
  c.finish(2);
  return layer_problem(c, c.sizes(2), config.dim, [&](const Weights& w) { return RalaAttention(w, config); });
}

AttentionProblem make_clear(CaseText& c) {
  const auto& map = c.sizes(2);
  const std::int64_t h = c.count("h"), d = c.count("d");
  ClearOptions options;
  options.height = map[0];
  options.width = map[1];
  options.radius = c.number("r");
  options.text_length = c.number("t", 0);
  c.finish(2);
  const Tensor qkv = projection(c, {options.text_length + map[0] * map[1]}, h, d);
  return {.run =
              [=](std::string_view impl) {
                ClearOptions o = options;
                o.impl = impl;
                return clear_attention(qkv.select(2, 0), qkv.select(2, 1), qkv.select(2, 2), o);
              },
          .takes_impl = true,
          .tokens = map};
}

AttentionProblem refuse_dit_block(CaseText& c) { c.fail("there are no DiT blocks in this build"); }

struct Kind {
  AttentionForm form;
  AttentionProblem (*make)(CaseText&);
};

constexpr Kind kKinds[] = {
    {{"sdpa", "sdpa_h3_n197_d64", "global attention of n tokens", "sdpa_h2_n{tokens}_d32"}, make_sdpa},
    {{"na1d", "na1d_3136_h2_d32_k7", "neighborhood attention on a line, _dil2 for a dilation", ""}, make_neighborhood<1>},
    {{"na2d", "na2d_56x56_h2_d32_k7",
      "neighborhood attention on a map, _dil2 for a dilation, _rpb for a position bias, _t512 for text tokens before the map",
      "na2d_{side}x{side}_h2_d32_k7"},
     make_neighborhood<2>},
    {{"na3d", "na3d_16x28x28_h2_d32_k3", "neighborhood attention on a volume, _dil2 for a dilation", ""}, make_neighborhood<3>},
    {{"focal", "focal_56x56_c96_l2_w3", "focal modulation layer of l levels from a window of w, _f2 for its growth",
      "focal_{side}x{side}_c64_l2_w3"},
     make_focal},
    {{"gnconv", "gnconv_56x56_c64_o3", "recursive gated convolution layer of order o", "gnconv_{side}x{side}_c64_o3"},
     make_gnconv},
    {{"aggregated", "aggregated_56x56_c72_h3_w3_r8", "aggregated attention layer, window w, pooled by r a side",
      "aggregated_{side}x{side}_c64_h2_w3_r{eighth}"},
     make_aggregated},
    {{"swin", "swin_56x56_c96_h3_w7_s3", "window attention layer, window w, shift s", "swin_{side}x{side}_c64_h2_w8_s4"},
     make_window},
    {{"swinv2", "swinv2_56x56_c96_h3_w7_s3", "Swin V2's cosine window attention layer, window w, shift s",
      "swinv2_{side}x{side}_c64_h2_w8_s4"},
     make_window_v2},
    {{"block", "block_56x56_c64_d32_w7", "MaxViT's block attention layer, heads of d, blocks of w",
      "block_{side}x{side}_c64_d32_w8"},
     make_partition<PartitionKind::block>},
    {{"grid", "grid_56x56_c64_d32_w7", "MaxViT's grid attention layer, heads of d, grids of w", "grid_{side}x{side}_c64_d32_w8"},
     make_partition<PartitionKind::grid>},
    {{"halo", "halo_56x56_c64_h4_d16_w8_r3", "halo attention layer, heads of d, blocks of w, halo r",
      "halo_{side}x{side}_c64_h2_d32_w8_r3"},
     make_halo},
    {{"bra", "bra_56x56_c64_h2_p7_t1", "bi-level routing layer, p x p regions, t of them routed",
      "bra_{side}x{side}_c64_h2_p8_t4"},
     make_bi_level_routing},
    {{"agent", "agent_14x14_c192_h3_a7", "agent attention layer, a x a agents", "agent_{side}x{side}_c64_h2_a7"}, make_agent},
    {{"hilo", "hilo_14x14_c384_h12_w2_a9", "HiLo layer, window w, a tenths of the heads in the low branch",
      "hilo_{side}x{side}_c64_h2_w2_a5"},
     make_hilo},
    {{"linear", "linear_n1024_c1152_h36", "ReLU linear attention layer", "linear_n{tokens}_c64_h2"}, make_linear},
    {{"elu", "elu_h24_n4096_d128", "LinFusion's linear attention of n tokens, without projections", ""}, make_elu},
    {{"linfusion", "linfusion_n1024_c320_h5", "LinFusion layer, _m80 for the width within to_q_ and to_k_",
      "linfusion_n{tokens}_c64_h2"},
     make_linfusion},
    {{"vsa", "vsa_56x56_c96_h3_w7", "varied-size window attention layer, window w", "vsa_{side}x{side}_c64_h2_w8"},
     make_varied_window},
    {{"clear", "clear_64x64_h24_d128_r8_t512", "CLEAR attention, radius r, t text tokens before the map",
      "clear_{side}x{side}_h2_d32_r4"},
     make_clear},
    {{"inline", "inline_14x14_c192_h3", "InLine attention layer over the map", "inline_{side}x{side}_c64_h2"}, make_inline},
    {{"focused", "focused_14x14_c192_h3", "focused linear attention layer over the map", "focused_{side}x{side}_c64_h2"},
     make_focused},
    {{"rala", "rala_56x56_c64_h2", "rank-augmented linear attention layer", "rala_{side}x{side}_c64_h2"}, make_rala},
    {{"efficient", "efficient_n1024_c64_h2", "efficient attention layer", "efficient_n{tokens}_c64_h2"}, make_efficient},
    {{"flow", "flow_n1024_c64_h2", "flow attention layer", "flow_n{tokens}_c64_h2"}, make_flow},
    {{"fast", "fast_n1024_h2_d32", "FAST attention, _o1 for the first order", "fast_n{tokens}_h2_d32"}, make_fast},
    {{"channel", "channel_n3136_c96_h3", "channel attention layer, _v2 for version 2", "channel_n{tokens}_c64_h2"}, make_channel},
    {{"ditblock", "ditblock_n256_c384_h6", "DiT block", ""}, refuse_dit_block},
};

const Kind* kind_of(std::string_view text) {
  const std::string_view prefix = text.substr(0, text.find('_'));
  for (const Kind& kind : kKinds)
    if (kind.form.prefix == prefix) return &kind;
  return nullptr;
}

}  // namespace

std::span<const AttentionForm> attention_forms() {
  static const std::vector<AttentionForm> forms = [] {
    std::vector<AttentionForm> all;
    for (const Kind& kind : kKinds) all.push_back(kind.form);
    return all;
  }();
  return forms;
}

std::string square_case(const AttentionForm& form, std::int64_t side) {
  return fmt::format(fmt::runtime(form.square), fmt::arg("side", side), fmt::arg("tokens", side * side),
                     fmt::arg("eighth", std::max<std::int64_t>(side / 8, 1)));
}

bool is_attention_case(std::string_view text) {
  const Kind* kind = kind_of(text);
  if (kind == nullptr || text.size() < kind->form.prefix.size() + 2) return false;
  const std::string_view rest = text.substr(kind->form.prefix.size() + 1);  // 56x56... , n1024... or h3...
  return is_digit(rest[0]) || ((rest[0] == 'n' || rest[0] == 'h' || rest[0] == 'c') && rest.size() > 1 && is_digit(rest[1]));
}

AttentionProblem make_attention_problem(const std::string& text, std::int64_t batch, DType dtype) {
  const Kind* kind = kind_of(text);
  if (kind == nullptr) {
    std::string examples;
    for (const AttentionForm& form : attention_forms())
      examples += fmt::format("{}{}", examples.empty() ? "" : ", ", form.example);
    throw Error(fmt::format("attention case '{}': expected one like {}", text, examples));
  }
  CaseText c(text, kind->form, batch, dtype);
  return kind->make(c);
}

}  // namespace vitrine
