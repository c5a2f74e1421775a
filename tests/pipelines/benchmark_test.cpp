#include <string>

#include <catch.h>

#include <vitrine/backbones/denoiser.h>
#include <vitrine/layers/context.h>
#include <vitrine/pipelines/benchmark.h>
#include <vitrine/pipelines/generation_cases.h>

using namespace vitrine;
using namespace vitrine::test;

namespace {

const std::string kTiny = "nat[embed_dim=8,depths=[1,1],num_heads=[1,2],kernel_size=3,mlp_ratio=2,num_classes=5]";

BenchmarkOptions at_once(std::int64_t batch_size = 1, DType dtype = DType::f32) {
  BenchmarkOptions options;
  options.batch_size = batch_size;
  options.dtype = dtype;
  options.seconds = 0;
  return options;
}

}  // namespace

TEST_CASE("a benchmark's row holds what was run") {
  const BenchmarkRow row = benchmark_model(kTiny + "@32", at_once(3, DType::bf16));
  CHECK(row.name == kTiny + "@32");
  CHECK(row.dtype == "bf16");
  CHECK(row.batch_size == 3);
  CHECK(row.height == 32);
  CHECK(row.width == 32);
  CHECK(row.threads == Context::current().threads());
  CHECK(row.runs >= 1);
  CHECK(row.min_ms > 0.0);
  CHECK(row.min_ms <= row.median_ms);
  CHECK(row.median_ms <= row.p90_ms);
  CHECK(row.images_per_second == Approx(3000.0 / row.median_ms));
  CHECK(row.parameter_bytes == 2 * row.parameters);
  CHECK(row.weight_bytes >= row.parameter_bytes);
  // At least the stem's first map: 3 images of 16 x 16 x 4 in bf16.
  CHECK(row.peak_activation_bytes >= 3 * 16 * 16 * 4 * 2);
  CHECK(row.peak_bytes >= row.weight_bytes + row.peak_activation_bytes);
}

TEST_CASE("int8 weights show in what a model holds") {
  BenchmarkOptions options = at_once(1, DType::bf16);
  const std::int64_t before = benchmark_model("vit_tiny_patch16_224@32", options).weight_bytes;
  options.int8_weights = true;
  const BenchmarkRow row = benchmark_model("vit_tiny_patch16_224@32", options);
  CHECK(row.int8_weights);
  CHECK(row.parameter_bytes == row.weight_bytes);
  CHECK(row.weight_bytes < 0.55 * static_cast<double>(before));
  CHECK(benchmark_generation("DiT-S/8", options).weight_bytes < 36'000'000);  // of 33 million parameters
  CHECK_THROWS_WITH(benchmark_attention("na2d_8x8_h2_d32_k3", options), contains("int8 weights are for models and denoisers"));
}

TEST_CASE("multiply-adds are counted an image, as by hand") {
  // The stem on 16x16 and 8x8, a block of 8 channels on 64 tokens, the next level's on 16, a head.
  const auto block = [](double tokens, double c) { return tokens * (4 * c * c + 2 * 9 * c + 4 * c * c); };
  const double macs = 256 * 27 * 4 + 64 * 36 * 8 + block(64, 8) + 16 * 72 * 16 + block(16, 16) + 16 * 5;
  CHECK(benchmark_model(kTiny + "@32", at_once(1)).gmacs == Approx(1e-9 * macs));
  CHECK(benchmark_model(kTiny + "@32", at_once(2)).gmacs == Approx(1e-9 * macs));
}

TEST_CASE("sizes by option, and names that are none") {
  BenchmarkOptions options = at_once();
  options.height = 24, options.width = 40;
  CHECK(benchmark_model(kTiny, options).width == 40);
  CHECK_THROWS_WITH(benchmark_model(kTiny + "@big", at_once()), contains("'big' is not a size"));
  CHECK_THROWS_WITH(benchmark_model("nat_mimi@32", at_once()), contains("unknown model 'nat_mimi'"));
}

