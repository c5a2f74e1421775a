// Position tables and the like: computed once for a map's size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace vitrine::detail {

// A few values that follow from a map's height and width, kept between calls. Thread-safe.
template <typename T>
class SizeCache {
 public:
  template <typename Make>
  T get(std::int64_t height, std::int64_t width, const Make& make) const {
    const std::lock_guard lock(state_->mutex);
    auto& entries = state_->entries;
    for (const Entry& entry : entries)
      if (entry.height == height && entry.width == width) return entry.value;
    if (entries.size() == kMost) entries.erase(entries.begin());
    return entries.emplace_back(Entry{height, width, make()}).value;
  }

 private:
  static constexpr std::size_t kMost = 8;
  struct Entry {
    std::int64_t height, width;
    T value;
  };
  struct State {
    std::mutex mutex;
    std::vector<Entry> entries;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace vitrine::detail
