// Text encoders and tokenizers against their references, as `vitrine verify` runs them.
#include <catch.h>
#include <golden.h>

using namespace vitrine;
using namespace vitrine::test;

TEST_CASE("text encoders and tokenizers agree with their references") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    verify_cases(VITRINE_SOURCE_DIR "/tests/data/goldens/text/cases.json", "", dtype, 7, 7);
    if (have_shared_goldens()) verify_cases(goldens() + "/generation/cases.json", "^(clip_text_g|t5_|clip_bpe)", dtype, 5, 5);
  }
  if (have_shared_goldens()) verify_cases(goldens() + "/generation/cases.json", "^clip_text_l14", DType::f32, 1, 1);
}
