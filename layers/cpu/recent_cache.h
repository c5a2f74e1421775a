// Values that layers make once a shape: packed primitives, index lists, biases written out.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <utility>

namespace vitrine::cpu {

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
