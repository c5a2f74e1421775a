// Pictures on their way into a model on the device: the CPU's input, to the bit, and no waiting on the way.
#include <catch.h>

#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <vitrine/backbones/backbone.h>
#include <vitrine/layers/devices.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/classify.h>
#include <vitrine/pipelines/dataset.h>
#include <vitrine/pipelines/evaluate.h>
#include <vitrine/pipelines/preprocess.h>

#include "../backbones/support.h"
#include "cuda_host/support.h"
#include "pipelines/fixtures.h"

namespace vitrine {

namespace {

using test::kGpu;
using test::pattern_image;

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

void check_batch(const std::vector<Image>& images, const PreprocessConfig& config, DType dtype) {
  INFO(config.crop_mode << " " << config.interpolation << " " << config.channels << " channels, " << name_of(dtype));
  std::vector<Image> fitted;
  std::vector<PreparedImage> here, there;
  for (const Image& image : images) {
    fitted.push_back(fit_image(image, config));
    here.push_back(prepare_image(image, config));
    there.push_back(prepare_image(image, config, kGpu));
  }
  const Tensor expected = normalize_images(fitted, config, dtype);
  CHECK(same_bits(batch_images(here, config, dtype), expected));
  CHECK(same_bits(batch_images(there, config, dtype), expected));  // what was left to a GPU, on the CPU
  for (const auto order : {cuda::emulation::Order::forward, cuda::emulation::Order::backward}) {
    cuda::emulation::set_order(order);
    const Tensor got = batch_images(there, config, dtype, kGpu);
    CHECK(got.device() == kGpu);
    CHECK(same_bits(got.to(Device{}), expected));
    CHECK(same_bits(batch_images(here, config, dtype, kGpu).to(Device{}), expected));
  }
  cuda::emulation::set_order(cuda::emulation::Order::forward);
}

PreprocessConfig config_of(std::int64_t height, std::int64_t width, std::int64_t channels) {
  PreprocessConfig config;
  config.height = height, config.width = width, config.channels = channels;
  config.mean.resize(static_cast<std::size_t>(channels));
  config.std.resize(static_cast<std::size_t>(channels));
  return config;
}

constexpr const char* kModel = "vit_tiny_patch16_224[img_size=16,patch_size=8,embed_dim=32,depth=2,num_heads=2,num_classes=5]";

ImageClassifier classifier_on(Device device) {
  LoadedModel model;
  model.name = "test";
  model.backbone = create_model(kModel, Weights(synthetic_weights(), {.device = device}));
  model.preprocess = model.backbone->info().preprocess;
  model.classes = {"a", "b", "c", "d", "e"};
  return ImageClassifier(std::move(model));
}

// Pictures of several sizes and kinds as files, in a folder a class.
std::vector<std::string> write_pictures(const test::TemporaryFolder& folder, int count) {
  std::vector<std::string> files;
  for (int i = 0; i < count; ++i) {
    const std::string name = std::string(1, static_cast<char>('a' + i % 5));
    std::filesystem::create_directories(folder / name);
    files.push_back(folder / (name + "/" + std::to_string(i) + (i % 3 == 2 ? ".jpg" : ".png")));
    write_image(files.back(), pattern_image(9 + 7 * i % 40, 11 + 13 * i % 30, i % 4 == 1 ? 1 : 3));
  }
  return files;
}

}  // namespace

TEST_CASE("pictures get the model's size on the device as on the CPU", "[cuda_host]") {
  cuda::emulation::install();
  int round = 0;
  for (const std::int64_t channels : {1, 3}) {
    // Down, up, one pixel, odd, long either way (Pillow's two orders of the passes), of the size already, of other channels.
    std::vector<Image> images;
    for (const auto& [width, height] :
         {std::pair<int, int>{40, 30}, {7, 5}, {1, 1}, {33, 61}, {97, 2}, {3, 50}, {21, 90}, {18, 14}, {18, 40}})
      images.push_back(pattern_image(width, height, channels));
    images.push_back(pattern_image(25, 19, 4));
    images.push_back(pattern_image(25, 19, 4 - channels));
    for (const char* mode : {"center", "squash", "border", "pad"})
      for (const char* filter : {"nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"}) {
        PreprocessConfig config = config_of(14, 18, channels);
        config.crop_mode = mode;
        config.interpolation = filter;
        config.crop_pct = round % 2 ? 1.0 : 0.8;
        check_batch(images, config, test::kFloats[round++ % 3]);
      }
  }
  PreprocessConfig square = config_of(16, 16, 3);
  square.crop_pct = 0.875;
  for (const DType dtype : test::kFloats) check_batch({pattern_image(37, 29, 3), pattern_image(29, 37, 3)}, square, dtype);
  CHECK(batch_images({}, square, DType::f32, kGpu).shape() == Shape{0, 16, 16, 3});
}

TEST_CASE("pictures larger than the pages through which they travel", "[cuda_host]") {
  cuda::emulation::install();
  PreprocessConfig config = config_of(4, 4, 3);
  config.interpolation = "box";
  const Image large = pattern_image(2000, 1500, 3);  // 9 MB
  check_batch({pattern_image(5, 5, 3), large, pattern_image(3, 9, 3), large}, config, DType::f32);
}

TEST_CASE("what does not fit is refused before the device is asked", "[cuda_host]") {
  cuda::emulation::install();
  const PreprocessConfig config = config_of(8, 8, 3);
  PreparedImage prepared = prepare_image(pattern_image(20, 20, 3), config, kGpu);
  const auto batch = [&](DType dtype) { return batch_images({&prepared, 1}, config, dtype, kGpu); };
  CHECK_THROWS_AS(batch(DType::i32), Error);
  prepared.left = 1;
  CHECK_THROWS_WITH(batch(DType::f32), Catch::Contains("8x8x3 at 0, 1, on a canvas of 8x8x3"));
  prepared = {.pixels = pattern_image(8, 8, 1)};
  CHECK_THROWS_WITH(batch(DType::f32), Catch::Contains("8x8x1"));
  CHECK_THROWS_AS(prepare_image(Image{20, 20, 3, {}}, config, kGpu), Error);
}

TEST_CASE("values come to the host behind what was queued before them", "[cuda_host]") {
  cuda::emulation::install();
  const Tensor x = test::random({3, 50});
  Tensor there = x.to(kGpu);
  HostCopy first(there.slice(1, 2, 40));
  add_(there, there);
  HostCopy second(there);
  CHECK(same_bits(first.get(), x.slice(1, 2, 40).contiguous()));
  CHECK(same_bits(second.get(), affine(x, 2, 0)));
  CHECK(HostCopy(x).get().raw() == x.raw());
  CHECK(HostCopy(Tensor::empty({0, 3}, DType::f32, kGpu)).get().shape() == Shape{0, 3});
  const HostCopy unread(there);
}

TEST_CASE("files are classified on the device as on the CPU, and batches are queued without waiting", "[cuda_host]") {
  cuda::emulation::install();
  const test::TemporaryFolder folder;
  const std::vector<std::string> files = write_pictures(folder, 9);
  std::vector<Image> images;
  for (const std::string& file : files) images.push_back(read_image(file));
  const ImageClassifier here = classifier_on({}), there = classifier_on(kGpu);
  const auto expected = here.classify(images, 5), got = there.classify(images, 5);
  for (std::size_t i = 0; i < images.size(); ++i)
    for (std::size_t k = 0; k < 5; ++k) {
      CHECK(got[i][k].label == expected[i][k].label);
      CHECK(std::abs(got[i][k].score - expected[i][k].score) < 1e-5f);
    }

  std::vector<PreparedImage> prepared;
  for (const Image& image : images) prepared.push_back(there.prepare(image));
  const std::span all(prepared);
  const std::int64_t before = cuda::emulation::stream_waits();
  HostCopy front = there.queue(all.first(4)), back = there.queue(all.subspan(4));
  const Tensor logits[] = {front.get(), back.get()};
  CHECK(cuda::emulation::stream_waits() == before);
  CHECK(same_bits(concat(logits, 0), there.logits(prepared)));
}

TEST_CASE("a data set is evaluated on the device as on the CPU", "[cuda_host]") {
  cuda::emulation::install();
  const test::TemporaryFolder folder;
  write_pictures(folder, 17);
  test::save(folder / "c/broken.png", {1, 2, 3});
  const auto dataset = open_dataset("folder:" + (folder / ""));
  std::vector<std::int64_t> seen;
  const auto run = [&](Device device, int streams) {
    seen.clear();
    return evaluate(classifier_on(device), *dataset,
                    {.batch_size = 4, .streams = streams, .decode_threads = 2, .progress = [&](const EvaluationProgress& p) {
                       seen.push_back(p.done);
                       return true;
                     }});
  };
  const Evaluation here = run({}, 1);
  const std::vector<std::int64_t> steps = seen;
  for (const int streams : {0, 2}) {
    Context context({.threads = 2, .device = kGpu});
    const ContextScope scope(context);
    const Evaluation there = run(kGpu, streams);
    CHECK(there.images == 17);
    CHECK(there.skipped == 1);
    CHECK(there.predictions == here.predictions);
    CHECK(there.confusion == here.confusion);
    if (streams == 0) CHECK(seen == steps);
  }
}

}  // namespace vitrine
