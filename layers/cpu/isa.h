// The instruction sets that own kernels are compiled for, the choice between them, and the dispatch of a kernel family.
//
// Each kernel source is compiled once a target (vitrine_kernels() in CMakeLists.txt) with VITRINE_TARGET naming the
// target's namespace. A family has a table type (function pointers) in NAME.h and in each target namespace a function
// that returns it; VITRINE_KERNEL_TABLE declares them and, with them, the choice:
//
//   norm.h     struct NormKernels { ... };  VITRINE_KERNEL_TABLE(NormKernels, norm_kernels)
//   norm.cpp   namespace vitrine::cpu::VITRINE_TARGET { const NormKernels& norm_kernels() { return table; } }
//   tables.cpp VITRINE_DEFINE_KERNEL_TABLE(NormKernels, norm_kernels)
//   a caller   norm_kernels(isa()).layer_norm(...)
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

// The version of the oneDNN that runs: "3.2.0".
VITRINE_API std::string onednn_version();

// VITRINE_LOG=dispatch: prints `what` once a distinct text on stderr. Callers that would format a text on every call ask
// first whether anybody reads it.
VITRINE_API bool dispatch_is_logged();
VITRINE_API void log_dispatch(const std::string& what);

// At namespace vitrine::cpu: `const Table& function(Isa)` for callers, `const Table& function()` in each target.
#define VITRINE_KERNEL_TABLE(Table, function) \
  namespace scalar {                          \
  const Table& function();                    \
  }                                           \
  namespace avx2 {                            \
  const Table& function();                    \
  }                                           \
  namespace avx512 {                          \
  const Table& function();                    \
  }                                           \
  namespace avx512_bf16 {                     \
  const Table& function();                    \
  }                                           \
  VITRINE_API const Table& function(Isa isa);

// AMX adds tiles to avx512_bf16 and nothing to vectors.
#if defined(VITRINE_X86)
#define VITRINE_DEFINE_KERNEL_TABLE(Table, function) \
  const Table& function(Isa isa) {                   \
    switch (isa) {                                   \
      case Isa::scalar:                              \
        return scalar::function();                   \
      case Isa::avx2:                                \
        return avx2::function();                     \
      case Isa::avx512:                              \
        return avx512::function();                   \
      case Isa::avx512_bf16:                         \
        break;                                       \
      case Isa::amx:                                 \
        break;                                       \
    }                                                \
    return avx512_bf16::function();                  \
  }
#else
#define VITRINE_DEFINE_KERNEL_TABLE(Table, function) \
  const Table& function(Isa) { return scalar::function(); }
#endif

}  // namespace vitrine::cpu
