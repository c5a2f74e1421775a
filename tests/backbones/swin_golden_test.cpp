// The reference cases of the window, halo and partition families, run as `vitrine verify` runs them.
#include <catch.h>
#include <golden.h>

using namespace vitrine;
using namespace vitrine::test;

TEST_CASE("swin, swin v2, davit, maxvit, coatnet and halonet agree with timm") {
  const std::string all = goldens() + "/backbones/cases.json";
  verify_cases(all, "^(swin|davit|maxvit|coatnet|halonet)", DType::f32, 8, 0);
  verify_cases(all, "^(swin.*tiny|davit|maxvit|coatnet)", DType::bf16, 5, 0);
}

TEST_CASE("windows of any size, odd maps and other arguments agree with timm") {
  const std::string small = VITRINE_SOURCE_DIR "/tests/data/goldens/swin/cases.json";
  verify_cases(small, "", DType::f32, 15, 15);
  verify_cases(small, "^(swin|davit)", DType::bf16, 8, 8);
}
