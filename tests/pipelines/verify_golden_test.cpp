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

TEST_CASE("samplers agree with diffusers and DiT's authors") {
  verify_cases(VITRINE_SOURCE_DIR "/tests/data/goldens/samplers/cases.json", "", DType::f32, 58, 58);
  if (have_shared_goldens())
    verify_cases(goldens() + "/generation/cases.json", "^(ddpm|ddim|euler|dpmpp|unipc|flow|dit_diffusion)_", DType::f32, 38, 0);
}

TEST_CASE("denoisers and autoencoders agree with their references") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    verify_cases(VITRINE_SOURCE_DIR "/tests/data/goldens/latent/cases.json", "", dtype, 10, 10);
  if (!have_shared_goldens()) return;
  const std::string cases = goldens() + "/generation/cases.json";
  verify_cases(cases, "^(dit_(s2|s8|tiny|diffusers_tiny)|flux|sd3|pixart|sana)", DType::f32, 15, 0);
  verify_cases(cases, "^(unet|token_merge|vae|tae)", DType::f32, 13, 0);
  verify_cases(cases, "^(token_merge|vae_.*_small|tae)", DType::bf16, 6, 0);
}
