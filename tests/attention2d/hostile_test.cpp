// What every mechanism refuses, and that it does so before it takes memory: in one line, never by overflow or by trying.
#include <cstdint>
#include <functional>
#include <limits>
#include <string>

#include <catch.h>
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
#include <vitrine/attention2d/grouped.h>
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
#include <vitrine/layers/error.h>
#include <vitrine/layers/memory.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max(), kLarge = std::int64_t{1} << 32;

// Empty where the call throws one line and takes no memory before; else what it did.
std::string answer(const std::function<void()>& call) {
  const std::int64_t before = memory_stats().in_use;
  reset_peak_memory();
  std::string message;
  try {
    call();
    return "it was not refused";
  } catch (const Error& error) {
    message = error.what();
  } catch (const std::exception& error) {
    return fmt::format("another kind of exception: {}", error.what());
  }
  if (message.empty() || message.find('\n') != std::string::npos) return fmt::format("not one line: '{}'", message);
  if (const std::int64_t taken = memory_stats().peak - before; taken != 0)
    return fmt::format("{} bytes before '{}'", taken, message);
  return "";
}

#define CHECK_REFUSED(...) CHECK(answer([&] { static_cast<void>(__VA_ARGS__); }) == "")

// Weights of any name and shape: a layer that is not refused would read them.
Weights any() { return Weights(synthetic_weights()); }

TEST_CASE("tensors that do not fit are refused before memory is taken") {
  const Tensor q = Tensor::zeros({1, 6, 2, 8}), fewer = Tensor::zeros({1, 5, 2, 8}), narrow = Tensor::zeros({1, 6, 2, 4});
  const Tensor batch = Tensor::zeros({2, 6, 2, 8}), three = Tensor::zeros({1, 6, 3, 8}), half = q.to(DType::bf16);
  const Tensor headless = Tensor::zeros({1, 6, 0, 8}), flat = Tensor::zeros({6, 2, 8}),
               whole = Tensor::zeros({1, 6, 2, 8}, DType::i32);
  const Tensor indices = Tensor::zeros({1, 1, 1}, DType::i32), line = Tensor::zeros({1, 6});
  // [B, N, heads, head_dim] operators, of k and v that are alike
  using Operator = std::function<Tensor(const Tensor&, const Tensor&, const Tensor&)>;
  const std::pair<const char*, Operator> operators[] = {
      {"attention", [](const auto& a, const auto& b, const auto& c) { return attention(a, b, c); }},
      {"neighborhood",
       [](const auto& a, const auto& b, const auto& c) {
         return neighborhood_attention(a, b, c, {.kernel_size = {3, 1, 1}});
       }},
      {"clear", [](const auto& a, const auto& b,
                   const auto& c) { return clear_attention(a, b, c, {.height = 2, .width = 3, .radius = 1}); }},
      {"grouped", [&](const auto& a, const auto& b,
                      const auto& c) { return grouped_attention(a, b, c, {.queries = indices, .keys = indices}); }},
      {"linear", [](const auto& a, const auto& b, const auto& c) { return linear_attention(a, b, c); }},
      {"fast", [](const auto& a, const auto& b, const auto& c) { return fast_attention(a, b, c); }},
      {"flow", [](const auto& a, const auto& b, const auto& c) { return flow_attention(a, b, c); }},
      {"channel", [](const auto& a, const auto& b, const auto& c) { return channel_attention(a, b, c); }},
      {"agent", [](const auto& a, const auto& b, const auto& c) { return agent_attention(a, a, b, c); }},
  };
  for (const auto& [name, run] : operators) {
    INFO(name);
    run(q, q, q);  // what fits is not refused
    CHECK_REFUSED(run(Tensor(), q, q));
    CHECK_REFUSED(run(q, Tensor(), q));
    CHECK_REFUSED(run(q, q, Tensor()));
    CHECK_REFUSED(run(flat, flat, flat));
    CHECK_REFUSED(run(q, q, fewer));
    CHECK_REFUSED(run(q, fewer, q));
    CHECK_REFUSED(run(q, narrow, q));
    CHECK_REFUSED(run(q, batch, batch));
    CHECK_REFUSED(run(q, three, three));
    CHECK_REFUSED(run(q, q, three));
    CHECK_REFUSED(run(q, half, q));
    CHECK_REFUSED(run(q, q, half));
    CHECK_REFUSED(run(whole, whole, whole));
    CHECK_REFUSED(run(headless, headless, headless));
  }
  CHECK_REFUSED(attention(q, q, q, {.bias = line}));
  CHECK_REFUSED(attention(q, q, q, {.mask = line}));
}

