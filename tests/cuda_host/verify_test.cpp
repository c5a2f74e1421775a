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

TEST_CASE("reference cases of attention on the device", "[cuda_host]") { verify_on_device("attention", "^attention[.]"); }
TEST_CASE("reference cases of neighborhoods and discs on the device", "[cuda_host]") {
  verify_on_device("attention", "^(neighborhood_attention|neighborhood_attention_layer|clear_attention)[.]");
}
TEST_CASE("reference cases of linear and channel attention on the device", "[cuda_host]") {
  verify_on_device("attention",
                   "^(linear_attention|linfusion_attention|inline_attention_.*|rala_attention|efficient_attention|"
                   "focused_linear_attention|flow_attention|channel_attention)[.]");
}
TEST_CASE("reference cases of mixers on the device", "[cuda_host]") {
  verify_on_device("attention", "^(focal_modulation|gnconv|aggregated_attention)[.]");
}

TEST_CASE("reference cases of attention in groups on the device", "[cuda_host]") {
  verify_on_device("attention", "^(window_attention|window_attention_v2|partition_attention|halo_attention|hilo_attention)[.]");
}

TEST_CASE("reference cases of routing and agents on the device", "[cuda_host]") {
  verify_on_device("attention", "^(bi_level_routing_attention|bi_level_routing_attention_nchw|agent_attention_.*)[.]");
}

TEST_CASE("reference cases of generation on the device", "[cuda_host]") {
  verify_on_device("generation", "^(dit_tiny_eps|sd35_medium|pixart_alpha|t5_encoder_masked)$");
}

}  // namespace vitrine
