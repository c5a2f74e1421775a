#include <vitrine/attention2d/cuda/backend.h>

#include <atomic>

#include <vitrine/layers/error.h>

namespace vitrine::cuda {

namespace {
std::atomic<const AttentionOps*> replacement{nullptr};
}

const AttentionOps& attention_ops() {
  if (const AttentionOps* other = replacement) return *other;
  backend();  // the reason, where there is none
  static const AttentionOps* const found = [] {
    const auto entry = reinterpret_cast<const AttentionOps* (*)()>(library_symbol("vitrine_cuda_attention"));
    return entry ? entry() : nullptr;
  }();
  if (!found) throw Error("libvitrine_cuda.so has no attention: it is of another version of Vitrine");
  return *found;
}

void set_attention_ops(const AttentionOps* ops) { replacement = ops; }

}  // namespace vitrine::cuda