TEST_CASE("windows, dilations and radii of any size are refused before memory is taken") {
  const Tensor q = Tensor::zeros({1, 6, 7, 2, 8});
  const auto near = [&](NeighborhoodOptions o) { CHECK_REFUSED(neighborhood_attention(q, q, q, o)); };
  for (const std::int64_t bad : {std::int64_t{0}, std::int64_t{-1}, -kHuge - 1, std::int64_t{7}, kLarge, kHuge}) {
    INFO(bad);
    near({.kernel_size = {bad, 3, 1}});
    near({.kernel_size = {3, 3, 1}, .stride = {bad, 1, 1}});
    near({.kernel_size = {2, 2, 1}, .dilation = {bad, 1, 1}});
  }
  near({.kernel_size = {3, 3, 1}, .dilation = {3, 1, 1}});
  near({.kernel_size = {6, 8, 1}});
  near({.kernel_size = {kHuge / 2, 1, 1}, .dilation = {3, 1, 1}});
  near({.kernel_size = {3, 3, 1}, .additional_keys = Tensor::zeros({1, 4, 2, 8})});
  near({.kernel_size = {3, 3, 1}, .rpb = Tensor::zeros({2, 5, 4})});

  const Tensor tokens = Tensor::zeros({1, 20, 2, 8});
  const auto disc = [&](ClearOptions o) { CHECK_REFUSED(clear_attention(tokens, tokens, tokens, o)); };
  for (const std::int64_t bad : {std::int64_t{0}, std::int64_t{-1}, -kHuge - 1}) disc({.height = 4, .width = 5, .radius = bad});
  for (const std::int64_t bad : {std::int64_t{0}, std::int64_t{-4}, std::int64_t{8}, kLarge, kHuge}) {
    INFO(bad);
    disc({.height = bad, .width = 5, .radius = 2});
    disc({.height = 4, .width = bad, .radius = 2});
    disc({.height = bad, .width = bad, .radius = 2});
  }
  for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{1}, kHuge})
    disc({.height = 4, .width = 5, .text_length = bad, .radius = 2});
  for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{3}, kHuge})
    disc({.height = 4, .width = 5, .radius = 2, .down_factor = bad});

  for (const std::int64_t bad : {std::int64_t{0}, std::int64_t{-1}, kLarge, kHuge}) {
    INFO(bad);
    CHECK_REFUSED(partition_windows(bad, 5, {2, 2}));
    CHECK_REFUSED(partition_windows(5, bad, {2, 2}));
    CHECK_REFUSED(partition_windows(5, 5, {bad, 2}));
    CHECK_REFUSED(partition_grid(bad, 4, {2, 2}));
    CHECK_REFUSED(partition_grid(4, 4, {2, bad}));
  }
}

TEST_CASE("routing to more regions than there are is refused before memory is taken") {
  const Tensor map = Tensor::zeros({1, 6, 8, 2, 4}), means = Tensor::zeros({1, 4, 8}), x = Tensor::zeros({1, 4, 4, 8});
  const Tensor routes = Tensor::zeros({1, 4, 1}, DType::i32);
  for (const std::int64_t bad : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{5}, kLarge, kHuge}) {
    INFO(bad);
    CHECK_REFUSED(route_regions(means, means, bad));
  }
  for (const std::int64_t bad : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{9}, kHuge}) {
    INFO(bad);
    CHECK_REFUSED(region_means(map.flatten(3, 4), {bad, 2}));
    CHECK_REFUSED(region_means(map.flatten(3, 4), {2, bad}));
    CHECK_REFUSED(routed_attention(map, map, map, routes, {bad, 2}));
  }
  const BiLevelRoutingAttention layer(any(), {.dim = 8, .n_win = 2, .topk = 5});
  CHECK_REFUSED(layer(x));
  BiLevelRoutingConfig config{.dim = 8, .n_win = 1 << 20, .topk = 1};
  config.uneven = BiLevelRoutingConfig::Uneven::pad;  // to 2^40 regions
  const BiLevelRoutingAttention padded(any(), config);
  CHECK_REFUSED(padded(x));
}

