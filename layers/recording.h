// What the calling thread is recording, if anything (repeated_pass.h).
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include <vitrine/layers/export.h>

namespace vitrine::detail {

// While one lives it is the thread's current one. It holds what was read from caches: replays read it again.
class VITRINE_API Recording {
 public:
  Recording();
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  static Recording* current();  // null where nothing is recorded

  void hold(std::shared_ptr<const void> value) { held_.push_back(std::move(value)); }
  std::vector<std::shared_ptr<const void>> take_held() { return std::move(held_); }

 private:
  std::vector<std::shared_ptr<const void>> held_;
};

}  // namespace vitrine::detail
