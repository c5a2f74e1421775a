// Passes that are recorded as CUDA graphs and replayed.
#include <catch.h>

#include <array>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <vitrine/backbones/backbone.h>
#include <vitrine/backbones/denoiser.h>
#include <vitrine/layers/context.h>
#include <vitrine/layers/cuda/backend.h>
#include <vitrine/layers/devices.h>
#include <vitrine/layers/linear.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/repeated_pass.h>
#include <vitrine/layers/size_cache.h>
#include <vitrine/pipelines/attention_cases.h>
#include <vitrine/pipelines/classify.h>
#include <vitrine/pipelines/dataset.h>
#include <vitrine/pipelines/denoise.h>
#include <vitrine/pipelines/evaluate.h>
#include <vitrine/pipelines/sampler.h>
#include <vitrine/weights/sources.h>

#include "../backbones/support.h"
#include "cuda_host/device_memory.h"
#include "cuda_host/support.h"

namespace vitrine {

namespace {

using test::kGpu;
using Inputs = std::span<const Tensor>;

Tensor on_gpu(const Shape& shape, int seed, DType dtype = DType::f32) { return test::random(shape, dtype, seed).to(kGpu); }
std::vector<float> here(const Tensor& t) { return test::values(t.to(Device{})); }

// A new context, whose stream nobody has used.
struct InContext {
  Context context{{.device = kGpu}};
  ContextScope scope{context};
};

// What the pass gives for each input, plainly and repeatedly, is the same to the bit.
void check_replays(const RepeatedPass::Pass& pass, const std::vector<std::vector<Tensor>>& calls, int recordings) {
  const RepeatedPass repeated(pass, kGpu);
  std::vector<Tensor> results;
  for (const auto& inputs : calls) results.push_back(repeated(inputs));
  CHECK(repeated.recordings() == recordings);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    INFO("call " << i);
    CHECK(here(results[i]) == here(pass(calls[i])));
  }
}

Weights weights_on_gpu(DType dtype = DType::f32) { return Weights(synthetic_weights(), {.dtype = dtype, .device = kGpu}); }

const char* const kVit =
    "vit_tiny_patch16_224[img_size=16,patch_size=8,embed_dim=32,depth=2,num_heads=2,num_classes=5,dynamic_img_size=true]";

}  // namespace

TEST_CASE("a repeated pass is recorded at its second call and gives the same bits", "[cuda_host]") {
  cuda::emulation::install();
  const InContext scope;
  const Linear linear(synthetic_parameter("weight", {24, 16}), synthetic_parameter("bias", {24}), DType::f32, kGpu);
  const auto pass = [&](Inputs x) { return add(softmax(linear(x[0])), x[1]); };
  std::vector<std::vector<Tensor>> calls;
  for (int i = 0; i < 4; ++i) calls.push_back({on_gpu({5, 16}, i), on_gpu({24}, 10 + i)});
  check_replays(pass, calls, 1);

  SECTION("a shape or type that changes is recorded anew, and the first one's recording stays") {
    calls.push_back({on_gpu({3, 16}, 20), on_gpu({24}, 21)});
    calls.push_back(calls[0]);
    calls.push_back({on_gpu({3, 16}, 22), on_gpu({24}, 23)});
    calls.push_back({on_gpu({3, 16}, 24), on_gpu({24}, 25)});
    calls.push_back(calls[1]);
    check_replays(pass, calls, 2);
  }
  SECTION("views and undefined tensors come in") {
    const auto optional = [&](Inputs x) { return x[1].defined() ? add(x[0], x[1]) : affine(x[0], 2, 1); };
    const Tensor wide = on_gpu({5, 32}, 3);
    check_replays(optional, {{wide.slice(1, 0, 16), {}}, {wide.slice(1, 16, 32), {}}, {wide.slice(1, 8, 24), {}}}, 1);
  }
  SECTION("one call records nothing") {
    const RepeatedPass once(pass, kGpu);
    once(calls[0]);
    CHECK(once.recordings() == 0);
  }
  SECTION("VITRINE_CUDA_GRAPHS=0 turns it off") {
    setenv("VITRINE_CUDA_GRAPHS", "0", 1);
    check_replays(pass, calls, 0);
    unsetenv("VITRINE_CUDA_GRAPHS");
  }
  SECTION("multiply-adds are counted at each call") {
    const RepeatedPass counted(pass, kGpu);
    for (const auto& inputs : calls) {
      Context::current().reset_macs();
      counted(inputs);
      CHECK(Context::current().macs() == 5 * 16 * 24);
    }
  }
}

