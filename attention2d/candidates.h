// The choice between implementations of one mechanism: an ordered list, best first, the plain reference last.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include <vitrine/layers/cpu/isa.h>
#include <vitrine/layers/error.h>
#include <vitrine/layers/tensor.h>

namespace vitrine::detail {

template <typename Problem>
struct Candidate {
  std::string_view name;
  std::string (*can_run)(const Problem&);  // why not; empty: it can
  void (*run)(const Problem&);
};

// Why a kernel of this target cannot run; empty: it can.
inline std::string lacks(cpu::Isa wanted) {
  if (wanted <= cpu::isa()) return {};
  return fmt::format("needs {}, {} is in force", cpu::name_of(wanted), cpu::name_of(cpu::isa()));
}

// Why a kernel of this device cannot take the problem's tensors; empty: it can.
inline std::string is_elsewhere(DeviceType wanted, const Tensor& x) {
  if (x.device().type == wanted) return {};
  return wanted == DeviceType::cpu ? "the tensors are on a GPU" : "the tensors are on the CPU";
}
inline std::string lacks(cpu::Isa wanted, const Tensor& x) {
  const std::string reason = is_elsewhere(DeviceType::cpu, x);
  return reason.empty() ? lacks(wanted) : reason;
}
// The same for a kernel on a GPU that takes heads of up to `most` channels.
inline std::string lacks_gpu(const Tensor& q, const Tensor& v, std::int64_t most) {
  const std::string reason = is_elsewhere(DeviceType::cuda, q);
  const std::int64_t widest = std::max(q.size(-1), v.size(-1));
  return reason.empty() && widest > most ? fmt::format("head_dim {} is above {}", widest, most) : reason;
}

// `impl` is a candidate's name, or the part of names before "_TARGET" ("flash" for "flash_avx2"); empty: any.
inline bool is_named(std::string_view name, std::string_view impl) {
  return impl.empty() || name == impl || (name.starts_with(impl) && name[impl.size()] == '_');
}

// The first candidate of the wanted name that can run. Where none can, the Error gives every candidate's reason.
template <typename Problem>
const Candidate<Problem>& choose(std::string_view op, std::span<const Candidate<Problem>> candidates, const Problem& problem,
                                 std::string_view impl) {
  for (const auto& candidate : candidates) {
    if (!is_named(candidate.name, impl) || !candidate.can_run(problem).empty()) continue;
    if (cpu::dispatch_is_logged()) {
      std::string why;
      for (const auto* other = candidates.data(); other != &candidate; ++other) {
        const std::string reason = is_named(other->name, impl) ? other->can_run(problem) : fmt::format("impl is '{}'", impl);
        why += fmt::format("; not {}: {}", other->name, reason);
      }
      cpu::log_dispatch(fmt::format("{} {}: {}{}", op, problem.describe(), candidate.name, why));
    }
    return candidate;
  }
  std::string all;
  for (const auto& candidate : candidates) {
    const std::string reason = candidate.can_run(problem);
    all += fmt::format("{}{} ({})", all.empty() ? "" : ", ", candidate.name, reason.empty() ? "can run" : reason);
  }
  throw Error(fmt::format("{}: no implementation '{}' for {}; there are {}", op, impl, problem.describe(), all));
}

}  // namespace vitrine::detail
