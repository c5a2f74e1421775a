// The op set is not linked: readers hand out what is stored and never convert through it.
#include <cstdlib>

#include <vitrine/layers/ops.h>

namespace vitrine {

Tensor cast(const Tensor&, DType) { std::abort(); }
void copy_(Tensor&, const Tensor&) { std::abort(); }

}  // namespace vitrine
