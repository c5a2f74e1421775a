// What mechanisms are by definition, on the device: the identities of tests/attention2d, between results of kernels.
#include <catch.h>

#include <array>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/bi_level_routing.h>
#include <vitrine/attention2d/clear.h>
#include <vitrine/attention2d/grouped.h>
#include <vitrine/attention2d/linear_attention.h>
#include <vitrine/attention2d/mixer.h>
#include <vitrine/attention2d/neighborhood.h>
#include <vitrine/attention2d/window.h>
#include <vitrine/layers/conv.h>
#include <vitrine/layers/linear.h>
#include <vitrine/weights/sources.h>

#include "attention2d/compare.h"
#include "cuda_host/support.h"

namespace vitrine {

using test::difference;
using test::kGpu;
using test::random;
using test::tolerance_of;

namespace {

constexpr std::string_view kKernels[] = {"cuda_tiles", "cuda_plain"};  // of neighborhoods and discs

Tensor on_gpu(const Shape& shape, DType dtype, unsigned seed) { return random(shape, dtype, seed).to(kGpu); }
Tensor here(const Tensor& x) { return x.to(Device{}).contiguous(); }

Weights weights(DType dtype) { return Weights(synthetic_weights(2.0), {.dtype = dtype, .device = kGpu}); }

// The numbers of a list as a list on the device.
Tensor list_of(const Shape& shape, const std::function<std::int64_t(std::int64_t)>& at) {
  Tensor list = Tensor::empty(shape, DType::i32);
  for (std::int64_t i = 0; i < list.numel(); ++i) list.data<std::int32_t>()[i] = static_cast<std::int32_t>(at(i));
  return list.to(kGpu);
}

// k or v with other tokens from `from` on.
Tensor with_other_end(const Tensor& x, std::int64_t from, unsigned seed) {
  Tensor other = here(x).clone(), end = other.slice(1, from, x.size(1));
  copy_(end, random(end.shape(), x.dtype(), seed));
  return other.to(kGpu);
}

}  // namespace

TEST_CASE("a neighborhood of the whole map is global attention on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats)
    for (const std::string_view kernel : kKernels) {
      INFO(kernel << " " << name_of(dtype));
      const Tensor q = on_gpu({1, 9, 10, 2, 24}, dtype, 1), k = on_gpu({1, 9, 10, 2, 24}, dtype, 2),
                   v = on_gpu({1, 9, 10, 2, 24}, dtype, 3);
      const Tensor all = attention(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2));
      const Tensor whole = neighborhood_attention(q, k, v, {.kernel_size = {9, 10, 1}, .impl = kernel});
      CHECK(difference(here(whole.flatten(1, 2)), here(all), tolerance_of(dtype)) == "");
    }
}

TEST_CASE("away from the borders a neighborhood is the window around a query on the device", "[cuda_host]") {
  cuda::emulation::install();
  const std::int64_t H = 11, W = 13, D = 16, kernel = 5, dilation = 2, reach = kernel / 2 * dilation;
  for (const DType dtype : test::kFloats)
    for (const std::string_view name : kKernels) {
      INFO(name << " " << name_of(dtype));
      const Tensor q = on_gpu({1, H, W, 1, D}, dtype, 1), k = on_gpu({1, H, W, 1, D}, dtype, 2),
                   v = on_gpu({1, H, W, 1, D}, dtype, 3);
      const std::vector<float> out = test::values(here(neighborhood_attention(
          q, k, v, {.kernel_size = {kernel, kernel, 1}, .dilation = {dilation, dilation, 1}, .impl = name})));
      const std::vector<float> of_q = test::values(here(q)), of_k = test::values(here(k)), of_v = test::values(here(v));
      const auto row = [&](const std::vector<float>& map, std::int64_t y, std::int64_t x) {
        return map.data() + (y * W + x) * D;
      };
      double worst = 0;
      for (std::int64_t y = reach; y < H - reach; ++y)
        for (std::int64_t x = reach; x < W - reach; ++x) {
          std::array<double, D> sum{};
          double total = 0;
          for (std::int64_t ky = y - reach; ky <= y + reach; ky += dilation)
            for (std::int64_t kx = x - reach; kx <= x + reach; kx += dilation) {
              double logit = 0;
              for (std::int64_t c = 0; c < D; ++c) logit += static_cast<double>(row(of_q, y, x)[c]) * row(of_k, ky, kx)[c];
              const double weight = std::exp(logit / std::sqrt(static_cast<double>(D)));
              total += weight;
              for (std::int64_t c = 0; c < D; ++c) sum[static_cast<std::size_t>(c)] += weight * row(of_v, ky, kx)[c];
            }
          for (std::int64_t c = 0; c < D; ++c)
            worst = std::max(worst, std::abs(sum[static_cast<std::size_t>(c)] / total - row(out, y, x)[c]));
        }
      CHECK(worst <= 2 * tolerance_of(dtype));
    }
}