template <typename Module, typename Config>
void check_field(const char* what, std::int64_t Config::*field, Config config, std::initializer_list<std::int64_t> bad) {
  for (const std::int64_t value : bad) {
    config.*field = value;
    INFO(fmt::format("{} {}", what, value));
    CHECK_REFUSED(Module(any(), config));
  }
}

template <typename Module, typename Config, typename Pair>
void check_pair(const char* what, Pair Config::*field, Config config, std::initializer_list<std::int64_t> bad) {
  for (const std::int64_t value : bad)
    for (int axis = 0; axis < 2; ++axis) {
      Config one = config;
      (one.*field)[static_cast<std::size_t>(axis)] = value;
      INFO(fmt::format("{} {} of axis {}", what, value, axis));
      CHECK_REFUSED(Module(any(), one));
    }
}

// Heads that do not divide dim, and widths of any size.
template <typename Module, typename Config>
void check_heads(const char* what, Config config) {
  check_field<Module>(what, &Config::dim, config, {0, -16, kLarge, kHuge, -kHuge - 1});
  if constexpr (requires { config.num_heads; })
    check_field<Module>(what, &Config::num_heads, config, {0, -1, 5, kLarge, kHuge, -kHuge - 1});
}

TEST_CASE("layers of any size are refused before memory is taken") {
  const std::initializer_list<std::int64_t> sizes = {0, -1, kLarge, kHuge, -kHuge - 1};
  check_heads<NeighborhoodAttention>("neighborhood", NeighborhoodAttentionConfig{.dim = 16});
  check_pair<NeighborhoodAttention>("kernel_size", &NeighborhoodAttentionConfig::kernel_size, {.dim = 16}, sizes);
  check_pair<NeighborhoodAttention>("dilation", &NeighborhoodAttentionConfig::dilation, {.dim = 16}, sizes);
  check_heads<WindowAttention>("window", WindowAttentionConfig{.dim = 16});
  check_pair<WindowAttention>("window_size", &WindowAttentionConfig::window_size, {.dim = 16}, sizes);
  check_pair<WindowAttention>("shift_size", &WindowAttentionConfig::shift_size, {.dim = 16}, {-1, kLarge, kHuge});
  check_heads<WindowAttentionV2>("window_v2", WindowAttentionV2Config{.dim = 16});
  check_pair<WindowAttentionV2>("window_size", &WindowAttentionV2Config::window_size, {.dim = 16}, sizes);
  check_heads<VariedWindowAttention>("varied window", VariedWindowAttentionConfig{.dim = 16});
  check_pair<VariedWindowAttention>("window_size", &VariedWindowAttentionConfig::window_size, {.dim = 16}, sizes);
  check_heads<PartitionAttention>("partition", PartitionAttentionConfig{.dim = 16, .head_dim = 8});
  check_field<PartitionAttention>("head_dim", &PartitionAttentionConfig::head_dim, {.dim = 16}, {0, -8, 5, kHuge});
  check_pair<PartitionAttention>("size", &PartitionAttentionConfig::size, {.dim = 16, .head_dim = 8}, sizes);
  check_field<HaloAttention>("dim", &HaloAttentionConfig::dim, {}, sizes);
  check_field<HaloAttention>("num_heads", &HaloAttentionConfig::num_heads, {.dim = 16}, sizes);
  check_field<HaloAttention>("head_dim", &HaloAttentionConfig::head_dim, {.dim = 16}, sizes);
  check_field<HaloAttention>("value_head_dim", &HaloAttentionConfig::value_head_dim, {.dim = 16}, sizes);
  check_field<HaloAttention>("block_size", &HaloAttentionConfig::block_size, {.dim = 16}, sizes);
  check_field<HaloAttention>("halo_size", &HaloAttentionConfig::halo_size, {.dim = 16}, {-1, kLarge, kHuge});
  check_field<HaloAttention>("stride", &HaloAttentionConfig::stride, {.dim = 16}, sizes);
  check_heads<BiLevelRoutingAttention>("routing", BiLevelRoutingConfig{.dim = 16});
  check_field<BiLevelRoutingAttention>("n_win", &BiLevelRoutingConfig::n_win, {.dim = 16}, sizes);
  check_field<BiLevelRoutingAttention>("topk", &BiLevelRoutingConfig::topk, {.dim = 16}, {0, -1});
  check_field<BiLevelRoutingAttention>("side_dwconv", &BiLevelRoutingConfig::side_dwconv, {.dim = 16},
                                       {-1, 4, kLarge + 1, kHuge});
  check_field<BiLevelRoutingAttention>("qk_dim", &BiLevelRoutingConfig::qk_dim, {.dim = 16}, {-16, kLarge, kHuge});
  check_heads<AgentAttention>("agent", AgentAttentionConfig{.dim = 16});
  check_field<AgentAttention>("agent_num", &AgentAttentionConfig::agent_num, {.dim = 16}, {0, -4, 8, kLarge, kHuge});
  check_field<AgentAttention>("height", &AgentAttentionConfig::height, {.dim = 16}, sizes);
  check_field<AgentAttention>("width", &AgentAttentionConfig::width, {.dim = 16}, sizes);
  check_heads<AgentAttentionPvt>("agent pvt", AgentAttentionConfig{.dim = 16});
  check_field<AgentAttentionPvt>("sr_ratio", &AgentAttentionConfig::sr_ratio, {.dim = 16}, sizes);
  check_field<AgentAttentionSd>("dim", &AgentAttentionSdConfig::dim, {}, sizes);
  check_field<AgentAttentionSd>("num_heads", &AgentAttentionSdConfig::num_heads, {.dim = 16}, sizes);
  check_field<AgentAttentionSd>("head_dim", &AgentAttentionSdConfig::head_dim, {.dim = 16}, sizes);
  check_heads<HiLoAttention>("hilo", HiLoConfig{.dim = 16});
  check_field<HiLoAttention>("window_size", &HiLoConfig::window_size, {.dim = 16}, sizes);
  check_heads<LinearAttention>("linear", LinearAttentionConfig{.dim = 16});
  check_heads<LinFusionAttention>("linfusion", LinFusionAttentionConfig{.dim = 16});
  check_field<LinFusionAttention>("query_hidden", &LinFusionAttentionConfig::query_hidden, {.dim = 16}, {-1, kLarge, kHuge});
  check_field<LinFusionAttention>("key_hidden", &LinFusionAttentionConfig::key_hidden, {.dim = 16}, {-1, kLarge, kHuge});
  check_heads<InlineAttention>("inline", InlineAttentionConfig{.dim = 16});
  check_pair<InlineAttention>("window_size", &InlineAttentionConfig::window_size, {.dim = 16}, sizes);
  check_heads<RalaAttention>("rala", RalaAttentionConfig{.dim = 16});
  check_heads<FocusedLinearAttention>("focused", FocusedLinearAttentionConfig{.dim = 16});
  check_pair<FocusedLinearAttention>("window_size", &FocusedLinearAttentionConfig::window_size, {.dim = 16}, sizes);
  check_field<FocusedLinearAttention>("kernel_size", &FocusedLinearAttentionConfig::kernel_size, {.dim = 16}, {0, 4, -1, kHuge});
  check_heads<FlowAttention>("flow", FlowAttentionConfig{.dim = 16});
  check_field<EfficientAttention>("dim", &EfficientAttentionConfig::dim, {.key_dim = 16, .value_dim = 16}, sizes);
  check_field<EfficientAttention>("key_dim", &EfficientAttentionConfig::key_dim, {.dim = 16, .value_dim = 16}, sizes);
  check_field<EfficientAttention>("value_dim", &EfficientAttentionConfig::value_dim, {.dim = 16, .key_dim = 16}, sizes);
  check_heads<ChannelAttention>("channel", ChannelAttentionConfig{.dim = 16});
  check_heads<FocalModulation>("focal", FocalModulationConfig{.dim = 16});
  check_field<FocalModulation>("focal_level", &FocalModulationConfig::focal_level, {.dim = 16}, {-1, kLarge, kHuge});
  check_field<FocalModulation>("focal_window", &FocalModulationConfig::focal_window, {.dim = 16}, {0, 2, -1, kHuge});
  check_field<FocalModulation>("focal_factor", &FocalModulationConfig::focal_factor, {.dim = 16}, {1, -2, kHuge});
  check_heads<GnConv>("gnconv", GnConvConfig{.dim = 16});
  check_field<GnConv>("order", &GnConvConfig::order, {.dim = 16}, {0, -1, 6, 40, kHuge});
  check_heads<AggregatedAttention>("aggregated", AggregatedAttentionConfig{.dim = 16});
  check_field<AggregatedAttention>("window_size", &AggregatedAttentionConfig::window_size, {.dim = 16}, sizes);
  check_field<AggregatedAttention>("sr_ratio", &AggregatedAttentionConfig::sr_ratio, {.dim = 16}, sizes);
}

