#include <catch.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <vitrine/layers/context.h>
#include <vitrine/layers/memory.h>
#include <vitrine/pipelines/generate.h>
#include <vitrine/weights/sources.h>

#include "pipelines/diffusion_folders.h"
#include "pipelines/fixtures.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

GenerateJob job_of(const DiffusionCase& c) {
  GenerateJob job;
  job.prompt = c.call.value("prompt", "");
  job.negative_prompt = c.call.value("negative_prompt", "");
  if (c.call.contains("class_labels")) job.classes = c.call["class_labels"].get<std::vector<std::int64_t>>();
  job.width = job.height = c.size;
  job.steps = c.call["num_inference_steps"].get<int>();
  job.guidance = c.call["guidance_scale"].get<double>();
  job.seed = c.seed;
  job.image = c.picture;
  job.mask = c.mask;
  if (c.picture) job.strength = 1;
  return job;
}

// A pipeline of the tests' data that stays for a test.
struct Pipeline {
  explicit Pipeline(const std::string& name) : given(diffusion_case(name)) { write_diffusion_folder(name, path()); }
  std::string path() const { return folder / given.name; }
  Generator generator() const { return Generator({.model = path()}); }

  TemporaryFolder folder;
  DiffusionCase given;
};

Image flat(std::int64_t width, std::int64_t height, std::int64_t channels, std::uint8_t value) {
  return {width, height, channels, std::vector<std::uint8_t>(static_cast<std::size_t>(width * height * channels), value)};
}

}  // namespace

TEST_CASE("pictures are those of diffusers, from its folders") {
  for (const std::string& name : diffusion_pipelines()) {
    INFO(name);
    const Pipeline pipeline(name);
    const auto pictures = pipeline.generator().generate(job_of(pipeline.given));
    REQUIRE(pictures.size() == 1);
    // Rounding to 8 bits may fall on the other side.
    CHECK(largest_difference(pictures[0], pipeline.given.expected) <= 1);
  }
}

TEST_CASE("a picture does not depend on the batch, the count or the threads") {
  for (const std::string name : {"sd", "dit"}) {
    INFO(name);
    const Pipeline pipeline(name);
    const Generator generator = pipeline.generator();
    GenerateJob job = job_of(pipeline.given);
    job.count = 3;
    const auto one_by_one = generator.generate(job);
    job.batch_size = 2;
    const auto in_batches = generator.generate(job);
    Context single({.threads = 1, .device = {}});
    const ContextScope scope(single);
    job.batch_size = 3;
    const auto on_one_thread = generator.generate(job);
    GenerateJob last = job;
    last.count = 1;
    last.seed += 2;
    CHECK(generator.generate(last)[0].pixels == one_by_one[2].pixels);
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(one_by_one[i].pixels == in_batches[i].pixels);
      CHECK(one_by_one[i].pixels == on_one_thread[i].pixels);
    }
    CHECK(one_by_one[0].pixels != one_by_one[1].pixels);
  }
}

TEST_CASE("text encoders that are freed give the same picture") {
  const Pipeline pipeline("flux");
  const Generator lean({.model = pipeline.path()}, false);
  const GenerateJob job = job_of(pipeline.given);
  const Image first = lean.generate(job)[0];
  CHECK(largest_difference(first, pipeline.given.expected) <= 1);
  GenerateJob other = job;
  other.prompt = "hats";
  CHECK(lean.generate(other)[0].pixels != first.pixels);
  CHECK(lean.generate(job)[0].pixels == first.pixels);
}

