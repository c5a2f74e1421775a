// The op set is not linked: readers hand out what is stored and never convert through it. Contexts are, of one thread: those of
// the library come with OpenMP.
#include <cstdlib>

#include <vitrine/layers/context.h>
#include <vitrine/layers/ops.h>

namespace vitrine {

Tensor cast(const Tensor&, DType) { std::abort(); }
void copy_(Tensor&, const Tensor&) { std::abort(); }

Context::Context(ContextOptions options) : threads_(1), device_(options.device), dry_run_(options.dry_run) {}
Context& Context::current() {
  static Context context;
  return context;
}

}  // namespace vitrine