TEST_CASE("maps that do not fit a layer are refused before memory is taken") {
  const Tensor map = Tensor::zeros({1, 5, 6, 16}), narrow = Tensor::zeros({1, 6, 6, 12}), tokens = Tensor::zeros({1, 30, 16});
  const auto each = [&](const char* name, const auto& layer, const Tensor& fits_not) {
    INFO(name);
    CHECK_REFUSED(layer(fits_not));
    CHECK_REFUSED(layer(narrow));
    CHECK_REFUSED(layer(Tensor()));
  };
  each("window", WindowAttention(any(), {.dim = 16}), tokens);
  each("window_v2", WindowAttentionV2(any(), {.dim = 16}), tokens);
  each("varied window", VariedWindowAttention(any(), {.dim = 16}), map);
  each("partition", PartitionAttention(any(), {.dim = 16, .head_dim = 8, .size = {5, 5}}), map);
  each("halo", HaloAttention(any(), {.dim = 16, .block_size = 3}), map);
  each("routing", BiLevelRoutingAttention(any(), {.dim = 16, .n_win = 3, .topk = 2}), map);
  each("agent", AgentAttention(any(), {.dim = 16, .agent_num = 4, .height = 5, .width = 5}), tokens);
  each("agent pvt", AgentAttentionPvt(any(), {.dim = 16, .agent_num = 4, .height = 5, .width = 5}), tokens);
  each("hilo", HiLoAttention(any(), {.dim = 16, .num_heads = 2}), map);
  each("linear", LinearAttention(any(), {.dim = 16}), map);
  each("linfusion", LinFusionAttention(any(), {.dim = 16}), map);
  each("inline", InlineAttention(any(), {.dim = 16, .window_size = {5, 5}}), tokens);
  each("rala", RalaAttention(any(), {.dim = 16}), tokens);
  each("focused", FocusedLinearAttention(any(), {.dim = 16, .window_size = {5, 5}}), tokens);
  each("flow", FlowAttention(any(), {.dim = 16}), map);
  each("efficient", EfficientAttention(any(), {.dim = 16, .key_dim = 8, .value_dim = 8}), map);
  each("channel", ChannelAttention(any(), {.dim = 16}), map);
  each("focal", FocalModulation(any(), {.dim = 16}), tokens);
  each("gnconv", GnConv(any(), {.dim = 16}), tokens);
  each("aggregated", AggregatedAttention(any(), {.dim = 16, .sr_ratio = 6}), map);
  each("neighborhood", NeighborhoodAttention(any(), {.dim = 16}), tokens);
}

}  // namespace
}  // namespace vitrine
