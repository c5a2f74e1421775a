// What all oneDNN layers share: the engine, the thread count, activations as post-ops, a bounded cache of primitives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <oneapi/dnnl/dnnl.hpp>

#include <vitrine/layers/dtype.h>
#include <vitrine/layers/ops.h>

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

// The last few values made, by key. A layer sees few shapes; one that sees many must not grow without bound.
template <typename Key, typename Value>
class RecentCache {
 public:
  template <typename Make>
  std::shared_ptr<const Value> get(const Key& key, const Make& make) {
    {
      std::lock_guard lock(mutex_);
      for (auto i = entries_.begin(); i != entries_.end(); ++i) {
        if (i->first == key) {
          entries_.splice(entries_.begin(), entries_, i);
          return entries_.front().second;
        }
      }
    }
    // Made outside the lock: two threads may make the same value, which is harmless.
    auto value = std::make_shared<const Value>(make());
    std::lock_guard lock(mutex_);
    entries_.emplace_front(key, value);
    if (entries_.size() > kMost) entries_.pop_back();
    return value;
  }

 private:
  static constexpr std::size_t kMost = 16;
  std::mutex mutex_;
  std::list<std::pair<Key, std::shared_ptr<const Value>>> entries_;
};

}  // namespace vitrine::cpu