TEST_CASE("a replay is one call for all kernels, of which none ran while it was recorded", "[cuda_host]") {
  cuda::emulation::install();
  const InContext scope;
  Tensor counter = Tensor::zeros({1}, DType::f32, kGpu);
  const Tensor one = Tensor::full({1}, 1).to(kGpu);
  const RepeatedPass repeated(
      [&](Inputs x) {
        add_(counter, one);
        return affine(x[0], 1, 0);
      },
      kGpu);
  const Tensor x = on_gpu({4}, 1);
  for (int i = 1; i <= 4; ++i) {
    repeated(std::array{x});
    CHECK(here(counter)[0] == static_cast<float>(i));
  }
  CHECK(repeated.recordings() == 1);
}

TEST_CASE("what cannot be recorded runs plainly", "[cuda_host]") {
  cuda::emulation::install();
  const InContext scope;
  std::vector<std::vector<Tensor>> calls;
  for (int i = 0; i < 4; ++i) calls.push_back({on_gpu({5, 16}, i)});
  Tensor kept;
  const Tensor host = Tensor::full({16}, 2);
  SECTION("it waits") {
    check_replays(
        [](Inputs x) {
          synchronize(kGpu);
          return affine(x[0], 2, 1);
        },
        calls, 0);
  }
  SECTION("it reads values") {
    check_replays([](Inputs x) { return affine(x[0], x[0].select(0, 0).slice(0, 0, 1).item(), 1); }, calls, 0);
  }
  SECTION("it brings tensors from the host, small and large") {
    check_replays([&](Inputs x) { return add(x[0], host.to(kGpu)); }, calls, 0);
    const Tensor large = Tensor::zeros({20000});
    check_replays([&](Inputs x) { return add(x[0], large.to(kGpu).slice(0, 0, 16)); }, calls, 0);
  }
  SECTION("it keeps a tensor that it made") {
    check_replays(
        [&](Inputs x) {
          kept = affine(x[0], 2, 1);
          return add(kept, kept);
        },
        calls, 0);
    CHECK(here(kept) == here(affine(calls.back()[0], 2, 1)));
  }
  SECTION("its result changes shape") {
    int count = 0;
    const RepeatedPass repeated([&](Inputs x) { return x[0].slice(0, 0, ++count); }, kGpu);
    for (int i = 0; i < 2; ++i) repeated(calls[0]);
    CHECK(repeated.recordings() == 0);
  }
  SECTION("it throws, and goes on to where it does not") {
    bool throws = false;
    const RepeatedPass repeated(
        [&](Inputs x) {
          const Tensor y = affine(x[0], 2, 1);
          if (throws) throw Error("no");
          return y;
        },
        kGpu);
    repeated(calls[0]);
    throws = true;
    CHECK_THROWS_WITH(repeated(calls[0]), Catch::Matchers::Contains("no"));
    throws = false;
    CHECK(here(repeated(calls[0])) == here(affine(calls[0][0], 2, 1)));
    CHECK(repeated.recordings() == 0);
  }
  SECTION("an input is on the host") {
    check_replays([&](Inputs x) { return add(x[0].to(kGpu), x[0].to(kGpu)); }, {{host}, {host}, {host}}, 0);
  }
  // The stream works as before.
  CHECK(here(affine(calls[0][0], 1, 0)) == here(calls[0][0]));
}

