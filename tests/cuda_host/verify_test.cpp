// Stored reference cases on the device: what `vitrine verify --device cuda` runs, by kernels on the host.
#include <catch.h>

#include <filesystem>
#include <string>

#include <vitrine/pipelines/verify.h>

#include "cuda_host/support.h"

namespace vitrine {

namespace {

// Cases of a folder of the shared goldens, in all types.
void verify_on_device(const std::string& folder, const std::string& only) {
  const std::string path = std::string(VITRINE_SHARED_DIR) + "/goldens/" + folder + "/cases.json";
  if (!std::filesystem::exists(path)) {
    WARN("skipped: there is no " << path);
    return;
  }
  cuda::emulation::install();
  Context context({.device = test::kGpu});
  ContextScope scope(context);
  for (const DType dtype : test::kFloats) {
    VerifyOptions options;
    options.only = only;
    options.dtype = dtype;
    const int ran = verify_file(path, options, [&](const VerifyRow& row) {
      INFO(row.name << " " << row.dtype << ": " << row.message);
      CHECK(row.ok);
    });
    CHECK(ran > 0);
  }
}

}  // namespace

// All of them: what is added there runs here, too.
TEST_CASE("reference cases of attention on the device", "[cuda_host]") { verify_on_device("attention", ""); }

TEST_CASE("reference cases of generation on the device", "[cuda_host]") {
  verify_on_device("generation", "^(dit_tiny_eps|sd35_medium|pixart_alpha|t5_encoder_masked)$");
}

}  // namespace vitrine