TEST_CASE("causal attention never looks ahead on the device", "[cuda_host]") {
  cuda::emulation::install();
  const auto check = [](const char* what, DType dtype, std::int64_t tokens, std::int64_t dim, std::int64_t seen,
                        const auto& attend) {
    INFO(what << " " << name_of(dtype) << " " << tokens << " tokens, " << dim << " channels");
    const Tensor q = on_gpu({1, tokens, 2, dim}, dtype, 1), k = on_gpu({1, tokens, 2, dim}, dtype, 2),
                 v = on_gpu({1, tokens, 2, dim}, dtype, 3);
    const Tensor before = here(attend(q, k, v)), after = here(attend(q, with_other_end(k, seen, 4), with_other_end(v, seen, 5)));
    CHECK(test::same_bytes(before.slice(1, 0, seen).contiguous(), after.slice(1, 0, seen).contiguous()));
    CHECK_FALSE(test::same_bytes(before.slice(1, seen, seen + 1).contiguous(), after.slice(1, seen, seen + 1).contiguous()));
  };
  const auto causal = [](const Tensor& q, const Tensor& k, const Tensor& v) { return attention(q, k, v, {.is_causal = true}); };
  for (const DType dtype : test::kFloats) {
    for (const std::int64_t seen : {1, 63, 64, 70}) check("attention", dtype, 80, 32, seen, causal);
    check("attention of wide heads", dtype, 20, 160, 11, causal);
    for (const std::string_view kernel : kKernels)
      check("neighborhoods", dtype, 80, 16, 50, [&](const Tensor& q, const Tensor& k, const Tensor& v) {
        return neighborhood_attention(
            q, k, v, {.kernel_size = {20, 1, 1}, .stride = {4, 1, 1}, .is_causal = {true, false, false}, .impl = kernel});
      });
  }
}

TEST_CASE("a shift by the window is no shift on the device, a window of the map global attention", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats) {
    INFO(name_of(dtype));
    const Tensor x = on_gpu({2, 8, 12, 32}, dtype, 1);
    WindowAttentionConfig config{.dim = 32, .num_heads = 2, .window_size = {4, 4}};
    const Tensor unshifted = here(WindowAttention(weights(dtype), config)(x));
    config.shift_size = {4, 4};
    CHECK(test::same_bytes(here(WindowAttention(weights(dtype), config)(x)), unshifted));
    config.shift_size = {2, 2};
    CHECK_FALSE(difference(here(WindowAttention(weights(dtype), config)(x)), unshifted, tolerance_of(dtype)) == "");

    config = {.dim = 32, .num_heads = 2, .window_size = {8, 12}};
    const WindowAttention whole(weights(dtype), config);
    const Tensor parts = whole.qkv(x).flatten(1, 2).unflatten(2, {3, 2, 16});
    const Tensor y = attention(parts.select(2, 0), parts.select(2, 1), parts.select(2, 2), {.bias = whole.bias.to(kGpu)});
    CHECK(difference(here(whole(x)), here(whole.proj(y.view(x.shape()))), tolerance_of(dtype)) == "");
  }
}

TEST_CASE("routing to all regions is global attention and the convolution on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats) {
    INFO(name_of(dtype));
    const Weights w = weights(dtype);
    const BiLevelRoutingAttention layer(w, {.dim = 32, .num_heads = 2, .n_win = 3, .topk = 9, .side_dwconv = 5});
    const Tensor x = on_gpu({1, 6, 12, 32}, dtype, 1);
    const Tensor qkv = Linear(w / "qkv" / "qkv", 32, 96)(x), tokens = qkv.flatten(1, 2).unflatten(2, {3, 2, 16});
    Tensor y = attention(tokens.select(2, 0), tokens.select(2, 1), tokens.select(2, 2),
                         {.scale = static_cast<float>(1 / std::sqrt(32.0))})
                   .view({1, 6, 12, 32});
    add_(y, Conv2d(w / "lepe", 32, 32, 5, 5, {.pad_h = 2, .pad_w = 2, .groups = 32})(qkv.slice(3, 64, 96)));
    CHECK(difference(here(layer(x)), here(Linear(w / "wo", 32, 32)(y)), tolerance_of(dtype)) == "");
  }
}

