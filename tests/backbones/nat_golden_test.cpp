// NAT, DiNAT and DiNAT_s against the original, and the shipped clothes classifier end to end.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

#include <catch.h>
#include <golden.h>

#include <vitrine/pipelines/classify.h>
#include <vitrine/pipelines/dataset.h>
#include <vitrine/weights/sources.h>

using namespace vitrine;
using namespace vitrine::test;

TEST_CASE("nat, dinat and dinat_s agree with the original") {
  verify_cases(goldens() + "/backbones/cases.json", "^(nat|dinat)_", DType::f32, 5, 3);
  verify_cases(goldens() + "/backbones/cases.json", "^(nat|dinat)_", DType::bf16, 5, 3);
}

TEST_CASE("odd sizes, small maps, scales and the isotropic models agree with the original") {
  verify_cases(VITRINE_SOURCE_DIR "/tests/data/goldens/nat/cases.json", "", DType::f32, 4, 4);
  verify_cases(VITRINE_SOURCE_DIR "/tests/data/goldens/nat/cases.json", "", DType::bf16, 4, 4);
}

TEST_CASE("the clothes classifier gives PyTorch's logits") {
  // The whole set of images is a package of its own; 64 of them are here.
  const bool whole =
      have_shared_goldens() && std::filesystem::exists("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz");
  const std::string folder = whole ? goldens() : VITRINE_SOURCE_DIR "/tests/data/goldens";
  const auto images = whole ? open_dataset("fashion-mnist") : open_dataset("idx:" + folder + "/fashion");
  const Tensor expected = open_safetensors(folder + "/fashion/nat_fashion.safetensors")->load("logits", {});
  REQUIRE(expected.size(0) == (whole ? 256 : 64));

  ModelOptions options;
  options.model = "nat_fashion";
  const ImageClassifier classifier(options);
  std::vector<PreparedImage> prepared;
  for (std::int64_t i = 0; i < expected.size(0); ++i) prepared.push_back(classifier.prepare(images->image(i)));
  const Tensor logits = classifier.logits(prepared);
  REQUIRE(logits.shape() == expected.shape());
  const Tensor reference = expected.contiguous();
  float largest = 0;
  for (std::int64_t i = 0; i < logits.numel(); ++i)
    largest = std::max(largest, std::abs(logits.data<float>()[i] - reference.data<float>()[i]));
  INFO("largest difference " << largest);
  CHECK(largest <= 1e-3f);
}
