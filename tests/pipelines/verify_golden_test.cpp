// Operators and resizing against their references, as `vitrine verify` runs them.
#include <catch.h>
#include <golden.h>

using namespace vitrine;
using namespace vitrine::test;

TEST_CASE("attention operators agree with their references") {
  const std::string only = "^(attention|neighborhood_attention|neighborhood_attention_layer)\\.";
  verify_cases(goldens() + "/attention/cases.json", only, DType::f32, 49, 26);
  verify_cases(goldens() + "/attention/cases.json", only, DType::bf16, 49, 26);
  verify_cases(goldens() + "/attention/cases.json", only, DType::f16, 49, 26);
}

TEST_CASE("linear attentions and channel attention agree with their references") {
  const std::string only =
      "^(linear|linfusion|rala|efficient|focused_linear|flow|channel)_attention\\.|^inline_attention_(deit|swin)\\.";
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    verify_cases(goldens() + "/attention/cases.json", only, dtype, 33, 0);
}

TEST_CASE("resizing gives Pillow's bytes") { verify_cases(goldens() + "/resize/cases.json", "", DType::f32, 19, 8); }
