// Context: how many threads the operations of the calling thread use, and what they counted.
//
// Operations take the context of the thread that calls them: a ContextScope makes one current, as a CUDA stream is
// made current. Without a scope there is a default one with default_threads(). A context is used by one thread at a
// time; models are immutable and may be run from several threads, each under its own context.
#pragma once

#include <cstdint>
#include <memory>

#include <vitrine/layers/export.h>
#include <vitrine/layers/tensor.h>

namespace vitrine {

// Processors that this process may use: affinity mask, halved where two are one core, capped by the cgroup's quota.
VITRINE_API int default_threads();

struct ContextOptions {
  int threads = 0;  // 0: default_threads()
  Device device;
  // Follows shapes and counts multiply-adds, nothing else: layers do not pack their weights, kernels do not run, and every
  // tensor holds zeros in memory that nobody has touched. What a model costs is known in milliseconds (backbones/model_cost.h).
  bool dry_run = false;
};

class VITRINE_API Context {
 public:
  explicit Context(ContextOptions options = {});

  int threads() const { return threads_; }
  Device device() const { return device_; }
  bool dry_run() const { return dry_run_; }

  // Multiply-adds of the matrix products and convolutions done since reset_macs().
  std::int64_t macs() const { return macs_; }
  void add_macs(std::int64_t n) { macs_ += n; }
  void reset_macs() { macs_ = 0; }

  static Context& current();

  // What the device's backend keeps with a context: its streams.
  std::shared_ptr<void>& backend_state() { return backend_state_; }

 private:
  int threads_;
  Device device_;
  bool dry_run_;
  std::int64_t macs_ = 0;
  std::shared_ptr<void> backend_state_;
};

class VITRINE_API ContextScope {
 public:
  explicit ContextScope(Context& context);
  ~ContextScope();
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

 private:
  Context* previous_;
  int previous_omp_threads_;
};

}  // namespace vitrine
