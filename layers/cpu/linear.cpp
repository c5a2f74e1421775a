#include <vitrine/layers/cpu/linear.h>

#include <string>

#include <fmt/format.h>

#include <vitrine/layers/context.h>
#include <vitrine/layers/cpu/dnnl.h>
#include <vitrine/layers/cpu/linear_kernels.h>

namespace vitrine::cpu {

namespace {

// Best first. can_run gives the reason against, empty: none.
struct Candidate {
  std::string_view name;
  std::string (*can_run)(DType dtype, bool int8);
  std::unique_ptr<const PackedLinear> (*pack)(const Tensor& weight, const Tensor& bias, DType dtype, bool int8);
};

constexpr Candidate kCandidates[] = {
    {"tiled",
     [](DType dtype, bool int8) -> std::string {
       if (isa() == Isa::scalar) return "no kernels for this instruction set";
       if (dtype == DType::bf16 && isa() == Isa::amx && !int8) return "oneDNN has AMX kernels";
       if (dtype == DType::bf16 && linear_kernels(isa()).run_bf16) return "";
       return dtype == DType::f32 ? "" : fmt::format("no {} kernels for {}", cpu::name_of(isa()), name_of(dtype));
     },
     [](const Tensor& weight, const Tensor& bias, DType dtype, bool int8) {
       return pack_linear_tiled(weight, bias, dtype, isa(), int8);
     }},
    {"onednn",
     [](DType dtype, bool int8) -> std::string {
       if (int8) return "its weights are of the type that it computes in";
       return dnnl_computes_in(dtype) ? "" : fmt::format("oneDNN has no {} for {}", name_of(dtype), cpu::name_of(isa()));
     },
     [](const Tensor& weight, const Tensor& bias, DType dtype, bool) { return pack_linear_dnnl(weight, bias, dtype); }},
    {"reference", [](DType dtype, bool) -> std::string { return dtype == DType::f32 ? "" : "f32 only"; },
     [](const Tensor& weight, const Tensor& bias, DType dtype, bool int8) {
       return pack_linear_tiled(weight, bias, dtype, Isa::scalar, int8);
     }},
};

// In dry runs.
class NoLinear final : public PackedLinear {
 public:
  explicit NoLinear(DType dtype) : dtype_(dtype) {}
  std::string_view name() const override { return "none"; }
  DType dtype() const override { return dtype_; }
  bool takes_gate() const override { return true; }
  void run(const LinearCall&) const override {}

 private:
  DType dtype_;
};

}  // namespace

std::unique_ptr<const PackedLinear> pack_linear(const Tensor& weight, const Tensor& bias, DType dtype, std::string_view candidate,
                                                bool int8) {
  if (Context::current().dry_run()) return std::make_unique<NoLinear>(dtype);
  // Stored in 16 bits, computed in f32, where nothing has the arithmetic.
  bool any = false;
  for (const Candidate& c : kCandidates) any = any || c.can_run(dtype, int8).empty();
  const DType computed = any ? dtype : DType::f32;
  std::string reasons = any ? "" : fmt::format("{} is stored, the arithmetic is f32; ", name_of(dtype));
  for (const Candidate& c : kCandidates) {
    const std::string against = !candidate.empty() && candidate != c.name ? "not asked for" : c.can_run(computed, int8);
    if (against.empty()) {
      auto packed = c.pack(weight, bias, computed, int8);
      log_dispatch(fmt::format("linear {}: {}; {}", name_of(dtype), packed->name(), reasons));
      return packed;
    }
    reasons += fmt::format("{}: {}; ", c.name, against);
  }
  throw Error(fmt::format("linear: no candidate '{}' for {}: {}", candidate, name_of(dtype), reasons));
}

}  // namespace vitrine::cpu