TEST_CASE("shipped models are run at their own size") {
  const BenchmarkRow row = benchmark_model("nat_fashion", at_once());
  CHECK(row.height == 40);
  CHECK(row.width == 40);
  CHECK(row.parameters == 288406);
}

TEST_CASE("every kind of generation case is known by its example") {
  for (const GenerationForm& form : generation_forms()) {
    INFO(form.example);
    CHECK(is_generation_case(form.example));
    CHECK(form.example.starts_with(form.prefix));
  }
  CHECK(!is_generation_case("vae_decode"));
  CHECK(!is_generation_case("vit_small_patch16_224"));
}

TEST_CASE("a denoiser's step is timed by the names of cases and its own") {
  const BenchmarkRow dit = benchmark_generation("dit_s_8", at_once(2));
  CHECK(dit.of_latents);
  CHECK(dit.height == 32);
  CHECK(dit.batch_size == 2);
  constexpr std::int64_t kDim = 384, kPatch = 64;  // blocks, patches, times, labels, the last layer
  CHECK(dit.parameters == 12 * (18 * kDim * kDim + 15 * kDim) + (4 * kPatch + 1) * kDim + (256 + 1 + kDim + 1) * kDim +
                              1001 * kDim + (2 * kDim + 2) * kDim + (kDim + 1) * 8 * kPatch);
  const BenchmarkRow own = benchmark_generation("DiT-S/8", at_once(1, DType::bf16));
  CHECK(own.gmacs == Approx(dit.gmacs));
  CHECK(own.parameter_bytes == 2 * dit.parameters);
  // 12 blocks of 16 tokens: twelve squares of the width a token, and pairs of tokens.
  CHECK(dit.gmacs == Approx(12e-9 * (16 * 12 * 384 * 384 + 2 * 16 * 16 * 384)).epsilon(0.1));

  const std::string small =
      R"(UNet2DConditionModel[sample_size=8,block_out_channels=[32,32],down_block_types=["CrossAttnDownBlock2D","DownBlock2D"],)"
      R"(up_block_types=["UpBlock2D","CrossAttnUpBlock2D"],cross_attention_dim=8,attention_head_dim=4])";
  CHECK(benchmark_generation(small + "@6", at_once()).width == 6);
  CHECK(benchmark_generation(small, at_once()).width == 8);
  BenchmarkOptions options = at_once();
  options.height = 4, options.width = 5;
  CHECK(benchmark_generation(small, options).width == 5);
  CHECK_THROWS_WITH(benchmark_generation("dit_s_8", options), contains("its size is in its name"));
  options.impl = "flash";
  CHECK_THROWS_WITH(benchmark_generation(small, options), contains("it chooses its implementations"));
}

TEST_CASE("a pair of FLUX's blocks is as its authors count") {
  Context context({.threads = 1, .device = {}, .dry_run = true});
  const ContextScope scope(context);
  const BenchmarkRow row = benchmark_generation("flux_pair_n16_t8", at_once(1, DType::bf16));
  CHECK(row.height == 8);
  const double tokens = 24, width = 3072;
  CHECK(row.gmacs == Approx(1e-9 * (24 * tokens * width * width + 4 * tokens * tokens * width)).epsilon(0.25));
  CHECK_THROWS_WITH(benchmark_generation("flux_pair_n15_t8", at_once()), contains("15 image tokens are no square"));
}

TEST_CASE("a step of every denoiser can be timed") {
  Context context({.threads = 1, .device = {}, .dry_run = true});
  const ContextScope scope(context);
  for (const std::string& name : list_denoisers()) {
    INFO(name);
    const BenchmarkRow row = benchmark_generation(name, at_once(2, DType::bf16));
    CHECK(row.gmacs > 0);
    CHECK(row.parameters > 1e6);
    CHECK(row.height > 0);
  }
}

TEST_CASE("the rate of the matrix product is measured") { CHECK(measure_gemm_gflops(DType::f32) > 0.1); }
