// Operators and resizing against their references, as `vitrine verify` runs them.
#include <catch.h>
#include <golden.h>

using namespace vitrine;
using namespace vitrine::test;

TEST_CASE("attention operators and layers agree with their references") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    verify_cases(goldens() + "/attention/cases.json", "", dtype, 158, 76);
}

TEST_CASE("the plain references of operators agree with those that the cases are from") {
  verify_cases(goldens() + "/attention/cases.json", "^(attention|neighborhood_attention|clear_attention|linear_attention)\\.",
               DType::f32, 57, 29, "reference");
}

TEST_CASE("resizing gives Pillow's bytes") { verify_cases(goldens() + "/resize/cases.json", "", DType::f32, 19, 8); }
