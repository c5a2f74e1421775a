// The choice between implementations of one mechanism: an ordered list, best first, the plain reference last.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

// A choice that was made: every candidate in order, the chosen one, and why not the others (empty: it could have run).
struct Choice {
  struct Seen {
    std::string_view name;
    std::string reason;
  };
  std::string op, problem;
  std::vector<Seen> candidates;
  std::size_t chosen = 0;
};
inline thread_local std::vector<Choice>* listed_choices = nullptr;
// While it lives, this thread's choices go to a list, and what is chosen does not run.
class ChoiceList {
 public:
  explicit ChoiceList(std::vector<Choice>& to) { listed_choices = &to; }
  ~ChoiceList() { listed_choices = nullptr; }
  ChoiceList(const ChoiceList&) = delete;
  ChoiceList& operator=(const ChoiceList&) = delete;
};

// The first candidate of the wanted name that can run. Where none can, the Error gives every candidate's reason.
template <typename Problem>
const Candidate<Problem>& choose(std::string_view op, std::span<const Candidate<Problem>> candidates, const Problem& problem,
                                 std::string_view impl) {
  const auto can_run = [&](const Candidate<Problem>& c) { return is_named(c.name, impl) && c.can_run(problem).empty(); };
  const auto chosen = std::find_if(candidates.begin(), candidates.end(), can_run);
  const bool is_found = chosen != candidates.end();
  if (is_found && !listed_choices && !cpu::dispatch_is_logged()) return *chosen;

  Choice choice{std::string(op), problem.describe(), {}, static_cast<std::size_t>(chosen - candidates.begin())};
  for (const auto& c : candidates)
    choice.candidates.push_back(
        {c.name, is_named(c.name, impl) || !is_found ? c.can_run(problem) : fmt::format("impl is '{}'", impl)});
  if (!is_found) {
    std::string all;
    for (const auto& [name, reason] : choice.candidates)
      all += fmt::format("{}{} ({})", all.empty() ? "" : ", ", name, reason.empty() ? "can run" : reason);
    throw Error(fmt::format("{}: no implementation '{}' for {}; there are {}", op, impl, choice.problem, all));
  }
  std::string why;
  for (std::size_t i = 0; i < choice.chosen; ++i)
    why += fmt::format("; not {}: {}", choice.candidates[i].name, choice.candidates[i].reason);
  cpu::log_dispatch(fmt::format("{} {}: {}{}", op, choice.problem, chosen->name, why));
  if (!listed_choices) return *chosen;
  listed_choices->push_back(std::move(choice));
  static constexpr Candidate<Problem> kNothing{"nothing", nullptr, [](const Problem&) {}};
  return kNothing;
}

}  // namespace vitrine::detail
