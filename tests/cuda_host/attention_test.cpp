// Global attention and attention in groups on the device against the CPU's.
#include <catch.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <string_view>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/grouped.h>

#include "cuda_host/support.h"

namespace vitrine {

using test::attention_bound;
using test::check_same;
using test::random;

namespace {

// Views as they come, whose rows are not aligned, or copies, whose rows may be.
Tensor laid_out(const Tensor& t, bool is_dense) { return is_dense ? t.contiguous() : t; }

struct Sizes {
  std::int64_t B, queries, keys, heads, key_heads, dim, value_dim;
};

void check_attention(const Sizes& c, DType dtype, bool is_dense) {
  INFO("queries " << c.queries << " keys " << c.keys << " dim " << c.dim << " value_dim " << c.value_dim << " dense "
                  << is_dense);
  const Tensor q = random({c.B, c.queries, c.heads, c.dim}, dtype, 1), k = random({c.B, c.keys, c.key_heads, c.dim}, dtype, 2),
               v = random({c.B, c.keys, c.key_heads, c.value_dim}, dtype, 3);
  const Tensor bias = random({1, c.heads, c.queries, c.keys}, DType::f32, 4),
               distances = random({c.heads, c.queries + c.keys - 1}, DType::f32, 5);
  Tensor mask = random({c.B, 1, c.queries, c.keys}, DType::f32, 6);
  Tensor none = mask.slice(2, 0, 1);  // the first query sees nothing
  multiply_(none, Tensor::zeros({1}));
  activate_(mask, Activation::relu);
  mask = mask.to(DType::boolean);
  const auto check = [&](const char* what, const Tensor& extra, const auto& options_of, std::string_view impl = {}) {
    check_same(
        what, dtype, {q, k, v, extra},
        [&](auto t) {
          AttentionOptions o = options_of(t[3]);
          if (t[0].device() == test::kGpu) o.impl = impl;
          return attention(laid_out(t[0], is_dense), laid_out(t[1], is_dense), laid_out(t[2], is_dense), o);
        },
        attention_bound(dtype));
  };
  check("attention", {}, [](const Tensor&) { return AttentionOptions{}; });
  check("causal", {}, [](const Tensor&) { return AttentionOptions{.is_causal = true}; });
  check(
      "flash", {}, [](const Tensor&) { return AttentionOptions{}; }, "cuda_flash");  // where others come before it, too
  check("negative scale", {}, [](const Tensor&) { return AttentionOptions{.scale = -0.2f}; });
  check("bias", bias, [](const Tensor& t) { return AttentionOptions{.scale = 0.3f, .bias = t}; });
  check("distance_bias", distances, [](const Tensor& t) { return AttentionOptions{.is_causal = true, .distance_bias = t}; });
  check("mask", mask, [](const Tensor& t) { return AttentionOptions{.mask = t}; });
}

// i32 [images, groups, size] of tokens, no token twice in an image, some of the lists' places empty.
Tensor random_groups(std::int64_t images, std::int64_t groups, std::int64_t size, std::int64_t tokens, unsigned seed) {
  std::mt19937 engine(seed);
  Tensor lists = Tensor::empty({images, groups, size}, DType::i32);
  for (std::int64_t b = 0; b < images; ++b) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(std::max(tokens, groups * size)), -1);
    std::iota(order.begin(), order.begin() + tokens, 0);
    std::shuffle(order.begin(), order.end(), engine);
    std::copy_n(order.begin(), groups * size, lists.data<std::int32_t>() + b * groups * size);
  }
  return lists;
}
// The same where tokens may come again and again.
Tensor random_keys(std::int64_t images, std::int64_t groups, std::int64_t size, std::int64_t tokens, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_int_distribution<std::int32_t> any(-1, static_cast<std::int32_t>(tokens) - 1);
  Tensor lists = Tensor::empty({images, groups, size}, DType::i32);
  std::generate_n(lists.data<std::int32_t>(), lists.numel(), [&] { return any(engine); });
  return lists;
}

