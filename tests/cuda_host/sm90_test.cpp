// The kernels for compute capability 9.0 against the CPU's. On other GPUs there is nothing to see.
#include <catch.h>

#include <string>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/clear.h>
#include <vitrine/attention2d/cuda/backend.h>
#include <vitrine/attention2d/neighborhood.h>

#include "cuda_host/support.h"

namespace vitrine {

using test::attention_bound;
using test::check_same;
using test::random;
using test::with_heads;

namespace {

constexpr DType kTypes[] = {DType::f16, DType::bf16};
constexpr std::string_view kImpl = "cuda_sm90";

bool has_kernels() {
  cuda::emulation::install();
  Tensor x = Tensor::empty({1, 1, 1, 64}, DType::bf16, test::kGpu);
  const Tensor none;
  const cuda::LocalAxis axes[3] = {};
  const std::string lacks = cuda::attention_ops().lacks_sm90({x, x, x, axes, 0, 1.0f, none, none, none, x}, true);
  if (!lacks.empty()) WARN("skipped: " << lacks);
  return lacks.empty();
}

// q, k and v as linear layers have them, side by side; the copies that check_same makes are apart.
Tensor laid_out(const Tensor& t) { return t.contiguous(); }

}  // namespace

TEST_CASE("attention of all tokens by kernels for 9.0", "[cuda_host]") {
  if (!has_kernels()) return;
  struct Case {
    std::int64_t B, tokens, heads, key_heads, dim;
    bool is_causal = false;
  };
  const Case cases[] = {
      {1, 1, 1, 1, 64}, {2, 128, 2, 1, 64, true}, {1, 300, 1, 1, 128}, {1, 257, 2, 2, 64}, {1, 391, 1, 1, 128, true}};
  for (const DType dtype : kTypes)
    for (const Case& c : cases) {
      INFO(c.tokens << " tokens");
      const Tensor q = random({c.B, c.tokens, c.heads, c.dim}, dtype, 1),
                   k = random({c.B, c.tokens, c.key_heads, c.dim}, dtype, 2),
                   v = random({c.B, c.tokens, c.key_heads, c.dim}, dtype, 3);
      check_same(
          "attention", dtype, {q, k, v},
          [&](auto t) {
            AttentionOptions o{.is_causal = c.is_causal};
            if (t[0].device() == test::kGpu) o.impl = kImpl;
            return attention(laid_out(t[0]), laid_out(t[1]), laid_out(t[2]), o);
          },
          attention_bound(dtype));
    }
}

TEST_CASE("attention of one tensor of q, k and v by kernels for 9.0", "[cuda_host]") {
  if (!has_kernels()) return;
  const Tensor qkv = random({2, 140, 3, 2, 64}, DType::bf16, 1);
  check_same(
      "attention", DType::bf16, {qkv},
      [&](auto t) {
        const Tensor all = laid_out(t[0]);
        AttentionOptions o;
        if (all.device() == test::kGpu) o.impl = kImpl;
        return attention(all.select(2, 0), all.select(2, 1), all.select(2, 2), o);
      },
      attention_bound(DType::bf16));
}

TEST_CASE("neighborhoods by kernels for 9.0", "[cuda_host]") {
  if (!has_kernels()) return;
  struct Case {
    Shape map;
    std::int64_t heads, key_heads, dim;
    NeighborhoodOptions options;
    std::int64_t extra = 0;
  };
  const Case cases[] = {
      {{1, 300}, 2, 1, 64, {.kernel_size = {21, 1, 1}}},
      {{2, 261}, 1, 1, 64, {.kernel_size = {60, 1, 1}, .stride = {7, 1, 1}}, 130},
      {{1, 400}, 1, 1, 64, {.kernel_size = {150, 1, 1}, .is_causal = {true, false, false}}, 1},
      {{1, 27, 18}, 1, 1, 128, {.kernel_size = {21, 16, 1}, .scale = 0.2f}},
      {{2, 20, 21}, 2, 2, 64, {.kernel_size = {5, 3, 1}, .dilation = {2, 3, 1}}, 7},
      {{1, 900}, 1, 1, 64, {.kernel_size = {200, 1, 1}, .dilation = {4, 1, 1}}},
      {{1, 19, 33}, 1, 1, 64, {.kernel_size = {4, 6, 1}, .stride = {3, 2, 1}, .is_causal = {false, true, false}}},
      {{2, 6, 9, 7}, 1, 1, 64, {.kernel_size = {3, 4, 5}, .stride = {1, 2, 1}, .is_causal = {true, false, false}}},
  };
  for (const DType dtype : kTypes)
    for (const Case& c : cases) {
      INFO(c.map.to_string());
      const Tensor q = random(with_heads(c.map, c.heads, c.dim), dtype, 1),
                   k = random(with_heads(c.map, c.key_heads, c.dim), dtype, 2),
                   v = random(with_heads(c.map, c.key_heads, c.dim), dtype, 3);
      Tensor extra_k, extra_v;
      if (c.extra > 0) {
        extra_k = random({c.map[0], c.extra, c.key_heads, c.dim}, dtype, 5);
        extra_v = random({c.map[0], c.extra, c.key_heads, c.dim}, dtype, 6);
      }
      check_same(
          "neighborhood", dtype, {q, k, v, extra_k, extra_v},
          [&](auto t) {
            NeighborhoodOptions options = c.options;
            if (c.extra > 0) {
              options.additional_keys = laid_out(t[3]);
              options.additional_values = laid_out(t[4]);
            }
            if (t[0].device() == test::kGpu) options.impl = kImpl;
            return neighborhood_attention(laid_out(t[0]), laid_out(t[1]), laid_out(t[2]), options);
          },
          attention_bound(dtype));
    }
}

TEST_CASE("discs by kernels for 9.0", "[cuda_host]") {
  if (!has_kernels()) return;
  struct Case {
    std::int64_t height, width, radius, text;
  };
  const Case cases[] = {{24, 35, 3, 0}, {20, 20, 12, 5}, {9, 70, 40, 140}};
  for (const DType dtype : kTypes)
    for (const Case& c : cases) {
      INFO(c.height << " x " << c.width);
      const std::int64_t tokens = c.text + c.height * c.width;
      const Tensor q = random({1, tokens, 1, 64}, dtype, 1), k = random({1, tokens, 1, 64}, dtype, 2),
                   v = random({1, tokens, 1, 64}, dtype, 3);
      check_same(
          "clear", dtype, {q, k, v},
          [&](auto t) {
            ClearOptions o;
            o.height = c.height;
            o.width = c.width;
            o.radius = c.radius;
            o.text_length = c.text;
            if (t[0].device() == test::kGpu) o.impl = kImpl;
            return clear_attention(laid_out(t[0]), laid_out(t[1]), laid_out(t[2]), o);
          },
          attention_bound(dtype));
    }
}

TEST_CASE("kernels for 9.0 say what they do not take", "[cuda_host]") {
  if (!has_kernels()) return;
  const auto attend = [](const Tensor& q, const NeighborhoodOptions& options) {
    NeighborhoodOptions o = options;
    o.impl = kImpl;
    return neighborhood_attention(q, q, q, o);
  };
  const auto on_gpu = [](const Shape& shape, DType dtype) { return random(shape, dtype).to(test::kGpu); };
  const NeighborhoodOptions options{.kernel_size = {3, 1, 1}};
  CHECK_THROWS_WITH(attend(on_gpu({1, 9, 1, 64}, DType::f32), options), test::contains("takes f16 and bf16"));
  CHECK_THROWS_WITH(attend(on_gpu({1, 9, 1, 32}, DType::f16), options), test::contains("takes heads of 64 or 128"));
  CHECK_THROWS_WITH(attend(on_gpu({1, 9, 1, 64}, DType::f16), {.kernel_size = {3, 1, 1}, .scale = -1.0f}),
                    test::contains("takes positive scales"));
  CHECK_THROWS_WITH(attend(on_gpu({1, 99, 1, 64}, DType::f16), {.kernel_size = {3, 1, 1}, .dilation = {9, 1, 1}}),
                    test::contains("takes dilations up to 8"));
  CHECK_THROWS_WITH(attend(on_gpu({1, 9, 2, 65}, DType::f16).slice(3, 0, 64), options), test::contains("heads lie side by side"));
}

}  // namespace vitrine
