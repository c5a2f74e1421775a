// VITRINE_ISA: this program runs itself with each value, and what the child computed must be what the forced kernels
// give, to the last bit. (Scalar and vector kernels round differently, so that it could not be another one.)
#include <vitrine/layers/cpu/isa.h>

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>

#include <vitrine/layers/cpu/copy.h>
#include <vitrine/layers/cpu/elementwise.h>
#include <vitrine/layers/cpu/norm.h>
#include <vitrine/layers/cpu/pool.h>

#include "layers/support.h"

using namespace vitrine;
using namespace vitrine::test;

namespace {

constexpr std::int64_t kColumns = 1000;

std::string digest(const float* values) {
  std::uint64_t hash = 14695981039346656037u;
  for (std::int64_t i = 0; i < kColumns; ++i) hash = (hash ^ std::bit_cast<std::uint32_t>(values[i])) * 1099511628211u;
  return fmt::format("{:016x}", hash);
}

std::string digest_of_kernels(cpu::Isa isa) {
  const Tensor x = random({kColumns}), gain = random({kColumns}, DType::f32, 2), offset = random({kColumns}, DType::f32, 3);
  Tensor y = Tensor::empty({kColumns});
  cpu::norm_kernels(isa).layer_norm[0]({x.raw(), y.raw(), 1, kColumns, 0, 0}, gain.data<float>(), offset.data<float>(), 1e-6f);
  return digest(y.data<float>());
}

// What a child with this VITRINE_ISA prints.
std::string run_child(const std::string& isa) {
  std::array<char, 4096> path{};
  REQUIRE(readlink("/proc/self/exe", path.data(), path.size() - 1) > 0);
  const std::string command = fmt::format("VITRINE_ISA='{}' '{}' '[isa-child]'", isa, path.data());
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string out;
  for (int c; (c = std::fgetc(pipe)) != EOF;) out += static_cast<char>(c);
  CHECK(WEXITSTATUS(pclose(pipe)) == 0);
  const auto begin = out.find("child: ");
  REQUIRE(begin != std::string::npos);
  return out.substr(begin + 7, out.find('\n', begin) - begin - 7);
}

}  // namespace

TEST_CASE("isa child", "[.][isa-child]") {
  try {
    const cpu::Isa isa = cpu::isa();
    const Tensor x = random({kColumns}), gain = random({kColumns}, DType::f32, 2), offset = random({kColumns}, DType::f32, 3);
    std::printf("child: %s %s\n", std::string(name_of(isa)).c_str(),
                digest(layer_norm(x, gain, offset, 1e-6).data<float>()).c_str());
  } catch (const Error& error) {
    std::printf("child: error: %s\n", error.what());
  }
  std::fflush(stdout);
}

TEST_CASE("VITRINE_ISA forces the kernels that run") {
  for (cpu::Isa isa : cpu::available_isas())
    CHECK(run_child(std::string(name_of(isa))) == fmt::format("{} {}", name_of(isa), digest_of_kernels(isa)));
  CHECK(run_child("") == fmt::format("{} {}", name_of(cpu::detected_isa()), digest_of_kernels(cpu::detected_isa())));
  if (cpu::detected_isa() >= cpu::Isa::avx2) CHECK(digest_of_kernels(cpu::Isa::scalar) != digest_of_kernels(cpu::Isa::avx2));
}

TEST_CASE("an instruction set that is unknown or absent is refused in one line") {
  CHECK(run_child("sse9") == "error: VITRINE_ISA=sse9: expected scalar, avx2, avx512, avx512_bf16 or amx");
  if (cpu::detected_isa() == cpu::Isa::amx) return;
  CHECK(run_child("amx") ==
        fmt::format("error: VITRINE_ISA=amx: this processor has no more than {}", name_of(cpu::detected_isa())));
}

TEST_CASE("each table is the one of its target") {
  for (cpu::Isa isa : cpu::available_isas()) {
    const std::string target(isa == cpu::Isa::amx ? "avx512_bf16" : name_of(isa));
    CHECK(cpu::copy_kernels(isa).target == target);
    CHECK(cpu::elementwise_kernels(isa).target == target);
    CHECK(cpu::norm_kernels(isa).target == target);
    CHECK(cpu::pool_kernels(isa).target == target);
  }
}