TEST_CASE("one group of all tokens is global attention on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats)
    for (const std::int64_t dim : {24, 140}) {
      INFO(name_of(dtype) << " " << dim << " channels");
      const Tensor q = on_gpu({2, 70, 2, dim}, dtype, 1), k = on_gpu({2, 66, 1, dim}, dtype, 2),
                   v = on_gpu({2, 66, 1, dim}, dtype, 3);
      const Tensor all = attention(q, k, v);
      const auto in_order = [](std::int64_t i) { return i; };
      const GroupedOptions one{.queries = list_of({1, 1, 70}, in_order), .keys = list_of({1, 1, 66}, in_order)};
      CHECK(difference(here(grouped_attention(q, k, v, one)), here(all), tolerance_of(dtype)) == "");
      // and each key in a box of its own place
      GroupedOptions boxes = one;
      boxes.keys = {};
      boxes.map = boxes.box_keys = {6, 11};
      Tensor grid = Tensor::zeros({2, 1, 1, 4});
      for (std::int64_t b = 0; b < 2; ++b) grid.data<float>()[4 * b + 2] = grid.data<float>()[4 * b + 3] = 1;
      boxes.boxes = grid.to(kGpu);
      CHECK(difference(here(grouped_attention(q, k, v, boxes)), here(all), tolerance_of(dtype)) == "");
    }
}

TEST_CASE("a disc that covers the image is global attention on the device, one of radius 1 a token's own value", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats)
    for (const std::string_view kernel : kKernels) {
      INFO(kernel << " " << name_of(dtype));
      const Tensor q = on_gpu({2, 59, 2, 16}, dtype, 1), k = on_gpu({2, 59, 2, 16}, dtype, 2),
                   v = on_gpu({2, 59, 2, 16}, dtype, 3);
      const Tensor wide = clear_attention(q, k, v, {.height = 6, .width = 9, .text_length = 5, .radius = 11, .impl = kernel});
      CHECK(difference(here(wide), here(attention(q, k, v)), tolerance_of(dtype)) == "");
      const auto image = [](const Tensor& t) { return t.slice(1, 5, 59); };
      const Tensor own = clear_attention(image(q), image(k), image(v), {.height = 6, .width = 9, .radius = 1, .impl = kernel});
      CHECK(difference(here(own), here(image(v)), tolerance_of(dtype)) == "");
    }
}

TEST_CASE("the order of keys does not matter to linear attention on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats) {
    INFO(name_of(dtype));
    const Tensor q = on_gpu({1, 20, 2, 16}, dtype, 1), k = on_gpu({1, 70, 2, 16}, dtype, 2), v = on_gpu({1, 70, 2, 16}, dtype, 3);
    const auto turned = [](const Tensor& t) { return concat(std::array{t.slice(1, 33, 70), t.slice(1, 0, 33)}, 1); };
    const LinearAttentionOptions options{.query_map = FeatureMap::elu1, .key_map = FeatureMap::elu1};
    CHECK(difference(here(linear_attention(q, turned(k), turned(v), options)), here(linear_attention(q, k, v, options)),
                     tolerance_of(dtype)) == "");
  }
}

// By the table of mixer.h, so that none is left out, and CLEAR, which is no mixer.
TEST_CASE("every mechanism runs on both backends in all types, on the device with equal bits each time", "[cuda_host]") {
  cuda::emulation::install();
  const std::int64_t side = 14, dim = 16;
  using Run = std::function<Tensor(const Tensor&)>;
  const auto mixer_of = [&](const Mechanism& mechanism, DType dtype, Device device) -> Run {
    const TokenMap map{0, side, side};
    const std::shared_ptr<const Mixer> mixer =
        make_mixer(mechanism, Weights(synthetic_weights(), {.dtype = dtype, .device = device}),
                   {.dim = dim, .num_heads = 2, .tokens = map, .proj = {}, .values = {}});
    return [mixer, map](const Tensor& x) { return (*mixer)(x, map); };
  };
  const auto clear = [&](const Tensor& x) {
    const Tensor heads = x.unflatten(2, {2, dim / 2});
    return clear_attention(heads, heads, heads, {.height = side, .width = side, .radius = 4}).flatten(2, 3);
  };
  const auto check = [&](std::string_view name, DType dtype, const Run& on_cpu, const Run& on_device) {
    INFO(name << " " << name_of(dtype));
    const Tensor x = random({2, side * side, dim}, dtype, 1), there = x.to(kGpu);
    const Tensor expected = on_cpu(x), first = here(on_device(there));
    CHECK(difference(first, expected, 2 * tolerance_of(dtype)) == "");
    cuda::emulation::set_order(cuda::emulation::Order::backward);
    const Tensor again = here(on_device(there));
    cuda::emulation::set_order(cuda::emulation::Order::forward);
    CHECK(test::same_bytes(again, first));
    CHECK(test::same_bytes(here(on_device(there.slice(0, 1, 2))), first.slice(0, 1, 2).contiguous()));
  };
  for (const DType dtype : test::kFloats) {
    for (const Mechanism& m : mechanisms()) check(m.name, dtype, mixer_of(m, dtype, Device{}), mixer_of(m, dtype, kGpu));
    check("clear", dtype, clear, clear);
  }
}

}  // namespace vitrine
