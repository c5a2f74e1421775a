// A build without cuDNN's headers or those of its frontend.
#include <vitrine/layers/cuda/cudnn.h>

#include <vitrine/layers/error.h>

namespace vitrine::cuda::cudnn {

const std::string& why_none() {
  static const std::string reason = "this build has none";
  return reason;
}

Plan::Plan(const Conv&, const Target&) {}
Plan::Plan(const Attention&, const Target&) {}
const std::string& Plan::why_none() const { return cudnn::why_none(); }
std::int64_t Plan::workspace() const { return 0; }
void Plan::run(std::initializer_list<const void*>, cudaStream_t) const { throw Error("cuDNN: this build has none"); }

}  // namespace vitrine::cuda::cudnn
