// The photograph model against what ONNX Runtime computes from the model as published.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>

#include <catch.h>
#include <fmt/format.h>

#include <vitrine/backbones/focus.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/ops.h>
#include <vitrine/pipelines/image.h>
#include <vitrine/pipelines/preprocess.h>
#include <vitrine/weights/shipped.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;

TEST_CASE("the importance of three photographs is the published model's") {
  const std::string folder = VITRINE_SHARED_DIR "/goldens/focus/";
  const auto shipped = find_shipped("vit_small_patch14_focus");
  REQUIRE(shipped);
  if (!shipped->present || !std::filesystem::exists(folder)) {
    WARN("skipped: " << (shipped->present ? folder : shipped->file) << " is not there");
    return;
  }
  const auto expected = open_safetensors(folder + "importance.safetensors");
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const FocusModel model(Weights(open_weights(shipped->file), {.dtype = dtype, .device = {}}));
    for (const std::string name : {"astronaut", "chelsea", "coffee"}) {
      const Image image = read_image(folder + name + ".224.png");
      const Tensor map = model.forward(normalize_images({&image, 1}, {})).select(0, 0).contiguous();
      const Tensor reference = expected->load(name, {}).to(DType::f32).contiguous();
      REQUIRE(map.shape() == reference.shape());
      double largest = 0;
      for (std::int64_t i = 0; i < map.numel(); ++i)
        largest = std::max(largest, static_cast<double>(std::abs(map.data<float>()[i] - reference.data<float>()[i])));
      WARN(fmt::format("{} {}: largest difference {:.1e}", name, name_of(dtype), largest));
      CHECK(largest <= (dtype == DType::f32 ? 1e-3 : 0.03));
    }
  }
}

TEST_CASE("the photograph model reports what its weights lack") {
  CHECK_THROWS_AS(FocusModel(Weights(synthetic_weights({{"cls_token", Shape{1, 1, 384}}}))), Error);
  const FocusModel model{Weights(synthetic_weights()), {{"depth", "1"}}};
  const Tensor map = model.forward(Tensor::zeros({2, 28, 42, 3}));
  CHECK(map.shape() == Shape{2, 28, 42});
  for (std::int64_t i = 0; i < map.numel(); ++i) {
    REQUIRE(map.data<float>()[i] >= 0.0f);
    REQUIRE(map.data<float>()[i] <= 1.0f);
  }
}
