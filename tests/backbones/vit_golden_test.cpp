// The reference cases of the plain ViT families, run as `vitrine verify` runs them.
#include <filesystem>
#include <string>

#include <catch.h>
#include <fmt/format.h>

#include <vitrine/pipelines/verify.h>

using namespace vitrine;

namespace {

int run(DType dtype, const std::string& only) {
  const std::string file = VITRINE_SHARED_DIR "/goldens/backbones/cases.json";
  if (!std::filesystem::exists(file)) {
    WARN("skipped: there is no " << file);
    return -1;
  }
  return verify_file(file, {.only = only, .dtype = dtype, .cancelled = {}}, [](const VerifyRow& row) {
    INFO(fmt::format("{} {} {}: max {:.2e}, relative L2 {:.2e}, bound {:.1e} {}", row.name, row.dtype, row.output, row.max_abs,
                     row.rel_l2, row.bound, row.message));
    CHECK(row.ok);
  });
}

}  // namespace

TEST_CASE("vits agree with timm in f32") {
  const int ran = run(DType::f32, "^(vit_(?!base_patch16_384)|deit|eva|beit)");
  CHECK((ran < 0 || ran == 15));
}

TEST_CASE("vits agree with timm in bf16") {
  const int ran = run(DType::bf16, "^(vit|deit|deit3|eva02)_(tiny|small)");
  CHECK((ran < 0 || ran == 7));
}
