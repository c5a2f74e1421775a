// VITRINE_ISA rules own kernels and oneDNN: shown by what a child process says that it ran.
#include <vitrine/layers/cpu/isa.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <catch.h>
#include <fmt/format.h>

#include <vitrine/layers/conv.h>
#include <vitrine/layers/linear.h>
#include <vitrine/weights/sources.h>

namespace vitrine {
namespace {

using test::contains;

// What this executable prints when it runs the hidden case below under VITRINE_ISA=isa.
std::string child_output(std::string_view isa) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command = fmt::format(
      "VITRINE_ISA={} VITRINE_LOG=dispatch ONEDNN_VERBOSE=1 '{}' 'run a linear layer and a convolution' 2>&1", isa, self);
  std::string output;
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe);
  char text[4096];
  while (const std::size_t n = std::fread(text, 1, sizeof text, pipe)) output.append(text, n);
  pclose(pipe);
  return output;
}

TEST_CASE("run a linear layer and a convolution", "[.]") {
  const Weights w(synthetic_weights());
  Linear(w / "a", 32, 32)(Tensor::zeros({4, 32}));
  Conv2d(w / "b", 16, 16, 3, 3)(Tensor::zeros({1, 8, 8, 16}));
}

TEST_CASE("VITRINE_ISA is in force") {
  for (const cpu::Isa isa : cpu::available_isas()) {
    const std::string name(cpu::name_of(isa)), output = child_output(name);
    INFO(output);
    CHECK_THAT(output, contains("test cases: 1 | 1 passed") || contains("All tests passed"));
    if (isa == cpu::Isa::amx) continue;  // not capped
    CHECK_THAT(output, contains(fmt::format("oneDNN: capped to {} by VITRINE_ISA", name)));
    if (isa != cpu::Isa::scalar) CHECK_THAT(output, contains(fmt::format("linear f32: tiled_{};", name)));
    CHECK_THAT(output, contains("exec,cpu,convolution"));
    if (isa < cpu::Isa::avx512) CHECK_THAT(output, !contains(":avx512"));
    if (isa < cpu::Isa::avx2) CHECK_THAT(output, !contains(":avx2"));
  }
  CHECK_THAT(child_output("mmx"), contains("VITRINE_ISA=mmx: expected scalar, avx2"));
}

}  // namespace
}  // namespace vitrine
