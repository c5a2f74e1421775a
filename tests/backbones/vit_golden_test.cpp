// The reference cases of the plain ViT families, run as `vitrine verify` runs them.
#include <catch.h>
#include <golden.h>

using namespace vitrine;
using namespace vitrine::test;

TEST_CASE("vits agree with timm in f32") {
  verify_cases(goldens() + "/backbones/cases.json", "^(vit_(?!base_patch16_384)|deit|eva|beit)", DType::f32, 15, 3);
}

TEST_CASE("vits agree with timm in bf16") {
  verify_cases(goldens() + "/backbones/cases.json", "^(vit|deit|deit3|eva02)_(tiny|small)", DType::bf16, 7, 3);
}
