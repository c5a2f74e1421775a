// The instruction sets that own kernels are compiled for, the choice between them, and the dispatch of a kernel family.
//
// Each kernel source is compiled once a target (vitrine_kernels() in CMakeLists.txt) with VITRINE_TARGET naming the
// target's namespace. A family has a table type (function pointers) and in each target namespace a function that
// returns it; pick() chooses once by isa().
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <vitrine/layers/export.h>

namespace vitrine::cpu {

enum class Isa { scalar, avx2, avx512, avx512_bf16, amx };

VITRINE_API std::string_view name_of(Isa isa);
VITRINE_API Isa detected_isa();  // the best that this processor and kernel have
// The one in force: detected_isa(), or VITRINE_ISA's, which also caps oneDNN. Throws Error where VITRINE_ISA is unknown or
// the processor lacks it.
VITRINE_API Isa isa();
VITRINE_API std::vector<Isa> available_isas();  // all up to detected_isa(), for tests

// VITRINE_LOG=dispatch: prints `what` once a distinct text on stderr. Callers that would format a text on every call ask
// first whether anybody reads it.
VITRINE_API bool dispatch_is_logged();
VITRINE_API void log_dispatch(const std::string& what);

}  // namespace vitrine::cpu