TEST_CASE("tensors from before a recording may go while it lasts", "[cuda_host]") {
  cuda::emulation::install();
  const InContext scope;
  const std::int64_t before = memory_stats(kGpu).in_use, there = cuda::emulation::device_memory().in_use;
  {
    std::optional<Tensor> old, older;
    const RepeatedPass repeated(
        [&](Inputs x) {
          old.reset();
          std::thread([&] { older.reset(); }).join();  // under that thread's context
          return affine(x[0], 2, 1);
        },
        kGpu);
    const Tensor x = on_gpu({64}, 1);
    for (int i = 0; i < 4; ++i) {
      old = on_gpu({1000}, 2);
      older = on_gpu({1000}, 2);
      CHECK(here(repeated(std::array{x})) == here(affine(x, 2, 1)));
    }
    CHECK(repeated.recordings() == 1);
  }
  CHECK(memory_stats(kGpu).in_use == before);
  CHECK(cuda::emulation::device_memory().in_use == there);
}

TEST_CASE("a recording holds what it read from caches, and leaves nothing in them", "[cuda_host]") {
  cuda::emulation::install();
  const InContext scope;
  const detail::SizeCache<Tensor> tables;
  const auto table = [&](std::int64_t rows) {
    return tables.get(rows, 16, [&] { return affine(on_gpu({rows, 16}, static_cast<int>(rows)), 2, 1); });
  };
  // The table is computed on the device: where it is missing while the pass is recorded, it becomes a part of the recording.
  const auto pass = [&](Inputs x) {
    const Tensor made = tables.get(x[0].size(0), 17, [&] { return affine(x[0], 0, 3); });
    return add(add(x[0], table(x[0].size(0))), made);
  };
  const auto forgets = [&] {
    for (int rows = 100; rows < 110; ++rows) table(rows);
  };
  const RepeatedPass repeated(pass, kGpu);
  const Tensor x = on_gpu({5, 16}, 1), expected = affine(pass(std::array{x}), 1, 0);
  repeated(std::array{x});
  SECTION("tables that go later stay for the recording") {
    repeated(std::array{x});
    CHECK(repeated.recordings() == 1);
    forgets();
    const Tensor others = on_gpu({2000}, 7);  // in the place of what went
  }
  SECTION("tables that are missing when it is recorded are its own") {
    forgets();
    table(5);  // which comes from the host
    repeated(std::array{x});
    CHECK(repeated.recordings() == 1);
    CHECK(here(pass(std::array{x})) == here(expected));
  }
  for (int i = 0; i < 3; ++i) {
    CHECK(here(repeated(std::array{x})) == here(expected));
    CHECK(here(pass(std::array{x})) == here(expected));
  }
}

TEST_CASE("recordings belong to a context", "[cuda_host]") {
  cuda::emulation::install();
  const Tensor x = test::random({64}).to(kGpu), y = test::random({64}, DType::f32, 2).to(kGpu);
  synchronize(kGpu);
  const RepeatedPass repeated([](Inputs in) { return softmax(in[0].view({4, 16})); }, kGpu);
  const auto expected_x = here(softmax(x.view({4, 16}))), expected_y = here(softmax(y.view({4, 16})));
  std::array<int, 2> wrong{};
  const auto work = [&](const Tensor& input, const std::vector<float>& expected, int& count) {
    const InContext scope;
    for (int i = 0; i < 5; ++i) count += here(repeated(std::array{input})) != expected;
  };
  std::thread other([&] { work(y, expected_y, wrong[1]); });
  work(x, expected_x, wrong[0]);
  other.join();
  CHECK(wrong == std::array<int, 2>{});
  CHECK(repeated.recordings() == 2);
}

TEST_CASE("recordings in a recording are its part", "[cuda_host]") {
  cuda::emulation::install();
  const InContext scope;
  const RepeatedPass inner([](Inputs x) { return affine(x[0], 2, 1); }, kGpu);
  const RepeatedPass outer([&](Inputs x) { return inner(std::array{add(x[0], x[0])}); }, kGpu);
  for (int i = 0; i < 4; ++i) {
    const Tensor x = on_gpu({16}, i);
    CHECK(here(outer(std::array{x})) == here(affine(add(x, x), 2, 1)));
  }
  CHECK(outer.recordings() == 1);
  CHECK(inner.recordings() == 0);
}

