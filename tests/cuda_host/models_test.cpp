// Models and pipelines on the device: what they give on the CPU.
#include <catch.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <vitrine/backbones/autoencoder_kl.h>
#include <vitrine/backbones/backbone.h>
#include <vitrine/backbones/denoiser.h>
#include <vitrine/layers/devices.h>
#include <vitrine/layers/memory.h>
#include <vitrine/layers/repeated_pass.h>
#include <vitrine/pipelines/benchmark.h>
#include <vitrine/pipelines/classify.h>
#include <vitrine/pipelines/generate.h>

#include "../backbones/support.h"
#include "cuda_host/support.h"
#include "pipelines/diffusion_folders.h"
#include "pipelines/fixtures.h"

namespace vitrine {

namespace {

using test::kGpu;
using test::relative_l2;

Weights weights_on(Device device, DType dtype = DType::f32) {
  return Weights(synthetic_weights(), {.dtype = dtype, .device = device});
}

// How far the device's answer is from the CPU's in f32; in f32 itself both are the same up to the order of sums.
double bound(DType dtype) { return dtype == DType::f32 ? 1e-5 : 2e-2; }

struct Case {
  std::string model;
  std::vector<std::int64_t> sides;  // of images
};

// A family each, as small as its constructor allows.
const std::vector<Case> kModels = {
    // registers, layer scale, normed q and k; a table for another size
    {"vit_tiny_patch16_224[img_size=16,patch_size=8,embed_dim=32,depth=2,num_heads=2,num_classes=5,reg_tokens=2,init_values=1,"
     "qk_norm=true]",
     {16, 24}},
    {"vit_tiny_patch16_224[img_size=16,patch_size=8,embed_dim=32,depth=1,num_heads=2,num_classes=5,class_token=false,"
     "global_pool=map]",
     {16}},
    {"vit_tiny_patch16_224[img_size=16,patch_size=8,depth=1,embed_dim=32,num_heads=2,attn_layer=diff,num_classes=5]", {16}},
    {"vit_small_patch16_dinov3[img_size=32,depth=1,embed_dim=32,num_heads=2,num_classes=5]", {32}},
    {"vit_small_patch16_rope_mixed_224[img_size=32,depth=1,embed_dim=32,num_heads=2,num_classes=5]", {32}},
    {"eva02_tiny_patch14_224[img_size=16,patch_size=8,embed_dim=32,depth=1,num_heads=2,num_classes=5]", {16, 24}},
    {"beit_base_patch16_224[img_size=16,patch_size=8,embed_dim=32,depth=2,num_heads=2,num_classes=5]", {16, 24}},
    {"ConvNeXt[depths=[1,1,1,1],dims=[8,16,16,24],use_grn=true,num_classes=5]", {32}},
    {"ResNet[block=Bottleneck,layers=[1,1,1,1],channels=[8,8,16,16],num_classes=5]", {32}},
    {"ecaresnet26t[layers=[1,1,1,1],num_classes=5]", {32}},
    {"MlpMixer[img_size=16,patch_size=8,embed_dim=16,num_blocks=1,num_classes=5]", {16}},
    {"poolformer_s12[depths=[1,1,1,1],dims=[8,8,16,16],num_classes=5]", {32}},
    {"PatchConvnet[embed_dim=32,depth=1,num_classes=5,multiclass=true]", {32}},
};

}  // namespace

TEST_CASE("backbones give the same on the device", "[cuda_host]") {
  cuda::emulation::install();
  for (const Case& c : kModels) {
    INFO(c.model);
    const auto model = create_model(c.model, weights_on({}));
    for (const DType dtype : {DType::f32, DType::bf16}) {
      INFO(name_of(dtype));
      const auto there = create_model(c.model, weights_on(kGpu, dtype));
      CHECK(there->device() == kGpu);
      CHECK(there->info().parameters == model->info().parameters);
      for (const std::int64_t side : c.sides) {
        INFO(side);
        const Tensor images = test::images(1, side, side), expected = model->forward(images);
        const Tensor logits = there->forward(images.to(kGpu));
        CHECK(logits.device() == kGpu);
        CHECK(relative_l2(logits.to(Device{}), expected) < bound(dtype));
        if (dtype != DType::f32 || side != c.sides[0]) continue;
        // As a recording, too, to the bit.
        const RepeatedPass repeated([&](std::span<const Tensor> x) { return there->forward(x[0]); }, kGpu);
        const Tensor on_gpu = images.to(kGpu);
        for (int i = 0; i < 2; ++i) CHECK(test::values(repeated({&on_gpu, 1}).to(Device{})) == test::values(logits.to(Device{})));
        CHECK(repeated.recordings() == 1);
      }
    }
    CHECK_THROWS_WITH(create_model(c.model, weights_on(kGpu))->forward(test::images(1, c.sides[0], c.sides[0])),
                      Catch::Matchers::Contains("cuda:0"));
  }
}

TEST_CASE("a model on the device leaves nothing on the CPU", "[cuda_host]") {
  cuda::emulation::install();
  const char* const name = "vit_tiny_patch16_224[img_size=32,depth=2,num_classes=5]";
  const std::int64_t here = memory_stats().in_use, before = memory_stats(kGpu).in_use;
  const auto model = create_model(name, weights_on(kGpu));
  const std::int64_t held = memory_stats(kGpu).in_use - before;
  CHECK(held > model->info().parameter_bytes * 99 / 100);  // a few are folded into others
  CHECK(held < model->info().parameter_bytes * 11 / 10);
  CHECK(memory_stats().in_use - here == 0);
  const auto narrow = create_model(name, weights_on(kGpu, DType::bf16));
  CHECK(memory_stats(kGpu).in_use - before - held < held * 6 / 10);
  CHECK(memory_stats().in_use - here == 0);
}

TEST_CASE("guidance is the same on the device", "[cuda_host]") {
  cuda::emulation::install();
  const char* const name = "DiT[input_size=4,hidden_size=32,depth=1,num_heads=2,num_classes=5]";
  const Tensor latents = synthetic_tensor("latents", {2, 4, 4, 4}), times = Tensor::full({2}, 400);
  Tensor labels = Tensor::zeros({2}, DType::i64);
  labels.data<std::int64_t>()[1] = 5;
  const auto here = create_denoiser(name, weights_on({})), there = create_denoiser(name, weights_on(kGpu));
  for (const float rescale : {0.0f, 0.7f}) {
    const Tensor expected = forward_with_cfg(*here, latents, times, {.labels = labels}, 4, rescale);
    const Tensor got = forward_with_cfg(*there, latents.to(kGpu), times.to(kGpu), {.labels = labels.to(kGpu)}, 4, rescale);
    CHECK(relative_l2(got.to(Device{}), expected) < 1e-5);
  }
  // Nobody waits for labels on a device to check them; a class that does not exist shows.
  labels.data<std::int64_t>()[1] = 6;
  const Tensor wrong = there->forward(latents.to(kGpu), times.to(kGpu), {.labels = labels.to(kGpu)}).to(Device{});
  CHECK(std::isnan(test::values(wrong).back()));
  CHECK_THROWS_AS(there->forward(latents.to(kGpu), times.to(kGpu), {.labels = labels}), Error);
}

TEST_CASE("tiles and samples of an autoencoder are the same on the device", "[cuda_host]") {
  cuda::emulation::install();
  const auto build = [](Device device) {
    return AutoencoderKL(weights_on(device),
                         parse_autoencoder_kl_config({{"block_out_channels", "[8,8]"},
                                                      {"down_block_types", R"(["DownEncoderBlock2D","DownEncoderBlock2D"])"},
                                                      {"up_block_types", R"(["UpDecoderBlock2D","UpDecoderBlock2D"])"},
                                                      {"layers_per_block", "1"},
                                                      {"norm_num_groups", "4"}}));
  };
  const AutoencoderKL here = build({}), there = build(kGpu);
  const Tensor images = test::images(1, 12, 8), noise = synthetic_tensor("noise", {1, 6, 4, 4});
  const Tiling tiling{.size = 4, .overlap = 1};
  CHECK(relative_l2(there.encode(images.to(kGpu), noise.to(kGpu), tiling).to(Device{}), here.encode(images, noise, tiling)) <
        1e-5);
  const auto decode = [&](const AutoencoderKL& model, const Tensor& latents) {
    return model.decode(model.unscale_latents(model.scale_latents(latents)), tiling);
  };
  CHECK(relative_l2(decode(there, noise.to(kGpu)).to(Device{}), decode(here, noise)) < 1e-5);
}

TEST_CASE("a picture drawn on the device is the CPU's", "[cuda_host]") {
  cuda::emulation::install();
  const test::TemporaryFolder folder;
  const test::DiffusionCase given = test::diffusion_case("dit");
  test::write_diffusion_folder("dit", folder / "dit");
  GenerateJob job;
  job.classes = {1};
  job.width = job.height = given.size;
  job.steps = 2;
  const auto draw = [&](Device device) {
    Context context({.device = device});
    const ContextScope scope(context);
    return Generator({.model = folder / "dit", .device = device}).generate(job).at(0);
  };
  const Image here = draw({}), there = draw(kGpu);
  REQUIRE(here.pixels.size() == there.pixels.size());
  int largest = 0;
  for (std::size_t i = 0; i < here.pixels.size(); ++i) largest = std::max(largest, std::abs(here.pixels[i] - there.pixels[i]));
  CHECK(largest <= 1);
}

TEST_CASE("a picture is classified on the device as on the CPU", "[cuda_host]") {
  cuda::emulation::install();
  Image image{20, 30, 3, {}};
  for (int i = 0; i < 20 * 30 * 3; ++i) image.pixels.push_back(static_cast<std::uint8_t>(i * 7 % 256));
  const auto classify = [&](Device device) {
    LoadedModel model;
    model.name = "test";
    model.backbone = create_model(kModels[0].model, weights_on(device));
    model.preprocess = model.backbone->info().preprocess;
    return ImageClassifier(std::move(model)).classify({&image, 1}, 3).at(0);
  };
  const auto here = classify({}), there = classify(kGpu);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(there[i].label == here[i].label);
    CHECK(std::abs(there[i].score - here[i].score) < 1e-5f);
  }
}

TEST_CASE("a benchmark on the device", "[cuda_host]") {
  cuda::emulation::install();
  Context context({.device = kGpu});
  const ContextScope scope(context);
  BenchmarkOptions options;
  options.seconds = 0;
  const BenchmarkRow row = benchmark_model(kModels[0].model + "@16", options);
  CHECK(row.device == describe_device(kGpu));
  CHECK(row.device.starts_with("cuda:0 "));
  CHECK(row.weight_bytes > row.parameter_bytes * 9 / 10);
  CHECK(row.replayed);
  CHECK(row.gmacs > 0);
  CHECK(row.peak_activation_bytes > 0);
  CHECK(row.peak_bytes > row.weight_bytes);
  CHECK(row.median_ms > 0);
}

}  // namespace vitrine