struct Groups {
  std::int64_t B, tokens, height, width, groups, queries, rows, columns, heads, key_heads, dim, value_dim;
};

void check_groups(const Groups& c, DType dtype, bool is_dense) {
  INFO("groups " << c.groups << " of " << c.queries << " queries, " << c.rows << "x" << c.columns << " keys, dim " << c.dim
                 << " value_dim " << c.value_dim << " dense " << is_dense);
  const std::int64_t keys = c.rows * c.columns, key_tokens = c.height * c.width;
  const Tensor q = random({c.B, c.tokens, c.heads, c.dim}, dtype, 1), k = random({c.B, key_tokens, c.key_heads, c.dim}, dtype, 2),
               v = random({c.B, key_tokens, c.key_heads, c.value_dim}, dtype, 3);
  const GroupedOptions same{.queries = random_groups(1, c.groups, c.queries, c.tokens, 4),
                            .keys = random_keys(1, c.groups, keys, key_tokens, 5)};
  const auto check = [&](const char* what, const GroupedOptions& options) {
    check_same(
        what, dtype,
        {q, k, v, options.pad_key, options.pad_value, options.bias, options.row_bias, options.column_bias, options.head_scale},
        [&](auto t) {
          GroupedOptions o = options;
          const Device device = t[0].device();
          for (Tensor* list : {&o.queries, &o.keys, &o.pattern, &o.boxes})
            if (list->defined()) *list = list->to(device);
          o.pad_key = t[3].defined() ? laid_out(t[3], is_dense) : t[3];
          o.pad_value = t[4].defined() ? laid_out(t[4], is_dense) : t[4];
          o.bias = t[5];
          o.row_bias = t[6];
          o.column_bias = t[7];
          if (t[8].defined()) o.head_scale = t[8].contiguous();
          return grouped_attention(laid_out(t[0], is_dense), laid_out(t[1], is_dense), laid_out(t[2], is_dense), o);
        },
        attention_bound(dtype));
  };
  check("lists", same);
  GroupedOptions o = same;
  o.queries = random_groups(c.B, c.groups, c.queries, c.tokens, 6);
  o.keys = random_keys(c.B, c.groups, keys, key_tokens, 7);
  check("lists of each image", o);
  o = same;
  o.pad_key = random({c.key_heads, c.dim}, dtype, 8);
  o.pad_value = random({c.key_heads, c.value_dim}, dtype, 9);
  check("padding", o);
  o.bias = random({3, c.heads, c.queries, keys}, DType::f32, 10);
  o.pattern = random_keys(1, 1, c.groups, 2, 11).view({c.groups});
  for (std::int64_t g = 0; g < c.groups; ++g) ++o.pattern.data<std::int32_t>()[g];  // 0 to 2
  check("bias by pattern", o);
  o = same;
  o.scale = 1.0f;
  o.bias = random({1, 1, c.queries, keys}, DType::f32, 12);
  o.head_scale = random({c.heads}, DType::f32, 13);
  o.is_cosine = true;
  check("cosine", o);
  o = same;
  o.row_bias = random({1, c.tokens, c.heads, c.rows}, DType::f32, 14);
  o.column_bias = random({c.B, c.tokens, c.heads, c.columns}, DType::f32, 15);
  check("row and column bias", o);
  o = same;
  o.keys = {};
  o.map = {c.height, c.width};
  o.box_keys = {c.rows, c.columns};
  o.boxes = random({c.B, c.groups, c.key_heads, 4}, DType::f32, 16, 2.0f);  // some lie outside
  check("boxes", o);
  o.is_cosine = true;
  o.bias = random({1, c.heads, c.queries, keys}, DType::f32, 17);
  check("boxes, cosine, bias", o);
}

}  // namespace