TEST_CASE("a ViT that is replayed gives the same bits", "[cuda_host]") {
  cuda::emulation::install();
  const InContext scope;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto model = create_model(kVit, weights_on_gpu(dtype));
    std::vector<std::vector<Tensor>> calls;
    for (int i = 0; i < 3; ++i)
      for (const std::int64_t side : {16, 24}) calls.push_back({on_gpu({1, side, side, 3}, i, dtype)});
    check_replays([&](Inputs x) { return model->forward(x[0]); }, calls, 2);
  }
}

TEST_CASE("attention mechanisms can be recorded", "[cuda_host]") {
  cuda::emulation::install();
  const InContext scope;
  for (const AttentionForm& form : attention_forms()) {
    if (form.square.empty()) continue;  // another form has the same mechanism
    const std::string name = square_case(form, 8);
    INFO(name);
    const AttentionProblem problem = make_attention_problem(name, 1, DType::f32);
    const RepeatedPass repeated([&](Inputs) { return problem.run(""); }, kGpu);
    const std::vector<float> expected = here(repeated({}));
    for (int i = 0; i < 2; ++i) CHECK(here(repeated({})) == expected);
    CHECK(repeated.recordings() == 1);
  }
}

TEST_CASE("denoising is the same with and without recordings", "[cuda_host]") {
  cuda::emulation::install();
  const InContext scope;
  const auto dit =
      create_denoiser("DiT[input_size=4,hidden_size=32,depth=1,num_heads=2,num_classes=5,learn_sigma=false]", weights_on_gpu());
  Tensor labels = Tensor::zeros({1}, DType::i64), no_label = Tensor::zeros({1}, DType::i64);
  no_label.data<std::int64_t>()[0] = 5;
  for (const bool guided : {true, false}) {
    const auto draw = [&](std::optional<RepeatedPass> pass, int seed) {
      const auto sampler = create_sampler("ddim", {}, {.steps = 3});
      Denoising run{.denoiser = *dit, .sampler = *sampler, .conditioning = {.labels = labels}};
      if (guided) run.unconditional = Conditioning{.labels = no_label};
      run.guidance_scale = 3;
      run.pass = std::move(pass);
      return test::values(*denoise(test::random({1, 4, 4, 4}, DType::f32, seed), run));
    };
    setenv("VITRINE_CUDA_GRAPHS", "0", 1);
    const auto first = draw({}, 1), second = draw({}, 2);
    unsetenv("VITRINE_CUDA_GRAPHS");
    CHECK(first != second);
    CHECK(draw({}, 1) == first);
    const RepeatedPass pass = denoising_pass(*dit, guided, 3);
    CHECK(draw(pass, 1) == first);
    CHECK(draw(pass, 2) == second);
    CHECK(pass.recordings() == 1);
  }
}

TEST_CASE("evaluation is the same with recordings, of one context and of several", "[cuda_host]") {
  cuda::emulation::install();
  struct Pictures final : Dataset {
    std::int64_t size() const override { return 14; }
    Image image(std::int64_t i) const override {
      Image picture{16, 16, 3, {}};
      for (int p = 0; p < 16 * 16 * 3; ++p) picture.pixels.push_back(static_cast<std::uint8_t>((p * 7 + i * (p % 31)) % 256));
      return picture;
    }
    std::int64_t label(std::int64_t i) const override { return i % 5; }
    std::string name(std::int64_t i) const override { return std::to_string(i); }
  };
  const auto classifier = [] {
    LoadedModel model;
    model.name = "test";
    model.backbone = create_model(kVit, weights_on_gpu());
    model.preprocess = model.backbone->info().preprocess;
    return ImageClassifier(std::move(model));
  };
  Context context({.threads = 2, .device = kGpu});
  const ContextScope scope(context);
  const auto predictions = [&](int streams) {
    EvaluationOptions options;
    options.batch_size = 2;
    options.streams = streams;
    return evaluate(classifier(), Pictures(), options).predictions;
  };
  setenv("VITRINE_CUDA_GRAPHS", "0", 1);
  const auto expected = predictions(1);
  unsetenv("VITRINE_CUDA_GRAPHS");
  CHECK(std::set(expected.begin(), expected.end()).size() > 1);
  for (const int streams : {1, 2}) CHECK(predictions(streams) == expected);
}

}  // namespace vitrine