TEST_CASE("from a picture, and within a mask") {
  const Pipeline pipeline("sd");
  const Generator generator = pipeline.generator();
  GenerateJob job = job_of(pipeline.given);
  Image picture = flat(40, 34, 3, 0);  // of another size: covered, the middle kept
  for (std::size_t i = 0; i < picture.pixels.size(); ++i) picture.pixels[i] = static_cast<std::uint8_t>(i * 7 % 251);
  job.image = picture;
  job.width = job.height = 0;
  job = generator.complete(job);
  CHECK(job.width == 40);
  CHECK(job.height == 34);
  job.strength = 0.9;
  const Image strong = generator.generate(job)[0];
  job.strength = 0.2;
  const Image weak = generator.generate(job)[0];
  CHECK(strong.pixels != weak.pixels);

  Image mask = flat(40, 34, 1, 0);
  for (std::int64_t y = 10; y < 21; ++y)
    for (std::int64_t x = 7; x < 30; ++x) mask.row(y)[x] = 255;
  job.mask = mask;
  job.strength = 1;
  const Image filled = generator.generate(job)[0];
  std::int64_t changed = 0;
  for (std::int64_t y = 0; y < 34; ++y)
    for (std::int64_t x = 0; x < 40; ++x) {
      const bool same = std::equal(filled.row(y) + 3 * x, filled.row(y) + 3 * x + 3, picture.row(y) + 3 * x);
      if (mask.row(y)[x] == 0) CHECK(same);
      changed += !same;
    }
  CHECK(changed > 200);
}

TEST_CASE("a network that fills in pictures needs one and a mask") {
  const Pipeline pipeline("inpaint");
  const Generator generator = pipeline.generator();
  GenerateJob job = job_of(pipeline.given);
  job.count = job.batch_size = 2;
  const auto both = generator.generate(job);
  CHECK(largest_difference(both[0], pipeline.given.expected) <= 1);
  CHECK(both[1].pixels != both[0].pixels);
  for (const auto part : {&GenerateJob::image, &GenerateJob::mask}) {
    GenerateJob less = job;
    less.*part = std::nullopt;
    const std::string message = error_of([&] { generator.complete(less); });
    CHECK(message.find(part == &GenerateJob::image ? "a mask needs a picture" : "fills in pictures: give one and a mask") !=
          std::string::npos);
  }
}

namespace {

// What a denoiser of this information reads, all of it.
Conditioning conditioning_of(const DenoiserInfo& info) {
  Conditioning c;
  if (info.num_classes > 0) c.labels = Tensor::full({1}, 1.0f).to(DType::i64);
  if (info.text_channels > 0) c.text = synthetic_tensor("text", {1, 9, info.text_channels});
  if (info.pooled_channels > 0) c.pooled = synthetic_tensor("pooled", {1, info.pooled_channels});
  if (info.takes_time_ids) c.time_ids = Tensor::full({1, 6}, 32.0f);
  if (info.takes_guidance) c.guidance = Tensor::full({1}, 3.5f);
  return c;
}

double cosine(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  double ab = 0, aa = 0, bb = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    const double x = a.data<float>()[i], y = b.data<float>()[i];
    ab += x * y, aa += x * x, bb += y * y;
  }
  return ab / std::sqrt(aa * bb);
}

}  // namespace

TEST_CASE("int8 weights change what denoisers and text encoders say by little, and they hold less") {
  for (const std::string& name : diffusion_pipelines()) {
    INFO(name);
    const Pipeline pipeline(name);
    const DiffusionModel whole({.model = pipeline.path()}), small({.model = pipeline.path(), .int8_weights = true});
    const DenoiserInfo& info = whole.denoiser();
    const Tensor x = synthetic_tensor("latents", {1, 16, 16, info.in_channels}),
                 t = Tensor::full({1}, static_cast<float>(info.timestep_scale / 2));
    std::int64_t held[2];
    Tensor said[2];
    for (const bool int8 : {false, true}) {
      const std::int64_t before = memory_stats().in_use;
      const auto denoiser = (int8 ? small : whole).load_denoiser();
      held[int8] = memory_stats().in_use - before;
      said[int8] = denoiser->forward(x, t, conditioning_of(info)).contiguous();
    }
    CHECK(cosine(said[0], said[1]) > 0.999);
    CHECK(cosine(said[0], said[1]) < 1);
    // U-Nets have convolutions, the small DiT a table of classes that is as large as the rest.
    const double share = whole.kind().denoiser_folder == "unet" || name == "dit" ? 0.8 : 0.5;
    CHECK(static_cast<double>(held[1]) < share * static_cast<double>(held[0]));
    if (whole.kind().encode == nullptr) continue;
    const auto text = [&](const DiffusionModel& model) {
      return model.kind().encode(model.load_text_encoders(), "the cats at hats").conditioning;
    };
    const Conditioning exact = text(whole), rounded = text(small);
    CHECK(cosine(exact.text.contiguous(), rounded.text.contiguous()) > 0.999);
    if (exact.pooled.defined()) CHECK(cosine(exact.pooled.contiguous(), rounded.pooled.contiguous()) > 0.999);
  }
}

