// What all oneDNN layers share: the engine, the thread count, activations as post-ops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include <oneapi/dnnl/dnnl.hpp>

#include <vitrine/layers/dtype.h>
#include <vitrine/layers/ops.h>
#include <vitrine/layers/recent_cache.h>

namespace vitrine::cpu {

// The CPU engine. The first call hands VITRINE_ISA's cap to oneDNN, before any primitive exists.
const dnnl::engine& dnnl_engine();
dnnl::stream& dnnl_stream();  // of the calling thread
dnnl::memory::data_type dnnl_type(DType dtype);
dnnl::memory::desc dnnl_desc(std::initializer_list<std::int64_t> sizes, DType dtype, dnnl::memory::format_tag tag);
dnnl::memory dnnl_memory(const dnnl::memory::desc& desc, const void* data);
void append_activation(dnnl::post_ops& ops, Activation activation);
// Whether oneDNN has real arithmetic in this type under the cap in force; f32: always.
bool dnnl_computes_in(DType dtype);

// oneDNN takes its thread count from the OpenMP setting of the calling thread, both when a primitive is made and when it
// runs; the two must agree.
class DnnlThreads {
 public:
  explicit DnnlThreads(int threads);
  ~DnnlThreads();
  DnnlThreads(const DnnlThreads&) = delete;
  DnnlThreads& operator=(const DnnlThreads&) = delete;

 private:
  int previous_;
};

// Memory from the allocator, so that packed weights and scratchpads are in its counters.
class DnnlBuffer {
 public:
  DnnlBuffer() = default;
  explicit DnnlBuffer(const dnnl::memory::desc& desc);
  const dnnl::memory::desc& desc() const { return desc_; }
  dnnl::memory memory() const;
  bool defined() const { return block_ != nullptr; }

 private:
  dnnl::memory::desc desc_;
  std::shared_ptr<void> block_;
};
// `data`, laid out as `from`, in the layout of `to`.
DnnlBuffer reordered(const void* data, const dnnl::memory::desc& from, const dnnl::memory::desc& to);

}  // namespace vitrine::cpu
