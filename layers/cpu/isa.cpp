#include <vitrine/layers/cpu/isa.h>

#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <mutex>
#include <set>

#include <fmt/format.h>

#include <vitrine/layers/error.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace vitrine::cpu {

namespace {

constexpr std::string_view kNames[] = {"scalar", "avx2", "avx512", "avx512_bf16", "amx"};

#if defined(__x86_64__)
// AMX's tiles are state that the kernel saves only for a process that asked for it.
bool amx_permitted() {
  constexpr int kArchReqXcompPerm = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kTileData) == 0;
}

bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  return (d & kAmxBf16) && (d & kAmxTile) && amx_permitted();
}

bool has_avx512_bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5));
}
#endif

Isa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();  // reads cpuid and what the operating system saves
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::scalar;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 29))) return Isa::scalar;  // f16c
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512vl"))
    return Isa::avx2;
  if (!has_avx512_bf16()) return Isa::avx512;
  return has_amx() ? Isa::amx : Isa::avx512_bf16;
#else
  return Isa::scalar;
#endif
}

Isa choose() {
  const char* wanted = std::getenv("VITRINE_ISA");
  if (!wanted || !*wanted) return detected_isa();
  for (int i = 0; i < static_cast<int>(std::size(kNames)); ++i) {
    if (kNames[i] != wanted) continue;
    if (static_cast<Isa>(i) > detected_isa())
      throw Error(fmt::format("VITRINE_ISA={}: this processor has no more than {}", wanted, name_of(detected_isa())));
    return static_cast<Isa>(i);
  }
  throw Error(fmt::format("VITRINE_ISA={}: expected scalar, avx2, avx512, avx512_bf16 or amx", wanted));
}

}  // namespace

std::string_view name_of(Isa isa) { return kNames[static_cast<int>(isa)]; }

Isa detected_isa() {
  static const Isa found = detect();
  return found;
}

Isa isa() {
  static const Isa chosen = [] {
    const Isa best = choose();
    log_dispatch(fmt::format("own kernels: {} of {} that the processor has", name_of(best), name_of(detected_isa())));
    return best;
  }();
  return chosen;
}

std::vector<Isa> available_isas() {
  std::vector<Isa> all;
  for (int i = 0; i <= static_cast<int>(detected_isa()); ++i) all.push_back(static_cast<Isa>(i));
  return all;
}

bool dispatch_is_logged() {
  static const bool wanted = [] {
    const char* log = std::getenv("VITRINE_LOG");
    return log && std::string_view(log).find("dispatch") != std::string_view::npos;
  }();
  return wanted;
}

void log_dispatch(const std::string& what) {
  if (!dispatch_is_logged()) return;
  static std::mutex mutex;
  static std::set<std::string> said;
  std::lock_guard lock(mutex);
  if (said.insert(what).second) std::fprintf(stderr, "dispatch: %s\n", what.c_str());
}

}  // namespace vitrine::cpu
