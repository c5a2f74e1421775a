// Reference cases in tests: the whole set where VITRINE_SHARED_DIR has it, else the small one in tests/data.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <catch.h>
#include <fmt/format.h>

#include <vitrine/pipelines/verify.h>

namespace vitrine::test {

inline bool have_shared_goldens() { return std::filesystem::exists(VITRINE_SHARED_DIR "/goldens/backbones/cases.json"); }
inline std::string goldens() {
  return have_shared_goldens() ? VITRINE_SHARED_DIR "/goldens" : VITRINE_SOURCE_DIR "/tests/data/goldens";
}

// Runs the cases of `file` in whose name `only` is found, as `vitrine verify` does: all must pass, and at least `expected`
// (of the small set `expected_small`) must have run.
inline void verify_cases(const std::string& file, const std::string& only, DType dtype, int expected, int expected_small,
                         const std::string& impl = {}) {
  const int ran = verify_file(file, {.only = only, .dtype = dtype, .impl = impl, .cancelled = {}}, [](const VerifyRow& row) {
    INFO(fmt::format("{} {} {}: max_abs {:.3g}, rel_l2 {:.3g}, bound {:.3g} of {}; {}", row.name, row.dtype, row.output,
                     row.max_abs, row.rel_l2, row.bound, row.measure, row.message));
    CHECK(row.ok);
  });
  CHECK(ran >= (have_shared_goldens() ? expected : expected_small));
}

}  // namespace vitrine::test