TEST_CASE("progress, previews and stopping") {
  const Pipeline pipeline("dit");
  const Generator generator = pipeline.generator();
  GenerateJob job = job_of(pipeline.given);
  job.count = 3;
  std::vector<int> steps;
  std::int64_t pictures = 0, previews = 0;
  GenerateCallbacks callbacks;
  callbacks.preview_seconds = 0;
  callbacks.preview = [&](std::int64_t, const Image& picture) {
    CHECK(picture.width == 32);
    ++previews;
  };
  callbacks.picture = [&](std::int64_t index, const Image&) { CHECK(index == pictures++); };
  callbacks.progress = [&](const GenerateProgress& p) {
    CHECK(p.count == 3);
    CHECK(p.steps == 5);
    steps.push_back(p.step);
    return !(p.done == 1 && p.step == 3);
  };
  CHECK(!generator.generate(job, callbacks));
  CHECK(pictures == 1);
  CHECK(steps == std::vector{1, 2, 3, 4, 5, 1, 2, 3});
  CHECK(previews == 4 + 3);
}

TEST_CASE("prompts that are too long are cut, and it is said where") {
  const Pipeline pipeline("sd");
  const Generator generator = pipeline.generator();
  GenerateJob job = job_of(pipeline.given);
  CHECK(generator.warnings(job).empty());
  for (int i = 0; i < 80; ++i) job.prompt += " the";
  const auto warnings = generator.warnings(job);
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].find("the prompt is too long; left out: ") == 0);
}

TEST_CASE("what a model cannot do is refused before it is loaded") {
  const Pipeline sd("sd"), dit("dit"), flux("flux");
  const Generator prompts = sd.generator(), classes = dit.generator(), distilled = flux.generator();
  const auto error = [](const Generator& generator, const GenerateJob& job) {
    return error_of([&] { generator.complete(job); });
  };
  const auto has = [](const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; };
  CHECK(has(error(prompts, {.classes = {1}}), "draws prompts, not classes"));
  CHECK(has(error(classes, {.prompt = "a"}), "draws classes: name one"));
  CHECK(has(error(classes, {.classes = {1}, .prompt = "a"}), "reads no prompts"));
  CHECK(has(error(classes, {.classes = {1000}}), "class 1000, expected 0 to 999"));
  CHECK(has(error(distilled, {.prompt = "a", .negative_prompt = "b"}), "reads no negative prompt"));
  CHECK(has(error(distilled, {.prompt = "a", .width = 30, .height = 32}), "both sides must be multiples of 4; nearest: 32x32"));
  CHECK(has(error(prompts, {.prompt = "a", .width = 1 << 20, .height = 32}), "expected 1 to 16384"));
  CHECK(has(error(prompts, {.prompt = "a", .sampler = "dpm"}), "unknown sampler 'dpm'"));
  CHECK(has(error(prompts, {.prompt = "a", .sampler = "flow-euler"}), "does not predict flow"));
  CHECK(has(error(prompts, {.prompt = "a", .mask = flat(8, 8, 1, 255)}), "a mask needs a picture"));
  GenerateJob job{.prompt = "a", .image = flat(32, 32, 3, 9)};
  job.strength = 0.001;
  CHECK(has(error(prompts, job), "leaves none"));
  job.guidance = std::numeric_limits<double>::infinity();
  CHECK(has(error(prompts, job), "guidance must be a number"));

  CHECK(classes.class_index("7") == 7);
  CHECK(has(error_of([&] { classes.class_index("dgo"); }), "unknown class 'dgo'"));
  CHECK(has(error_of([&] { prompts.class_index("7"); }), "draws prompts"));
}

