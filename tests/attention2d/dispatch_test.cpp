// The candidate that `impl` or VITRINE_ISA asks for is the one that runs: shown by what a child process says that it ran.
#include <cstdio>
#include <filesystem>
#include <string>

#include <catch.h>
#include <fmt/format.h>

#include <vitrine/attention2d/attention.h>
#include <vitrine/attention2d/neighborhood.h>
#include <vitrine/layers/cpu/isa.h>

namespace vitrine {
namespace {

using test::contains;

// What this executable prints when it runs a hidden case below.
std::string child_output(const std::string& environment, const std::string& test_case) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command = fmt::format("{} VITRINE_LOG=dispatch '{}' '{}' 2>&1", environment, self, test_case);
  std::string output;
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe);
  char text[4096];
  while (const std::size_t n = std::fread(text, 1, sizeof text, pipe)) output.append(text, n);
  pclose(pipe);
  return output;
}

void attend(std::string_view attention_impl, std::string_view neighborhood_impl) {
  const Tensor x = Tensor::zeros({1, 6, 5, 2, 8}), tokens = x.view({1, 30, 2, 8});
  attention(tokens, tokens, tokens, {.impl = attention_impl});
  neighborhood_attention(x, x, x, {.kernel_size = {3, 3, 1}, .impl = neighborhood_impl});
}

TEST_CASE("attend with the best", "[.]") { attend("", ""); }
TEST_CASE("attend with the reference", "[.]") { attend("reference", "reference"); }
TEST_CASE("attend with the scalar kernels", "[.]") { attend("flash_scalar", "fused_scalar"); }

TEST_CASE("the implementation that was asked for runs") {
  std::string output = child_output("", "attend with the reference");
  INFO(output);
  CHECK_THAT(output, contains("f32: reference; not cuda_cudnn: "));
  CHECK_THAT(output, contains("fused_scalar: impl is 'reference'"));
  output = child_output("", "attend with the scalar kernels");
  CHECK_THAT(output, contains("f32: flash_scalar"));
  CHECK_THAT(output, contains(": fused_scalar"));
}

TEST_CASE("VITRINE_ISA caps the attention kernels") {
  for (const cpu::Isa isa : cpu::available_isas()) {
    const std::string name(cpu::name_of(isa));
    const std::string output = child_output("VITRINE_ISA=" + name, "attend with the best");
    INFO(output);
    CHECK_THAT(output, contains("f32: flash_" + std::string(cpu::name_of(std::min(isa, cpu::Isa::avx512_bf16)))));
    CHECK_THAT(output, contains(": fused_" + std::string(cpu::name_of(std::min(isa, cpu::Isa::avx512)))));
    if (isa == cpu::Isa::avx2) CHECK_THAT(output, contains("not flash_avx512: needs avx512, avx2 is in force"));
  }
}

}  // namespace
}  // namespace vitrine
