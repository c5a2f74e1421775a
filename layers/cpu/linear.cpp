#include <vitrine/layers/cpu/linear.h>

#include <fmt/format.h>

#include <vitrine/layers/cpu/dnnl.h>
#include <vitrine/layers/cpu/isa.h>

namespace vitrine::cpu {

std::unique_ptr<const PackedLinear> pack_linear(const Tensor& weight, const Tensor& bias, DType dtype,
                                                std::string_view candidate) {
  if (!dnnl_computes_in(dtype)) {
    log_dispatch(fmt::format("linear: {} is stored, the arithmetic is f32: {} has none in {}", name_of(dtype), name_of(isa()),
                             name_of(dtype)));
    dtype = DType::f32;
  }
  if (!candidate.empty() && candidate != "onednn") throw Error(fmt::format("linear: no candidate '{}'", candidate));
  return pack_linear_dnnl(weight, bias, dtype);
}

}  // namespace vitrine::cpu