TEST_CASE("folders that are not whole") {
  const auto error_without = [](const std::string& name, const std::string& file, const char* text = nullptr) {
    const Pipeline pipeline(name);
    const std::string path = pipeline.path() + "/" + file;
    if (text != nullptr)
      std::ofstream(path) << text;
    else
      std::filesystem::remove_all(path);
    const std::string message = error_of([&] { pipeline.generator().generate(job_of(pipeline.given)); });
    INFO(message);
    CHECK(message.find('\n') == std::string::npos);
    return message;
  };
  const auto names = [](const std::string& message, const std::string& part) { return message.find(part) != std::string::npos; };
  CHECK(names(error_without("dit", "model_index.json"), "model_index.json: no such file"));
  CHECK(names(error_without("dit", "model_index.json", "[1]"), "not the index of a pipeline"));
  CHECK(names(error_without("dit", "model_index.json", R"({"_class_name":"WaltzPipeline"})"),
              "the pipeline WaltzPipeline is not known"));
  CHECK(names(error_without("dit", "vae/config.json"), "vae/config.json"));
  CHECK(names(error_without("dit", "vae/diffusion_pytorch_model.safetensors"), "folder without a .safetensors file"));
  CHECK(names(error_without("dit", "vae/config.json", R"({"_class_name":"AutoencoderDC"})"), "AutoencoderDC is not known"));
  CHECK(names(error_without("dit", "transformer/config.json", "{"), "transformer/config.json"));
  CHECK(names(error_without("dit", "scheduler/scheduler_config.json"), "scheduler_config.json"));
  CHECK(names(error_without("dit", "scheduler/scheduler_config.json", R"({"_class_name":"DDIMScheduler","beta_start":"x"})"),
              "beta_start"));
  for (const char* text : {"", "{", "[1]", R"({"_class_name":"WaltzFlowScheduler","x":})",
                           R"({"_class_name":"FlowMatchWaltzScheduler"})", "{\n\"_class_name\":\n"})
    CHECK(names(error_without("sd", "scheduler/scheduler_config.json", text), "sd/scheduler/scheduler_config.json: "));
  // Of a file that ends early not all of its lines.
  CHECK(names(error_without("dit", "vae/config.json", "{\n \"_class_name\": \"AutoencoderKL\",\n"), "vae/config.json: {?"));
  CHECK(names(error_without("sd", "text_encoder/config.json", ""), "text_encoder/config.json: is empty"));
  CHECK(names(error_without("sd", "tokenizer/merges.txt", ""), "merges.txt: has no merges"));
  CHECK(names(error_without("sd", "text_encoder"), "text_encoder/config.json"));
  CHECK(names(error_without("sd", "tokenizer/merges.txt"), "merges.txt"));
  CHECK(names(error_without("flux", "text_encoder_2/model.safetensors", "nothing"), "text_encoder_2/model.safetensors"));
}

TEST_CASE("a scheduler that is not known is replaced, and it is said by what") {
  const Pipeline pipeline("sd");
  std::ofstream(pipeline.path() + "/scheduler/scheduler_config.json")
      << R"({"_class_name":"LMSDiscreteScheduler","beta_schedule":"scaled_linear","beta_start":0.00085,"beta_end":0.012,)"
      << R"("lambda_min_clipped":-Infinity,"skip_prk_steps":true,"set_alpha_to_one":false,"steps_offset":1,"num_train_timesteps":1000})";
  const Generator generator = pipeline.generator();
  REQUIRE(generator.model().warnings().size() == 1);
  CHECK(generator.model().warnings()[0].find("LMSDiscreteScheduler is not known, dpmpp-2m takes its place") != std::string::npos);
  GenerateJob job = job_of(pipeline.given);
  const Image picture = generator.generate(job)[0];
  job.sampler = "dpmpp-2m";
  CHECK(generator.generate(job)[0].pixels == picture.pixels);
}