TEST_CASE("global attention on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats) {
    for (const Sizes& c : {Sizes{1, 1, 1, 1, 1, 1, 1}, {2, 33, 65, 2, 1, 40, 24}, {1, 17, 20, 1, 1, 128, 128}})
      check_attention(c, dtype, false);
    for (const Sizes& c : {Sizes{1, 65, 64, 2, 1, 32, 32},
                           {1, 16, 63, 1, 1, 64, 64},
                           {1, 18, 17, 1, 1, 128, 128},
                           {1, 15, 129, 1, 1, 80, 16},
                           {2, 64, 17, 1, 1, 128, 128},
                           {1, 66, 16, 1, 1, 8, 128},
                           {1, 5, 7, 1, 1, 200, 512}})
      check_attention(c, dtype, true);
  }
}

TEST_CASE("attention with cuDNN on the device", "[cuda_host]") {
  cuda::emulation::install();
  cuda::emulation::set_cudnn(true);
  const std::int64_t before = cuda::emulation::cudnn_runs();
  for (const DType dtype : {DType::f16, DType::bf16}) {
    for (const Sizes& c : {Sizes{2, 17, 17, 2, 2, 64, 64}, {1, 20, 33, 4, 2, 40, 24}, {1, 9, 5, 1, 1, 200, 136}})
      check_attention(c, dtype, true);
    // Views of one projection, as they are, and biases for all images or heads.
    const Tensor qkv = random({2, 21, 3, 4, 32}, dtype, 7);
    for (const Shape& size : {Shape{2, 4, 21, 21}, {1, 1, 21, 21}, {1, 4, 1, 21}, {2, 1, 1, 21}})
      check_same(
          "views", dtype, {qkv, random(size, DType::f32, 8)},
          [](auto t) {
            const Tensor whole = t[0].contiguous();
            return attention(whole.select(2, 0), whole.select(2, 1), whole.select(2, 2), {.bias = t[1].contiguous()});
          },
          attention_bound(dtype));
  }
  CHECK(cuda::emulation::cudnn_runs() > before);
  cuda::emulation::set_cudnn(false);
}

TEST_CASE("grouped attention on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats) {
    check_groups({2, 20, 5, 7, 2, 9, 3, 5, 2, 1, 20, 12}, dtype, false);
    check_groups({1, 70, 6, 8, 1, 65, 5, 13, 1, 1, 32, 32}, dtype, true);
    check_groups({1, 40, 8, 8, 1, 33, 3, 22, 2, 1, 64, 64}, dtype, true);
    check_groups({1, 20, 5, 5, 1, 16, 4, 4, 1, 1, 128, 128}, dtype, true);
    check_groups({1, 20, 5, 5, 1, 18, 5, 5, 1, 1, 48, 96}, dtype, true);
    check_groups({1, 9, 3, 3, 2, 4, 1, 5, 1, 1, 140, 130}, dtype, false);
  }
}

TEST_CASE("lists on the device that name no tokens", "[cuda_host]") {
  cuda::emulation::install();
  for (const DType dtype : test::kFloats) {
    const Tensor x = random({1, 6, 1, 16}, dtype, 1).to(test::kGpu);
    Tensor lists = Tensor::zeros({1, 1, 4}, DType::i32), wrong = Tensor::zeros({1, 1, 4}, DType::i32);
    const std::int32_t good[] = {0, -1, 5, -1}, bad[] = {0, 6, 5, -70000};
    std::copy(std::begin(good), std::end(good), lists.data<std::int32_t>());
    std::copy(std::begin(bad), std::end(bad), wrong.data<std::int32_t>());
    lists = lists.to(test::kGpu);
    wrong = wrong.to(test::kGpu);
    const Tensor expected = grouped_attention(x, x, x, {.queries = lists, .keys = lists});
    const Tensor got = grouped_attention(x, x, x, {.queries = wrong, .keys = wrong});
    CHECK(test::values(got.to(Device{})) == test::values(expected.to(Device{})));
    CHECK_THROWS_WITH(grouped_attention(x, x, x, {.queries = lists.to(Device{}), .keys = lists}), test::contains("one device"));
  }
}

}  // namespace vitrine
